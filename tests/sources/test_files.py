"""Files are found wherever publishers and mirrors put them, read however they are packed, and never guessed."""

import bz2
import codecs
import gzip
import lzma

import polars as pl
import pytest

from chexgen_lib.records import RecordError
from chexgen_lib.sources.files import Tree, locate, read_text
from chexgen_lib.sources.table import read_given, read_table
from tests.sources.layouts import put, zipped

TABLE = "a,b\n1,x\n2,y\n"


PACKINGS = {
    "gzip": gzip.compress(TABLE.encode()),
    "bzip2": bz2.compress(TABLE.encode()),
    "xz": lzma.compress(TABLE.encode()),
    "zip": zipped(**{"t.csv": TABLE}),
    "zip of a Mac": zipped(**{"t.csv": TABLE, "__MACOSX_._t.csv": "x"}),
    "zip with notes": zipped(**{"t.csv": TABLE, "readme.txt": "x"}),
    "zip of gzip": zipped(**{"t.csv.gz": TABLE}),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TABLE.encode(),
    "two marks": codecs.BOM_UTF8 * 2 + TABLE.encode(),
    "UTF-16": TABLE.encode("utf-16"),
    "UTF-16 BE": codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"),
    "UTF-16 without a mark": TABLE.encode("utf-16-le"),
    "UTF-16 BE without a mark": TABLE.encode("utf-16-be"),
    "UTF-32": TABLE.encode("utf-32"),
    "gzipped UTF-16": gzip.compress(TABLE.encode("utf-16")),
    "spaces in the header": TABLE.replace("b\n", " b\n").encode(),
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_table_is_read_however_it_is_packed(kind, tmp_path):
    path = tmp_path / "t.csv.zip"
    path.write_bytes(PACKINGS[kind])
    assert read_table(path, ("a", "b"))["b"].to_list() == ["x", "y"]


STRANGE = {
    "an archive of 2 files, not one table; unpack it": zipped(**{"one.csv": TABLE, "two.csv": TABLE}),
    "an archive of 0 files": zipped(**{"__MACOSX_._t.csv": "x"}),
    "this is an Excel file": zipped(**{"[Content_Types].xml": "x", "xl.xml": "y"}),
    "this is a 7z archive; unpack it": b"7z\xbc\xaf\x27\x1c" + b"\0" * 50,
    "this is a RAR archive": b"Rar!\x1a\x07" + b"\0" * 50,
    "this is a tar archive": b"t.csv".ljust(257, b"\0") + b"ustar\x0000" + b"\0" * 200,
    "this is a parquet file": b"PAR1" + b"\0" * 50,
    "this is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "this is a web page; log in": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "damaged or unreadable": gzip.compress(TABLE.encode())[:-9],
    "damaged or unreadable ": codecs.BOM_UTF16_LE + b"abc",
    "the file is empty": b"  \n",
    "holds bytes of value 0": TABLE.encode() + b"\0" * 50,
}


@pytest.mark.parametrize("message", STRANGE)
def test_what_is_no_table_is_named(message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(STRANGE[message])
    with pytest.raises(RecordError, match=f"t.csv: {message}"):
        read_text(path)


def test_a_text_of_windows_keeps_its_dashes_and_quotes(tmp_path):
    for encoding, text in (("cp1252", "caf\xe9 \u2013 \u201cclear\u201d"), ("latin-1", "caf\xe9 \x81")):
        (tmp_path / "t.txt").write_bytes(text.encode(encoding))
        assert read_text(tmp_path / "t.txt").decode() == text


def test_a_table_is_found_in_any_depth_and_case_and_through_links(tmp_path):
    put(tmp_path / "else", {"Release/TRAIN.CSV": TABLE})
    folder = tmp_path / "data"
    put(folder, {".hidden/train.csv": "x", "__MACOSX/train.csv": "y", "._train.csv": "z", "#recycle/train.csv": "r"})
    (folder / "link").symlink_to(tmp_path / "else")
    (folder / "back").symlink_to(folder)
    assert locate(folder, "**/train.csv*") == folder / "link/Release/TRAIN.CSV"
    (folder / "train.csv").symlink_to(tmp_path / "else/Release/TRAIN.CSV")
    assert read_text(locate(folder, "train.csv")) == TABLE.encode()
    (folder / "train.csv.gz").write_bytes(gzip.compress(TABLE.encode()))  # the same table once more is no other
    assert read_text(locate(folder, "train.csv")) == TABLE.encode()


def test_two_releases_side_by_side_are_refused(tmp_path):
    put(tmp_path, {"old/train.csv": TABLE, "new/train.csv": TABLE + "3,z\n"})
    with pytest.raises(RecordError, match="holds new/train.csv and old/train.csv, which differ"):
        locate(tmp_path, "train.csv")


def test_an_archive_in_place_of_a_folder_is_named(tmp_path):
    put(tmp_path, {"archive.zip": "x"})
    with pytest.raises(RecordError, match="holds no train.csv; unpack archive.zip, or give"):
        locate(tmp_path, "train.csv")


def test_images_are_told_apart_by_as_much_of_their_path_as_needed(tmp_path):
    names = ("deep/train/images/1.JPG", "deep/dev/images/1.jpg", "a/x.png", "b/x.png", "a/y.dcm", "a/y.png")
    for name in names:
        put(tmp_path, {name: name})
    wanted = ["train/1.jpg", "dev/1.jpg", "test/1.jpg", "c/x.png", "d/y.dcm", "gone.png", None]
    found = Tree(tmp_path).find(pl.Series("image", wanted, dtype=pl.String))
    assert dict(found.select("image", "file").iter_rows()) == {
        "train/1.jpg": "deep/train/images/1.JPG",
        "dev/1.jpg": "deep/dev/images/1.jpg",
        "test/1.jpg": None,
        "c/x.png": "a/x.png",
        "d/y.dcm": "a/y.dcm",
        "gone.png": None,
    }
    assert found.drop_nulls("rival").rows() == [("c/x.png", "a/x.png", "b/x.png")]


def test_an_image_is_not_looked_for_outside_the_folder_that_its_path_names(tmp_path):
    names = (
        "a/CXR_images_scored/0.jpg",
        "a/CXR_images_unscored/0.jpg",
        "a/CXR_images_unscored/1.jpg",
        "b/2.png",
        "b/3.png",
    )
    for name in (*names, "tables/x.csv"):  # a folder without images
        put(tmp_path, {name: name})
    wanted = ["CXR_images_scored/0.jpg", "CXR_images_scored/1.jpg", "elsewhere/2.png", "tables/3.png"]
    found = Tree(tmp_path).find(pl.Series("image", wanted))
    assert found["file"].to_list() == [names[0], None, *names[3:]]


def test_one_web_page_among_many_large_images_is_enough_to_look_at_all(tmp_path):
    for number in range(150):
        page = b"<html>" if number % 3 == 0 else b"\x89PNG"
        (tmp_path / f"{number:03}.png").write_bytes(page + b"\0" * 20_000)
    tree = Tree(tmp_path)
    assert len(tree.hollow(tree.names)) == 50


def test_a_table_with_windows_paths_finds_its_images(tmp_path):
    (tmp_path / "images/p1").mkdir(parents=True)
    (tmp_path / "images/p1/a.png").write_bytes(b"1")
    found = Tree(tmp_path).find(pl.Series(["data\\images\\p1\\a.png"]))
    assert found["file"].to_list() == ["images/p1/a.png"]


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    for text in ("a;b\n1;x,5\n", "a\tb\n1\tx,5\n", 'a,b\r1,"x,5"\r'):
        (tmp_path / "t.csv").write_text(text, newline="")
        assert read_table(tmp_path / "t.csv", ("a", "b")).select("a", "b").rows() == [("1", "x,5")]


def test_given_numbers_with_a_decimal_comma_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text('name;age;word\n1,5; 63,5;a\n2;7;b,c\n3;"";\n')
    given = read_given(tmp_path / "t.csv", "name", ("name",))
    assert given.rows() == [("1,5", 63.5, "a"), ("2", 7, "b,c"), ("3", None, None)]
    assert read_given(tmp_path / "t.csv", "name")["age"].to_list()[:2] == ["63.5", "7"]


def test_numbers_with_a_decimal_comma_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;c\n1,0;2,5;2,5\n;-3;no\n2;;1,5\n")
    table = read_table(tmp_path / "t.csv", ("a", "b", "c"))
    assert table.select("a", "b", "c").rows() == [("1.0", "2.5", "2,5"), ("", "-3", "no"), ("2", "", "1,5")]
    (tmp_path / "t.csv").write_text('a,b\n1,"2,5"\n')
    assert read_table(tmp_path / "t.csv", ("b",))["b"].to_list() == ["2,5"]  # in such a table it may be a list


def test_columns_without_a_name_take_no_separator_of_those_that_have_one(tmp_path):
    text = 'a,b,c,,\n1,2,\n1,2,,\n1,,,,\r\n"1,\n2,",,\n1,2,3\n1,2\n1,2,3,,,\n'
    (tmp_path / "t.csv").write_text(text, newline="")
    table = read_table(tmp_path / "t.csv", ("a", "b", "c"))
    whole = [("1", "2", ""), ("1", "2", ""), ("1", "", ""), ("1,\n2,", "", ""), ("1", "2", "3")]
    assert table.filter(~pl.col("broken")).select("a", "b", "c").rows() == whole
    assert table["broken"].to_list() == [False] * 5 + [True] * 2


@pytest.mark.parametrize("mark", ",;\t")
def test_last_columns_without_a_name_are_none_of_a_table(tmp_path, mark):
    (tmp_path / "t.csv").write_text("image,id,,\na,r,,\nb,\nc,s\n".replace(",", mark))
    wanted = {"image": ["a", "b", "c"], "id": ["r", None, "s"]}
    assert read_given(tmp_path / "t.csv", "image").to_dict(as_series=False) == wanted
    read = read_table(tmp_path / "t.csv", ("image", "id"))
    assert read.select("image", "id").rows() == [("a", "r"), ("b", ""), ("c", "s")]


def test_a_table_that_pandas_saved_with_its_index_and_empty_last_rows(tmp_path):
    (tmp_path / "t.csv").write_text(",image,id\n7,a,r\n0,b,\n,,\n,,\n")
    assert read_given(tmp_path / "t.csv", "image").to_dict(as_series=False) == {"image": ["a", "b"], "id": ["r", None]}
    (tmp_path / "t.csv").write_text(",image\nleft,a\n")  # a column that somebody forgot to name
    assert read_given(tmp_path / "t.csv", "image").columns == ["", "image"]


@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_a_given_row_with_too_few_fields_is_an_error_that_names_its_line(tmp_path, first):
    (tmp_path / "t.csv").write_text(first + 'image,id,,\na,"r\ns",,\n\nb\n')
    line = 6 if first else 5
    with pytest.raises(RecordError, match=rf"t.csv cannot be .* \(line {line} has 1 of the head's 2 fields"):
        read_given(tmp_path / "t.csv", "image")


def test_a_given_row_with_too_many_fields_is_an_error_that_names_its_line_and_the_remedy(tmp_path):
    (tmp_path / "t.csv").write_text("image,id\na,r\nb,r, s\n")
    with pytest.raises(RecordError, match="line 3 has 3 of the head's 2 fields; put a text that holds ',' into quotes"):
        read_given(tmp_path / "t.csv", "image")


def test_row_names_that_pandas_or_r_saved_are_no_column(tmp_path):
    (tmp_path / "t.csv").write_text(",Unnamed: 0,Unnamed: 0.1,image,id\n0,0,5,a,r\n1,2,6,b,s\n")
    wanted = {"image": ["a", "b"], "id": ["r", "s"]}
    assert read_given(tmp_path / "t.csv", "image").to_dict(as_series=False) == wanted
    (tmp_path / "t.csv").write_text('"","image","id"\n"1","a","r"\n"2","b","s"\n')
    assert read_given(tmp_path / "t.csv", "image").to_dict(as_series=False) == wanted


def test_a_given_table_below_a_title_is_named_with_its_first_line(tmp_path):
    (tmp_path / "t.csv").write_text("# of May\nimage,id\na,r\n")
    with pytest.raises(RecordError, match="its first line, '# of May', names no column image"):
        read_given(tmp_path / "t.csv", "image")
