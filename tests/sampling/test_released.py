"""With compat="released" the pipeline walks the released code's stored trajectories; without, it does not."""

import csv
import json
from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks.released_parity import SCHEDULERS, WALKS, stored, walk
from chexgen_lib.diffusion.schedulers import ddim_scheduler
from chexgen_lib.models.released import load_released
from chexgen_lib.sampling.arguments import clean_caption

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="golden vectors are not here")


@pytest.mark.parametrize("kind, run, sampler", WALKS)
def test_trajectories(pipeline, kind, run, sampler):
    ours, stored = walk(pipeline, REFERENCE, kind, run, sampler, "released")
    assert (ours - stored).abs().max() < 1e-4 * stored[-1].std()


@pytest.mark.parametrize("kind", ["t2i", "control"])
def test_the_paper_guides_all_channels_and_under_control_too(pipeline, kind):
    ours, stored = walk(pipeline, REFERENCE, kind, "n1", "ddpm", "paper")
    assert (ours - stored).abs().max() > 1e-2 * stored[-1].std()


def test_time_steps():
    io = stored(REFERENCE, "t2i")
    for n in (20, 100):
        for make in SCHEDULERS.values():
            scheduler = make()
            scheduler.set_timesteps(n)
            assert scheduler.timesteps.tolist() == io[f"timesteps_{n}"].flip(0).tolist()
    scheduler = ddim_scheduler()
    scheduler.set_timesteps(100)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -10))


def test_captions_are_cleaned_as_the_released_code_cleans_them():
    with open(REFERENCE / "caption_cleaning.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert clean_caption(row["input"]) == row["cleaned_as_used"], row["input"]


def test_stored_settings_are_those_of_the_loaded_models():
    for kind in ("t2i", "control"):
        with safe_open(REFERENCE / f"{kind}_tiny_io.safetensors", "pt") as file:
            config = json.loads(file.metadata()["config"])
        model = load_released(REFERENCE / f"{kind}_tiny.pth")
        base = getattr(model, "base_model", model).config
        assert (base.depth, base.hidden_size, base.num_heads) == (4, config["hidden_size"], config["num_heads"])
        assert (base.sample_size, base.position_scale) == (config["input_size"], config["pos_embed_scale"])
