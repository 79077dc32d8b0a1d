"""What docs/privacy.md promises is what the committed benchmark measured on rendered radiographs."""

from pathlib import Path

import polars as pl
import pytest

from chexgen_lib.privacy import planted
from chexgen_lib.privacy.audit import COPIES, NOTHING

TABLE = pl.read_csv(Path(__file__).parents[2] / "benchmarks/privacy_audit.csv")


@pytest.mark.parametrize("kind", [*planted.KINDS, "autoencoder"])
def test_copies_are_found_at_one_percent_false_alarms(kind):
    found = TABLE.filter(part="feature", pool="registered structure (likeness)")
    values = dict(found.select("measure", "value").iter_rows())
    assert values[kind] >= 0.95 and values["none: innocent images"] <= 0.02


def test_copiers_are_caught_and_the_innocent_pass():
    found = TABLE.filter(part="audit")
    verdicts = dict(found.select("pool", "verdict").iter_rows())
    assert verdicts.pop("innocent") == NOTHING and set(verdicts.values()) == {COPIES}
    assert found.filter(measure="copies with an alarm")["value"].min() >= 0.95
    assert found.filter(measure="others with an alarm")["value"].max() <= 0.02
