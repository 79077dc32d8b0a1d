"""Prompt files of every kind read alike; every bad row is named."""

import json

import pytest

from chexgen_lib.sampling.prompts import PromptError, read_prompts, with_metadata

ROWS = [
    {"name": "a1", "impression": "Large effusion.", "sex": "Male", "age": 71},
    {"name": "b", "impression": "Clear."},
]
EXPECTED = ["sex:Male, age:71.0. Large effusion.", "Clear."]


def write(tmp_path, kind):
    path = tmp_path / f"prompts{kind}"
    if kind == ".csv":
        path.write_text("name,impression,sex,age,note\na1,Large effusion.,Male,71,x\nb,Clear.,,,\n")
    else:
        path.write_text(json.dumps(ROWS) if kind == ".json" else "\n".join(map(json.dumps, ROWS)))
    return path


@pytest.mark.parametrize("kind", [".csv", ".json", ".jsonl"])
def test_tables(tmp_path, kind):
    table = read_prompts(write(tmp_path, kind))
    assert table["name"].to_list() == ["a1", "b"] and table["prompt"].to_list() == EXPECTED


def test_names_keep_their_zeros(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("name,impression\n001,Clear.\n01,Clear.\n")
    assert read_prompts(path)["name"].to_list() == ["001", "01"]


def test_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Large effusion.\nClear.\n")
    assert read_prompts(path)["name"].to_list() == ["000001", "000002"]


def test_metadata_has_the_released_format():
    text = with_metadata("No effusion.", sex="Female", age=54, race="White", view="PA")
    assert text == "sex:Female, age:54.0, race:White, view:PA. No effusion."
    assert with_metadata("No effusion.", sex="") == "No effusion."


@pytest.mark.parametrize(
    "content, message",
    [
        ("name,impression\n../x,Clear.\n", r"row 1: name '../x' is no plain file name"),
        ("name,impression\n/tmp/x,Clear.\n", "no plain file name"),
        ("name,impression\n.x,Clear.\n", "no plain file name"),
        ("name,impression\na,Clear.\na,Clear.\n", "row 2: name 'a' is used twice"),
        ("name,impression\na,Clear.\nb,\n", "row 2 .b.: impression None is empty"),
        ("name,impression\na,  \n", "empty or not text"),
        ("name,impression\na,12\n", "impression 12 is empty or not text"),
        ("name,impression,age\na,Clear.,old\n", "age 'old' is no number"),
        ("name,text\na,Clear.\n", "no column impression; found name, text"),
        ("name,impression\n", "has no rows"),
        ("", "cannot be read as .csv"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    path = tmp_path / "prompts.csv"
    path.write_text(content)
    with pytest.raises(PromptError, match=message):
        read_prompts(path)


def test_bad_files(tmp_path):
    with pytest.raises(PromptError, match="does not exist"):
        read_prompts(tmp_path / "none.csv")
    with pytest.raises(PromptError, match="are read from .csv"):
        read_prompts(tmp_path / "prompts.xlsx")
    (tmp_path / "p.json").write_text("{broken")
    with pytest.raises(PromptError, match="cannot be read as .json"):
        read_prompts(tmp_path / "p.json")
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="cannot be read as .txt"):
        read_prompts(tmp_path / "p.txt")
