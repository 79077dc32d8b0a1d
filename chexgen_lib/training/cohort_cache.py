"""The cohort as training reads it: records (`cohort.select`), images (`cohort.build`), latents and text states."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from diffusers import AutoencoderKL

from chexgen_lib import records as record_table
from chexgen_lib.cohort import layout
from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.select import Selection, select
from chexgen_lib.models.text import count_tokens, load_text_encoder
from chexgen_lib.training.latent_cache import LatentCache

PURPOSES = {"pretraining": "stage1", "alignment": "stage2"}  # name of a training's caches -> flag of its images


def select_records(
    folder: Path,
    records: Path,
    selections: Sequence[Selection],
    text_encoder: str,
    max_tokens: int,
    seed: int,
    with_images: bool,
) -> None:
    """Select from curated records, tokens counted by the text encoder's tokenizer, into `folder/records.parquet`.

    Args:
        records: file of the curated records.
        text_encoder: a name, as `load_text_encoder` takes it.
        selections, max_tokens, seed, with_images: as `select` takes them.
    """
    tokenizer, _ = load_text_encoder(text_encoder)
    table = record_table.read(records)
    counts = (lambda texts: count_tokens(tokenizer, texts), max_tokens)
    select(table, selections, *counts, seed, with_images=with_images).write_parquet(folder / "records.parquet")


def build_with_latents(
    folder: Path,
    records: pl.DataFrame,
    resolutions: dict[str, int],
    autoencoder: AutoencoderKL,
    text_encoder: str,
    image_root: str | None = None,
    workers: int = 2,
) -> None:
    """Make images and rejects (`cohort.build.build`), and `NAME_SPLIT.safetensors` for each of `PURPOSES`.

    A cache holds the images of its flag and split in the table's order. Called again after an interruption, it resumes
    (`kept.kept`).

    Args:
        resolutions: name of a training -> pixels of its images.
        text_encoder: a name, as `load_text_encoder` takes it.
        records, image_root, workers: as `build` takes them.
    """
    if not (folder / "cohort.parquet").is_file():
        build(folder, records, sorted(resolutions.values()), image_root, workers)
    cohort, texts = layout.load(folder), load_text_encoder(text_encoder)
    for name, flag in PURPOSES.items():
        for split in ("train", "val"):
            rows = layout.rows(cohort, flag, split)
            images = layout.load_images(folder, resolutions[name], rows)
            pairs = LatentCache.of(images, cohort[rows]["prompt"].to_list(), autoencoder, texts)
            pairs.save(folder / f"{name}_{split}.safetensors")
