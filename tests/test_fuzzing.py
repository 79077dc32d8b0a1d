"""The short form of `benchmarks/fuzz_readers.py`: strange files are read, or refused with a sentence."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing import READERS, attempt

TABLES = "tables of "  # `sources/test_damaged_files.py` asks more of these


@pytest.mark.parametrize("name", [name for name in READERS if not name.startswith(TABLES)])
@settings(
    max_examples=int(os.environ.get("CHEXGEN_FUZZ", 30)),
    deadline=None,
    derandomize="CHEXGEN_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_strange_files_are_read_or_refused(name, data):
    attempt(READERS[name], data.draw(READERS[name].inputs))
