"""What a language model is told about a radiograph: the facts its description may state, and nothing else.

`Facts` is everything that leaves the machine. It has no field for an id, a path, a date or a split, so none can be sent
by mistake. Findings that are unknown or uncertain are left out too: what is not sent cannot be stated. In the three
places where a source's own words pass (race, labels, report), words with five or more digits and numeric dates are
replaced by MASK; names of people are not recognised, so send reports only where the source has removed them.
"""

import zlib
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from chexgen_lib.descriptions.grammar import VARIANTS, asserted, per_combination, places_in
from chexgen_lib.descriptions.label_meaning import finding_of
from chexgen_lib.descriptions.nouns import SILENT, noun
from chexgen_lib.records import FINDINGS

MASK = "[removed]"
# Image, patient, study and accession numbers, hashes and timestamps; then dates such as 3/4/99.
IDENTIFYING = r"\S*(?:\d\S*){5,}|\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"


class Sent(BaseModel):
    """Base of what is sent: immutable, and closed to fields that are not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(Sent):
    """Where a finding is, and how severe; null where the record does not say."""

    side: Literal["left", "right", "bilateral"] | None
    site: str | None
    severity: Literal["mild", "moderate", "severe"] | None


class Item(Sent):
    """A finding, or a label beyond the 14 findings, with the source's own names for a finding."""

    name: str
    labels: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()


class Facts(Sent):
    """What a description may state.

    age is in whole years (0 for infants); `normal` is the finding "No Finding"; `wording` (1 to VARIANTS) is a hash of
    the image id that varies the style, too small to tell images apart.
    """

    age: int | None
    sex: Literal["female", "male"] | None
    race: str | None
    view: str | None
    normal: bool
    present: tuple[Item, ...]
    absent: tuple[str, ...]
    other: tuple[Item, ...]
    wording: int
    report: str | None


def project(df: pl.DataFrame, with_report: bool = False) -> pl.Series:
    """`Facts` of each record as JSON text; null where there is nothing to describe.

    Args:
        df: Records.
        with_report: also send the radiologist's findings and impression, masked.
    """
    said = asserted()
    words = pl.concat_str("report", "impression", separator="\n", ignore_nulls=True)
    wording = pl.col("image_id").map_elements(lambda i: zlib.crc32(i.encode()) % VARIANTS + 1, return_dtype=pl.Int64)
    parts = df.select(
        "age",
        "sex",
        "view",
        race=masked(pl.col("race")),
        states=said["states"],
        labels=masked(said["labels"]),
        details=masked(said["details"]),
        wording=wording,
        report=masked(words) if with_report else pl.lit(None, pl.String),
    )
    texts = per_combination(parts, parts.columns, lambda *row: _facts(**dict(zip(parts.columns, row, strict=True))))
    return texts.alias("facts")


def masked(text: pl.Expr) -> pl.Expr:
    """A source's words without what may identify somebody."""
    return text.str.replace_all(IDENTIFYING, MASK)


def _facts(*, states: str, labels: str, details: str, age: float | None, sex: str | None, **plain) -> str | None:
    """The JSON of one combination of the columns; plain: view, race, wording and report, which pass as they are."""
    state = dict(zip(FINDINGS, states, strict=True))
    fields = ("side", "site", "severity")
    places = {s: [Place(**dict(zip(fields, p, strict=True))) for p in own] for s, own in places_in(details).items()}
    named: dict[str | None, list[str]] = {}
    for label in dict.fromkeys(labels.split("\t")):
        if label not in SILENT:
            named.setdefault(finding_of(label), []).append(label)

    def item(name: str, subject: str, own: list[str]) -> Item:
        return Item(name=name, labels=tuple(map(_spoken, own)), places=tuple(places.get(subject, ())))

    facts = Facts(
        age=None if age is None else int(age),
        sex={"F": "female", "M": "male"}.get(sex),
        normal=state["No Finding"] == "1",
        present=tuple(
            item(name_of(f), f, [label for label in named.get(f, ()) if label != f])
            for f in FINDINGS[1:]
            if state[f] == "1"
        ),
        absent=tuple(name_of(f) for f in FINDINGS[1:] if state[f] == "0"),
        other=tuple(item(_spoken(label), label, []) for label in named.get(None, ())),
        **plain,
    )
    nothing = not (facts.normal or facts.present or facts.absent or facts.other)
    return None if nothing else facts.model_dump_json()


def name_of(finding: str) -> str:
    """A finding's name in running text."""
    spoken = {"Effusion": "pleural effusion", "Edema": "pulmonary edema", "Pleural Other": "pleural abnormality"}
    return spoken.get(finding, finding.lower())


def _spoken(label: str) -> str:
    text = noun(label)
    return text.removeprefix("an ").removeprefix("a ") if text != label else text
