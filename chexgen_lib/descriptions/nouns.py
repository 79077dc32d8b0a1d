"""Noun phrases for findings, labels and places: "a small left pleural effusion at both bases"."""

from collections.abc import Sequence
from functools import cache, lru_cache
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


# Names of a finding; "a " marks one that is counted, so that it takes an article and sizes (small, large).
NAMES: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("mediastinal widening", "cardiomediastinal enlargement"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "enlargement of the heart"),
    "Lung Opacity": ("lung opacity", "pulmonary opacity", "airspace opacity"),
    "Lung Lesion": ("a lung lesion", "a pulmonary lesion", "a focal lung lesion"),
    "Edema": ("pulmonary edema", "edema of the lungs"),
    "Consolidation": ("consolidation", "lung consolidation"),
    "Pneumonia": ("pneumonia",),
    "Atelectasis": ("atelectasis", "atelectatic change"),
    "Pneumothorax": ("a pneumothorax",),
    "Effusion": ("a pleural effusion",),
    "Pleural Other": ("pleural disease other than fluid", "a pleural abnormality"),
    "Fracture": ("a fracture", "a bone fracture"),
    "Support Devices": ("support devices", "medical devices in place"),
}
# Labels whose wording is not an English noun phrase; all others are used as they are.
NOUNS = {
    "Pleural Effusion": "a pleural effusion",
    "Infiltration": "pulmonary infiltration",
    "Mass": "a lung mass",
    "Nodule": "a lung nodule",
    "Pleural_Thickening": "pleural thickening",
    "Fibrosis": "pulmonary fibrosis",
    "Hernia": "a hernia",
    "nodule": "a lung nodule",
    "mass": "a mass",
    "pulmonary mass": "a pulmonary mass",
    "infiltrates": "pulmonary infiltrates",
    "COPD signs": "signs of COPD",
    "asbestosis signs": "signs of asbestosis",
    "NSG tube": "a nasogastric tube",
    "dai": "an implanted defibrillator",
    "bullas": "bullae",
    "callus rib fracture": "rib fracture with callus",
    "atelectasis basal": "basal atelectasis",
    "pectum excavatum": "pectus excavatum",
    "pectum carinatum": "pectus carinatum",
    "pneumoperitoneo": "pneumoperitoneum",
    "hypoexpansion basal": "basal hypoexpansion",
    "heart valve calcified": "a calcified heart valve",
    "surgery": "changes after surgery",
    "surgery neck": "changes after surgery of the neck",
    "surgery breast": "changes after surgery of the breast",
    "surgery lung": "changes after surgery of the lung",
    "surgery heart": "changes after surgery of the heart",
    "surgery humeral": "changes after surgery of the humerus",
    "end on vessel": "a vessel seen end on",
    "metal": "metal material",
    "mediastinic lipomatosis": "mediastinal lipomatosis",
    "endoprosthesis": "an endoprosthesis",
}
# MeSH heads, lower case.
HEAD_NOUNS = {
    "cicatrix": "scarring",
    "calcinosis": "calcification",
    "thoracic vertebrae": "changes of the thoracic spine",
    "lumbar vertebrae": "changes of the lumbar spine",
    "cervical vertebrae": "changes of the cervical spine",
    "spine": "changes of the spine",
    "fractures, bone": "a fracture",
    "nodule": "a nodule",
    "mass": "a mass",
    "heart atria": "cardiac atria",
    "heart ventricles": "cardiac ventricles",
    "opacity": "opacity",
    "density": "density",
    "granuloma": "a granuloma",
    "calcified granuloma": "a calcified granuloma",
    "infiltrate": "an infiltrate",
    "pneumothorax": "a pneumothorax",
    "pleural effusion": "a pleural effusion",
    "lung diseases, interstitial": "interstitial lung disease",
    "pulmonary disease, chronic obstructive": "chronic obstructive pulmonary disease",
    "bone diseases, metabolic": "metabolic bone disease",
    "cardiac shadow": "cardiac silhouette",
    "hernia, hiatal": "a hiatal hernia",
    "implanted medical device": "an implanted medical device",
    "catheters, indwelling": "an indwelling catheter",
    "tube, inserted": "an inserted tube",
    "medical device": "a medical device",
}
HEAD_PHRASES = {
    ("lung", "hypoinflation"): "hypoinflation of the lungs",
    ("lung", "hyperdistention"): "hyperdistention of the lungs",
    ("lung", "azygos lobe"): "an azygos lobe",
    ("lung", "interstitial"): "interstitial lung structures",
    ("aorta", "tortuous"): "a tortuous aorta",
    ("aorta, thoracic", "tortuous"): "a tortuous thoracic aorta",
    ("diaphragm", "elevated"): "an elevated diaphragm",
    ("diaphragm", "flattened"): "flattened diaphragm",
    ("costophrenic angle", "blunted"): "blunted costophrenic angle",
    ("cardiac shadow", "enlarged"): "enlarged cardiac silhouette",
}
_PARTS_OF_BODY = frozenset(
    "lymph nodes; blood vessels; coronary vessels; heart; bronchi; trachea; diaphragm; sulcus; aortic valve; "
    "mitral valve; pulmonary artery; heart ventricles; heart atria; esophagus; azygos lobe; adipose tissue; "
    "breast implants; pleural sinus; trachea, carina".split("; ")
)
# Labels that do not describe the image's content.
SILENT = ("No Indexing", "Technical Quality of Image Unsatisfactory", "suboptimal study", "unchanged", "")


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
    phrase = next(
        (HEAD_PHRASES[heading.head, q] for q in heading.qualifiers if (heading.head, q) in HEAD_PHRASES), None
    )
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


_GRADES = {"mild": ("mild", "slight"), "moderate": ("moderate",), "severe": ("severe", "marked")}
_SIZES = {"mild": ("small",), "moderate": ("moderate",), "severe": ("large",)}
_PLURAL = {
    "base": "bases",
    "apex": "apices",
    "hilum": "hila",
    "rib": "ribs",
    "humerus": "humeri",
    "axilla": "axillae",
}
_PAIRED = (
    "upper lobe, middle lobe, lower lobe, upper lung field, middle lung field, lower lung field, clavicle, scapula, "
    "shoulder, breast, costophrenic angle, cardiophrenic angle, perihilar region, retrocardiac region, "
    "paratracheal region"
)
_PLURAL |= {site: f"{site}s" for site in _PAIRED.split(", ")}
_AT = ("base", "apex", "hilum", "costophrenic angle", "cardiophrenic angle")


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
        grade = pick((_SIZES if sized else _GRADES)[severity], variant) if severity else None
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
