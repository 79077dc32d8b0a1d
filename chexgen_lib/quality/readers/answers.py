"""Answers of readers: the files that the forms export, checked row by row and unblinded with the key."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.quality.reader_study import ANCHORS
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import names_below

FORMAT = "chexgen reader answers 1"  # as in form_page/form.js
KEY = ("study", "tasks", "arms", "cases", "readers")  # what unblinds, in key.json
CHOICES = {
    "realism": ("real", "synthetic"),
    "pairs": ("A", "B"),
    "agreement": tuple(str(score) for score in ANCHORS),
}


class AnswersError(ValueError):
    """Answers that cannot be scored; the message names the file, the item and the remedy."""


def read_key(folder: Path) -> dict[str, Any]:
    """`key.json` of a study's folder.

    Raises:
        FileNotFoundError: if there is none.
        AnswersError: if it is damaged.
    """
    path = Path(folder) / "key.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: without it no answer can be unblinded (chexgen readers make)")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        if absent := [name for name in KEY if name not in key]:
            raise ValueError(f"it has no {absent[0]}")
    except (ValueError, TypeError) as error:
        raise AnswersError(f"{path} is damaged ({error}): restore it, nothing else unblinds answers") from error
    return key


def read(folder: Path) -> pl.DataFrame:
    """All answers below `folder/answers`, unblinded: reader, task, pass, item, case, arm, films, answer, seconds.

    Every file must be complete; readers without a file are left out, and a file that came twice counts once. Rows are
    in the order of the key.

    Raises:
        AnswersError: naming the file and item of what is missing, changed, unknown or of another study, or the files
            in which a reader's answers differ.
        FileNotFoundError: if there is no file or no key.
    """
    key = read_key(folder)
    given = Path(folder) / "answers"
    # Mail programs rename files, and some people make a folder for each reader: none is passed by for its name or place
    paths = [given / name for name in names_below(given, lambda name: name[0] == ".")] if given.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"{given} holds no file: put the readers' exported *.json there")
    files: dict[str, tuple[Path, dict]] = {}
    for path in paths:
        content = _content(path, key)
        first, other = files.setdefault(content["reader"], (path, content))
        if content["answers"] != other["answers"]:
            held = f"({len(content['answers'])} answers here, {len(other['answers'])} there)"
            raise AnswersError(
                f"{path}: {content['reader']!r} answered in {first.relative_to(given)} too {held}; keep the right file "
                "only, or where answers are spread over both load them into one form (Help) and export again"
            )
    rows = [row for path, content in files.values() for row in _rows(path, content, key)]
    schema = {"pass": pl.Int64, "films": pl.List(pl.String), "answer": pl.String, "seconds": pl.Float64}
    table = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    return table.select("reader", "task", "pass", "item", "case", "arm", "films", "answer", "seconds")


def _content(path: Path, key: Mapping) -> dict[str, Any]:
    """A file's content, of this study and of one of its readers."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: also what is not UTF-8
        raise AnswersError(
            f"{path}: not a file that a form exported ({error}); take it out, or ask for a new export"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("answers"), list):
        raise AnswersError(f"{path}: not a file that a form of this version exported; ask for a new export")
    if content.get("study") != key["study"]:
        raise AnswersError(f"{path}: answers of study {content.get('study')!r}, this is {key['study']!r}; remove it")
    if content.get("reader") not in list(key["readers"]):
        raise AnswersError(f"{path}: no reader {content.get('reader')!r} here; known: {', '.join(key['readers'])}")
    return content


def _rows(path: Path, content: Mapping, key: Mapping) -> list[dict]:
    """The items of a reader with their answers, in the order of the key; the file's own order does not matter."""
    reader = content["reader"]
    items = {item["item"]: item for item in key["readers"][reader]}
    given: dict[str, dict] = {}
    for number, row in enumerate(content["answers"], start=1):
        item = row.get("item") if isinstance(row, dict) else None
        if item not in list(items):
            raise AnswersError(f"{path}, row {number}: item {item!r} is not in {reader!r}'s form; ask for a new export")
        if item in given:
            raise AnswersError(f"{path}, item {item}: answered twice; ask for a new export")
        _check(path, row, items[item]["task"], key["study"], reader)
        given[item] = row
    order = list(items)
    if left := [item for item in order if item not in given]:
        raise AnswersError(
            f"{path}, item {left[0]} ({items[left[0]]['task']}, film {order.index(left[0]) + 1} of {len(order)}): no "
            f"answer, {len(given)} of {len(order)} are done; let {reader!r} open the form again and go on"
        )
    empty = {"reader": reader, "films": None}
    return [empty | items[i] | {k: given[i][k] for k in ("answer", "seconds")} for i in order]


def _check(path: Path, row: Mapping, task: str, study: str, reader: str) -> None:
    """One row: as it was exported, and an answer that the form offers."""
    item, answer, seconds = row["item"], row.get("answer"), row.get("seconds")
    timed = isinstance(seconds, int | float)
    if not timed or row.get("check") != check(study, reader, item, answer, seconds):
        raise AnswersError(f"{path}, item {item}: changed after the export (answer {answer!r}); ask for a new export")
    if task == "assisted":
        ticked = str(answer).split(";")
        valid = set(ticked) <= set(FINDINGS) and (FINDINGS[0] not in ticked or len(ticked) == 1)
    else:
        valid = answer in CHOICES[task]
    if not valid:
        raise AnswersError(f"{path}, item {item}: {answer!r} is no answer to {task}; ask for a new export")


def check(study: str, reader: str, item: str, answer: str, seconds: int) -> str:
    """CRC-32 of a row, as the form computes it: it tells an edited row, not a forged one."""
    return f"{zlib.crc32('|'.join(map(str, (study, reader, item, answer, seconds))).encode()):08x}"
