"""A cohort is read by purpose and split; what is missing is named."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import reduced
from tests.builders import curated_records


def test_missing_cohorts_are_named(tmp_path):
    with pytest.raises(CohortError, match="run the stage 02_cohort"):
        cohort.load(tmp_path)
    with pytest.raises(CohortError, match="has not made 64 px"):
        cohort.load_images(tmp_path, 64)


def test_varied_rows_show_different_findings():
    table = curated_records()
    rows = cohort.varied_rows(table, 3)
    assert len(set(rows)) == 3
    assert table[rows[0], "Cardiomegaly"] == 1 and table[rows[1], "Effusion"] == 1


def test_rows_are_those_of_a_flag_and_a_split():
    table = curated_records(6).with_columns(
        split=pl.Series(["train", "test"] * 3), stage2=pl.Series([True, True, False] * 2)
    )
    assert cohort.rows(table, "stage2", "train").tolist() == [0, 4]
    assert cohort.rows(table, "stage2").tolist() == [0, 1, 3, 4]
    assert cohort.rows(table, split="test").tolist() == [1, 3, 5]
    assert table[cohort.rows(table, "stage2", "test")]["image_id"].to_list() == ["nih:1", "nih:3"]


def test_images_of_a_resolution_are_resized_and_never_taken_from_a_higher_one(tmp_path):
    fine = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    coarse = 255 - reduced(fine, 32)  # which of the two is read must show
    curated_records(3).write_parquet(tmp_path / "cohort.parquet")
    for images in (fine, coarse):
        np.save(tmp_path / f"images_{images.shape[-1]}.npy", images)
    read = {(r, s): np.asarray(cohort.stored_images(tmp_path, r, s)) for r in (32, 64) for s in (32, 64)}
    assert np.array_equal(read[32, 32], coarse) and np.array_equal(read[64, 64], fine)
    assert np.array_equal(read[64, 32], coarse), "the cohort's own, without reducing anew"
    assert np.array_equal(read[32, 64], reduced(coarse, 64))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((4, 8, 8), np.uint8), r"images_8.npy holds uint8 \[4, 8, 8\] for 3 records"),
        (np.zeros((3, 8, 8), np.float32), "holds float32"),
        (None, "images_8.npy is cut off or damaged"),
    ],
)
def test_images_of_another_table_and_damaged_ones_are_named(tmp_path, images, words):
    curated_records(3).write_parquet(tmp_path / "cohort.parquet")
    np.save(tmp_path / "images_8.npy", np.zeros((3, 8, 8), np.uint8) if images is None else images)
    (tmp_path / "images_big.npy").touch()  # somebody's own
    assert cohort.resolutions(tmp_path) == [8]
    if images is None:
        (tmp_path / "images_8.npy").write_bytes((tmp_path / "images_8.npy").read_bytes()[:-9])
    with pytest.raises(CohortError, match=words):
        cohort.load_images(tmp_path, 8)


def test_a_damaged_table_is_named(tmp_path):
    curated_records(3).write_parquet(tmp_path / "cohort.parquet")
    (tmp_path / "cohort.parquet").write_bytes((tmp_path / "cohort.parquet").read_bytes()[:-9])
    with pytest.raises(CohortError, match="cohort.parquet is cut off or damaged .*: copy it again"):
        cohort.load(tmp_path)
