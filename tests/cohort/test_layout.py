"""A cohort is read by purpose and split; what is missing is named."""

import polars as pl
import pytest

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.cohort.layout import CohortError
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
