"""Benchmarks run by hand and seldom: what they import must be there when they do."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from benchmarks.baseline_compute import shown
from tests.asked import missing_names

OF_ANOTHER_VERSION = {"time_to_quality_before"}  # run with the library of an earlier commit
BENCHMARKS = sorted(p for p in Path(__file__).parents[1].glob("benchmarks/*.py") if p.stem not in OF_ANOTHER_VERSION)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_modules_have_what_benchmarks_ask_of_them(path):
    assert list(missing_names(path.read_text(encoding="utf-8"))) == []


def test_a_name_that_a_module_lacks_is_missing():
    asked = "from chexgen_lib.models import metadata\nmetadata.rows_of(table)\nmetadata.unheard_of(table)\ntable.other"
    assert list(missing_names(asked)) == ["chexgen_lib.models.metadata.unheard_of"]


def test_pages_state_what_share_of_the_compute_the_baseline_gets(root):
    """The table goes stale with another foundation, and the pages with another table."""
    table = pl.read_csv(root / "benchmarks/baseline_compute.csv")
    recipe = json.loads((root / "chexgen_lib/models/weights/foundation/recipe.json").read_text())
    assert table.filter(training="foundation")["images"].to_list() == [shown(recipe)]
    pages = [*root.glob("docs/*.md"), *root.glob("notebooks/*.ipynb")]
    stated = {s for page in pages for s in re.findall(r"([\d.]+) % of the compute", page.read_text())}
    assert stated == {f"{100 * table['share_of_chexgen'][-1]:.1f}"}
