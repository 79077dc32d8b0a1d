"""A published generator that is broken in any way is refused in one sentence before anything else is done."""

import json
import shutil

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import load_file, save_file

from chexgen_lib.pools.trial import GeneratorError, tried
from chexgen_lib.rehearsal.weights import pipeline as pipeline_as_released
from chexgen_lib.sampling.baseline import load_baseline


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return pipeline_as_released(tmp_path_factory.mktemp("published"))


@pytest.fixture
def folder(published, tmp_path):
    return shutil.copytree(published, tmp_path / "roentgen")


def half(folder):
    for path in folder.glob("*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    config = folder / "text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float16", "torch_dtype": "float16"}))


def changed(part, value):
    def change(folder):
        (path,) = (folder / part).glob("*.safetensors")
        save_file({name: value(tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})

    return change


def without(name):
    return lambda folder: shutil.rmtree(folder / name)


def configured(part, **entries):
    def change(folder):
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def test_a_sound_one_is_given_back(folder):
    pipeline = tried(lambda: load_baseline(folder), "baseline.weights")
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float32


def test_one_that_was_saved_in_half_precision_is_sound(folder):
    half(folder)
    assert tried(lambda: load_baseline(folder), "baseline.weights").text_encoder.dtype == torch.float32


def test_one_whose_scheduler_needs_four_steps_is_sound(folder):
    def opened():
        pipeline = load_baseline(folder)
        pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=False)
        return pipeline

    assert not tried(opened, "baseline.weights").scheduler.config.skip_prk_steps


BROKEN = {
    "values that overflow": (changed("vae", lambda tensor: tensor * float("nan")), "not finite"),
    "weights of nothing": (changed("vae", torch.zeros_like), "one grey"),
    "no tokenizer": (without("tokenizer"), "no image in a trial"),
    "another width of text": (configured("unet", cross_attention_dim=24), "no image in a trial"),
    "a cut file": (lambda f: next((f / "unet").glob("*.safetensors")).write_bytes(b"\x40"), "no image in a trial"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_named_in_one_sentence(folder, case):
    change, says = BROKEN[case]
    change(folder)
    with pytest.raises(GeneratorError, match=f"^{folder}: .*{says}") as refusal:
        tried(lambda: load_baseline(folder), str(folder))
    assert "\n" not in str(refusal.value)


def test_parts_of_two_precisions_are_found_before_a_pool_is_made(folder):
    def mixed():
        pipeline = load_baseline(folder)
        pipeline.text_encoder.half()
        return pipeline

    with pytest.raises(GeneratorError, match="baseline.weights: no image in a trial of one step .*dtype"):
        tried(mixed, "baseline.weights")
