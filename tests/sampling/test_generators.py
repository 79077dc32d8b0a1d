"""Any generator opens by where it lies, is sampled alike, and what is none is named with the remedy."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, PixArtAlphaPipeline
from diffusers import PixArtTransformer2DModel as PixArtTransformer
from transformers import T5Config, T5EncoderModel

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.foundation import SHIPPED
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.pools.generate import Sampling, fingerprint, sample_pool
from chexgen_lib.rehearsal import weights as stand_ins
from chexgen_lib.sampling.baseline import BaselinePipeline, GreyStableDiffusionPipeline
from chexgen_lib.sampling.generators import GreyPipeline, Parts, open_generator
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.builders import shipped_foundation

REQUESTS = pl.DataFrame({"image_id": ["a", "b"], "prompt": ["Effusion.", "Cardiomegaly."]})


@pytest.fixture(scope="module")
def pixart(tmp_path_factory):
    """A pipeline of diffusers that is neither ours nor Stable Diffusion, as save_pretrained writes it."""
    torch.manual_seed(0)
    tokenizer, _ = load_text_encoder("minilm")
    size = dict(d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=4)
    encoder = T5EncoderModel(T5Config(**size, vocab_size=len(tokenizer)))
    transformer = PixArtTransformer(
        sample_size=32, num_layers=1, patch_size=4, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, cross_attention_dim=16, caption_channels=16, use_additional_conditions=False,
    )  # fmt: skip
    vae = AutoencoderKL.from_pretrained(stand_ins.autoencoder(tmp_path_factory.mktemp("vae")))
    path = tmp_path_factory.mktemp("pixart")
    PixArtAlphaPipeline(tokenizer, encoder, vae, transformer, DDIMScheduler()).save_pretrained(path)
    return path


def sampled(pipeline, folder, **changes):
    return sample_pool(pipeline, REQUESTS, folder, Sampling(copies=2, num_inference_steps=2, **changes))


def test_any_pipeline_of_diffusers_is_sampled_as_ours(pixart, tmp_path):
    pipeline = open_generator(pixart)
    assert isinstance(pipeline, GreyPipeline)
    images = sampled(pipeline, tmp_path / "a")
    assert images.shape == (2, 2, 256, 256) and images.dtype == np.uint8
    assert np.array_equal(images, sampled(pipeline, tmp_path / "b", batch_size=4))
    with pytest.raises(ValueError, match="PixArtAlphaPipeline takes no condition"):
        pipeline(["Effusion."], condition_image=np.zeros((8, 8, 3), np.uint8))


def test_every_part_of_another_pipeline_counts_for_what_is_kept(pixart):
    pipeline = open_generator(pixart)
    before = fingerprint(pipeline)
    next(pipeline.pipeline.text_encoder.parameters()).data.add_(1)
    assert fingerprint(pipeline) != before


def test_stable_diffusion_opens_with_its_own_loader(tmp_path):
    pipeline = open_generator(stand_ins.pipeline(tmp_path))
    assert isinstance(pipeline, GreyStableDiffusionPipeline) and pipeline.safety_checker is None


def test_a_saved_pipeline_and_a_bare_transformer_are_ours(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "whole")
    whole = open_generator(tmp_path / "whole")
    bare = open_generator(tmp_path / "whole/transformer", Parts(autoencoder=str(tmp_path / "whole/vae")))
    for one in (whole, bare):
        assert type(one) is ChexGenPipeline
    assert np.abs(sampled(whole, tmp_path / "a").astype(int) - sampled(bare, tmp_path / "b")).max() <= 1
    assert type(open_generator(tmp_path / "whole/transformer")) is ChexGenPipeline  # with the shipped parts


def test_a_runs_unet_and_what_is_shipped_open_too(tmp_path, monkeypatch):
    BaselineUNet.of_size("ci", (4, 4, 4), text_dim=384).save_pretrained(tmp_path / "unet")
    assert isinstance(open_generator(tmp_path / "unet"), BaselinePipeline)
    shipped_foundation(tmp_path / "foundation", monkeypatch)
    assert type(open_generator(SHIPPED)) is ChexGenPipeline


def test_a_saved_baseline_is_one_again_and_cuts_long_prompts(tmp_path):
    BaselineUNet.of_size("ci", (4, 4, 4), text_dim=384).save_pretrained(tmp_path / "unet")
    open_generator(tmp_path / "unet").save_pretrained(tmp_path / "whole")
    saved = open_generator(tmp_path / "whole")
    assert type(saved) is BaselinePipeline
    with pytest.warns(UserWarning, match="a prompt is cut after 77 tokens"):
        saved.encode_prompt("effusion " * 100)


def test_a_released_checkpoint_opens_with_its_parts(pipeline, tmp_path):
    state = pipeline.transformer.state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "epoch_1_step_1.pth")
    pipeline.vae.save_pretrained(tmp_path / "vae")
    released = open_generator(tmp_path / "epoch_1_step_1.pth", Parts(str(tmp_path / "vae"), "minilm", "released"))
    assert released.config.compat == "released"


def test_what_is_no_generator_is_named_with_the_remedy(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pipeline.vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model_index.json").write_text("{")
    (tmp_path / "dit").mkdir()
    (tmp_path / "dit/model_index.json").write_text(json.dumps({"_class_name": DiTPipeline.__name__}))
    for source, message in (
        ("shiped", "no generator at 'shiped': there is no such folder, and a hub id is OWNER/NAME: give 'shipped'"),
        (tmp_path / "absent", "there is no such folder"),
        ("nobody/nothing", "no generator at 'nobody/nothing': give 'shipped'"),
        (tmp_path / "none.pth", "does not exist"),
        (tmp_path / "vae", "holds no pipeline: write one with"),
        (tmp_path / "empty", "holds no pipeline: write one with"),
        (tmp_path / "broken", "model_index.json is no JSON"),
        (tmp_path / "dit", "holds a DiTPipeline, which is no text-to-image pipeline"),
    ):
        with pytest.raises(ValueError, match=message):
            open_generator(source)
    pipeline.save_pretrained(tmp_path / "whole")
    for folder, part, message in (
        ("whole", Parts(autoencoder="shipped"), "whole pipeline: --autoencoder is for a released"),
        ("whole/transformer", Parts(compat="paper"), "a model of a run: --compat is for a released"),
    ):
        with pytest.raises(ValueError, match=message):
            open_generator(tmp_path / folder, part)


def test_a_pipeline_with_other_weights_than_its_configuration_says_is_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    config = tmp_path / "transformer/config.json"
    config.write_text(config.read_text().replace('"depth": 2', '"depth": 3'))
    with pytest.raises(ValueError, match=r"no whole pipeline.*another version: 'blocks\.2.*is missing or unknown"):
        open_generator(tmp_path)


def test_a_damaged_pipeline_says_so(pixart, tmp_path):
    shutil.copytree(pixart, tmp_path / "cut")
    weights = next((tmp_path / "cut/transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut holds no whole pipeline, write or download it again"):
        open_generator(tmp_path / "cut")
