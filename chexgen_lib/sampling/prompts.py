"""Files of prompts (.csv, .json, .jsonl, .txt), checked row by row before anything is sampled."""

import csv
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from chexgen_lib.models.text import foreign
from chexgen_lib.records import FINDINGS, VIEWS, RecordError
from chexgen_lib.sampling.conditions import read_boxes
from chexgen_lib.sources.files import read_text
from chexgen_lib.sources.table import parse_given

METADATA = ("sex", "age", "race", "view")
ENCODED = ("source", *FINDINGS)  # further columns, which only a metadata encoder reads
COLUMNS = ("name", "impression", *METADATA, "mask", "boxes")
SEXES = {"M": "Male", "F": "Female", "Male": "Male", "Female": "Female"}
OLDEST = 120  # years
NAME = re.compile(r"[\w][\w.-]{0,127}")  # a file name: no folder, no "..", no leading dot, short enough for every disk
NO_TEXT = {"", "nan", "none", "null", "<na>", "n/a"}  # what tables hold for a text that is not there
KINDS = {
    ".csv": "a table with commas and a line of column names",
    ".json": "a list of objects, [{...}, ...]",
    ".jsonl": "an object a line, {...}",
    ".txt": "a prompt a line",
}


class PromptError(ValueError):
    """A file of prompts that cannot be used; the message names the row and the remedy."""


def read_prompts(path: str | Path) -> pl.DataFrame:
    """The rows of a prompt file: columns `name`, `prompt` (metadata merged in), `row` (from 1), `masks` and `boxes`.

    For models with a metadata encoder there are `text`, the prompt without metadata, and `metadata`, what else the row
    gives, in JSON: `check_metadata`, and the columns `source` and findings as they are (the encoder checks them).

    Tables need the columns `name` and `impression`, and may have `sex`, `age`, `race`, `view`, `mask` and `boxes`; a
    `.txt` file has one prompt per line, named by its line number. `impression` may be missing where another column is
    for a metadata encoder; `text` is then empty. A warning lists columns that no model uses.

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
    if missing:
        raise PromptError(f"{path}: no column {' or '.join(missing)}; found {', '.join(columns)}")
    if not table:
        raise PromptError(f"{path} has no rows: write one prompt a row")
    known = (*COLUMNS, *ENCODED)
    unused = [column for column in columns if column not in known]
    if unused:
        warnings.warn(f"{path}: not used: {', '.join(unused)}; known columns: {', '.join(known)}", stacklevel=2)
    wrong, rows, names = [], [], set()
    for number, row in enumerate(table, start=1):
        try:
            name = _name(row.get("name"), names)
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
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _NameError(f"name {name!r} is no plain file name (up to 128 letters, digits, '_', '-', '.')")
    if name.casefold() in names:  # some disks do not tell a file A from a file a
        raise _NameError(f"name {name!r} is used twice")
    names.add(name.casefold())
    return name


def _prompt(row: dict, text: object, path: Path) -> dict:
    """What a row asks, in columns of `read_prompts`; ValueError where it cannot be understood."""
    if not isinstance(text, str) or (text.strip().lower() in NO_TEXT and "impression" in row):
        raise ValueError(f"impression {text!r} is empty or not text")
    if foreign(text):
        raise ValueError(f"impression {text[:60]!r} is not in English")
    given = check_metadata({key: row.get(key) for key in METADATA})
    encoded = {key: row[key] for key in ENCODED if row.get(key) not in (None, "")}
    prompt = {"prompt": with_metadata(text, given), "text": text, "metadata": json.dumps(given | encoded)}
    return prompt | {"masks": _masks(row.get("mask"), path.parent), "boxes": read_boxes(row.get("boxes"))}


def _masks(value: str | dict | None, folder: Path) -> list[dict]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"mask {value!r} is no JSON ({error})") from error
    elif isinstance(value, str):
        pairs = [part.split("=", 1) for part in value.split(";") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"mask {value!r} is not written as 'class=file; class=file'")
        value = {name.strip(): path.strip() for name, path in pairs}
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"mask {value!r} is not written as {{class: file}}")
    given = {name: path for name, path in (value or {}).items() if path}
    if not all(isinstance(path, str) for path in given.values()):
        raise ValueError(f"mask {value!r} does not name a file for each class")
    return [{"class": name, "path": str(folder / path)} for name, path in given.items()]


def _read(path: Path) -> tuple[list[str], list[dict]]:
    """Columns and rows of a file."""
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise PromptError(f"{path}: prompts are read from {', '.join(KINDS)} files")
    if not path.is_file():
        raise PromptError(f"{path} does not exist, or is a folder: name a file of prompts")
    try:
        text = read_text(path).decode()
        if kind == ".txt":
            lines = text.splitlines()
            return ["name", "impression"], [{"name": f"{i:06d}", "impression": line} for i, line in enumerate(lines, 1)]
        if kind == ".csv":
            table = parse_given(text, "name", ("name",))  # 001 is not 1
            return table.columns, table.rows(named=True)
        rows = json.loads(text) if kind == ".json" else _lines(text)
    except RecordError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise PromptError(f"{path} cannot be read as {kind}: {said}") from error
    except (OSError, ValueError, csv.Error, RecursionError, pl.exceptions.PolarsError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise PromptError(f"{path} cannot be read as {kind}: {said}; it should be {KINDS[kind]}, in UTF-8") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PromptError(f"{path} cannot be read as {kind}: it should be {KINDS[kind]}")
    return list(dict.fromkeys(column for row in rows for column in row)), rows


def _lines(text: str) -> list:
    """Objects of a .jsonl: a text may hold other ends of a line, such as U+2028, which JSON does not escape."""
    return [json.loads(line) for line in re.split(r"[\r\n]", text) if line.strip()]


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
        age = float(value)
    except (TypeError, ValueError):
        age = float("nan")
    if not 0 <= age <= OLDEST:
        raise ValueError(f"age {value!r} is no number of years from 0 to {OLDEST}")
    return age
