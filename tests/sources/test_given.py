"""Folders of images that a user gives: files are found as the table names them, and what it does not name is said."""

from chexgen_lib.sources.given import named_file, unlisted


def test_a_file_that_a_table_names_as_windows_does_is_found(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "b\\2.png"):
        (tmp_path / name).touch()
    for name in ("a/1.png", "a\\1.png", " a/1.png "):  # spreadsheets leave spaces
        assert named_file(tmp_path, name) == tmp_path / "a/1.png"
    assert named_file(tmp_path, "b\\2.png").is_file()


def test_pictures_that_no_table_names_are_listed(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "a/2.PNG", ".3.png", "notes.txt", "4.tif"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    assert unlisted(tmp_path, ["a\\1.png", "absent.png"]) == ["4.tif", "IM0001", "a/2.PNG"]
    assert unlisted(tmp_path, ["./a/1.png", "a/2.PNG", "4.tif", "IM0001"]) == []
