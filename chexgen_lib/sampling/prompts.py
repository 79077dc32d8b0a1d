"""Files of prompts (.csv, .tsv, .json, .jsonl, .txt), checked row by row before anything is sampled."""

import csv
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.models.text import foreign
from chexgen_lib.records import FINDINGS, VIEWS, RecordError
from chexgen_lib.sampling.conditions import class_of, once, read_boxes, value_of
from chexgen_lib.sources.columns import ABSENT
from chexgen_lib.sources.files import read_text
from chexgen_lib.sources.given import named_file
from chexgen_lib.sources.table import parse_given

METADATA = ("sex", "age", "race", "view")
ENCODED = ("source", *FINDINGS)  # further columns, which only a metadata encoder reads
COLUMNS = ("name", "impression", *METADATA, "mask", "boxes")
SEXES = {"M": "Male", "F": "Female", "Male": "Male", "Female": "Female"}
OLDEST = 120  # years
NAME = re.compile(r"[\w][\w.-]{0,127}")  # a file name: no folder, no "..", no leading dot
LONGEST = 200  # bytes of a name: disks take 255, with what is added to it
UNWRITABLE = re.compile("[\0\ud800-\udfff]")  # JSON holds halves of characters, files cannot
LINE = re.compile(r"\r\n|[\r\n]")  # a text may hold other ends of a line, such as U+2028
KINDS = {
    ".csv": "a table with commas and a line of column names",
    ".tsv": "a table with tabs and a line of column names",
    ".json": "a list of objects, [{...}, ...]",
    ".jsonl": "an object a line, {...}",
    ".txt": "a prompt a line",
}


class PromptError(ValueError):
    """A file of prompts that cannot be used; the message names the row and the remedy."""


def read_prompts(path: str | Path) -> pl.DataFrame:
    """The rows of a prompt file: columns `name`, `prompt` (metadata merged in), `row` (from 1), `masks` and `boxes`.

    For models with a metadata encoder there are `text`, the prompt without metadata, and `metadata`, what else the row
    gives, in JSON: `check_metadata`, `source` as it is (the encoder checks it), and findings as 1 or 0.

    Tables need the columns `name` and `impression`, and may have `sex`, `age`, `race`, `view`, `mask` and `boxes`; a
    `.txt` file has one prompt per line, named by its line number. Rows and lines that hold nothing are no prompts.
    `impression` may be missing where another column is for a metadata encoder; `text` is then empty. A warning lists
    columns that no model uses.

    mask: "lungs=lungs.png; Effusion=effusion.png", or in JSON {"lungs": "lungs.png"}; relative to the prompt file.
    boxes: "Lung Lesion 0.6 0.3 0.1 0.1; ..." (class, x, y, w, h), or what else `conditions.read_boxes` takes.
    `masks` lists dicts of class and path, `boxes` dicts of class, x, y, w and h.

    Raises:
        PromptError: for an unknown or broken file, a missing column, a name that is repeated or no plain file name, a
            prompt that is empty, not text or in another script than English, invalid metadata (`with_metadata`), or
            masks and boxes that cannot be parsed. All rows are checked and the first ten bad ones listed. The masks'
            files are not opened.
    """
    path = Path(path)
    columns, table = _read(path)
    textless = "impression" not in columns and not {*METADATA, *ENCODED}.isdisjoint(columns)
    missing = [column for column in (("name",) if textless else ("name", "impression")) if column not in columns]
    if not table:
        raise PromptError(f"{path} has no rows: write one prompt a row")
    if missing:
        raise PromptError(f"{path}: no column {' or '.join(missing)}; found {', '.join(columns)}")
    known = (*COLUMNS, *ENCODED)
    unused = [column for column in columns if column not in known]
    if unused:
        warnings.warn(f"{path}: not used: {', '.join(unused)}; known columns: {', '.join(known)}", stacklevel=2)
    wrong, rows, names = [], [], set()
    for number, row in table:
        try:
            name = _name(row.get("name"), names)
            _check_characters(row)
            rows.append({"name": name, "row": number, **_prompt(row, "" if textless else row.get("impression"), path)})
        except _NameError as error:
            wrong.append(f"row {number}: {error}")
        except ValueError as error:
            wrong.append(f"row {number} ({row['name']}): {error}")
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise PromptError(f"{path}: {len(wrong)} rows cannot be used:\n  " + "\n  ".join(wrong[:10]) + more)
    box = pl.Struct({"class": pl.String, **dict.fromkeys("xywh", pl.Float64)})
    mask = pl.Struct({"class": pl.String, "path": pl.String})
    return pl.DataFrame(rows, schema_overrides={"masks": pl.List(mask), "boxes": pl.List(box)})


class _NameError(ValueError):
    """A name that is none; it cannot name its row."""


def _name(name: object, names: set[str]) -> str:
    """A row's name, added to the `names` before it."""
    name = str(name) if isinstance(name, int) else name
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name.encode()) > LONGEST:
        raise _NameError(f"name {name!r} is no plain file name (up to 128 letters, digits, '_', '-', '.')")
    if name.casefold() in names:  # some disks do not tell a file A from a file a
        raise _NameError(f"name {name!r} is used twice")
    names.add(name.casefold())
    return name


def _prompt(row: dict, text: object, path: Path) -> dict:
    """What a row asks, in columns of `read_prompts`; ValueError where it cannot be understood."""
    if absent(text) and (text is None or "impression" in row):
        known = {*METADATA, *ENCODED}.intersection(row)
        remedy = ", or leave out the column for a model that reads metadata alone" * bool(known)
        raise ValueError(f"impression is empty: write what the film shows, or take the row out{remedy}")
    if not isinstance(text, str):
        raise ValueError(f"impression {text!r} is no text")
    if foreign(text):
        raise ValueError(f"impression {text[:60]!r} is not in English")
    row = {key: value for key, value in row.items() if not absent(value)}
    given = check_metadata({key: row.get(key) for key in METADATA})
    encoded = {key: row[key] if key == "source" else presence(key, row[key]) for key in ENCODED if key in row}
    prompt = {"prompt": with_metadata(text, given), "text": text, "metadata": json.dumps(given | encoded)}
    return prompt | {"masks": _masks(row.get("mask"), path.parent), "boxes": read_boxes(row.get("boxes"))}


def _check_characters(row: dict) -> None:
    """Raise ValueError for a text of a row, however deep in it, that no file can hold."""
    for column, value in row.items():
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace(r"\u0000", "\0")
        if UNWRITABLE.search(written):
            raise ValueError(f"{column} holds half a character, or one of value 0: write it anew")


def _masks(value: str | dict | None, folder: Path) -> list[dict]:
    said = value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = value_of(value)
        except ValueError as error:
            raise ValueError(f"mask {said!r} is no JSON ({error})") from error
    elif isinstance(value, str):
        pairs = [part.split("=", 1) for part in value.split(";") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"mask {said!r} is not written as 'class=file; class=file'")
        value = once([(name, path.strip()) for name, path in pairs])
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"mask {said!r} is not written as {{class: file}}")
    given = [(class_of(name), path) for name, path in (value or {}).items() if path]
    if not all(isinstance(path, str) for _, path in given):
        raise ValueError(f"mask {said!r} does not name a file for each class")
    return [{"class": name, "path": str(named_file(folder, path))} for name, path in once(given).items()]


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict]]]:
    """Columns and rows of a file, each with its number (of a .txt: of its line), without those that hold nothing."""
    columns, rows = _table(path)
    numbered = enumerate(rows, start=1)
    return columns, [(n, row) for n, row in numbered if any(v not in (None, "") for k, v in row.items() if k)]


def _table(path: Path) -> tuple[list[str], list[dict]]:
    """Columns and rows of a file."""
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise PromptError(f"{path}: prompts are read from {', '.join(KINDS)} files")
    if not path.is_file():
        raise PromptError(f"{path} does not exist, or is a folder: name a file of prompts")
    if not path.read_bytes().strip():
        raise PromptError(f"{path} cannot be read as {kind}: it is empty, write {KINDS[kind]}")
    try:
        text = read_text(path).decode()
        if kind == ".txt":
            return ["name", "impression"], _of_lines(text)
        if kind in (".csv", ".tsv"):
            table = parse_given(text, "name", ("name",))  # 001 is not 1
            return table.columns, table.rows(named=True)
        rows = _loaded(text) if kind == ".json" else [_loaded(line) for line in LINE.split(text) if line.strip()]
    except RecordError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise PromptError(f"{path} cannot be read as {kind}: {said}") from error
    except (OSError, ValueError, csv.Error, RecursionError, pl.exceptions.PolarsError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise PromptError(f"{path} cannot be read as {kind}: {said}; it should be {KINDS[kind]}, in UTF-8") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PromptError(f"{path} cannot be read as {kind}: it should be {KINDS[kind]}")
    return list(dict.fromkeys(column for row in rows for column in row)), rows


def _loaded(text: str) -> Any:
    return json.loads(text, object_pairs_hook=once)


def _of_lines(text: str) -> list[dict]:
    """Rows of a .txt, named by their lines, {} of one that is blank; ValueError for a table or JSON."""
    first, *lines = LINE.split(text)
    if first.lstrip().startswith(("{", "[{")) or {"name", "impression"} <= set(re.split(r'[",;\t]+', first)):
        raise ValueError(f"it begins with {first[:60]!r}, as a table or JSON does: name it .csv, .json or .jsonl")
    rows = [{"name": f"{i:06d}", "impression": line} for i, line in enumerate([first, *lines], start=1)]
    return [row if row["impression"].strip() else {} for row in rows]


def absent(value: object) -> bool:
    """Whether a table holds nothing there: null, NaN, or a word for them."""
    return value is None or value != value or isinstance(value, str) and value.strip().lower() in ABSENT


def presence(finding: str, value: object) -> int:
    """1 or 0, as a table has it of a finding: of a column with a word in it all values are texts."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number not in (0, 1):
        raise ValueError(
            f"{finding} {value!r} is neither 1 (present) nor 0 (absent): leave it empty where it is not known"
        )
    return int(number)


def with_metadata(prompt: str, metadata: Mapping) -> str:
    """A prompt that begins with the requested patient, in the released models' format.

    metadata: as in `check_metadata`, which raises ValueError for another key or value.

    >>> with_metadata("Small left apical pneumothorax.", dict(sex="Female", age=54, race="White"))
    'sex:Female, age:54.0, race:White. Small left apical pneumothorax.'
    """
    known = ", ".join(f"{key}:{value}" for key, value in check_metadata(metadata).items())
    return f"{known}. {prompt}" if known else prompt


def check_metadata(metadata: Mapping) -> dict[str, str | float]:
    """Checked metadata: `sex` (Male or Female), `age` (years), `race` (text) and `view`, those that are given.

    metadata: `sex` (Male, Female, M or F), `age` (0 to 120 years), `race` (text) and `view` (a name in
    `records.VIEWS`); what is None or empty is left out. Raises ValueError for another key or value.
    """
    unknown = [key for key in metadata if key not in METADATA]
    if unknown:
        raise ValueError(f"unknown metadata {', '.join(map(repr, unknown))}: use {', '.join(METADATA)}")
    given = {key: metadata[key] for key in METADATA if metadata.get(key) not in (None, "")}
    for key in ("sex", "race", "view"):
        if not isinstance(given.get(key, ""), str):
            raise ValueError(f"{key} {given[key]!r} is no text")
    if given.get("sex", "M") not in SEXES:
        raise ValueError(f"sex {given['sex']!r} is none of {', '.join(SEXES)}")
    if given.get("view", "PA") not in VIEWS:
        raise ValueError(f"view {given['view']!r} is none of {', '.join(VIEWS)}")
    if "sex" in given:
        given["sex"] = SEXES[given["sex"]]
    if "age" in given:
        given["age"] = _age(given["age"])
    return given


def _age(value: object) -> float:
    try:
        age = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        age = float("nan")
    if not 0 <= age <= OLDEST:
        raise ValueError(f"age {value!r} is no number of years from 0 to {OLDEST}")
    return age
