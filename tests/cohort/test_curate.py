"""A kept curation is made again when what lies below the data root has changed, and what cannot be made is said."""

import os

import pytest

from chexgen_lib.cohort.curate import Curation, curate
from chexgen_lib.records import RecordError
from chexgen_lib.storage import digest


def key(root):
    settings = (None, None, [0.8, 0.1, 0.1], None, None, None, 5, 0)
    return digest(Curation(str(root), *settings))


def test_a_dataset_that_is_added_or_corrected_is_seen(tmp_path):
    """Found by the rehearsal: 01 kept the records of what had lain there before."""
    (tmp_path / "brax").mkdir()
    table = tmp_path / "brax/master_spreadsheet.csv"
    table.write_text("a")
    first = key(tmp_path)
    assert key(tmp_path) == first
    table.write_text("ab")
    second = key(tmp_path)
    os.utime(table, ns=(1, 1))
    third = key(tmp_path)
    (tmp_path / "mimic_cxr").mkdir()
    (tmp_path / "mimic_cxr/cxr-record-list.csv").touch()
    assert len({first, second, third, key(tmp_path), digest(Curation(None, *(None,) * 7, 0))}) == 5


def test_shares_of_two_splits_are_refused_before_anything_is_read(tmp_path):
    settings = Curation(None, None, None, [0.8, 0.2], None, None, None, 5, 0)
    with pytest.raises(RecordError, match=r"split_fractions \[0.8, 0.2\]: give one each for train, val, test"):
        curate(tmp_path, settings, tmp_path / "answers.sqlite")
