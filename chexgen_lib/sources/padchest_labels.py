"""What PadChest's labels and locations mean; BIMCV-COVID19 uses the same."""

import re
import tomllib
from functools import lru_cache
from importlib.resources import files

import polars as pl

Detail = tuple[str, str | None, str | None]  # finding or label, side, site
_WORDS = tomllib.loads((files(__package__) / "padchest_labels.toml").read_text(encoding="utf-8"))
FINDING_OF: dict[str, str | None] = {
    label: finding for finding, labels in _WORDS["findings"].items() for label in labels
} | dict.fromkeys(_WORDS["other"])
INCOMPLETE: list[str] = _WORDS["incomplete"]
MAYBE: dict[str, list[str]] = _WORDS["maybe"]
# Location -> (side, site)
LOCATIONS: dict[str, tuple[str | None, str | None]] = {
    location: (side or None, site or None) for location, (side, site) in _WORDS["locations"].items()
} | dict.fromkeys(_WORDS["silent"], (None, None))
_MIDLINE = ("Cardiomegaly", "Enlarged Cardiomediastinum")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_SIDED = re.compile(r" (both sides|left side|right side)$")


def unlisted(text: pl.Expr) -> pl.Expr:
    """Whether labels are no list of quoted names, as `['nodule']` is: what is not quoted would be taken for absent."""
    rest = text.str.replace_all(_QUOTED.pattern, "").str.replace_all(r"[\s,]", "")
    return ~text.str.contains(_QUOTED.pattern) | (rest != "[]")


def parse_details(text: str) -> list[Detail]:
    """(finding, side, site) from one LabelsLocalizationsBySentence, e.g. `[['pleural effusion', 'loc left']]`.

    Locations follow the label, or the labels, that they belong to. After several labels they are used only if all mean
    the same finding: the table does not say which of them is meant, and no site is invented.
    """
    details = (detail for sentence in text.split("]") for detail in _sentence(sentence))
    return list(dict.fromkeys(details))


@lru_cache(maxsize=1 << 16)
def _sentence(text: str) -> tuple[Detail, ...]:
    """The details of one sentence, which never depend on those before it."""
    details: list[Detail] = []
    labels: list[str] = []
    places: list[str] = []
    for word in (quoted.strip(" '\"") for quoted in _QUOTED.findall(text)):
        if word.startswith("loc "):
            places.append(word[4:])
            continue
        if places:
            details += _place(labels, places)
            labels, places = [], []
        labels.append(_SIDED.sub("", word))
    return tuple(details + _place(labels, places)) if places else tuple(details)


def _place(labels: list[str], places: list[str]) -> list[Detail]:
    """The details of labels that share their locations; none where they mean different findings."""
    labels = [label for label in labels if label in FINDING_OF and label != "normal"]
    subjects = {FINDING_OF[label] or label for label in labels}
    if len(subjects) != 1:
        return []
    known = [LOCATIONS[place] for place in places if place in LOCATIONS]
    named = [site for stem, site in _WORDS["named"].items() if any(stem in label for label in labels)]
    known = [(side, None if site and any(n in site for n in named) else site) for side, site in known]
    sides = {side for side, site in known if side and not site}
    both = [(side, site) for side, site in known if side and site]
    sites = {site: None for side, site in known if site and not side and site not in {b for _, b in both}}
    # With both sides and several sites it is not stated which site is on which side.
    unsaid = bool(both) or (len(sides) > 1 and len(sites) > 1)
    side = None if unsaid else "bilateral" if len(sides) > 1 else next(iter(sides), None)
    pairs = both + [(side, site) for site in sites] or [(side, None)]
    subject = subjects.pop()
    if subject in _MIDLINE:  # "left" there tells which part of the heart is large
        return []
    return [(subject, side, site) for side, site in pairs if side or site]
