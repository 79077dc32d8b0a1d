"""Stage I at the size of a foundation: many rendered radiographs, trained on once, shipped with the package.

As in the paper, the generator has seen far more images than any task that uses it. The laptop profile has only minutes;
`notebooks/03_foundation.ipynb` (`make foundation`) takes hours, and the DAG reads its weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from diffusers import AutoencoderKL

from chexgen_lib.cohort import layout
from chexgen_lib.descriptions import grammar
from chexgen_lib.models.foundation import PACKAGED, load_transformer, read_recipe
from chexgen_lib.models.metadata import METADATA, encode_records
from chexgen_lib.models.text import MAX_TOKENS, count_tokens, load_tokenizer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.phantom.stated import stated
from chexgen_lib.records import positions
from chexgen_lib.storage import blocks, taken
from chexgen_lib.training.cohort_cache import encode_rows
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache

SPLITS = ("train", "val")
STATED = 0.75  # share of images of which all sides and severities are stated
TOLD = "told.parquet"  # records in the cohort's order, as the model is told of them


def told(records: pl.DataFrame, text_encoder: str) -> pl.DataFrame:
    """Records as a foundation is told of their radiographs, each with its description as `prompt`.

    Of three in four, each finding's side and severity are stated as they are rendered, if the text encoder can read so
    long a text. Few records give them (8 % a side, none of NIH or CheXpert), and of these alone a model learns nothing
    of left and right.
    """
    tokenizer = load_tokenizer(text_encoder)
    drawn = positions(records["image_id"], "stated") < STATED
    every = stated(records)
    short = pl.Series(count_tokens(tokenizer, grammar.prompt(every).to_list())) <= MAX_TOKENS
    chosen = drawn & short
    order = pl.concat([chosen.arg_true(), (~chosen).arg_true()])
    both = pl.concat([every.filter(chosen), records.filter(~chosen)])[order.arg_sort()]
    return both.with_columns(grammar.prompt(both))


def begin(
    start: str | None, size: str, pairs: LatentCache, text_tokens: int, sources: Sequence[str], config: TrainingConfig
) -> tuple[ChexGenTransformer, dict[str, Any]]:
    """The model that a training of `pairs` begins with, and what its recipe says of where that is from.

    Args:
        start: None for a new model of the size `size`; or weights to go on from, as `load_transformer` takes them, of
            which the recipe holds their own, or their name.

    Raises:
        TrainingError: for weights of another shape, objective or other sources.
        WeightsError: as `load_transformer`.
    """
    _, channels, _, side = pairs.mean.shape
    shape = {"sample_size": side, "text_dim": pairs.states.shape[1], "text_tokens": text_tokens}
    asked = {"objective": config.objective, "metadata_sources": list(sources)}
    torch.manual_seed(config.seed)
    model = ChexGenTransformer.of_size(size, channels, **shape, **asked)
    if start is None:
        return model, {}
    weights = load_transformer(start)
    settings = {key: value for key, value in model.config.items() if not key.startswith("_")}
    if differs := [key for key, value in settings.items() if weights.config[key] != value]:
        own, other = weights.config[differs[0]], settings[differs[0]]
        raise TrainingError(
            f"start={start}: its {differs[0]} is {own!r}, this training's {other!r}: give other weights, or start=null"
        )
    model.load_state_dict(weights.state_dict())
    return model, {"start": read_recipe(start) if start in PACKAGED else start}


def build_pairs(
    folder: Path,
    cohort: Path,
    autoencoder: AutoencoderKL,
    text_encoder: str,
    resolution: int,
    workers: int = 2,
) -> None:
    """Make `train` and `val`, latent caches of the images of each split, in their order, and their records (`told`).

    Without the latents' deviations: the shipped autoencoder's are a hundredth of a latent, and a foundation sees each
    image a few times only. Called again after an interruption, it goes on with the shards that are missing.

    Args:
        cohort: folder of the images (`cohort.build.build`); another autoencoder needs no other images.
        text_encoder: a name, as `load_text_encoder` takes it.
        workers: processes of one thread each.
    """
    records = told(layout.load(cohort), text_encoder)
    records.select("split", "prompt", *METADATA).write_parquet(folder / TOLD)
    prompts = pl.scan_parquet(folder / TOLD, glob=False).select("prompt")

    def read(rows: np.ndarray) -> pl.Series:
        return taken(prompts, rows)["prompt"]

    for split in SPLITS:
        rows, frozen = layout.rows(records, split=split), (autoencoder, text_encoder)
        encode_rows(folder / split, cohort, rows, resolution, frozen, read, workers, deviations=False)


def load_pairs(folder: Path, sources: Sequence[str]) -> tuple[LatentCache, LatentCache]:
    """The training and the held-out pairs that `build_pairs` made, with metadata for a model that knows `sources`."""
    records = pl.read_parquet(folder / TOLD, glob=False)
    codes = {
        split: torch.cat([encode_records(block, sources) for block in blocks(records.filter(split=split))])
        for split in SPLITS
    }
    train, val = (replace(LatentCache.load(folder / split), metadata=codes[split]) for split in SPLITS)
    return train, val
