"""Noun phrases for findings, labels and places, of nouns.toml: "a small left pleural effusion at both bases"."""

import tomllib
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from chexgen_lib.records import FINDINGS
from chexgen_lib.sources import padchest_labels
from chexgen_lib.sources.mesh_headings import parse_heading

REMEMBERED = 1 << 16  # cached results of each function that is called again and again with the same few arguments
Place = tuple[str | None, str | None, str | None]  # side, site, severity


class Item(NamedTuple):
    """One thing to state: the noun of a finding or label, where it is and how severe."""

    subject: str
    noun: str
    places: tuple[Place, ...] = ()


_WORDS = tomllib.loads((files(__package__) / "nouns.toml").read_text(encoding="utf-8"))
NAMES: dict[str, list[str]] = _WORDS["findings"]
NOUNS: dict[str, str] = _WORDS["labels"]
HEAD_NOUNS: dict[str, str] = _WORDS["heads"]
HEAD_PHRASES: dict[str, dict[str, str]] = _WORDS["qualified_heads"]
SILENT: list[str] = _WORDS["silent"]
_PARTS_OF_BODY = frozenset(_WORDS["parts_of_body"])
_PLURAL = _WORDS["plurals"] | {site: f"{site}s" for site in _WORDS["paired"]}
_AT = ("base", "apex", "hilum", "costophrenic angle", "cardiophrenic angle")


@cache
def noun(label: str) -> str:
    """The noun phrase for a source's label, "a " in front of countable ones."""
    if label in FINDINGS:
        return label
    if label in NOUNS:
        return NOUNS[label]
    if label in padchest_labels.FINDING_OF:
        return label
    heading = parse_heading(label)
    adjectives = [q for q in heading.qualifiers if q not in _PARTS_OF_BODY]
    adjectives += ["pleural"] if heading.finding == "Pleural Other" else []
    qualified = HEAD_PHRASES.get(heading.head, {})
    phrase = next((qualified[q] for q in heading.qualifiers if q in qualified), None)
    phrase = phrase or HEAD_NOUNS.get(heading.head) or " ".join(reversed(heading.head.split(", ")))
    after = [q for q in heading.qualifiers if q in _PARTS_OF_BODY and q not in phrase]
    phrase = _with_adjectives(phrase, [a for a in adjectives if a not in phrase.split()])
    return f"{phrase} of the {' and '.join(after)}" if after else phrase


def _with_adjectives(phrase: str, adjectives: Sequence[str]) -> str:
    article, name = split_article(phrase)
    if "multiple" in adjectives:
        plural = name if name.endswith("s") else f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
        return " ".join([*adjectives, plural])
    return " ".join([*(["a"] if article else []), *adjectives, name])


def split_article(phrase: str) -> tuple[bool, str]:
    """Whether a noun phrase is countable, and the phrase without its article."""
    for article in ("a ", "an "):
        if phrase.startswith(article):
            return True, phrase.removeprefix(article)
    return False, phrase


def _where(side: str | None, site: str) -> str:
    """ "in the left upper lobe", "at both bases", "in the mediastinum"."""
    preposition = "at" if site in _AT else "in"
    if side == "bilateral":
        return f"{preposition} both {_PLURAL[site]}" if site in _PLURAL else f"in the {site} on both sides"
    name = _PLURAL["rib"] if site == "rib" else f"lung {site}" if site in ("base", "apex") and not side else site
    return f"{preposition} the {side} {name}" if side else f"{preposition} the {name}"


@lru_cache(maxsize=REMEMBERED)
def noun_phrases(item: Item, variant: int) -> tuple[str, ...]:
    """Noun phrases of an item, one per severity and side: "a small left pleural effusion"."""
    name = pick(NAMES[item.noun], variant) if item.noun in NAMES else item.noun
    counted, name = split_article(name)
    sized = counted and item.subject in FINDINGS or {"small", "large"} & set(item.subject.split("/"))
    grouped: dict[tuple[str | None, str | None], list[str]] = {}
    for side, site, severity in item.places or ((None, None, None),):
        if site is None:
            grouped[severity, side] = []
        else:
            grouped.setdefault((severity, None), []).append(_where(side, site))
    phrases = []
    for (severity, side), sites in grouped.items():
        grade = pick(_WORDS["sizes" if sized else "grades"][severity], variant) if severity else None
        words = " ".join(filter(None, (grade, side, name)))
        article = _article(words) if counted and side != "bilateral" and "multiple" not in name else ""
        phrases.append(" ".join([article + words, listed(sites)]).strip())
    return tuple(phrases)


def _article(words: str) -> str:
    return "an " if words[0] in "aeiou" else "a "


def listed(phrases: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"; semicolons where a phrase contains "and"."""
    inner = any(" and " in phrase for phrase in phrases) and len(phrases) > 1
    if inner:
        return "; ".join(phrases)
    return f" {last} ".join(filter(None, [", ".join(phrases[:-1]), *phrases[-1:]]))


def pick(options: Sequence[str], variant: int) -> str:
    return options[variant % len(options)]
