"""Stage I's training pairs, and nested parts of them that keep the distribution."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.records import FINDINGS
from chexgen_lib.training.latent_cache import LatentCache


def stage1_pairs(folder: Path, split: str) -> tuple[pl.DataFrame, LatentCache]:
    """Stage I's records of a split ("train" or "val") and their cached latents and text states, in one order.

    Raises:
        ValueError: if the two do not belong together; CohortError, CacheError: if one does not exist.
    """
    table = cohort.load(folder).with_row_index("row")
    table = table[cohort.rows(table, "stage1", split)]
    path = Path(folder, f"pretraining_{split}")
    cache = LatentCache.load(path)
    if len(cache) != len(table):
        raise ValueError(f"{path} has {len(cache)} pairs for {len(table)} records: run the stage 02_cohort again")
    return table, cache


def subsets(table: pl.DataFrame, fractions: Sequence[float], batch_size: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of nested subsets of patients, by name ("10 %"): a smaller one is part of every larger one.

    The distribution is kept (paper, ED Fig 2): patients are taken evenly from each source and rarest finding, so that
    even a small subset has these in the shares of the whole, as far as whole patients allow.

    Raises:
        ValueError: for fewer than 3 fractions (no fit), a repeated one, one outside (0, 1], or one so small that its
            images do not fill a batch.
    """
    if len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions {list(fractions)} repeat one: give each once")
    if len(fractions) < 3:
        raise ValueError(f"a power law is fitted to at least 3 fractions of the data, got {list(fractions)}")
    patients, found = _ordered(table, seed), {}
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"a fraction of the data must be in (0, 1], got {fraction}")
        kept = patients[: max(1, round(fraction * len(patients)))]
        rows = np.flatnonzero(table["patient_id"].is_in(kept).to_numpy())
        if len(rows) < batch_size:
            raise ValueError(
                f"fraction {fraction:g} leaves {len(rows)} of {len(table)} images, fewer than a batch of {batch_size}: "
                "take a larger fraction or a smaller batch_size"
            )
        found[share_name(fraction)] = rows
    return found


def share_name(fraction: float) -> str:
    """0.1 -> "10 %"."""
    return f"{100 * fraction:g} %"


def _ordered(table: pl.DataFrame, seed: int) -> list[str]:
    """Patients in an order in which every prefix has the strata in the shares of the whole (systematic sampling)."""
    present = table.select(pl.col(FINDINGS).fill_null(0).fill_nan(0)).to_numpy() == 1  # [N, 14]
    rarest = np.where(present, present.mean(0), np.inf).argmin(1)
    stratum = pl.Series("stratum", np.where(present.any(1), rarest, -1))
    first = (
        table.select("patient_id", "source")
        .with_columns(stratum)
        .unique("patient_id", keep="first", maintain_order=True)
    )
    keys, rng = np.empty(len(first)), np.random.default_rng(seed)
    for own in first.with_row_index().group_by("source", "stratum", maintain_order=True).agg("index")["index"]:
        # the k-th of c patients of a stratum comes about k / c of the way through all
        keys[own.to_numpy()] = (rng.permutation(len(own)) + rng.random()) / len(own)
    return first["patient_id"].gather(np.argsort(keys, kind="stable")).to_list()
