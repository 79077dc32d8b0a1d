"""Tiny random weights in the true layout of those that others publish."""

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    T5Config,
    T5ForConditionalGeneration,
)

from chexgen_lib.learners.classifier import SIZES
from chexgen_lib.models import weights_layout
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.weights_catalogue import (
    HUB,
    OWN,
    SHIPPED,
    TORCH,
    XRV,
    Weight,
    WeightsFileError,
    asked_by,
)
from chexgen_lib.rehearsal.sizes import SMALL
from chexgen_lib.storage import replacing, seed_of

COMMIT = "5" * 40  # of every stand-in in the cache of the hub
# Words of radiographs, from which the tokenizer of T5's stand-in learns its pieces.
SENTENCES = """A frontal chest radiograph of a 65-year-old man. Moderate right pleural effusion, mild pulmonary edema.
The heart is enlarged. No pneumothorax. Consolidation of the left lower lobe. A chest tube is in place.
Impression: no acute cardiopulmonary process. The lungs are clear. Rib fracture, pleural thickening, a nodule."""


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


def pipeline(folder: Path, seed: int = 0) -> Path:
    """As RoentGen: Stable Diffusion's parts, saved by diffusers as safetensors; of another seed, another U-Net."""
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    text = CLIPTextConfig(vocab_size=len(words), bos_token_id=0, eos_token_id=1, **size)
    config, vae = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=16).config, _autoencoder()
    torch.manual_seed(seed)
    parts = dict(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer({word: i for i, word in enumerate(words)}, model_max_length=77),
        unet=UNet2DConditionModel.from_config(config),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
    )
    extra = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    StableDiffusionPipeline(**parts, **extra).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    """As google/t5-v1_1-xxl: encoder and decoder in one pickled file, the tokenizer as a SentencePiece model."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces, special = _pieces(), {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "spiece.model").write_bytes(pieces)
    extra = [f"<extra_id_{i}>" for i in range(100)]
    words = {"special_tokens_map.json": special | {"additional_special_tokens": extra}}
    words["tokenizer_config.json"] = special | {"extra_ids": 100, "additional_special_tokens": extra}
    for name, content in words.items():
        (folder / name).write_text(json.dumps(content))
    torch.manual_seed(0)
    known = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size()
    size = dict(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=known + 128)
    config = T5Config(**size, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = T5ForConditionalGeneration(config)
    config.architectures = ["T5ForConditionalGeneration"]
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def _pieces() -> bytes:
    """A SentencePiece model with T5's numbers of the special pieces."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES.splitlines()),
        model_writer=stream,
        vocab_size=400,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return stream.getvalue()


def clip(folder: Path) -> Path:
    """As openai/clip-vit-large-patch14, its vision tower only."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**size, image_size=28, patch_size=14, projection_dim=768)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def rad_dino(folder: Path) -> Path:
    """As microsoft/rad-dino."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**size, image_size=28, patch_size=14)).save_pretrained(folder)
    crop = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    BitImageProcessor(**crop).save_pretrained(folder)
    return folder


def xrv(file: Path) -> Path:
    """As a release of torchxrayvision: a whole pickled DenseNet121, in torch's format of before 2020."""
    import torchxrayvision  # loads slowly

    torch.manual_seed(0)
    network = torchxrayvision.models.DenseNet(num_classes=18)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics of the batch below
    with torch.no_grad():  # else 120 layers make every image the same
        network.train()(1024 * torch.randn(2, 1, 64, 64))
    network.eval().classifier.weight.data.mul_(0.1)  # scores that differ and are not all 0 or 1
    torch.save(network, file, _use_new_zipfile_serialization=False)
    return file


def torchvision(file: Path) -> Path:
    """As a file of torchvision; a DenseNet121 has the shape of the rehearsal's classifiers and its file's old names."""
    from torchvision import models

    torch.manual_seed(0)
    name, small = file.name.lstrip(".").partition("-")[0], SIZES[SMALL]
    if name != "densenet121":
        torch.save(getattr(models, name)().state_dict(), file)
        return file
    state = models.DenseNet(small.growth_rate, small.block_config, small.init_features).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): tensor for key, tensor in state.items()}
    torch.save({key: tensor for key, tensor in old.items() if not key.endswith("num_batches_tracked")}, file)
    return file


MAKERS: dict[str, Callable[[Path], Path]] = {  # of the layouts that `_make` leaves to them
    "text encoder": t5,
    "clip": clip,
    "dinov2": rad_dino,
    "xrv": xrv,
    "torchvision": torchvision,
}


def lay_out(root: Path, params: Mapping[str, Any]) -> list[Weight]:
    """Put a stand-in of every weight that a profile names where its loader looks.

    Args:
        root: a workplace; its `home` is HOME while the profile runs, so that nobody's own weights are read or changed.
        params: the composed profile; a folder that it names as a pipeline is one of the workplace.

    Returns:
        the weights that the stand-ins are of.

    Raises:
        WeightsFileError: if there is no stand-in of a weight that the profile names, or one is not in its layout.
    """
    wanted = [weight for weight in asked_by(params) if weight.store != SHIPPED]
    for weight in wanted:
        own = weight.store == OWN and weight.layout == "pipeline" and _is_below(weight.source)
        if weight.store not in (HUB, XRV, TORCH) and not own:
            raise WeightsFileError(
                f"there is no stand-in of {weight.source!r}: the rehearsal knows the weights of the catalogue, and "
                "generators in a folder below the repository (data/weights/NAME)"
            )
        path = root / weight.source if own else place(root / "home", weight)
        if not path.exists():
            _make(weight, path)
        weights_layout.check(weight.layout, path)
    return wanted


def _is_below(source: str) -> bool:
    """Whether a name is a path that stays below the repository, and no id of the hub."""
    return source.startswith("data/") and ".." not in Path(source).parts


def place(home: Path, weight: Weight) -> Path:
    """The folder or file of a weight in a home directory without settings of its own (`weights_store.place`)."""
    if weight.store == XRV:
        return home / ".torchxrayvision/models_data" / weight.files[0].path
    if weight.store == TORCH:
        return home / ".cache/torch/hub/checkpoints" / weight.files[0].path
    return home / ".cache/huggingface/hub" / f"models--{weight.source.replace('/', '--')}" / "snapshots" / COMMIT


def _make(weight: Weight, path: Path) -> None:
    with replacing(path) as partial:
        if weight.layout == "autoencoder":
            below = {str(Path(file.path).parent) for file in weight.files}
            autoencoder(partial / below.pop())
        elif weight.layout == "pipeline":  # several stand beside each other, and must not be mixed up
            pipeline(partial, seed_of(weight.name))
        else:
            MAKERS[weight.layout](partial)
    if weight.store == HUB:
        with replacing(path.parents[1] / "refs/main") as partial:
            partial.write_text(COMMIT)
