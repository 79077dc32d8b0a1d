"""Benchmarks run by hand and seldom: what they import must be there when they do."""

from pathlib import Path

import pytest

from tests.asked import missing_names

OF_ANOTHER_VERSION = {"time_to_quality_before"}  # run with the library of an earlier commit
BENCHMARKS = sorted(p for p in Path(__file__).parents[1].glob("benchmarks/*.py") if p.stem not in OF_ANOTHER_VERSION)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_modules_have_what_benchmarks_ask_of_them(path):
    assert list(missing_names(path.read_text(encoding="utf-8"))) == []


def test_a_name_that_a_module_lacks_is_missing():
    asked = "from chexgen_lib.models import metadata\nmetadata.rows_of(table)\nmetadata.unheard_of(table)\ntable.other"
    assert list(missing_names(asked)) == ["chexgen_lib.models.metadata.unheard_of"]
