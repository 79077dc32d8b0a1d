"""Either baseline makes pools as ChexGen does: resumable, whatever the batch, from 77 tokens at most."""

import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.baseline import BaselineUNet, truncate
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.rehearsal.weights import pipeline as pipeline_as_released
from chexgen_lib.sampling.baseline import BaselinePipeline, assemble_baseline, load_baseline

PROMPTS = ["Large left pleural effusion.", "The heart is enlarged. No pneumothorax is seen on this radiograph."]
LONG = "Small left pleural effusion with adjacent atelectasis. " * 12


@pytest.fixture(scope="module")
def unet_pipeline(pipeline) -> BaselinePipeline:
    torch.manual_seed(0)
    unet = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=384).eval()
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return quiet(BaselinePipeline(**{**pipeline.components, "transformer": unet}))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return pipeline_as_released(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module", params=["unet", "stable diffusion"])
def generator(request):
    if request.param == "unet":
        return request.getfixturevalue("unet_pipeline")
    return load_baseline(request.getfixturevalue("published"))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe, prompts=PROMPTS, **changes):
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    settings = dict(num_inference_steps=3, guidance_scale=4.0, output_type="np", generator=generators)
    return quiet(pipe)(list(prompts), **{**settings, **changes}).images


def test_pools_are_grey_and_a_batch_size_changes_nothing(generator, tmp_path):
    records = pl.DataFrame({"image_id": ["a", "b", "c"], "prompt": [*PROMPTS, "Cardiomegaly."]})
    settings = Sampling(copies=2, num_inference_steps=3, batch_size=6, seed=7)
    whole = sample_pool(generator, records, tmp_path / "a", settings)
    assert whole.shape == (3, 2, 32, 32) and whole.dtype == np.uint8
    parts = sample_pool(generator, records[[2, 0]], tmp_path / "b", replace(settings, batch_size=1))
    assert np.abs(parts.astype(int) - whole[[2, 0]]).max() <= 1
    assert np.abs(whole[:, 0].astype(int) - whole[:, 1]).max() > 1


def test_an_interrupted_pool_goes_on(generator, tmp_path, monkeypatch):
    records = pl.DataFrame({"image_id": ["a", "b"], "prompt": PROMPTS})
    settings = Sampling(copies=2, num_inference_steps=2, batch_size=1)
    expected = sample_pool(generator, records, tmp_path / "whole", settings)
    call, calls = type(generator).__call__, []

    def stop_at_third(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(generator), "__call__", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        sample_pool(generator, records, tmp_path / "cut", settings)
    assert np.array_equal(sample_pool(generator, records, tmp_path / "cut", settings), expected)
    assert len(calls) == 5


def test_prompt_and_guidance_change_the_images(generator):
    base = sample(generator)
    assert base.shape == (2, 32, 32, 1) and base.min() >= 0 and base.max() <= 1
    for changed in (sample(generator, PROMPTS[::-1]), sample(generator, guidance_scale=1.0)):
        assert np.abs(changed - base).max() > 1e-4


@pytest.mark.filterwarnings("ignore:a prompt is cut")
def test_nothing_after_77_tokens_is_read(generator):
    texts = [LONG, f"{LONG} Cardiomegaly."]
    assert truncate(generator.tokenizer, [*texts, "Clear."])[1] == 2
    whole, other, changed = (sample(generator, [text]) for text in (*texts, f"Cardiomegaly. {LONG}"))
    np.testing.assert_array_equal(whole, other)
    assert np.abs(changed - whole).max() > 1e-4


def test_conditions_are_refused(generator, tmp_path):
    records = pl.DataFrame({"image_id": ["a"], "prompt": PROMPTS[:1]})
    with pytest.raises(ValueError, match="takes no condition"):
        sample_pool(generator, records, tmp_path / "pool", Sampling(), conditions=np.zeros((1, 32, 32, 3), np.uint8))


def test_a_cut_prompt_is_warned_of_and_an_empty_one_refused(unet_pipeline):
    (kept,), _ = truncate(unet_pipeline.tokenizer, [LONG])
    with pytest.warns(UserWarning, match="cut after 77 tokens"):
        images = sample(unet_pipeline, [LONG])
    np.testing.assert_array_equal(images, sample(unet_pipeline, [kept]))
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        sample(unet_pipeline, ["fine", None])


def test_the_baseline_saves_and_loads(unet_pipeline, tmp_path):
    unet_pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin")) and list(tmp_path.rglob("*.safetensors"))
    loaded = BaselinePipeline.from_pretrained(pretrained_model_name_or_path=tmp_path)
    assert isinstance(loaded.transformer, BaselineUNet)
    np.testing.assert_allclose(sample(loaded), sample(unet_pipeline), atol=1e-5)


def test_assembled_of_its_unet_and_the_named_parts(unet_pipeline, tmp_path):
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path)
    assembled = assemble_baseline(unet_pipeline.transformer, str(tmp_path), "minilm")
    assert type(assembled) is BaselinePipeline and assembled.transformer is unet_pipeline.transformer
    assert sample(assembled).shape == (2, 32, 32, 1)


def test_images_are_those_of_diffusers_in_grey(published):
    plain = StableDiffusionPipeline.from_pretrained(published, safety_checker=None)
    np.testing.assert_allclose(sample(load_baseline(published)), sample(plain).mean(axis=-1, keepdims=True), atol=1e-6)
    with pytest.raises(ValueError, match="output_type must be np, not 'pil'"):
        sample(load_baseline(published), output_type="pil")


def test_a_folder_without_a_published_generator_is_refused(unet_pipeline, tmp_path):
    with pytest.raises(ValueError, match="no Stable Diffusion pipeline at .*nothing"):
        load_baseline(tmp_path / "nothing")
    with pytest.raises(ValueError, match="give a folder that diffusers saved as safetensors"):
        load_baseline(tmp_path)
    unet_pipeline.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="it is a BaselinePipeline"):
        load_baseline(tmp_path / "other")


@pytest.mark.parametrize("weights", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_broken_weights_are_refused(published, tmp_path, weights):
    folder = shutil.copytree(published, tmp_path / "broken")
    (folder / weights).write_bytes((folder / weights).read_bytes()[:100])
    with pytest.raises(ValueError, match="no Stable Diffusion pipeline at"):
        load_baseline(folder)


def test_pickled_weights_are_refused(published, tmp_path):
    folder = shutil.copytree(published, tmp_path / "pickled")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ValueError, match="no Stable Diffusion pipeline at"):
        load_baseline(folder)
