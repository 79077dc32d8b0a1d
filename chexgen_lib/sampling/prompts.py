"""Files of prompts (.csv, .json, .jsonl, .txt), checked row by row before anything is sampled."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, VIEWS

METADATA = ("sex", "age", "race", "view")
ENCODED = ("source", *FINDINGS)  # further columns, which only a metadata encoder reads
COLUMNS = ("name", "impression", *METADATA, "mask", "boxes")
SEXES = {"M": "Male", "F": "Female", "Male": "Male", "Female": "Female"}
OLDEST = 120  # years
NAME = re.compile(r"[\w][\w.-]*")  # a file name: no folder, no "..", no leading dot
READERS = {".csv": pl.read_csv, ".json": pl.read_json, ".jsonl": pl.read_ndjson}


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
    boxes: "Lung Lesion 0.6 0.3 0.1 0.1; ..." (class, x, y, w, h), or in JSON a list of dicts with these keys.
    `masks` lists dicts of class and path, `boxes` dicts of class, x, y, w and h.

    Raises:
        PromptError: for an unknown or broken file, a missing column, a name that is repeated or no plain file name, a
            prompt that is empty or not text, invalid metadata (`with_metadata`), or masks and boxes that cannot be
            parsed. All rows are checked and the first ten bad ones listed. The masks' files are not opened.
    """
    path = Path(path)
    table = _read(path)
    textless = "impression" not in table.columns and not {*METADATA, *ENCODED}.isdisjoint(table.columns)
    missing = [column for column in (("name",) if textless else ("name", "impression")) if column not in table.columns]
    if missing:
        raise PromptError(f"{path}: no column {' or '.join(missing)}; found {', '.join(table.columns)}")
    if table.is_empty():
        raise PromptError(f"{path} has no rows: write one prompt a row")
    known = (*COLUMNS, *ENCODED)
    unused = [column for column in table.columns if column not in known]
    if unused:
        warnings.warn(f"{path}: not used: {', '.join(unused)}; known columns: {', '.join(known)}", stacklevel=2)
    wrong, rows, names = [], [], set()
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        name, text = row["name"], "" if textless else row["impression"]
        name = str(name) if isinstance(name, int) else name
        if not isinstance(name, str) or not NAME.fullmatch(name):
            wrong.append(f"row {number}: name {name!r} is no plain file name (letters, digits, '_', '-', '.')")
        elif name in names:
            wrong.append(f"row {number}: name {name!r} is used twice")
        elif not textless and (not isinstance(text, str) or not text.strip()):
            wrong.append(f"row {number} ({name}): impression {text!r} is empty or not text")
        else:
            try:
                given = check_metadata({key: row.get(key) for key in METADATA})
                encoded = {key: row[key] for key in ENCODED if row.get(key) not in (None, "")}
                prompt = dict(prompt=with_metadata(text, given), text=text, metadata=json.dumps(given | encoded))
                asked = dict(masks=_masks(row.get("mask"), path.parent), boxes=_boxes(row.get("boxes")))
                rows.append({"name": name, **prompt, "row": number, **asked})
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                wrong.append(f"row {number} ({name}): {error}")
        names.add(name)
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise PromptError(f"{path}: {len(wrong)} rows cannot be used:\n  " + "\n  ".join(wrong[:10]) + more)
    box = pl.Struct({"class": pl.String, **dict.fromkeys("xywh", pl.Float64)})
    mask = pl.Struct({"class": pl.String, "path": pl.String})
    return pl.DataFrame(rows, schema_overrides={"masks": pl.List(mask), "boxes": pl.List(box)})


def _masks(value: str | dict | None, folder: Path) -> list[dict]:
    if isinstance(value, str):
        pairs = [part.split("=", 1) for part in value.split(";") if part.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"mask {value!r} is not written as 'class=file; class=file'")
        value = {name.strip(): path.strip() for name, path in pairs}
    given = {name: path for name, path in (value or {}).items() if path}
    return [{"class": name, "path": str(folder / path)} for name, path in given.items()]


def _boxes(value: str | list | None) -> list[dict]:
    if isinstance(value, str):
        parts = [part.rsplit(maxsplit=4) for part in value.split(";") if part.strip()]
        if any(len(part) != 5 for part in parts):
            raise ValueError(f"boxes {value!r} are not written as 'class x y w h; class x y w h'")
        value = [dict(zip(("class", *"xywh"), part, strict=True)) for part in parts]
    return [{"class": str(box["class"]).strip(), **{key: float(box[key]) for key in "xywh"}} for box in value or []]


def _read(path: Path) -> pl.DataFrame:
    if path.suffix not in (*READERS, ".txt"):
        raise PromptError(f"{path}: prompts are read from {', '.join(READERS)} or .txt files")
    try:
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8").splitlines()
            return pl.DataFrame({"name": [f"{i:06d}" for i in range(1, len(lines) + 1)], "impression": lines})
        # A name stays as it is written: 001 is not 1.
        options = dict(infer_schema_length=None, schema_overrides={"name": pl.String}) if path.suffix == ".csv" else {}
        return READERS[path.suffix](path, **options)
    except FileNotFoundError as error:
        raise PromptError(f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise PromptError(f"{path} cannot be read as {path.suffix}: {error}") from error


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
