"""Trains and samples as the project did before its training step and recipe were made faster; for `time_to_quality`.

    PYTHONPATH=CHECKOUT python benchmarks/time_to_quality_before.py FOLDER SEED
    PYTHONPATH=CHECKOUT python benchmarks/time_to_quality_before.py FOLDER time

run with the library of a checkout of that version, whose modules have other names than today's. FOLDER holds
`images.npy` (uint8 [N, 128, 128]), `prompts.json` (of the images) and `asked.parquet` (image_id, prompt); it gets the
samples of the prompts in a folder of the seed, or, by the other form, `seconds.json`: how long the two trainings take,
from that of some steps of each. Sizes, steps and rates are those of that version's profile laptop: 2,000 images of
64 px, then 800 of 128 px from there.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch

from chexgen_lib.images import reduced
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import assemble
from chexgen_lib.sampling.schedulers import scheduler_named
from chexgen_lib.sampling.synthesis import synthesise
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, train

FIRST = 2000  # images of stage I
SHARED = dict(adam_beta2=0.95, schedule="cosine", warmup_steps=50, noisy_weight=10.0, checkpoint_every=250)
STAGE1 = dict(steps=900, batch_size=32, learning_rate=3e-3, ema_decay=0.995)
STAGE2 = dict(steps=1000, batch_size=16, learning_rate=2.5e-3, ema_decay=0.998)
FEW, MORE = 6, 46  # steps that are timed


def pairs_of(folder: Path) -> list[LatentCache]:
    """The pairs of both stages."""
    images, prompts = np.load(folder / "images.npy"), json.loads((folder / "prompts.json").read_text())
    parts = (reduced(images[:FIRST], 64), prompts[:FIRST]), (images[FIRST:], prompts[FIRST:])
    places = [folder / "stage1.safetensors", folder / "stage2.safetensors"]
    for place, part in zip(places, parts, strict=True):
        if not place.exists():
            LatentCache.of(*part, load_autoencoder("shipped"), load_text_encoder("minilm")).save(place)
    return [LatentCache.load(place) for place in places]


def untrained(pairs: LatentCache, seed: int) -> ChexGenTransformer:
    torch.manual_seed(seed)
    shape = dict(sample_size=pairs.mean.shape[-1], text_dim=pairs.states.shape[1], text_tokens=120)
    return ChexGenTransformer.of_size("laptop", **shape)


def trained(model: ChexGenTransformer, pairs: LatentCache, folder: Path, seed: int, **stage) -> ChexGenTransformer:
    train(model, pairs, TrainingConfig(**SHARED, **stage, seed=seed), folder)
    return model


def sample(folder: Path, seed: int) -> None:
    own, (first, second) = folder / f"{seed}", pairs_of(folder)
    model = trained(untrained(first, seed), first, own / "stage1", seed, **STAGE1)
    model = trained(model.enlarged(), second, own / "stage2", seed, **STAGE2)
    pipeline = assemble(int8_weights(model), "shipped", "minilm")
    pipeline.scheduler = scheduler_named("dpm-solver++", pipeline.scheduler)
    synthesise(pipeline, pl.read_parquet(folder / "asked.parquet"), own, 1, 20, 4.0, 32, seed)


def measure_seconds(folder: Path) -> None:
    """Of both trainings together: the time of a step times their steps, without what a start takes."""
    total, (first, second) = 0.0, pairs_of(folder)
    models = untrained(first, 0), untrained(first, 0).enlarged()
    for model, pairs, stage in zip(models, (first, second), (STAGE1, STAGE2), strict=True):
        took = {}
        for steps in (FEW, MORE):
            start = perf_counter()
            trained(model, pairs, folder / "timed", 0, **{**stage, "steps": steps})
            took[steps] = perf_counter() - start
        total += (took[MORE] - took[FEW]) / (MORE - FEW) * stage["steps"]
    (folder / "seconds.json").write_text(json.dumps(total))


if __name__ == "__main__":
    if sys.argv[2] == "time":
        measure_seconds(Path(sys.argv[1]))
    else:
        sample(Path(sys.argv[1]), int(sys.argv[2]))
