"""Damaged files: any bytes give valid Records and rejects that add up, or an error that names the file.

CHEXGEN_FUZZ sets the number of damaged copies per dataset (default 30).
"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import masks, registry
from tests.fuzzing import DAMAGE
from tests.sources.datasets import DATASETS


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "openi"])  # its XML has tests of its own
@settings(
    max_examples=int(os.environ.get("CHEXGEN_FUZZ", 30)),
    deadline=None,
    derandomize="CHEXGEN_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_damaged_files_give_balanced_tables_or_a_record_error(name, data):
    dataset, reader = DATASETS[name], registry.reader(name)
    with tempfile.TemporaryDirectory() as place:
        folder = dataset.lay_out(Path(place))
        damages = st.lists(st.tuples(st.sampled_from(dataset.files), DAMAGE), min_size=1, max_size=3)
        for file, damage in data.draw(damages):
            raw = (folder / file).read_bytes()
            (folder / file).write_bytes(damage(raw) if raw else raw)
        arguments = (folder, folder) if name == "mimic_cxr" else (folder,)
        try:
            table, rejects = reader.load(*arguments)
            if hasattr(reader, "repairs"):
                reader.repairs(*arguments)
        except RecordError as error:
            assert str(error)
            return
        records.validate(table)
        assert rejects["reason"].null_count() == 0
        assert table.height + rejects.height == dataset.expected(folder)
        assert all(masks.read(mask).ndim == 2 for mask in table["mask"].drop_nulls())
