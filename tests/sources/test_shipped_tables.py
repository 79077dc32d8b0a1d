"""The accounts of the real tables balance: every source row is a Record or a reject."""

import polars as pl
import pytest

from chexgen_lib import records, sources

ROWS = {
    "nih": (112_120, 0),
    "chexpert": (223_414, 0),
    "padchest": (160_861, 1_426),
    "openi": (7_470 + 104, 104),
}


@pytest.mark.parametrize("source", sources.SOURCES)
def test_rows_are_accounted_for(source):
    df, rejects = sources.load(source)
    rows, lost = ROWS[source]
    assert df.height + rejects.height == rows
    assert rejects.height == lost
    assert rejects["reason"].null_count() == 0
    assert records.validate(df).height == df.height
    if source == "nih":
        assert df["boxes"].list.len().sum() == 984
    if source == "openi":
        assert df["study_id"].n_unique() + rejects.filter(pl.col("image_id").is_null()).height == 3_955


def test_unknown_source():
    with pytest.raises(records.RecordError, match="choose from"):
        sources.load("mimic")


def test_shipped_without_importing_torchxrayvision():
    import subprocess
    import sys

    code = "from chexgen_lib import sources; sources.shipped('x'); import sys; print('torchxrayvision' in sys."
    code += "modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
