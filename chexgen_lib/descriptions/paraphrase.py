"""Descriptions in other words than the grammar's: hand-written sentences with which the check is audited."""

import csv
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import polars as pl

from chexgen_lib.descriptions.grammar import DENIED, SENTENCES
from chexgen_lib.descriptions.label_meaning import finding_of
from chexgen_lib.descriptions.nouns import SILENT, noun
from chexgen_lib.records import FINDINGS

_WORDS = SENTENCES["paraphrase"]
HEADS: list[str] = _WORDS["heads"]
NORMAL: list[str] = _WORDS["normal"]
DENIALS: list[str] = _WORDS["denials"]


def paraphrase(df: pl.DataFrame) -> pl.Series:
    """Descriptions with the grammar's content in hand-written sentences; a hash of the image id chooses among them."""
    columns = df.select("image_id", "age", "sex", "race", "view", "labels", "details", *FINDINGS)
    return pl.Series("description", [_paraphrased(row) for row in columns.iter_rows(named=True)], dtype=pl.String)


def _paraphrased(row: dict) -> str:
    key = hash_of(row["image_id"])
    body = [" ".join(_sentences(row, key + section)) or "Not stated." for section in (0, 7)]
    return f"{_head(row, key)} Findings: {body[0]} Impression: {body[1]}"


def _head(row: dict, key: int) -> str:
    """Patient information and technique."""
    age, sex, view = row["age"], row["sex"], row["view"]
    who = {"F": "female", "M": "male"}.get(sex, "")
    infant = age is not None and age < 1
    years = f" aged {int(age)} years" if age is not None and not infant else ""
    patient = " ".join(filter(None, ("A", row["race"], who, "infant" if infant else "patient")))
    known = view and view not in ("OTHER", "FRONTAL")
    technique = HEADS[key % len(HEADS)].format(f"{view if view in ('PA', 'AP') else view.lower()} " if known else "")
    technique = technique.replace("ap supine", "supine AP")
    return f"Patient Information: {patient}{years}. Technique: {technique}"


def _sentences(row: dict, key: int) -> Iterator[str]:
    """One section: findings that are present, other labels, then the normal sentence or two denials."""
    for finding in (f for f in FINDINGS[1:] if row[f] == 1):
        for i, place in enumerate(_places(row, finding)):
            options = wordings()[finding]
            yield placed(options[(key + i) % len(options)], *place)
    for label in row["labels"]:
        if finding_of(label) is None and label not in SILENT:
            name = noun(label).removeprefix("a ").removeprefix("an ")
            for place in _places(row, label):
                yield placed("{q}" + name + "{at} is also noted.", *place)
    if row["No Finding"] == 1:
        yield NORMAL[key % len(NORMAL)]
    else:
        absent = [f for f in DENIED if row[f] == 0]
        yield from (denial(absent[(key + i) % len(absent)], key + i) for i in range(min(2, len(absent))))


def _places(row: dict, subject: str) -> list[tuple[str | None, str | None, str | None]]:
    places = [(d["side"], d["site"], d["severity"]) for d in row["details"] if d["finding"] == subject]
    return list(dict.fromkeys(places)) or [(None, None, None)]


def placed(wording: str, side: str | None, site: str | None, severity: str | None) -> str:
    """A wording with its qualifiers ("mild left ", {q}) and its place (" in the left upper lobe", {at})."""
    at = ""
    if site:
        at = f" in the {site} bilaterally" if side == "bilateral" else f" in the {side or ''} {site}".replace("  ", " ")
    q = "".join(f"{word} " for word in (severity, None if site else side) if word)
    text = wording.format(q=q, at=at)
    return text[:1].upper() + text[1:]


def denial(finding: str, key: int) -> str:
    text = DENIALS[key % len(DENIALS)].format(_WORDS["nouns"][finding])
    return text[:1].upper() + text[1:]


def hash_of(text: str) -> int:
    return zlib.crc32(text.encode())


@cache
def wordings() -> dict[str, list[str]]:
    """Finding -> sentences that affirm it; {q} stands for severity and side, {at} for the place."""
    table: dict[str, list[str]] = {}
    with open(Path(__file__).with_name("wordings.csv"), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table.setdefault(row["finding"], []).append(row["wording"])
    return table
