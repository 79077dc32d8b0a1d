"""The MeSH headings of Open-i, taken apart: finding, side, sites and severity."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_WORDS = tomllib.loads((files(__package__) / "mesh_headings.toml").read_text(encoding="utf-8"))
_FINDING_OF = {head: finding for finding, heads in _WORDS["heads"].items() for head in heads}
_QUALIFIED: dict[str, dict[str, str]] = _WORDS["qualified"]
_SITES: dict[str, str] = _WORDS["sites"]
_SEVERITIES: dict[str, str] = _WORDS["severities"]
MAYBE: dict[str, list[str]] = _WORDS["maybe"]
_OF_LUNG = ("Lung Opacity", "Lung Lesion")
_SIDES = ("left", "right", "bilateral")


class Heading(NamedTuple):
    """A MeSH heading taken apart; `qualifiers` are the words that are no side, site or severity."""

    head: str
    finding: str | None
    side: str | None
    sites: tuple[str, ...]
    severity: str | None
    qualifiers: tuple[str, ...]
    borderline: bool


@cache
def parse_heading(label: str) -> Heading:
    """`Opacity/lung/base/left/streaky` -> "opacity", Lung Opacity, left, ("base",), None, ("streaky",)."""
    head, *parts = [part.strip().lower() for part in label.split("/")]
    qualified = _QUALIFIED.get(head, {})
    finding = _FINDING_OF.get(head) or next((qualified[p] for p in parts if p in qualified), None)
    if finding in _OF_LUNG and set(_WORDS["elsewhere"]).intersection(parts) and "lung" not in parts:
        finding = None
    sides = [part for part in parts if part in _SIDES]
    sites = tuple(dict.fromkeys(_SITES[part] for part in parts if part in _SITES))
    severity = next((_SEVERITIES[part] for part in parts if part in _SEVERITIES), None)
    placed = {*_SIDES, *_SITES, *_SEVERITIES, *_WORDS["silent"]}
    qualifiers = tuple(dict.fromkeys(part for part in parts if part not in placed))
    side = "bilateral" if len(set(sides)) > 1 else next(iter(sides), None)
    return Heading(head, finding, side, sites, severity, qualifiers, "borderline" in parts)


def finding_of(label: str) -> str | None:
    """The CheXpert finding that a heading means, or None."""
    return parse_heading(label).finding
