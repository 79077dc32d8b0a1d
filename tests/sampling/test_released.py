"""With compat="released" the pipeline walks the released code's stored trajectories; without, it does not."""

import csv
import json
from pathlib import Path

import pytest
import torch
from diffusers.schedulers import scheduling_ddpm
from safetensors import safe_open
from safetensors.torch import load_file

from chexgen_lib.models.released import load_released
from chexgen_lib.sampling.pipeline import ChexGenPipeline, clean_caption
from chexgen_lib.sampling.schedulers import ReleasedDDIMScheduler, ddim_scheduler, released_scheduler
from chexgen_lib.training.objectives import DDPM

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
pytestmark = pytest.mark.skipif(not REFERENCE.exists(), reason="golden vectors are not here")
SCHEDULERS = {
    "ddpm": released_scheduler,
    "ddim": lambda: ReleasedDDIMScheduler(**DDPM, timestep_spacing="linspace", clip_sample=False),
}


def golden(kind: str) -> dict[str, torch.Tensor]:
    return load_file(REFERENCE / f"{kind}_tiny_io.safetensors")


def walk(pipeline, kind: str, run: str, sampler: str, compat: str, monkeypatch) -> tuple[torch.Tensor, torch.Tensor]:
    """States [20, n, 4, 8, 8] after each step: ours, and the stored ones."""
    io = golden(kind)
    rows = slice(None) if run == "n3" else slice(1, 2)
    n = len(io[f"{run}.z"])
    if sampler == "ddpm":
        noise = iter(io[f"{run}.ddpm.noise"][:, :n])
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(noise))
    parts = {**pipeline.components, "transformer": load_released(REFERENCE / f"{kind}_tiny.pth")}
    pipe = ChexGenPipeline(**{**parts, "scheduler": SCHEDULERS[sampler]()}, compat=compat)
    pipe.set_progress_bar_config(disable=True)
    states = []
    pipe(
        prompt_embeds=io["y"][rows, 0],
        prompt_attention_mask=io["mask"][rows],
        latents=io[f"{run}.z"],
        condition_latents=io["c"][rows] if kind == "control" else None,
        num_inference_steps=20,
        guidance_scale=4.0,
        output_type="latent",
        callback_on_step_end=lambda p, i, t, k: states.append(k["latents"].clone()),
    )
    return torch.stack(states), io[f"{run}.{sampler}.traj"][:, :n]


CASES = [("t2i", "n3", "ddpm"), ("t2i", "n3", "ddim"), ("t2i", "n1", "ddpm"), ("t2i", "n1", "ddim")]


@pytest.mark.parametrize("kind, run, sampler", [*CASES, ("control", "n1", "ddpm")])
def test_trajectories(pipeline, kind, run, sampler, monkeypatch):
    ours, stored = walk(pipeline, kind, run, sampler, "released", monkeypatch)
    assert (ours - stored).abs().max() < 1e-4 * stored[-1].std()


@pytest.mark.parametrize("kind", ["t2i", "control"])
def test_the_paper_guides_all_channels_and_under_control_too(pipeline, kind, monkeypatch):
    ours, stored = walk(pipeline, kind, "n1", "ddpm", "paper", monkeypatch)
    assert (ours - stored).abs().max() > 1e-2 * stored[-1].std()


def test_time_steps():
    io = golden("t2i")
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
