"""The recipe of the shipped foundation's first training against the paper's objective and optimiser, at equal steps.

    python -m benchmarks.objectives [--records runs/laptop/curation/records.parquet] [--images 6144] [--steps 150]

writes benchmarks/objectives.csv and .png. One part of the recipe is changed at a time, each with two seeds of model and
training, on the same rendered radiographs of the foundation's own choice; `minutes` are of training. Every model then
samples held-out prompts in 20 steps of DPM-Solver++ with the guidance of its objective; `benchmarks.judged` measures
them. Everything is kept in runs/objectives: an interrupted run goes on where it was.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from benchmarks import judged
from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.select import Selection
from chexgen_lib.diffusion.schedulers import GUIDANCE, few_steps
from chexgen_lib.experiments.judge.reference import Reference
from chexgen_lib.experiments.judge.rendered import RESOLUTION
from chexgen_lib.figures import style
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.records import FRONTAL
from chexgen_lib.sampling.pipeline import assemble
from chexgen_lib.training import foundation
from chexgen_lib.training.cohort_cache import select_records
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.stages import train_model
from chexgen_lib.training.trainer import read_seconds

KEPT = Path("runs/objectives")
SOURCES, TEXT_TOKENS = ["nih", "chexpert", "padchest"], 120
RECIPE = TrainingConfig(  # of the first training of the shipped foundation (docs/foundation.md), cut to fewer steps
    steps=150,
    batch_size=64,
    gradient_accumulation=2,
    learning_rate=2e-3,
    muon_learning_rate=6e-3,
    adam_beta2=0.95,
    schedule="cosine",
    warmup_steps=20,
    ema_decay=0.98,
    objective="rectified_flow",
    checkpoint_every=60,
)
CHANGES = {
    "recipe": {},
    "AdamW alone": {"muon_learning_rate": None},
    "noise, as the paper": {"objective": "ddpm"},
}
SEEDS = (0, 1)


def pairs(records: Path, images: int, folder: Path) -> Path:
    """Latent caches `train` and `val` of so many rendered radiographs, chosen as the foundation's are.

    The radiographs are kept in `folder/images`.
    """
    choice = Selection("stage1", SOURCES, {"train": images, "val": 256}, views=FRONTAL, reserved=False)
    settings = {"text_encoder": "minilm", "max_tokens": TEXT_TOKENS, "seed": 0, "with_images": False}
    chosen = kept(select_records, folder / "selection", records=records, selections=[choice], **settings)
    table = pl.read_parquet(chosen / "records.parquet")
    rendered = kept(build, folder / "images", {"workers": 2}, records=table, resolutions=[RESOLUTION])
    frozen = {"autoencoder": load_autoencoder("shipped"), "text_encoder": "minilm", "resolution": RESOLUTION}
    return kept(foundation.build_pairs, folder / "pairs", {"workers": 2}, cohort=rendered, **frozen)


def untrained(pairs: LatentCache, config: TrainingConfig) -> ChexGenTransformer:
    torch.manual_seed(config.seed)
    shape = {"sample_size": pairs.mean.shape[-1], "text_dim": pairs.states.shape[1], "text_tokens": TEXT_TOKENS}
    return ChexGenTransformer.of_size("laptop", objective=config.objective, **shape)


def sampled(own: Path, config: TrainingConfig, made: Path, reference: Reference) -> tuple[np.ndarray, float]:
    """Samples of a model that is trained so, uint8 [N, 1, R, R], and the seconds of its training; kept in `own`."""
    train, val = (LatentCache.load(made / split) for split in ("train", "val"))
    model = untrained(train, config)
    folder = kept(train_model, own / "model", model=model, pairs=train, held_out=val, config=config)
    pipeline = assemble(int8_weights(ChexGenTransformer.from_pretrained(folder)), "shipped", "minilm")
    pipeline.scheduler = few_steps(pipeline.scheduler)
    sampling = Sampling(1, 20, GUIDANCE[config.objective], batch_size=64, seed=0)
    images = sample_pool(pipeline, reference.prompted.table.select("image_id", "prompt"), own / "samples", sampling)
    return images, read_seconds(own)


def draw(table: pl.DataFrame) -> Figure:
    """A panel for each metric: changes of the recipe one below the other, a point with its interval for each seed."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 2.2), layout="constrained")
    axes = fig.subplots(1, 3, sharey=True)
    for ax, metric in zip(axes, (judged.FID, judged.R, judged.ASKED), strict=True):
        for k, change in enumerate(CHANGES):
            for seed in SEEDS:
                row = table.filter(metric=metric, change=change, seed=seed).row(0, named=True)
                error = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
                ax.errorbar(
                    row["value"], k + 0.2 * (seed - 0.5), xerr=error, fmt="os"[seed], color=style.OKABE_ITO[seed]
                )
        ax.set(xlabel=metric, title="")
    axes[0].set_yticks(range(len(CHANGES)), CHANGES)
    axes[0].invert_yaxis()
    minutes = table.group_by("change", maintain_order=True).agg(pl.col("minutes").mean())["minutes"]
    about = f"n = {table['n'][0]} prompts, 1 sample each, 95 % intervals; circles and squares: two seeds of a training"
    fig.suptitle(f"{about} of {minutes.min():.0f} to {minutes.max():.0f} minutes", fontsize=7)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("runs/laptop/curation/records.parquet"))
    for name, value in (("images", 6144), ("steps", RECIPE.steps), ("prompts", 256)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    reference, made = judged.reference(options.prompts), pairs(options.records, options.images, KEPT)
    about, images = [], {}
    for seed in SEEDS:
        for name, change in CHANGES.items():
            arm, config = f"{name}, seed {seed}", replace(RECIPE, steps=options.steps, seed=seed, **change)
            images[arm], seconds = sampled(KEPT / arm, config, made, reference)
            about.append({"arm": arm, "change": name, "seed": seed, "steps": options.steps, "minutes": seconds / 60})
    table = (
        pl.DataFrame(about).join(judged.table(reference, images), on="arm", maintain_order="left").drop("arm", "role")
    )
    style.save(draw(table), table, Path(__file__).with_suffix(".png"))
    print(table)


if __name__ == "__main__":
    main()
