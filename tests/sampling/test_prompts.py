"""Prompt files of every kind read alike; every bad row is named."""

import json
import zipfile

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
        path.write_text("name,impression,sex,age\na1,Large effusion.,Male,71\nb,Clear.,,\n")
    else:
        path.write_text(json.dumps(ROWS) if kind == ".json" else "\n".join(map(json.dumps, ROWS)))
    return path


@pytest.mark.parametrize("kind", [".csv", ".json", ".jsonl"])
def test_tables(tmp_path, kind):
    table = read_prompts(write(tmp_path, kind))
    assert table["name"].to_list() == ["a1", "b"] and table["prompt"].to_list() == EXPECTED


def test_masks_and_boxes(tmp_path):
    box = {"class": "Lung Lesion", "x": 0.5, "y": 0.25, "w": 0.1, "h": 0.2}
    rows = [
        {"name": "a", "impression": "Clear.", "mask": {"lungs": "l.png", "heart": "h.png"}, "boxes": [box]},
        {"name": "b", "impression": "Clear.", "mask": {"lungs": "l.png"}},
        {"name": "c", "impression": "Clear."},
    ]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (tmp_path / "p.csv").write_text(
        "name,impression,mask,boxes\na,Clear.,lungs=l.png; heart = h.png,Lung Lesion 0.5 0.25 .1 .2;\n"
        "b,Clear.,lungs=l.png,\nc,Clear.,,\n"
    )
    for kind in ("json", "csv"):
        table = read_prompts(tmp_path / f"p.{kind}")
        lungs, heart = ({"class": name, "path": str(tmp_path / f"{name[0]}.png")} for name in ("lungs", "heart"))
        assert table["masks"].to_list() == [[lungs, heart], [lungs], []], kind
        assert table["boxes"].to_list() == [[box], [], []], kind


def test_columns_for_a_metadata_encoder(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("name,sex,Effusion,source\na,Female,1,nih\nb,,,\n")
    table = read_prompts(path)
    assert table["text"].to_list() == ["", ""] and [json.loads(x) for x in table["metadata"]] == [
        {"sex": "Female", "Effusion": 1, "source": "nih"}, {}
    ]  # fmt: skip
    path.write_text("name,comment\na,hello\n")
    with pytest.raises(PromptError, match="no column impression"):
        read_prompts(path)


def test_names_keep_their_zeros(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("name,impression\n001,Clear.\n01,Clear.\n")
    assert read_prompts(path)["name"].to_list() == ["001", "01"]


def test_lines(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Large effusion.\nClear.\n")
    assert read_prompts(path)["name"].to_list() == ["000001", "000002"]


def test_metadata_has_the_released_format():
    text = with_metadata("No effusion.", dict(sex="Female", age=54, race="White", view="PA"))
    assert text == "sex:Female, age:54.0, race:White, view:PA. No effusion."
    assert with_metadata("No effusion.", dict(sex="M")) == "sex:Male. No effusion."
    assert with_metadata("No effusion.", dict(sex="", age=None)) == "No effusion."


@pytest.mark.parametrize(
    "metadata, message",
    [
        (dict(weight=80), "unknown metadata 'weight': use sex, age, race, view"),
        (dict(sex="male"), "sex 'male' is none of M, F, Male, Female"),
        (dict(view="upside down"), "view 'upside down' is none of PA, AP"),
        (dict(age="old"), "age 'old' is no number of years from 0 to 120"),
        (dict(age=121), "age 121 is no number"),
        (dict(age=-1), "age -1 is no number"),
        (dict(age=float("nan")), "age nan is no number"),
    ],
)
def test_impossible_metadata(metadata, message):
    with pytest.raises(ValueError, match=message):
        with_metadata("No effusion.", metadata)


def test_columns_that_are_not_used_are_named(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("name,impression,Age,boxs\na,Clear.,50,x\n")
    with pytest.warns(UserWarning, match="not used: Age, boxs; known columns: name"):
        read_prompts(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("name,impression\n../x,Clear.\n", r"row 1: name '../x' is no plain file name"),
        ("name,impression\n/tmp/x,Clear.\n", "no plain file name"),
        ("name,impression\n.x,Clear.\n", "no plain file name"),
        ("name,impression\na,Clear.\na,Clear.\n", "row 2: name 'a' is used twice"),
        ("name,impression\na,Clear.\nA,Clear.\n", "row 2: name 'A' is used twice"),
        (f"name,impression\n{'a' * 129},Clear.\n", "is no plain file name .up to 128 letters"),
        ("name,impression\na,nan\n", "row 1 .a.: impression is empty: write what the film shows, or take the row out$"),
        ("name,impression\na,Clear.\nb,\n", "row 2 .b.: impression is empty"),
        ("name,impression,age\na,#N/A,50\n", "row 1 .a.: impression is empty.* for a model that reads metadata alone"),
        ("name,impression\na,  \n", "impression is empty"),
        ("name,impression\na,12\n", "impression 12 is no text"),
        ("name,impression\na,Clear.\nb,両側胸水\n", r"row 2 \(b\): impression '両側胸水' is not in English"),
        ("name,impression,age\na,Clear.,old\n", "row 1 .a.: age 'old' is no number"),
        ("name,impression,sex\na,Clear.,X\n", "row 1 .a.: sex 'X' is none of"),
        ("name,impression,Edema\na,Clear.,1\nb,Clear.,present\n", "1 rows cannot .*\n  row 2 .b.: Edema 'present' is"),
        ("name,impression,mask\na,Clear.,lungs.png\n", "not written as 'class=file; class=file'"),
        ("name,impression,boxes\na,Clear.,Effusion 0 0 1\n", "not written as 'class x y w h"),
        ("name,impression,boxes\na,Clear.,Effusion 0 0 1 wide\n", r"row 1 .a.: box .* needs numbers x, y, w and h"),
        ("name,impression,boxes\na,Clear.,Effusion 10 20 200 300\n", "row 1 .a.: box .* is in pixels: divide"),
        ('name,impression,boxes\na,Clear.,"[{""class"": 1"\n', "row 1 .a.: boxes .* are no JSON"),
        ("name,impression,mask\na,Clear.,{lungs}\n", "row 1 .a.: mask .* is no JSON"),
        ("name,text\na,Clear.\n", "no column impression; found name, text"),
        ("name,impression\n", "has no rows"),
        ("name,impression\n,\n", "has no rows"),
        ("", "cannot be read as .csv: it is empty, write a table"),
        (f"name,impression\n{'é' * 101},Clear.\n", "is no plain file name"),  # 202 bytes
        ("name,impression\na,Clear, no effusion.\n", "line 2 has 3 of the head's 2 fields; put a text that holds ','"),
        ("name,impression,mask\na,Clear.,lungs=l.png; lungs=r.png\n", "row 1 .a.: 'lungs' is there twice"),
        ("name,impression,mask\na,Clear.,lungs=l.png; Lungs=r.png\n", "row 1 .a.: 'lungs' is there twice"),
    ],
)
def test_bad_rows_are_named(tmp_path, content, message):
    path = tmp_path / "prompts.csv"
    path.write_text(content)
    with pytest.raises(PromptError, match=message):
        read_prompts(path)


@pytest.mark.parametrize(
    "content",
    [
        "name;impression;boxes\na;Clear, as before.;\n",
        "sep=;\r\nname;impression\r\na;Clear, as before.\r\n",
        "name\timpression\na\tClear, as before.\n",
        'name, impression \na,"Clear, as before."\n',
        'name,impression\ra,"Clear, as before."\r',
    ],
)
def test_tables_as_spreadsheets_save_them(content, tmp_path):
    for name in ("p.csv", "p.tsv"):
        (tmp_path / name).write_text(content, newline="")
        assert read_prompts(tmp_path / name)["prompt"].to_list() == ["Clear, as before."]


def test_another_kind_of_file_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.csv", "w") as book:
        book.writestr("[Content_Types].xml", "")
        book.writestr("xl/workbook.xml", "")
    with pytest.raises(PromptError, match="cannot be read as .csv: this is an Excel file; save its table as CSV"):
        read_prompts(tmp_path / "p.csv")


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", [".csv", ".json", ".jsonl", ".txt", ".CSV"])
def test_byte_order_marks_are_no_text(kind, encoding, tmp_path):
    content = {
        ".json": json.dumps([{"name": "a", "impression": "Épanchement."}], ensure_ascii=False),
        ".jsonl": json.dumps({"name": "a", "impression": "Épanchement."}, ensure_ascii=False) + "\r\n",
        ".txt": "Épanchement.\r\n",
    }
    path = tmp_path / f"p{kind}"
    path.write_text(content.get(kind, "name,impression\r\na,Épanchement.\r\n"), encoding=encoding, newline="")
    assert read_prompts(path)["prompt"].to_list() == ["Épanchement."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"mask": ["lungs.png"]}, "mask .* is not written as {class: file}"),
        ({"mask": {"lungs": 3}}, "does not name a file"),
        ({"boxes": 5}, "boxes 5 are not understood"),
        ({"boxes": [7]}, "box 7 is not understood"),
        ({"sex": ["M"]}, r"sex \['M'\] is no text"),
        ({"view": {"a": 1}}, "view .* is no text"),
        ({"impression": ["Clear."]}, "is no text"),
        ({"age": True}, "age True is no number"),
        ({"impression": "Cle\ud83dar."}, "impression holds half a character"),
        ({"race": "\ud83d"}, "race holds half a character"),
        ({"boxes": [{"class": "\ud83d", "x": 0, "y": 0, "w": 1, "h": 1}]}, "boxes holds half a character"),
        ({"impression": "Cle\0ar."}, "impression holds half a character, or one of value 0"),
        ({"boxes": [{"class": "Ede\0ma", "x": 0, "y": 0, "w": 1, "h": 1}]}, "boxes holds half a character"),
    ],
)
def test_values_of_another_kind_in_json_are_named(row, message, tmp_path):
    (tmp_path / "p.json").write_text(
        json.dumps([{"name": "a", "impression": "Clear."}, {"name": "b", **{"impression": "Clear."} | row}])
    )
    with pytest.raises(PromptError, match=f"row 2 .b.: .*{message}|row 2 .b.: {message}"):
        read_prompts(tmp_path / "p.json")


@pytest.mark.parametrize("row", [{}, {"name": None}, {"name": "a\0"}])
def test_a_row_without_a_name_is_told_by_its_number_whatever_else_is_wrong(row, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"name": "a", "impression": "Clear."}, row | {"impression": "C\0"}]))
    with pytest.raises(PromptError, match="row 2: name .* is no plain file name"):
        read_prompts(tmp_path / "p.json")


def test_bad_files(tmp_path):
    for name, content in {
        "a.json": "{}",
        "b.json": "[1]",
        "c.jsonl": "7",
        "d.json": "[" * 10_000,
        "e.json": "null",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(PromptError, match=f"{name} cannot be read as .*it should be an? "):
            read_prompts(tmp_path / name)
    for name in ("empty.json", "empty.jsonl", "empty.txt"):
        (tmp_path / name).write_text(" \n\n")
        with pytest.raises(PromptError, match=f"{name} cannot be read as .*: it is empty, write an? "):
            read_prompts(tmp_path / name)
    (tmp_path / "twice.json").write_text('[{"name": "a", "impression": "Clear.", "impression": "Edema."}]')
    with pytest.raises(PromptError, match="'impression' is there twice"):
        read_prompts(tmp_path / "twice.json")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(PromptError, match="has no rows"):
        read_prompts(tmp_path / "none.json")
    for first in ("name,impression", '"impression";"name"', '{"name": "a", "impression": "Clear."}', '[{"name": "a"}]'):
        (tmp_path / "table.txt").write_text(f"{first}\na,Clear.\n")
        with pytest.raises(PromptError, match=r"as a table or JSON does: name it .csv, .json or .jsonl"):
            read_prompts(tmp_path / "table.txt")
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


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".txt"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, suffix):
    row = '{"name": "a", "impression": "Cardiomegaly."}'
    text = {".csv": "name,impression\na,Cardiomegaly.\n", ".json": f"[{row}]", ".jsonl": row, ".txt": "Cardiomegaly."}
    path = tmp_path / f"prompts{suffix}"
    path.write_text(text[suffix], encoding="utf-8-sig")
    assert read_prompts(path)["prompt"].to_list() == ["Cardiomegaly."]


def test_a_text_of_jsonl_may_hold_another_end_of_a_line(tmp_path):
    rows = [{"name": name, "impression": "Clear lungs.\u2028No effusion."} for name in "ab"]
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "p.jsonl").write_text(lines, encoding="utf-8")
    assert read_prompts(tmp_path / "p.jsonl")["text"].to_list() == [row["impression"] for row in rows]


@pytest.mark.parametrize("absent", ["nan", "NaN", "None", "NA", "<NA>", "null", " "])
def test_words_for_what_is_not_there_ask_for_nothing(absent, tmp_path):
    columns = ("sex", "age", "race", "view", "mask", "boxes", "source", "Edema")
    (tmp_path / "p.csv").write_text(f"name,impression,{','.join(columns)}\na,Clear.{f',{absent}' * len(columns)}\n")
    row = {"name": "a", "impression": "Clear."} | dict.fromkeys(columns, float("nan"))
    (tmp_path / "p.json").write_text(json.dumps([row]))
    for kind in ("csv", "json"):
        table = read_prompts(tmp_path / f"p.{kind}")
        assert table.row(0, named=True) == {
            "name": "a", "row": 1, "prompt": "Clear.", "text": "Clear.", "metadata": "{}", "masks": [], "boxes": [],
        }  # fmt: skip


def test_rows_and_lines_that_hold_nothing_are_no_prompts(tmp_path):
    (tmp_path / "p.csv").write_text("name,impression\na,Clear.\n\n,\nb,Edema.\n,\n")
    assert read_prompts(tmp_path / "p.csv")["row"].to_list() == [1, 4]
    (tmp_path / "p.txt").write_text("\nClear.\u2028No effusion.\n \nEdema.\n\n", encoding="utf-8")
    table = read_prompts(tmp_path / "p.txt")
    assert table["name"].to_list() == ["000002", "000004"] and table["row"].to_list() == [2, 4]
    assert table["prompt"].to_list() == ["Clear.\u2028No effusion.", "Edema."]


@pytest.mark.parametrize("written", ["LUNGS=l.png", "{'lungs': 'l.png'}", '{""Lungs"": ""l.png""}'])
def test_masks_are_read_as_tables_hold_them(written, tmp_path):
    (tmp_path / "p.csv").write_text(f'name,impression,mask\na,Clear.,"{written}"\n')
    assert read_prompts(tmp_path / "p.csv")["masks"].to_list() == [
        [{"class": "lungs", "path": str(tmp_path / "l.png")}]
    ]
