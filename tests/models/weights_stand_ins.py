"""Tiny random weights in the true layout of those that others publish."""

import dataclasses
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.weights_catalogue import File, Weight, named


def stand_in(name: str, **changes) -> Weight:
    """A weight of the catalogue without sizes, digests and commit, which tiny weights cannot have."""
    weight = named(name)
    files = tuple(File(file.path) for file in weight.files)
    return dataclasses.replace(weight, **{"files": files, "size": None, "revision": None, "expects": {}, **changes})


def autoencoder(folder: Path) -> Path:
    """As stabilityai/sd-vae-ft-ema, or the subfolder `vae` of Stable Diffusion."""
    _autoencoder().save_pretrained(folder)
    return folder


def _autoencoder() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=8,
    )


def pipeline(folder: Path) -> Path:
    """As RoentGen: Stable Diffusion's parts, saved by diffusers as safetensors."""
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text = CLIPTextConfig(vocab_size=len(words), bos_token_id=0, eos_token_id=1, **size)
    unet = BaselineUNet.of_size("ci", sample_size=4, text_dim=16)
    parts = dict(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer({word: i for i, word in enumerate(words)}, model_max_length=77),
        unet=UNet2DConditionModel.from_config(unet.config),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
    )
    extra = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    StableDiffusionPipeline(**parts, **extra).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """As google/t5-v1_1-xxl: one pickled file of weights (its tokenizer is MiniLM's)."""
    torch.manual_seed(0)
    tokenizer, _ = load_text_encoder("minilm")
    config = T5Config(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=len(tokenizer))
    encoder = T5EncoderModel(config)
    encoder.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), folder / "pytorch_model.bin")
    tokenizer.save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """As openai/clip-vit-large-patch14, its vision tower only."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**size, image_size=28, patch_size=14, projection_dim=768)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder
