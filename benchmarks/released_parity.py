"""How far this library is from the released ChexGen code, for each of its stored outputs (golden vectors).

    python -m benchmarks.released_parity REFERENCE

REFERENCE is a folder of golden vectors (t2i_tiny.pth, t2i_tiny_io.safetensors and the same for control), which is not
part of this repository: the outputs of the authors' code on small models of random weights. Writes
released_parity.csv beside this file; tests/models and tests/sampling assert the same on the same functions.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import polars as pl
import torch
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import load_file
from torch import Tensor

from chexgen_lib.diffusion.objectives import DDPM
from chexgen_lib.diffusion.schedulers import ReleasedDDIMScheduler, released_scheduler
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.released import load_released
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import replacing

KINDS = {"text to image": "t2i", "control": "control"}
FORWARD_BAR, TRAJECTORY_BAR = 1e-5, 1e-4  # absolute; of the last state's standard deviation
SCHEDULERS = {
    "ddpm": released_scheduler,
    "ddim": lambda: ReleasedDDIMScheduler(**DDPM, timestep_spacing="linspace", clip_sample=False),
}
WALKS = [("t2i", "n3", "ddpm"), ("t2i", "n3", "ddim"), ("t2i", "n1", "ddpm"), ("t2i", "n1", "ddim"),
         ("control", "n1", "ddpm")]  # fmt: skip


def stored(reference: Path, kind: str) -> dict[str, Tensor]:
    return load_file(reference / f"{kind}_tiny_io.safetensors")


@torch.inference_mode()
def forwards(reference: Path, kind: str) -> dict[str, Tensor]:
    """Our output [n, 8, 8, 8] for every stored forward of a kind ("t2i" or "control"), by its stored name."""
    io = stored(reference, kind)
    x, t, y, mask = (io[name] for name in ("x", "t", "y", "mask"))
    condition = {"controlnet_cond": io["c"]} if "c" in io else {}
    path = reference / f"{kind}_tiny.pth"
    model, raw = load_released(path), load_released(path, "raw")
    found = {
        "fwd": model(x, t, y[:, 0], mask, **condition).sample,
        "fwd_raw_weights": raw(x, t, y[:, 0], mask, **condition).sample,
    }
    if kind == "control":
        return found | {"fwd_no_c": model(x, t, y[:, 0], mask).sample}
    singles = [model(x[i : i + 1], t[i : i + 1], y[i : i + 1, 0], mask[i : i + 1]).sample for i in range(len(x))]
    return found | {"fwd_nomask": model(x, t, y[:, 0]).sample, "fwd_one_by_one": torch.cat(singles)}


def walk(
    pipeline: ChexGenPipeline, reference: Path, kind: str, run: str, sampler: str, compat: str
) -> tuple[Tensor, Tensor]:
    """States [20, n, 4, 8, 8] after each step of a stored run of `n` images: ours, and the stored ones.

    pipeline: whose autoencoder and text encoder are used, for nothing: a run begins with text states and ends with
        latents.
    """
    io = stored(reference, kind)
    rows = slice(None) if run == "n3" else slice(1, 2)
    n = len(io[f"{run}.z"])
    parts = {**pipeline.components, "transformer": load_released(reference / f"{kind}_tiny.pth")}
    pipe = ChexGenPipeline(**{**parts, "scheduler": SCHEDULERS[sampler]()}, compat=compat)
    pipe.set_progress_bar_config(disable=True)
    states = []
    noise = [] if sampler == "ddim" else io[f"{run}.{sampler}.noise"][:, :n]
    with patch.object(scheduling_ddpm, "randn_tensor", side_effect=noise):  # the noise of the stored run
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


def deviations(reference: Path) -> pl.DataFrame:
    """One row for each stored output: what it is, its largest deviation, the bar, and the unit of both."""
    rows = []
    for name, kind in KINDS.items():
        io = stored(reference, kind)
        for key, ours in forwards(reference, kind).items():
            rows.append(_row(name, key, ours, io[key], 1.0, FORWARD_BAR, "absolute"))
    tokenizer, encoder = load_text_encoder("minilm")
    pipeline = ChexGenPipeline(
        load_released(reference / "t2i_tiny.pth"), new_autoencoder((8, 8, 8)), encoder, tokenizer, released_scheduler()
    )
    names = {kind: name for name, kind in KINDS.items()}
    for kind, run, sampler in WALKS:
        ours, theirs = walk(pipeline, reference, kind, run, sampler, "released")
        unit = theirs[-1].std().item()
        rows.append(_row(names[kind], f"{run}.{sampler}.traj", ours, theirs, unit, TRAJECTORY_BAR, "sd of the result"))
    return pl.DataFrame(rows)


def _row(kind: str, tensor: str, ours: Tensor, theirs: Tensor, scale: float, bar: float, unit: str) -> dict:
    if ours.shape != theirs.shape:
        raise ValueError(f"{kind} {tensor}: {tuple(ours.shape)} here, {tuple(theirs.shape)} stored")
    worst = (ours - theirs).abs().max().item() / scale
    shape = " x ".join(map(str, theirs.shape))
    return dict(weights=kind, tensor=tensor, shape=shape, largest_deviation=worst, bar=bar, unit=unit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    table = deviations(parser.parse_args().reference)
    with replacing(Path(__file__).with_suffix(".csv")) as partial:
        table.write_csv(partial, float_scientific=True, float_precision=1)
    print(table)


if __name__ == "__main__":
    main()
