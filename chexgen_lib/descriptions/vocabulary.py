"""The words of radiologists, from vocabulary.toml, and other wordings of them; phrases in the singular, lower case."""

import re
import tomllib
from functools import cache
from importlib.resources import files

_WORDS = tomllib.loads((files(__package__) / "vocabulary.toml").read_text(encoding="utf-8"))
FINDING_WORDS: dict[str, list[str]] = _WORDS["findings"]
SITE_WORDS: dict[str, list[str]] = _WORDS["sites"]
SIDE_WORDS: dict[str, list[str]] = _WORDS["sides"]
SEVERITY_WORDS: dict[str, list[str]] = _WORDS["severities"]
NO_FINDING_WORDS: list[str] = _WORDS["no_findings"]
NO_NEGATIONS: list[str] = _WORDS["no_negations"]
# (which way, where) -> the cues that turn a statement
CUES = {(state, where): words for state, cues in _WORDS["cues"].items() for where, words in cues.items()}
EXPLAINS: list[str] = _WORDS["explains"]
BOUNDARIES: list[str] = _WORDS["boundaries"] + EXPLAINS
ENDS: list[str] = _WORDS["ends"]
DEFINITIONS: list[str] = _WORDS["definitions"]
FRAME = frozenset(_WORDS["frame"])

_DOUBT = r"may|might|could|would|possibly|probably|likely|suggest\w*"
# Other wordings of the vocabulary above: pattern in a lower-case sentence -> its canonical words.
_LINK = (
    r"((?: (?:size|shadow|silhouette|contours?|margins?|is|are|was|were|has|been|appears?|remains?|to|be|not|no|longer|"
    r"least|again|still|stable|stably|overall|persistently|mildly|slightly|minimally|moderately|markedly|severely|"
    r"grossly|within|at|the|upper|limits|of|in|may|might|possibly|likely|probably|borderline|somewhat|mild|moderate|"
    r"severe|diffusely|and|unchanged|left|right|"
    r"bilateral|clearly|definitely|frankly|significantly))*?)"
)
_NORMAL = r"(?:normal|within normal limits?|unremarkable|top normal|not enlarged|normal limits)\b"
_HEART = r"(?:heart size|cardiac size|heart|cardiac silhouette|cardiac shadow|cardiac contours?|cardiothoracic ratio)"
_MEDIASTINUM = r"(?:(?:superior )?mediastinum|(?:cardio)?mediastinal (?:contours?|silhouette|shadow|width))"
_BONES = r"(?:ribs?|clavicle|humerus|scapula|sternum)"
# Each is tried only where one of its triggers occurs, because most sentences need none.
PHRASINGS = [
    ("xxxx", r"\bxxxx\b ?", ""),  # removed by Open-i's de-identification
    ("s/p", r"\bs/p\b", "status post"),
    (" to", rf"\b({_DOUBT})((?: \w+)?) (?:due|secondary|related) to\b", r"\1\2"),
    ("ble with|ent with", rf"\b({_DOUBT})((?: \w+)?) (?:compatible|consistent) with\b", r"\1\2"),
    ("air space|air-space", r"\bair[- ]space", "airspace"),
    ("parenchymal", r"\bpleural?[- ]parenchymal", "pleural"),
    ("bibas|biapical", r"\bbi(basilar|basal|apical)\b", r"bilateral \1"),
    ("normal|enlarged|unremarkable", rf"\b{_HEART}{_LINK} {_NORMAL}", "; no cardiomegaly ;"),
    ("normal", rf"\bnormal {_HEART}", "; no cardiomegaly ;"),
    (
        "enlarge|increased|large",
        rf"\b{_HEART}{_LINK} (?:enlarged|increased|enlargement|large)(?: in size)?\b",
        r"; \1 cardiomegaly",
    ),
    (
        "mediast",
        rf"\b{_MEDIASTINUM}{_LINK} (?:wide|widened|enlarged|prominent|broad|broadened|widening)\b",
        r"; \1 mediastinal widening",
    ),
    ("mediast", rf"\b{_MEDIASTINUM}{_LINK} {_NORMAL}", "; no mediastinal widening ;"),
    (
        "mediast",
        r"\b(?:prominence|widening|enlargement) of the (?:(?:superior|upper) )?mediastinum\b",
        "mediastinal widening",
    ),
    ("mediast", r"\bprominent mediastinal (?:contours?|silhouette)\b", "mediastinal widening"),
    ("clear", rf"\blungs?{_LINK} clear(?! of\b)(?: bilaterally)?\b", "; no lung opacity ;"),
    ("clear", r"\bclear lungs\b", "; no lung opacity ;"),
    ("fractured|broken", rf"\b({_BONES})((?: \w+)*?){_LINK} (?:fractured|broken)\b", r"; \2\3 fracture of the \1"),
    ("fractured", rf"\bfractured ((?:left |right )?(?:\w+ )?{_BONES})\b", r"fracture of the \1"),
    ("thicken", r"\bthickening (?:of|in) the (?:(minor|major) )?fissures?\b", r"\1 fissure thickening"),
    ("thicken", r"\bpleura((?: \w+)*?) (?:is|are|appears?) ((?:\w+ ){0,3}?)thickened", r"\1 \2 pleural thickening"),
    ("thicken", r"\bthicken(?:ing of the|ed)((?: \w+){0,3}?) pleura\b", r"\1 pleural thickening"),
    (
        "blunting of",
        r"\bblunting of the((?: left| right| both)?)(?: lateral| posterior)? costophrenic (?:angles?|sulc\w+)",
        r"\1 costophrenic angle blunting",
    ),
    (
        "normal",
        r"\bnormal chest\b(?! wall)|\bnormal (?:chest )?(?:radiograph|examination|study|x-ray)\b",
        "no acute abnormality",
    ),
]


@cache
def singular(token: str) -> str:
    """A word in the singular, and in the spelling that labels and descriptions share."""
    if token.endswith("ies"):
        token = token[:-3] + "y"
    elif token.endswith("sses"):
        token = token[:-2]
    elif len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "is", "us")):
        token = token[:-1]
    return _WORDS["same"].get(token, token)


@cache
def words_in(label: str) -> frozenset[str]:
    return frozenset(singular(token) for token in re.findall(r"[a-z0-9][a-z0-9'-]*", label.lower().replace("_", " ")))
