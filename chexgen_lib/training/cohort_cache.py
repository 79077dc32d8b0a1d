"""The cohort as training reads it: records (`cohort.select`), images (`cohort.build`), latents and text states."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import AutoencoderKL
from joblib import Parallel, delayed
from transformers import PreTrainedTokenizerBase

from chexgen_lib import records as record_table
from chexgen_lib.cohort import layout
from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.layout import FLAGS
from chexgen_lib.cohort.select import Selection, select
from chexgen_lib.descriptions import grammar
from chexgen_lib.models.metadata import METADATA, encode_records
from chexgen_lib.models.text import MAX_TOKENS, count_tokens, load_text_encoder, load_tokenizer
from chexgen_lib.storage import blocks, write_blocks
from chexgen_lib.training.latent_cache import SHARD, CacheError, LatentCache, shard_path

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
    tokenizer = load_tokenizer(text_encoder)

    def token_counts(texts: list[str]) -> Sequence[int]:
        return count_tokens(tokenizer, texts)

    selected = select(record_table.scan(records), selections, token_counts, max_tokens, seed, with_images, folder)
    write_blocks(selected, folder / "records.parquet")


def build_with_latents(
    folder: Path,
    records: pl.DataFrame | pl.LazyFrame,
    resolutions: dict[str, int],
    autoencoder: AutoencoderKL,
    text_encoder: str,
    image_root: str | None = None,
    workers: int = 2,
) -> None:
    """Make images and rejects (`cohort.build.build`), and a latent cache `NAME_SPLIT` for each of `PURPOSES`.

    A cache holds the images of its flag and split in the table's order. Called again after an interruption, it resumes
    (`kept.kept`).

    Args:
        resolutions: name of a training -> pixels of its images.
        text_encoder: a name, as `load_text_encoder` takes it.
        records, image_root, workers: as `build` takes them.
    """
    if not (folder / "cohort.parquet").is_file():
        build(folder, records, sorted(resolutions.values()), image_root, workers)
    cohort = layout.load(folder, [*FLAGS, "split"])
    texts = {"pretraining": partial(descriptions, folder, load_tokenizer(text_encoder)), "alignment": None}
    for name, flag in PURPOSES.items():
        for split in ("train", "val"):
            place, rows = folder / f"{name}_{split}", layout.rows(cohort, flag, split)
            encode_rows(place, folder, rows, resolutions[name], (autoencoder, text_encoder), prompts=texts[name])


def encode_rows(
    folder: Path,
    cohort: Path,
    rows: np.ndarray,
    resolution: int,
    frozen: tuple[AutoencoderKL, str],
    prompts: Callable[[np.ndarray], pl.Series] | None = None,
    workers: int = 1,
    deviations: bool = True,
) -> None:
    """Write the latent cache `folder` of some images of a cohort and their prompts; shards that are there stay.

    Each GPU encodes a share of the shards, in a process of its own; without a GPU, `workers` processes do.

    Args:
        cohort: folder of the images (`cohort.build.build`).
        rows: int64 [K] of the cohort's table, in ascending order.
        resolution: pixels of the images.
        frozen: autoencoder, and the name of the text encoder, as `load_text_encoder` takes it.
        prompts: rows of a shard -> their prompts, called where they are encoded; None: those they were selected by.
        deviations: keep those of the latents; else they are zero.

    Raises:
        CacheError: for no image, of which no training could read anything.
    """
    if not len(rows):
        raise CacheError(f"{folder}: no image to encode, its flag and split select none: give the cohort more records")
    n = -(-len(rows) // SHARD)
    missing = [k for k in range(n) if not shard_path(folder, k, n).exists()]
    devices = [torch.device("cuda", k) for k in range(torch.cuda.device_count())] or [torch.device("cpu")] * workers

    def encode(numbers: list[int], device: torch.device) -> None:
        if device.type == "cpu" and len(devices) > 1:
            torch.set_num_threads(1)
        models = frozen[0].to(device), load_text_encoder(frozen[1], device=device)
        for k in numbers:
            here = rows[k * SHARD : (k + 1) * SHARD]
            texts = layout.load(cohort, ["prompt"], here)["prompt"] if prompts is None else prompts(here)
            pairs = LatentCache.of(layout.load_images(cohort, resolution, here), texts.to_list(), *models)
            pairs = pairs if deviations else replace(pairs, std=torch.zeros_like(pairs.std))
            pairs.save(folder, k, n)

    shares = (missing[i :: len(devices)] for i in range(len(devices)))
    Parallel(n_jobs=len(devices))(delayed(encode)(*job) for job in zip(shares, devices, strict=True) if job[0])


def descriptions(cohort: Path, tokenizer: PreTrainedTokenizerBase, rows: np.ndarray) -> pl.Series:
    """The descriptions that stage I reads of some images of a cohort, also of those whose prompt is an impression.

    Of a rendered image it says what was rendered, which the record that was selected may have left open; where it is
    longer than an encoder reads (`MAX_TOKENS`), the image keeps the prompt that it was selected by.

    rows: int64 [K] of the cohort's table, in ascending order.
    """
    texts = []
    for block in blocks(layout.load(cohort, rows=rows)):
        full = grammar.prompt(block)
        fits = pl.Series(count_tokens(tokenizer, full.to_list()), dtype=pl.Int64) <= MAX_TOKENS
        texts.append(full.zip_with(fits, block["prompt"]))
    return pl.concat(texts)


def load_splits(cohort: Path, purpose: str, sources: Sequence[str] | None = None) -> tuple[LatentCache, LatentCache]:
    """The training and the validation pairs of "pretraining" or "alignment", from the cohort's folder.

    Args:
        sources: those that a model's metadata encoder knows: the pairs have metadata for it. None: for another model.

    Raises:
        CacheError: if one is missing or broken.
    """
    folders = (cohort / f"{purpose}_{split}" for split in ("train", "val"))
    train, val = (add_metadata(LatentCache.load(folder), folder, sources) for folder in folders)
    return train, val


def add_metadata(pairs: LatentCache, folder: Path, sources: Sequence[str] | None) -> LatentCache:
    """The pairs of a folder, such as `cohort/alignment_train`, as a model needs them; `sources` as in `load_splits`.

    Raises:
        CacheError: if they need metadata that neither they nor a cohort around the folder have.
    """
    if sources is None or pairs.metadata is not None:
        return pairs
    folder = folder.resolve()
    purpose, _, split = folder.name.rpartition("_")
    if purpose not in PURPOSES or not (folder.parent / "cohort.parquet").is_file():
        raise CacheError(
            f"{folder} has no metadata, which this model reads, and no cohort around it has its records: give a cache "
            f"as 02_cohort makes it (cohort/{next(iter(PURPOSES))}_train)"
        )
    table = layout.load(folder.parent, [*FLAGS, "split"])
    return described(pairs, folder.parent, layout.rows(table, PURPOSES[purpose], split), sources)


def described(pairs: LatentCache, cohort: Path, rows: np.ndarray, sources: Sequence[str]) -> LatentCache:
    """The pairs of some images of a cohort with the metadata of their records, for a model that knows `sources`.

    rows: of the cohort's table [K].
    """
    records = layout.load(cohort, METADATA)[rows]
    return replace(pairs, metadata=torch.cat([encode_records(block, sources) for block in blocks(records)]))
