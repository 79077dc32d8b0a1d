"""Patients share a fold, and a pool of other masks is refused."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools import annotations, lungs
from tests.builders import lung_folder, lung_pool

SIZE = 16


@pytest.fixture
def folder(tmp_path):
    return lung_folder(tmp_path)


@pytest.fixture
def pool(folder):
    return lung_pool(folder, SIZE)


def test_patients_share_a_fold_and_the_adapters_held_out_have_their_own(folder):
    data = annotations.load_lung_masks(folder, SIZE)
    fold = lungs.folds(data)
    assert np.flatnonzero(fold == lungs.UNSEEN).tolist() == data.of("held out").tolist()
    assert set(fold) == set(range(lungs.FOLDS))
    each = data.table.with_columns(fold=pl.Series(fold)).group_by("patient_id").agg(pl.col("fold").n_unique())
    assert each["fold"].max() == 1
    few = annotations.Annotated(data.table[:5], data.images[:5], data.masks[:5], data.classes)
    with pytest.raises(CohortError, match="do not make 5 folds"):
        lungs.folds(few)


def test_a_pool_of_other_masks_is_refused(folder, pool):
    manifest = pl.read_parquet(pool / "manifest.parquet")
    manifest.with_columns(condition_hash=pl.lit("0")).write_parquet(pool / "manifest.parquet")
    with pytest.raises(CohortError, match="were sampled from other masks"):
        lungs.load(folder, pool, SIZE)
    samples = np.load(pool / "samples.npy")
    manifest[1:].write_parquet(pool / "manifest.parquet")
    np.save(pool / "samples.npy", samples[1:])
    with pytest.raises(CohortError, match="no sample for 1 training images"):
        lungs.load(folder, pool, SIZE)
    np.save(pool / "samples.npy", samples)
    held_out = annotations.load_lung_masks(folder, SIZE).table.filter(split="test")["image_id"][0]
    manifest.with_columns(record=pl.lit(held_out)).write_parquet(pool / "manifest.parquet")
    with pytest.raises(CohortError, match="1 records are no training images"):
        lungs.load(folder, pool, SIZE)
