"""Does a description say what its Record says? (the paper's second stage, there done by Qwen-2.5; ED Table 5)

The check reads a description with a vocabulary of its own: it knows how radiologists name findings, sides,
sites and severities and how they negate, and nothing of the grammar that wrote the text. So it serves for
any writer. ``check`` compares what it read with the record:

- each finding that is 1 is affirmed; no finding that is not 1 is affirmed; only a finding that is 0 is denied
- side, site and severity are those of ``details``, no more and no fewer
- labels beyond the 14 findings are named, and no such label that the record lacks
- age, sex and view are the record's
- nothing is speculated, and there is something to describe
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple

import polars as pl

from chexgen_lib import sources
from chexgen_lib.curation.describe import SILENT, per_combination
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources import nih, openi, padchest

PASS = "pass"
Place = tuple[str | None, str | None, str | None]  # side, site, severity

# How reports name the findings (singular; a plural s is understood).
FINDING_WORDS = {
    "No Finding": "acute cardiopulmonary abnormality, acute cardiopulmonary disease, "
    "acute cardiopulmonary process, acute abnormality of the heart or lungs, acute cardiopulmonary finding, "
    "acute abnormality, acute disease, acute process, acute finding, acute pulmonary abnormality, "
    "acute pulmonary disease, acute pulmonary process, acute pulmonary finding, acute intrathoracic abnormality, "
    "acute intrathoracic process, acute intrathoracic disease, acute chest disease, acute thoracic abnormality, "
    "active disease, active cardiopulmonary disease, active pulmonary disease, active lung disease, "
    "active process, acute or active disease, abnormal finding, abnormality",
    "Enlarged Cardiomediastinum": "mediastinal widening, cardiomediastinal enlargement, widened mediastinum, "
    "widened superior mediastinum, "
    "mediastinal enlargement, superior mediastinal enlargement, mediastinal mass, enlarged mediastinum, "
    "prominent mediastinum, enlarged cardiomediastinum, enlarged cardiomediastinal silhouette, "
    "widening of the mediastinum, enlargement of the cardiomediastinal silhouette, "
    "enlargement of the mediastinum, enlargement of the cardiomediastinum",
    "Cardiomegaly": "cardiomegaly, cardiac enlargement, enlargement of the heart, enlarged heart, "
    "enlarged cardiac silhouette, enlarged cardiac shadow, enlargement of the cardiac silhouette, "
    "enlarged heart size, increased heart size, increased cardiothoracic ratio",
    "Lung Opacity": "opacity, lung opacity, pulmonary opacity, airspace opacity, infiltration, infiltrate, "
    "pulmonary infiltration, pulmonary infiltrate, airspace disease, alveolar pattern, interstitial pattern, "
    "reticular interstitial pattern, reticulonodular interstitial pattern, ground glass pattern, "
    "increased density, miliary opacities, opacification, density, parenchymal opacity, haziness, "
    "interstitial opacity, interstitial infiltrate, interstitial prominence",
    "Lung Lesion": "lung lesion, pulmonary lesion, lesion, lung nodule, nodule, multiple nodules, lung mass, "
    "pulmonary mass, mass, granuloma, calcified granuloma, lung metastasis, lung metastases, "
    "cavitation, abscess, "
    "lepidic adenocarcinoma, pulmonary nodule, nodularity, granulomata",
    "Edema": "pulmonary edema, edema, edema of the lungs, kerley line, interstitial edema, alveolar edema, "
    "fluid overload",
    "Consolidation": "consolidation, lung consolidation, air bronchogram, consolidative change, consolidated",
    "Pneumonia": "pneumonia, atypical pneumonia, bronchopneumonia, pneumonic infiltrate",
    "Atelectasis": "atelectasis, pulmonary atelectasis, atelectatic change, laminar atelectasis, "
    "lobar atelectasis, segmental atelectasis, total atelectasis, round atelectasis, "
    "basal atelectasis, collapse, atelectatic band",
    "Pneumothorax": "pneumothorax, hydropneumothorax, hemopneumothorax, pleural air, air in the pleural space",
    "Effusion": "pleural effusion, effusion, loculated pleural effusion, loculated fissural effusion, "
    "empyema, hemothorax, pleural fluid, fluid in the pleural space",
    "Pleural Other": "pleural abnormality, pleural disease, pleural disease other than fluid, "
    "pleural thickening, apical pleural thickening, calcified pleural thickening, pleural plaque, "
    "calcified pleural plaque, "
    "pleural mass, fissure thickening, minor fissure thickening, major fissure thickening, pleural scarring, "
    "pleural calcification",
    "Fracture": "fracture, bone fracture, rib fracture, callus rib fracture, rib fracture with callus, "
    "clavicle fracture, humeral fracture, vertebral fracture",
    "Support Devices": "support device, medical device, medical devices in place, implanted medical device, "
    "indwelling catheter, inserted tube, stent, spinal fusion, catheter, pacemaker, implanted defibrillator, "
    "nasogastric tube, endotracheal tube, tracheostomy tube, chest drain tube, gastrostomy tube, "
    "nephrostomy tube, "
    "ventriculoperitoneal drain tube, double j stent, central venous catheter, "
    "central venous catheter via jugular vein, central venous catheter via subclavian vein, "
    "central venous catheter via umbilical vein, reservoir central venous catheter, single chamber device, "
    "dual chamber device, electrical device, artificial heart valve, artificial mitral heart valve, "
    "artificial aortic heart valve, aortic endoprosthesis, endoprosthesis, osteosynthesis material, picc, "
    "picc line, "
    "port-a-cath, portacath, mediport, central line, central venous line, venous line, chest tube, feeding tube, "
    "enteric tube, gastric tube, et tube, ng tube, ett, tracheostomy, aicd, icd, defibrillator, stimulator, "
    "pacing lead, monitor lead, lead, generator, shunt, prosthetic valve, valve replacement, tubing, tube, line",
}
# Names that contain a finding's word and mean something else.
NO_FINDING_WORDS = (
    "subcutaneous emphysema, soft tissue mass, breast mass, mass of the breast, end on, cervical rib, "
    "calcified density, "
    "sclerotic bone lesion, lytic bone lesion, blastic bone lesion, pericardial effusion, vessel seen "
    "end on, "
    "heart valve, humeral prosthesis, increased attenuation, joint effusion, mass effect, bone density, "
    "costophrenic angle blunting, pleural line, septal line, fracture line, lead to, soft tissue edema, "
    "sclerotic lesion, "
    "lytic lesion, bony lesion, osseous lesion, thyroid mass, thyroid nodule, "
    "bony density, bone lesion, catheterization"
)
SITE_WORDS = {
    "upper lobe": "upper lobe",
    "middle lobe": "middle lobe",
    "lower lobe": "lower lobe",
    "lingula": "lingula, lingular",
    "upper lung field": "upper lung field, upper lung zone, upper zone",
    "middle lung field": "middle lung field, midlung, mid lung, midlung zone, mid lung zone",
    "lower lung field": "lower lung field, lower lung zone, lower zone",
    "base": "base, lung base",
    "apex": "apex, apices, lung apex",
    "hilum": "hilum, hila",
    "perihilar region": "perihilar region, perihilar",
    "retrocardiac region": "retrocardiac region, retrocardiac",
    "paratracheal region": "paratracheal region",
    "costophrenic angle": "costophrenic angle",
    "cardiophrenic angle": "cardiophrenic angle",
    "mediastinum": "mediastinum",
    "rib": "rib",
    "clavicle": "clavicle",
    "scapula": "scapula",
    "humerus": "humerus, humeri",
    "sternum": "sternum",
    "shoulder": "shoulder",
    "thoracic spine": "thoracic spine",
    "lumbar spine": "lumbar spine",
    "cervical spine": "cervical spine",
    "spine": "spine",
    "breast": "breast",
    "axilla": "axilla, axillae",
    "upper abdomen": "upper abdomen",
    "neck": "neck",
    "aorta": "aorta",
}
SIDE_WORDS = {
    "left": "left, left-sided",
    "right": "right, right-sided",
    "bilateral": "bilateral, both, both sides, bilaterally",
}
SEVERITY_WORDS = {
    "mild": "mild, slight, small, minimal, tiny, trace, minor, mildly, slightly, minimally",
    "moderate": "moderate, moderate-sized, moderately",
    "severe": "severe, marked, large, extensive, massive, severely, markedly",
}
# What turns a statement -> (which way, where). "ahead": what follows; "behind": what it follows, if anything;
# "either": what follows directly, else what it follows ("may represent edema", "edema may be present").
CUES = {
    ("denied", "ahead"): "no, without, absence of, negative for, free of, clear of, no evidence of, denies, neither, "
    "nor, resolution of, removal of, clearing of, rather than",
    ("denied", "behind"): "absent, resolved, excluded, ruled out, unlikely, cleared, removed, no longer seen",
    ("denied", "either"): "not, no longer",
    ("hedged", "ahead"): "possible, probable, questionable, question of, question, concern for, concerning for, "
    "suspicious for, suspicion for, cannot exclude, cannot rule out, not exclude, suggestive of, "
    "suggesting, suggest, versus, vs, history of, status post, evaluate for, exclude, differential, possibility of, "
    "favor, favoring, indeterminate, rule out, difficult to exclude, if, borderline",
    ("hedged", "behind"): "cannot be excluded, not excluded, not be excluded, not be entirely excluded, "
    "is suspected, is questioned",
    ("hedged", "either"): "may, might, could, possibly, probably, likely, suspected, questioned, perhaps, would",
}  # fmt: skip
# Words that look like a negation and are none.
NO_NEGATIONS = (
    "no change, no significant change, no interval change, no significant interval change, without change, "
    "without significant change, no increase, not significantly changed, not changed, not only, "
    "no longer than, "
    "not well seen, not well evaluated, not well visualized, no comparison, to suggest, evidence to suggest"
)
# What follows one of these is the finding that what precedes it looks like: it takes over side and severity.
_EXPLAINS = ("consistent with", "compatible with", "representing", "related to", "due to", "secondary to")
BOUNDARIES = (",", ":", "/", "and", "or", "with", *_EXPLAINS)
DEFINITIONS = "typically, appears as, appearing as, seen as, manifested as, manifesting as, characterized by"
# Boundaries that a negation or a doubt does not pass.
ENDS = (";", "but", "however", "although", "though", "except", "except for", "other than", "aside from", "apart from",
        "which", "while", "there is", "there are")  # fmt: skip
_DOUBT = r"may|might|could|would|possibly|probably|likely|suggest\w*"
# How prose says the same as the vocabulary above: pattern of a sentence in lower case -> its canonical words.
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
SPECULATION = (
    r"(?i)\b(may|might|could|possibl[ey]|probabl[ey]|likely|suspicious|suspected|suggest\w*|recommend\w*|"
    r"correlat\w*|consider|question\w*|versus|differential|cannot|concern\w*|compatible|perhaps|potential(ly)?|"
    r"presum\w*|equivocal|uncertain|unclear)\b"
)
VIEW_WORDS = {
    "PA": r"\b(PA|[Pp]osteroanterior)\b",
    "AP": r"\b(AP|[Aa]nteroposterior)\b",
    "SUPINE": r"\b[Ss]upine\b",
    "LATERAL": r"\b[Ll]ateral\b",
    "OBLIQUE": r"\b[Oo]blique\b",
    "LORDOTIC": r"\b[Ll]ordotic\b",
    "COSTAL": r"\b[Cc]ostal\b",
}
SEX_WORDS = {
    "F": r"(?i)\b(woman|girl|female|lady)\b",
    "M": r"(?i)\b(man|boy|male|gentleman)\b",
}
AGE_WORDS = r"(\d+)(?:[- ]year| ?y/o\b)"
INFANT_WORDS = r"(?i)\binfant\b"
# Words of labels that carry no content of their own.
_EMPTY = frozenset(
    "a an and of the in on at to via with for other than sign change normal seen pattern lung pulmonary "
    "chest "
    "thorax heart bone multiple single left right bilateral both side mild moderate severe small large "
    "chronic "
    "region disease wall end through".split()
)
# A label's word -> how a description may put it.
_SAME = {
    "cicatrix": "scarring",
    "calcinosis": "calcification",
    "vertebrae": "spine",
    "vertebral": "spine",
    "pectum": "pectus",
    "bullas": "bulla",
    "bullae": "bulla",
    "pneumoperitoneo": "pneumoperitoneum",
    "mediastinic": "mediastinal",
    "humeral": "humerus",
    "shadow": "silhouette",
    "pneumothorace": "pneumothorax",
    "atelectase": "atelectasis",
    "oedema": "edema",
    "basal": "base",
    "basilar": "base",
    "apical": "apex",
    "hilar": "hilum",
}


class Mention(NamedTuple):
    """One naming of a finding, or (finding None) of something else, with its place and its words."""

    finding: str | None
    place: Place
    words: frozenset[str]


class Reading(NamedTuple):
    """What a text affirms, denies and leaves open (doubt, history); ``words`` are all its words outside negations."""

    affirmed: tuple[Mention, ...]
    denied: tuple[Mention, ...]
    hedged: tuple[Mention, ...]
    words: frozenset[str]


def check(df: pl.DataFrame) -> pl.DataFrame:
    """``df`` with ``qc``: "pass", or "fail: " and the reasons, separated by semicolons."""
    fields = [pl.element().struct.field(f).fill_null("") for f in ("finding", "side", "site", "severity")]
    parts = pl.col("description").fill_null("").str.splitn("Findings:", 2).struct
    columns = df.select(
        pl.col("age", "sex", "race", "view"),
        head=parts["field_0"],
        text=pl.coalesce(parts["field_1"], parts["field_0"]),
        states=pl.concat_str(pl.col(f).cast(pl.Int8).cast(pl.String).fill_null("?") for f in FINDINGS),
        labels=pl.col("labels").list.join("\t"),
        details=pl.col("details").list.eval(pl.concat_str(fields, separator="\n")).list.join("\t"),
    )
    said = per_combination(columns, ("text", "states", "labels", "details"), _reasons)
    patient = per_combination(columns, ("head", "age", "sex", "race", "view"), _patient_reasons)
    guesses = pl.when(pl.col("description").str.contains(SPECULATION)).then(pl.lit("speculates")).otherwise(pl.lit(""))
    text = pl.concat_str(said, patient, guesses, separator="; ").str.replace_all("(; )+", "; ").str.strip_chars("; ")
    qc = pl.when(text == "").then(pl.lit(PASS)).otherwise(pl.concat_str(pl.lit("fail: "), text))
    return df.with_columns(qc=qc)


def reasons_for(qc: pl.Series) -> pl.DataFrame:
    """How often each kind of reason occurs: columns reason (first word or two) and n, most frequent first."""
    kinds = qc.filter(qc != PASS).str.strip_prefix("fail: ").str.split("; ").explode()
    return kinds.str.extract(r"^([a-z ]+)").str.strip_chars().alias("reason").value_counts(sort=True, name="n")


# --- comparing ---


def _reasons(text: str, states: str, labels: str, details: str) -> str:
    """What is wrong with the findings and impression of one description; empty where nothing is."""
    state = dict(zip(FINDINGS, states, strict=True))
    placed = _placed(details)
    outside = [label for label in labels.split("\t") if sources.finding_of(label) is None and label not in SILENT]
    sections = [read(section) for section in text.split("Impression:")]
    reading = _together(sections)
    own = [_words_of(label) for label in outside]
    if "1" not in states and not outside and not reading.denied:
        return "nothing to describe"
    reasons = list(_finding_reasons(state, placed, reading, sections, own))
    reasons += _label_reasons(outside, placed, reading, sections, f"{labels} {details}")
    return "; ".join(dict.fromkeys(reasons))


def _finding_reasons(state: dict, placed: dict, reading: Reading, sections: list[Reading], own: list) -> Iterator[str]:
    """Findings omitted, added, wrongly denied or misplaced."""
    normal = [any(m.finding == "No Finding" for m in section.denied) for section in sections]
    if state["No Finding"] == "1" and not all(normal):
        yield "omits No Finding"
    if state["No Finding"] != "1" and any(normal):
        yield "adds No Finding"
    affirmed, denied = _by_finding(reading.affirmed), _by_finding(reading.denied)
    in_all = set.intersection(*({m.finding for m in section.affirmed} for section in sections))
    for finding in FINDINGS[1:]:
        if state[finding] != "1" and finding not in affirmed and finding not in denied:
            continue
        mentions = affirmed.get(finding, ())
        # "A mass in the breast" names a label beyond the 14, not Lung Lesion.
        said = {m.place for m in mentions}
        certain = {m.place for m in mentions if not any(m.words <= words for words in own)}
        if state[finding] == "1":
            asked = placed.get(finding, set())
            if finding not in in_all:
                yield f"omits {finding}"
            elif _misplaced(asked, said, certain) and _misplaced(*map(_merged, (asked, said, certain))):
                yield f"misplaces {finding}"
        elif certain:
            yield f"adds {finding}"
        if state[finding] != "0" and finding in denied:
            yield f"denies {finding}"


def _misplaced(asked: set[Place], said: set[Place], certain: set[Place]) -> bool:
    return bool(asked - said or certain - asked - {(None, None, None)})


def _merged(places: set[Place]) -> set[Place]:
    """The places, with left and right of the same site and severity as one bilateral place."""
    pairs = {p[1:] for p in places if p[0] == "left" and ("right", *p[1:]) in places}
    return {("bilateral", *p[1:]) if p[1:] in pairs and p[0] in ("left", "right") else p for p in places}


def _by_finding(mentions: tuple[Mention, ...]) -> dict[str | None, list[Mention]]:
    grouped: dict[str | None, list[Mention]] = {}
    for mention in mentions:
        grouped.setdefault(mention.finding, []).append(mention)
    return grouped


def _label_reasons(
    outside: list[str], placed: dict, reading: Reading, sections: list[Reading], record: str
) -> Iterator[str]:
    """Labels beyond the 14 findings that are omitted, added or misplaced."""
    known = _all_words(record)
    for label in outside:
        words = _words_of(label)
        if not all(words <= section.words for section in sections):
            yield f"omits label {label}"
            continue
        named = [m for m in reading.affirmed if m.words & words and (m.finding is None or m.words <= words)]
        said = [m.place for m in named if words <= m.words] or [m.place for m in named]
        asked = placed.get(label, set())
        if not asked and not any(map(any, said)):
            continue
        # Two labels may share their words: scoliosis of the thoracic and of the lumbar spine.
        sharing = [other for other in outside if words & _words_of(other)] + [m.finding for m in named]
        allowed = set().union(*(placed.get(subject, set()) for subject in sharing))
        named_by = frozenset().union(*(_all_words(other) for other in (label, *filter(None, sharing))))
        for i in range(3):
            missing = {p[i] for p in asked} - {p[i] for p in said}
            extra = {p[i] for p in said} - {p[i] for p in allowed}
            if any(value and not _all_words(value) <= named_by for value in missing | extra):
                yield f"misplaces label {label}"
    named = frozenset().union(*(_labels_in(m.words) for m in reading.affirmed))
    for label in sorted(label for label in named if not _words_of(label) <= known):
        yield f"adds label {label}"


def _placed(details: str) -> dict[str, set[Place]]:
    """Finding or label -> the places that the record's details give it."""
    placed: dict[str, set[Place]] = {}
    for detail in filter(None, details.split("\t")):
        subject, *place = [field or None for field in detail.split("\n")]
        placed.setdefault(subject, set()).add(tuple(place))
    return placed


def _patient_reasons(head: str, age: float | None, sex: str | None, race: str | None, view: str | None) -> str:
    """What is wrong with age, sex, race and view."""
    told = re.search(AGE_WORDS, head)
    years = int(age) if age is not None and age >= 1 else None
    infant = age is not None and age < 1
    wrong = {
        "age": (int(told[1]) if told else None) != years or bool(re.search(INFANT_WORDS, head)) != infant,
        "sex": any(bool(re.search(words, head)) != (sex == s) for s, words in SEX_WORDS.items()),
        "race": (race or "") not in head,
        "view": any(bool(re.search(words, head)) != (v in (view or "").split()) for v, words in VIEW_WORDS.items()),
    }
    return "; ".join(name for name, is_wrong in wrong.items() if is_wrong)


# --- reading ---


def read(text: str) -> Reading:
    """What a text affirms, denies and leaves open, sentence by sentence."""
    return _together([_read_sentence(s.strip()) for s in re.split(r"[.?!](?:\s|$)|\n\s*\n", text) if s.strip()])


def _together(readings: list[Reading]) -> Reading:
    said = (tuple(chain.from_iterable(r[i] for r in readings)) for i in range(3))
    return Reading(*said, frozenset().union(*(r.words for r in readings)))


@cache
def _read_sentence(sentence: str) -> Reading:
    """One sentence: modifiers belong to the finding of their segment; segments end at commas, conjunctions and cues.

    A segment that names nothing places the thing named before it: "at the left base and in the right upper
    lobe".
    """
    segments = _segments(sentence)
    _turn(segments)
    said: dict[str, list[Mention]] = {"affirmed": [], "denied": [], "hedged": []}
    words: set[str] = set()
    before = _Segment()
    last: Mention | None = None
    for segment, after in zip(segments, [*segments[1:], _Segment()], strict=True):
        if after.boundary in _EXPLAINS and after.findings and not segment.findings:
            before = segment  # an appearance that the finding after it explains
            continue
        found = segment.mentions(last if segment.state == before.state else None, before)
        said[segment.state].extend(found)
        last, before = found[-1] if found else last, segment
        if segment.state != "denied":
            words.update(segment.words)
    return Reading(*map(tuple, said.values()), frozenset(words))


def _segments(sentence: str) -> list["_Segment"]:
    """The sentence cut at boundaries and cues, up to where it goes on to define what it named."""
    segments = [_Segment()]
    clauses = re.split(r"(?=[,;])", _canonical(sentence))  # no name has a comma; clauses recur, sentences seldom
    for kind, value, tokens in chain.from_iterable(map(_marks, clauses)):
        if kind == "definition":
            break
        if kind == "boundary":
            segments.append(_Segment(boundary=value))
        elif kind == "cue":
            segments.append(_Segment(cue=value))
        else:
            segments[-1].add(kind, value, tokens)
    return segments


def _canonical(sentence: str) -> str:
    sentence = sentence.lower()
    if not _TRIGGERS.search(sentence):
        return sentence
    for triggers, pattern, words in _COMPILED:
        if any(trigger in sentence for trigger in triggers):
            sentence = pattern.sub(words, sentence)
    return sentence


_TRIGGERS = re.compile("|".join(triggers for triggers, _, _ in PHRASINGS))
_COMPILED = [(triggers.split("|"), re.compile(pattern), words) for triggers, pattern, words in PHRASINGS]


def _turn(segments: list["_Segment"]) -> None:
    """Set the segments' states: each cue turns what its direction says, up to the next of ENDS."""
    state = "affirmed"
    for i, segment in enumerate(segments):
        if segment.boundary in ENDS:
            state = "affirmed"
        if segment.cue:
            state, where = segment.cue
            if where == "behind" or where == "either" and not segment.findings:
                behind = _listed_before(segments, i)
                for earlier in behind:
                    earlier.state = state
                state = "affirmed" if behind else state
        segment.state = state


def _listed_before(segments: list["_Segment"], i: int) -> list["_Segment"]:
    """The segments that share the predicate at i: "effusion and pneumothorax" of "... are not seen"."""
    found: list[_Segment] = []
    for segment in reversed(segments[:i]):
        if not segment.findings or found and segment.words & _VERBS:
            break
        found.append(segment)
        if segment.cue or segment.boundary not in (",", "and", "or"):
            break
    return found


_VERBS = frozenset("is are was were ha have show demonstrate seen present noted".split())


class _Segment:
    """What stands between two boundaries: findings, other content words, and modifiers."""

    def __init__(self, boundary: str | None = None, cue: tuple[str, str] | None = None) -> None:
        self.boundary, self.cue, self.state = boundary, cue, "affirmed"
        self.findings: list[tuple[str, frozenset[str]]] = []
        self.words: set[str] = set()
        self.other: set[str] = set()
        self.site: set[str] = set()
        self.modifiers: dict[str, str] = {}

    def add(self, kind: str, value: str, tokens: tuple[str, ...]) -> None:
        self.words.update(tokens)
        if kind == "finding":
            self.findings.append((value, frozenset(tokens)))
        elif kind == "word":
            self.other |= set(tokens) - _FRAME
        else:
            self.modifiers[kind] = value
            self.site |= set(tokens) if kind == "site" else set()

    def mentions(self, last: Mention | None, before: "_Segment") -> list[Mention]:
        """What the segment names; ``last`` was named last, ``before`` is the segment before it."""
        modifiers = self.modifiers
        if self.boundary in _EXPLAINS and not before.findings:  # "blunting of the left angle consistent with effusion"
            modifiers = before.modifiers | modifiers
        side, site, severity = (modifiers.get(kind) for kind in ("side", "site", "severity"))
        if self.findings:
            return [Mention(finding, (side, site, severity), words) for finding, words in self.findings]
        if self.other:
            return [Mention(None, (side, site, severity), frozenset(self.other | self.site))]
        if self.modifiers and last is not None:
            return [Mention(last.finding, (side, site, severity or last.place[2]), last.words)]
        return [Mention(None, (side, site, severity), frozenset(self.site))] if self.modifiers else []


@cache
def _marks(clause: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """A clause as (kind, value, words): findings, places, cues, boundaries and other words."""
    tokens = [_same(t) for t in re.findall(r"[a-z0-9][a-z0-9'-]*|[,;:/]", clause)]
    marks = []
    i = 0
    while i < len(tokens):
        named = _phrases().get(tokens[i], ())
        alone = ((tokens[i],), "word", tokens[i])
        phrase, kind, value = next((p for p in named if tuple(tokens[i : i + len(p[0])]) == p[0]), alone)
        marks.append((kind, value, phrase))
        i += len(phrase)
    return tuple(marks)


@cache
def _phrases() -> dict[str, list[tuple[tuple[str, ...], str, str]]]:
    """First word -> the phrases of the vocabulary that start with it, longest first."""
    tables = [
        ("finding", FINDING_WORDS),
        ("site", SITE_WORDS),
        ("side", SIDE_WORDS),
        ("severity", SEVERITY_WORDS),
    ]
    rows = [(kind, value, phrase) for kind, table in tables for value, text in table.items()
            for phrase in text.split(", ")]  # fmt: skip
    rows += [("cue", cue, phrase) for cue, text in CUES.items() for phrase in text.split(", ")]
    rows += [("boundary", token, token) for token in (*BOUNDARIES, *ENDS)]
    rows += [("definition", "", phrase) for phrase in DEFINITIONS.split(", ")]
    rows += [("word", p, p) for p in f"{NO_FINDING_WORDS}, {NO_NEGATIONS}".split(", ")]
    index: dict[str, list[tuple[tuple[str, ...], str, str]]] = {}
    for kind, value, text in rows:
        phrase = tuple(_same(token) for token in text.split())
        index.setdefault(phrase[0], []).append((phrase, kind, value))
    return {first: sorted(phrases, key=lambda p: -len(p[0])) for first, phrases in index.items()}


@cache
def _same(token: str) -> str:
    """A word in the singular, and in the spelling that labels and descriptions share."""
    if token.endswith("ies"):
        token = token[:-3] + "y"
    elif token.endswith("sses"):
        token = token[:-2]
    elif len(token) > 3 and token.endswith("s") and not token.endswith(("ss", "is", "us")):
        token = token[:-1]
    return _SAME.get(token, token)


@cache
def _all_words(label: str) -> frozenset[str]:
    return frozenset(_same(token) for token in re.findall(r"[a-z0-9][a-z0-9'-]*", label.lower().replace("_", " ")))


@cache
def _words_of(label: str) -> frozenset[str]:
    """The words that a description must use to name a label: its content, no places of a MeSH heading."""
    if label in _SAID_AS:
        return _all_words(_SAID_AS[label])
    heading = openi.parse_heading(label)
    text = " ".join([heading.head, *heading.qualifiers]) if "/" in label else label
    words = _all_words(text)
    return words - _EMPTY or words


@cache
def _labels_in(words: frozenset[str]) -> frozenset[str]:
    """The labels beyond the 14 findings that these words of one mention name in full."""
    return frozenset(label for label, own in _outside().items() if own <= words)


@cache
def _outside() -> dict[str, frozenset[str]]:
    """Every label beyond the 14 findings and its words, less those whose words a finding or a frame has too."""
    inside = [text for table in (FINDING_WORDS, SITE_WORDS) for text in table.values()]
    taken = frozenset().union(*map(_all_words, inside), _EMPTY, _FRAME)
    labels = [label for table in (nih.FINDING_OF, padchest.FINDING_OF) for label, f in table.items() if f is None]
    return {label: words for label in labels if not (words := _words_of(label)) <= taken}


# Labels whose words a description replaces altogether.
_SAID_AS = {
    "dai": "implanted defibrillator",
    "NSG tube": "nasogastric tube",
    "Hernia": "hernia",
    "end on vessel": "end vessel",
}
_FRAME = frozenset(
    "a an and of the in on at to via for finding impression show shows demonstrate demonstrates reveal "
    "reveals examination there is are be also noted seen radiograph image film stated x-ray chest evident "
    "visible present this study include includes".split()
)
