"""A dataset's folder is checked part by part; what is missing is named."""

from dataclasses import replace

import pytest

from chexgen_lib.records import PUBLISHED, RecordError
from chexgen_lib.sources import registry
from chexgen_lib.sources.datasheet import EMPTY, HASHED, MISSING, OPTIONAL, PRESENT, Datasheet, Part
from chexgen_lib.sources.files import locate

SHEET = Datasheet(
    source="example",
    title="Example",
    role="stage I",
    paper_name=None,
    size="3 images",
    licence="none",
    obtain="write them",
    citation="nobody",
    parts=(
        Part("table.csv", "labels"),
        Part("images/**/*.png", "images"),
        Part("notes.txt", "notes"),
        Part("boxes.csv", "boxes", needed=False),
    ),
)


def test_states(tmp_path):
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/a/1.png").write_bytes(b"12")
    (tmp_path / "images/2.png").write_bytes(b"345")
    (tmp_path / "notes.txt").touch()
    table = SHEET.check(tmp_path)
    assert table["state"].to_list() == [MISSING, PRESENT, EMPTY, OPTIONAL]
    assert table.row(1, named=True) | {"files": 2, "bytes": 5} == table.row(1, named=True)


def test_of_several_forms_of_a_table_one_is_needed(tmp_path):
    forms = [Part(name, "labels", needed=False, either="table") for name in ("new.csv", "old.csv")]
    sheet = replace(SHEET, parts=(*forms, Part("*.png", "images", needed=False)))
    (tmp_path / "1.png").write_bytes(b"12")
    assert sheet.check(tmp_path)["state"].to_list() == [MISSING, MISSING, PRESENT]
    (tmp_path / "old.csv").write_bytes(b"x")
    assert sheet.check(tmp_path)["state"].to_list() == [OPTIONAL, PRESENT, PRESENT]


def test_locate(tmp_path):
    file = tmp_path / "sub/train_v2.csv"
    file.parent.mkdir()
    file.write_text("x")
    assert locate(tmp_path, "train.csv", "**/train_v*.csv") == file
    assert locate(file, "other.csv") == file
    with pytest.raises(RecordError, match="holds no train.csv or test.csv"):
        locate(tmp_path, "train.csv", "test.csv")
    with pytest.raises(RecordError, match="no such file or folder"):
        locate(tmp_path / "gone", "train.csv")


@pytest.mark.parametrize("source", registry.ALL)
def test_a_datasheet_says_where_the_split_is_from(source):
    assert (registry.reader(source).DATASHEET.split == HASHED) == (source not in PUBLISHED)
