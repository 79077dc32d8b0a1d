"""Descriptions of radiographs from their Records, in the style of the paper's ED Table 5.

The paper asks GPT-4 for patient information, technique, findings as one paragraph and an impression, with every
abnormality of the metadata and nothing beyond it. Here rules write the same sections. They state only what the record
asserts: findings that are 1, with a side, site or severity where `details` has one, and a few absent findings that are
0. A hash of the image id chooses the wording, so a description is a pure function of its record. `language_model` lets
a model write them instead.
"""

import tomllib
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files

import polars as pl

from chexgen_lib.descriptions import nouns
from chexgen_lib.descriptions.label_meaning import finding_of
from chexgen_lib.descriptions.nouns import Item
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources.mesh_headings import parse_heading

ORIGIN = "grammar-1"
VARIANTS = 12  # wordings of the opening, and of the content; a hash of the image id chooses one of each
PROMPT_WORDS = 72  # of a prompt; 120 tokens of T5 or MiniLM with room to spare


def describe(df: pl.DataFrame) -> pl.DataFrame:
    """`df` with `description` and `description_origin` filled by the grammar."""
    return df.with_columns(full(df).alias("description"), pl.lit(ORIGIN).alias("description_origin"))


def full(df: pl.DataFrame) -> pl.Series:
    """Description with the four sections of ED Table 5, one string per record."""
    parts = _parts(df)
    return parts.select(
        pl.format(
            "Patient Information: {}. Technique: {}. {}",
            per_combination(parts, ("age", "sex", "race", "opening"), lambda *a: _capital(_patient(*a))),
            per_combination(parts, ("view", "opening"), _technique),
            per_combination(parts, ("states", "labels", "details", "variant"), _body),
        ).alias("description")
    ).to_series()


def prompt(df: pl.DataFrame) -> pl.Series:
    """Description as one short paragraph, positive findings first: what the generator is conditioned on.

    At most PROMPT_WORDS words, so that a text encoder with 120 tokens sees all of it; where that is too short, labels
    beyond the 14 findings are left out first. The full description is always complete.
    """
    parts = _parts(df)
    opening = per_combination(parts, ("view", "age", "sex", "race", "opening"), _opening)
    content = per_combination(parts, ("states", "labels", "details", "variant"), _compact)
    text = pl.when(content == "").then(opening).otherwise(pl.format("{} {}", opening, content))
    return parts.select(text.alias("prompt")).to_series()


# What the record asserts


def _parts(df: pl.DataFrame) -> pl.DataFrame:
    """What a description depends on, as plain text columns that can be compared and joined."""
    crc = pl.Series(map(zlib.crc32, df["image_id"].cast(pl.Binary)), dtype=pl.Int64)
    return df.with_columns(hash=crc).select(
        "view",
        "age",
        "sex",
        "race",
        **asserted(),
        opening=pl.col("hash") % VARIANTS,
        variant=pl.col("hash") // VARIANTS % VARIANTS,
    )


def asserted() -> dict[str, pl.Expr]:
    """What a record says of its image as three texts: states of the findings, labels, details (for `places_in`)."""
    fields = [pl.element().struct.field(f).fill_null("") for f in ("finding", "side", "site", "severity")]
    return {
        "states": pl.concat_str(pl.col(f).cast(pl.Int8).cast(pl.String).fill_null("?") for f in FINDINGS),
        "labels": pl.col("labels").list.join("\t"),
        "details": pl.col("details").list.eval(pl.concat_str(fields, separator="\n")).list.join("\t"),
    }


def places_in(details: str) -> dict[str, list[nouns.Place]]:
    """Finding or label -> the places that a record's details give it."""
    places: dict[str, list[nouns.Place]] = {}
    for detail in filter(None, details.split("\t")):
        subject, *place = [field or None for field in detail.split("\n")]
        places.setdefault(subject, []).append(tuple(place))
    return places


def per_combination(df: pl.DataFrame, columns: Sequence[str], write: Callable[..., str]) -> pl.Series:
    """`write(*row)` for every row's `columns`, called once for each distinct combination of them."""
    distinct = df.select(columns).unique()
    texts = pl.Series("written", [write(*row) for row in distinct.iter_rows()], dtype=pl.String)
    placed = df.select(columns).join(
        distinct.with_columns(texts), on=columns, how="left", nulls_equal=True, maintain_order="left"
    )
    return placed["written"]


@lru_cache(maxsize=nouns.REMEMBERED)
def _items(states: str, labels: str, details: str) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The items of the 14 findings, in the order of FINDINGS, and those of the labels beyond them."""
    present = [f for f, s in zip(FINDINGS, states, strict=True) if s == "1" and f != "No Finding"]
    places = places_in(details)
    named = list(filter(None, labels.split("\t")))
    by_finding: dict[str | None, list[str]] = {}
    for label in named:
        by_finding.setdefault(finding_of(label), []).append(label)
    inside = [item for f in present for item in _finding_items(f, by_finding.get(f, []), places.get(f, []))]
    outside = [
        Item(label, nouns.noun(label), tuple(places.get(label, ())))
        for label in by_finding.get(None, [])
        if label not in nouns.SILENT
    ]
    return tuple(inside), tuple(outside)


def _finding_items(finding: str, labels: list[str], places: list[nouns.Place]) -> list[Item]:
    """How a finding is worded: under its labels' names where it is clear which label a place belongs to."""
    if not labels or labels == [finding]:
        return [Item(finding, finding, tuple(places))]
    if len(labels) == 1 or not places:
        return [Item(finding, nouns.noun(label), tuple(places)) for label in labels]
    headings = [(label, _heading_places(label)) for label in labels]
    if {p for _, own in headings for p in own} == set(places):
        return [Item(finding, nouns.noun(label), own) for label, own in headings]
    return [Item(finding, finding, tuple(places)), *(Item(finding, nouns.noun(label)) for label in labels)]


def _heading_places(label: str) -> tuple[nouns.Place, ...]:
    """The places that a MeSH heading names itself."""
    heading = parse_heading(label)
    places = [(heading.side, site, heading.severity) for site in heading.sites or (None,)]
    return tuple(place for place in places if any(place))


# Sentences

SENTENCES = tomllib.loads((files(__package__) / "sentences.toml").read_text(encoding="utf-8"))
DENIED: list[str] = SENTENCES["denied"]
_FRAMES, _OTHER_FRAMES, _NORMAL = (SENTENCES["grammar"][name] for name in ("frames", "other_frames", "normal"))
_VIEWS, _APPEARANCE = SENTENCES["grammar"]["views"], SENTENCES["grammar"]["appearance"]


def _patient(age: float | None, sex: str | None, race: str | None, variant: int) -> str:
    """ "a 63-year-old woman"; only what is known."""
    adult = age is None or age >= 18
    who = {"F": "woman" if adult else "girl", "M": "man" if adult else "boy"}.get(sex, "patient")
    if age is None and sex:
        who = {"F": ("woman", "female patient"), "M": ("man", "male patient")}[sex][variant % 2]
    elif age is not None and age < 1:
        who = {"F": "infant girl", "M": "infant boy"}.get(sex, "infant")
    years = f"{int(age)}-year-old" if age is not None and age >= 1 else None
    words = " ".join(filter(None, (years, race, who)))
    vowel = words[0].lower() in "aeiou" or (years and (years.startswith(("8", "11-", "18-"))))
    return f"{'an' if vowel else 'a'} {words}"


def _technique(view: str | None, variant: int) -> str:
    return nouns.pick(_VIEWS[view or ""], variant)


def _opening(view: str | None, age: float | None, sex: str | None, race: str | None, variant: int) -> str:
    return f"{_technique(view, variant)} of {_patient(age, sex, race, variant)}."


def _body(states: str, labels: str, details: str, variant: int) -> str:
    content = (states, labels, details, variant)
    return f"Findings: {_findings(*content)} Impression: {_impression(*content)}"


def _findings(states: str, labels: str, details: str, variant: int) -> str:
    """The Findings paragraph: positives, how the first two typically look, other labels, a few negatives."""
    inside, outside = _items(states, labels, details)
    sentences = [_framed(chunk, variant + i) for i, chunk in enumerate(_chunks(inside, 3))]
    for finding in list(dict.fromkeys(item.subject for item in inside))[:2]:
        name = nouns.split_article(nouns.NAMES[finding][0])[1]
        verb = "typically appear as" if name.endswith("devices") else "typically appears as"
        sentences.append(f"{_capital(name)} {verb} {_APPEARANCE[finding]}.")
    sentences += _others(outside, variant, _OTHER_FRAMES if inside else _FRAMES[:3])
    return " ".join([*sentences, *_closing(states, variant, 3)]) or "Not stated."


def _impression(states: str, labels: str, details: str, variant: int) -> str:
    """The Impression: the abnormalities again, in other words."""
    inside, outside = _items(states, labels, details)
    phrases = _phrases((*inside, *outside), variant + 1)
    normal = [nouns.pick(_NORMAL, variant + 1)] if states[0] == "1" else []
    return " ".join([*([_capital(nouns.listed(phrases)) + "."] if phrases else []), *normal]) or "Not stated."


def _compact(states: str, labels: str, details: str, variant: int) -> str:
    """The prompt's content: positives, other labels as far as there is room, one short negative."""
    inside, outside = _items(states, labels, details)
    sentences = [_framed(chunk, variant + i) for i, chunk in enumerate(_chunks(inside, 3))]
    room = PROMPT_WORDS - 14 - sum(len(s.split()) for s in sentences)  # 14: opening and negatives
    kept = []
    for item in outside:
        room -= sum(len(p.split()) for p in nouns.noun_phrases(item, variant)) + 1
        if room < 4:
            break
        kept.append(item)
    sentences += _others(kept, variant, _OTHER_FRAMES if inside else _FRAMES[:3])
    return " ".join([*sentences, *_closing(states, variant, 1 if inside else 2)])


def _others(items: Sequence[Item], variant: int, frames: Sequence[str]) -> list[str]:
    phrases = _phrases(items, variant)
    return [nouns.pick(frames, variant).format(nouns.listed(phrases))] if phrases else []


def _closing(states: str, variant: int, most: int) -> list[str]:
    """The normal sentence where the record says No Finding, else up to `most` absent findings."""
    if states[0] == "1":
        return [nouns.pick(_NORMAL, variant)]
    state = dict(zip(FINDINGS, states, strict=True))
    absent = [f for f in DENIED if state[f] == "0"]
    chosen = [f for f in DENIED if f in {absent[(variant + i) % len(absent)] for i in range(most)}] if absent else []
    names = [nouns.split_article(nouns.NAMES[f][0])[1] for f in chosen]
    return [f"No {nouns.listed(names, 'or')}."] if names else []


def _framed(items: Sequence[Item], variant: int) -> str:
    """One sentence for up to three items."""
    phrases = _phrases(items, variant)
    alone = len(phrases) == 1 and items[0].noun in nouns.NAMES and not phrases[0].endswith("s")
    frames = _FRAMES if alone else _FRAMES[:3]
    return nouns.pick(frames, variant).format(nouns.listed(phrases))


def _phrases(items: Sequence[Item], variant: int) -> list[str]:
    return [phrase for item in items for phrase in nouns.noun_phrases(item, variant)]


def _chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
