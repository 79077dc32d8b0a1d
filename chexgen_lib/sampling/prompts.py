"""Files of prompts (.csv, .json, .jsonl, .txt), checked row by row before anything is sampled."""

import re
from pathlib import Path

import polars as pl

METADATA = ("sex", "age", "race", "view")
NAME = re.compile(r"[\w][\w.-]*")  # a file name: no folder, no "..", no leading dot
READERS = {".csv": pl.read_csv, ".json": pl.read_json, ".jsonl": pl.read_ndjson}


class PromptError(ValueError):
    """A file of prompts that cannot be used; the message names the row and the remedy."""


def read_prompts(path: str | Path) -> pl.DataFrame:
    """The rows of a prompt file: columns `name`, `prompt` (with its metadata merged in) and `row` (from 1).

    Tables need the columns `name` and `impression`, and may have `sex`, `age`, `race` and `view`; a `.txt` file has one
    prompt a line, named by its line number. Other columns are ignored.

    Raises:
        PromptError: for an unknown or broken file, a missing column, a name that is repeated or no plain file name, or
            a prompt that is empty or not text. All rows are checked and the first ten bad ones listed.
    """
    path = Path(path)
    table = _read(path)
    missing = [column for column in ("name", "impression") if column not in table.columns]
    if missing:
        raise PromptError(f"{path}: no column {' or '.join(missing)}; found {', '.join(table.columns)}")
    if table.is_empty():
        raise PromptError(f"{path} has no rows: write one prompt a row")
    wrong, rows, names = [], [], set()
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        name, text = row["name"], row["impression"]
        name = str(name) if isinstance(name, int) else name
        if not isinstance(name, str) or not NAME.fullmatch(name):
            wrong.append(f"row {number}: name {name!r} is no plain file name (letters, digits, '_', '-', '.')")
        elif name in names:
            wrong.append(f"row {number}: name {name!r} is used twice")
        elif not isinstance(text, str) or not text.strip():
            wrong.append(f"row {number} ({name}): impression {text!r} is empty or not text")
        elif not _is_age(row.get("age")):
            wrong.append(f"row {number} ({name}): age {row['age']!r} is no number of years")
        else:
            prompt = with_metadata(text, **{key: row.get(key) for key in METADATA})
            rows.append({"name": name, "prompt": prompt, "row": number})
        names.add(name)
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise PromptError(f"{path}: {len(wrong)} rows cannot be used:\n  " + "\n  ".join(wrong[:10]) + more)
    return pl.DataFrame(rows)


def _is_age(value: object) -> bool:
    try:
        return value in (None, "") or 0 <= float(value) < 130
    except (TypeError, ValueError):
        return False


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


def with_metadata(
    prompt: str,
    sex: str | None = None,
    age: float | None = None,
    race: str | None = None,
    view: str | None = None,
) -> str:
    """A prompt that begins with who is asked for, in the released models' format.

    >>> with_metadata("Small left apical pneumothorax.", sex="Female", age=54, race="White")
    'sex:Female, age:54.0, race:White. Small left apical pneumothorax.'
    """
    age = None if age in (None, "") else float(age)
    given = dict(sex=sex, age=age, race=race, view=view)
    known = ", ".join(f"{key}:{value}" for key, value in given.items() if value not in (None, ""))
    return f"{known}. {prompt}" if known else prompt
