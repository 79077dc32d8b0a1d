"""A file or folder is replaced whole, or stays as it was."""

import pytest

from chexgen_lib.storage import replacing


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "table.csv"
    with replacing(path) as partial:
        partial.write_text("new")
        assert partial.suffix == ".csv" and not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_by_a_folder_and_leftovers_go(tmp_path):
    folder = tmp_path / "weights"
    for name in ("weights", ".weights.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    with replacing(folder) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert list(tmp_path.rglob("*")) == [folder, folder / "new"]
