"""Does a description say what its Record says? (the paper's second stage, there done by Qwen-2.5; ED Table 5)

The check reads a description with a vocabulary of its own: it knows how radiologists name findings, sides,
sites and severities and how they negate, and nothing of the grammar that wrote the text. So it serves for
the texts of any describer. ``check`` compares what it read with the record:

- each finding that is 1 is affirmed; no finding that is not 1 is affirmed; only a finding that is 0 is denied
- side, site and severity are those of ``details``, no more and no fewer
- labels beyond the 14 findings are named, and no such label that the record lacks
- age, sex and view are the record's
- nothing is speculated, and there is something to describe
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl

from chexgen_lib import sources
from chexgen_lib.curation.describe import SILENT, full, per_combination
from chexgen_lib.records import FINDINGS, VIEWS
from chexgen_lib.sources import nih, openi, padchest

PASS = "pass"
Place = tuple[str | None, str | None, str | None]  # side, site, severity

# How reports name the findings (singular; a plural s is understood).
FINDING_WORDS = {
    "No Finding": "acute cardiopulmonary abnormality, acute cardiopulmonary disease, "
    "acute cardiopulmonary process, acute abnormality of the heart or lungs, acute cardiopulmonary finding",
    "Enlarged Cardiomediastinum": "mediastinal widening, cardiomediastinal enlargement, widened mediastinum, "
    "mediastinal enlargement, superior mediastinal enlargement, mediastinal mass, enlarged mediastinum, "
    "prominent mediastinum, enlarged cardiomediastinum",
    "Cardiomegaly": "cardiomegaly, cardiac enlargement, enlargement of the heart, enlarged heart, "
    "enlarged cardiac silhouette, enlarged cardiac shadow",
    "Lung Opacity": "opacity, lung opacity, pulmonary opacity, airspace opacity, infiltration, infiltrate, "
    "pulmonary infiltration, pulmonary infiltrate, airspace disease, alveolar pattern, interstitial pattern, "
    "reticular interstitial pattern, reticulonodular interstitial pattern, ground glass pattern, "
    "increased density, miliary opacities, opacification, density",
    "Lung Lesion": "lung lesion, pulmonary lesion, lesion, lung nodule, nodule, multiple nodules, lung mass, "
    "pulmonary mass, mass, granuloma, calcified granuloma, lung metastasis, lung metastases, "
    "cavitation, abscess, "
    "lepidic adenocarcinoma, pulmonary nodule",
    "Edema": "pulmonary edema, edema, edema of the lungs, kerley line",
    "Consolidation": "consolidation, lung consolidation, air bronchogram",
    "Pneumonia": "pneumonia, atypical pneumonia",
    "Atelectasis": "atelectasis, pulmonary atelectasis, atelectatic change, laminar atelectasis, "
    "lobar atelectasis, segmental atelectasis, total atelectasis, round atelectasis, "
    "basal atelectasis, collapse",
    "Pneumothorax": "pneumothorax, hydropneumothorax, hemopneumothorax",
    "Effusion": "pleural effusion, effusion, loculated pleural effusion, loculated fissural effusion, "
    "empyema, hemothorax",
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
    "artificial aortic heart valve, aortic endoprosthesis, endoprosthesis, osteosynthesis material",
}
# Names that contain a finding's word and mean something else.
NO_FINDING_WORDS = (
    "subcutaneous emphysema, soft tissue mass, breast mass, mass of the breast, end on, cervical rib, "
    "calcified density, "
    "sclerotic bone lesion, lytic bone lesion, blastic bone lesion, pericardial effusion, vessel seen "
    "end on, "
    "heart valve, humeral prosthesis, increased attenuation"
)
SITE_WORDS = {
    "upper lobe": "upper lobe",
    "middle lobe": "middle lobe",
    "lower lobe": "lower lobe",
    "lingula": "lingula",
    "upper lung field": "upper lung field",
    "middle lung field": "middle lung field",
    "lower lung field": "lower lung field",
    "base": "base, lung base",
    "apex": "apex, apices, lung apex",
    "hilum": "hilum, hila",
    "perihilar region": "perihilar region",
    "retrocardiac region": "retrocardiac region",
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
    "bilateral": "bilateral, both, both sides",
}
SEVERITY_WORDS = {
    "mild": "mild, slight, small, minimal",
    "moderate": "moderate, moderate-sized",
    "severe": "severe, marked, large, extensive",
}
NEGATIONS = "no, without, absence of, absent, negative for, free of, no evidence of, not, denies"
BOUNDARIES = (",", ";", ":", "and", "or", "with", "but")
SPECULATION = (
    r"(?i)\b(may|might|could|possibl[ey]|probabl[ey]|likely|suspicious|suspected|suggest\w*|recommend\w*|"
    r"correlat\w*|consider|question\w*|versus|differential|cannot|concern\w*|compatible)\b"
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
SEX_WORDS = {"F": r"(?i)\b(woman|girl|female|lady)\b", "M": r"(?i)\b(man|boy|male|gentleman)\b"}
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
}


class Mention(NamedTuple):
    """One naming of a finding, or (finding None) of something else, with its place and its words."""

    finding: str | None
    place: Place
    words: frozenset[str]


class Reading(NamedTuple):
    """What a text says; ``words`` are all its words outside negations."""

    affirmed: tuple[Mention, ...]
    denied: tuple[Mention, ...]
    words: frozenset[str]


def check(df: pl.DataFrame) -> pl.DataFrame:
    """``df`` with ``qc``: "pass", or "fail: " and the reasons, separated by semicolons."""
    fields = [pl.element().struct.field(f).fill_null("") for f in ("finding", "side", "site", "severity")]
    keyed = df.select(
        text=pl.col("description").fill_null("").str.replace(r"(?s)^.*?(Findings:)", "$1"),
        states=pl.concat_str(pl.col(f).cast(pl.Int8).cast(pl.String).fill_null("?") for f in FINDINGS),
        labels=pl.col("labels").list.join("\t"),
        details=pl.col("details").list.eval(pl.concat_str(fields, separator="\n")).list.join("\t"),
    )
    reasons = per_combination(keyed, keyed.columns, _reasons)
    text = pl.concat_str(reasons, _patient_reasons(df), separator="; ").str.strip_chars("; ")
    qc = pl.when(text == "").then(pl.lit(PASS)).otherwise(pl.concat_str(pl.lit("fail: "), text))
    return df.with_columns(pl.select(qc=qc)["qc"])


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
    sections = [read(section) for section in text.removeprefix("Findings:").split("Impression:")]
    reading = _together(sections)
    own = [_words_of(label) for label in outside]
    if "1" not in states and not outside and not reading.denied:
        return "nothing to describe"
    reasons = list(_finding_reasons(state, placed, reading, sections, own))
    reasons += _label_reasons(outside, placed, reading, sections, labels)
    return "; ".join(dict.fromkeys(reasons))


def _finding_reasons(state: dict, placed: dict, reading: Reading, sections: list[Reading], own: list) -> Iterator[str]:
    """Findings omitted, added, wrongly denied or misplaced."""
    normal = [any(m.finding == "No Finding" for m in section.denied) for section in sections]
    if state["No Finding"] == "1" and not all(normal):
        yield "omits No Finding"
    if state["No Finding"] != "1" and any(normal):
        yield "adds No Finding"
    affirmed, denied = _by_finding(reading.affirmed), _by_finding(reading.denied)
    affirmed_in = [set(_by_finding(section.affirmed)) for section in sections]
    for finding in FINDINGS[1:]:
        mentions = affirmed.get(finding, ())
        # "A mass in the breast" names a label beyond the 14, not Lung Lesion.
        certain = {m.place for m in mentions if not any(m.words <= words for words in own)}
        if state[finding] == "1":
            asked = placed.get(finding, set())
            if not all(finding in names for names in affirmed_in):
                yield f"omits {finding}"
            elif asked - {m.place for m in mentions} or certain - asked - {(None, None, None)}:
                yield f"misplaces {finding}"
        elif certain:
            yield f"adds {finding}"
        if state[finding] != "0" and finding in denied:
            yield f"denies {finding}"


def _by_finding(mentions: tuple[Mention, ...]) -> dict[str | None, list[Mention]]:
    grouped: dict[str | None, list[Mention]] = {}
    for mention in mentions:
        grouped.setdefault(mention.finding, []).append(mention)
    return grouped


def _label_reasons(
    outside: list[str], placed: dict, reading: Reading, sections: list[Reading], labels: str
) -> Iterator[str]:
    """Labels beyond the 14 findings that are omitted, added or misplaced."""
    known = _all_words(labels)
    for label in outside:
        words = _words_of(label)
        if not all(words <= section.words for section in sections):
            yield f"omits label {label}"
            continue
        named = [m for m in reading.affirmed if m.words & words and (m.finding is None or m.words <= words)]
        said = [m.place for m in named if words <= m.words] or [m.place for m in named]
        asked = placed.get(label, set())
        # Two labels may share their words: scoliosis of the thoracic and of the lumbar spine.
        sharing = [other for other in outside if words & _words_of(other)] + [m.finding for m in named]
        allowed = set().union(*(placed.get(subject, set()) for subject in sharing))
        for i in range(3):
            missing = {p[i] for p in asked} - {p[i] for p in said}
            extra = {p[i] for p in said} - {p[i] for p in allowed}
            if any(value and not _all_words(value) <= _all_words(label) for value in missing | extra):
                yield f"misplaces label {label}"
    for word in sorted((reading.words & _distinctive()) - known):
        yield f"adds label {word}"


def _placed(details: str) -> dict[str, set[Place]]:
    """Finding or label -> the places that the record's details give it."""
    placed: dict[str, set[Place]] = {}
    for detail in filter(None, details.split("\t")):
        subject, *place = [field or None for field in detail.split("\n")]
        placed.setdefault(subject, set()).add(tuple(place))
    return placed


def _patient_reasons(df: pl.DataFrame) -> pl.Series:
    """What is wrong with age, sex, race and view, and whether anything is speculated."""
    text = pl.col("description").fill_null("")
    head = text.str.replace(r"(?s)Findings:.*$", "")
    age = head.str.extract(r"(\d+)[- ]year").cast(pl.Int32, strict=False)
    infant = pl.col("age") < 1
    wrong_age = ~age.eq_missing(pl.when(pl.col("age") >= 1).then(pl.col("age").floor().cast(pl.Int32)))
    wrong_age |= head.str.contains(r"(?i)\binfant\b") != infant.fill_null(False)
    wrong_sex = pl.any_horizontal(
        head.str.contains(words) != pl.col("sex").eq_missing(pl.lit(sex)) for sex, words in SEX_WORDS.items()
    )
    asked = {token: [v for v in VIEWS if token in v.split()] for token in VIEW_WORDS}
    wrong_view = pl.any_horizontal(
        head.str.contains(words) != pl.col("view").is_in(asked[token]).fill_null(False)
        for token, words in VIEW_WORDS.items()
    )
    wrong_race = ~head.str.contains(pl.col("race").fill_null(""), literal=True)
    wrong = {"age": wrong_age, "sex": wrong_sex, "race": wrong_race, "view": wrong_view}
    wrong["speculates"] = text.str.contains(SPECULATION)
    reasons = [pl.when(is_wrong).then(pl.lit(name)) for name, is_wrong in wrong.items()]
    return df.select(pl.concat_str(reasons, separator="; ", ignore_nulls=True).alias("reasons")).to_series()


# --- reading ---


def read(text: str) -> Reading:
    """What a text affirms and denies, sentence by sentence."""
    return _together([_read_sentence(s.strip()) for s in re.split(r"\.(?:\s|$)", text) if s.strip()])


def _together(readings: list[Reading]) -> Reading:
    return Reading(
        tuple(m for r in readings for m in r.affirmed),
        tuple(m for r in readings for m in r.denied),
        frozenset().union(*(r.words for r in readings)),
    )


@cache
def _read_sentence(sentence: str) -> Reading:
    """One sentence: modifiers belong to the finding of their segment, segments end at commas and
    conjunctions.

    A segment that names nothing places the thing named before it: "at the left base and in the right upper
    lobe".
    """
    affirmed: list[Mention] = []
    denied: list[Mention] = []
    words: set[str] = set()
    negated = False
    segment = _Segment()
    last: Mention | None = None
    for kind, value, tokens in [*_marks(sentence), ("boundary", ";", ())]:
        if kind == "definition":
            break
        if kind == "boundary":
            found = segment.mentions(last)
            (denied if negated else affirmed).extend(found)
            last = found[-1] if found else last
            segment = _Segment()
            negated = negated and value not in (";", "but")
        elif kind == "negation":
            negated = True
        else:
            segment.add(kind, value, tokens)
            if not negated:
                words.update(tokens)
    found = segment.mentions(last)
    (denied if negated else affirmed).extend(found)
    return Reading(tuple(affirmed), tuple(denied), frozenset(words))


class _Segment:
    """What stands between two boundaries: findings, other content words, and modifiers."""

    def __init__(self) -> None:
        self.findings: list[tuple[str, frozenset[str]]] = []
        self.other: set[str] = set()
        self.site: set[str] = set()
        self.modifiers: dict[str, str] = {}

    def add(self, kind: str, value: str, tokens: tuple[str, ...]) -> None:
        if kind == "finding":
            self.findings.append((value, frozenset(tokens)))
        elif kind == "word":
            self.other |= set(tokens) - _FRAME
        else:
            self.modifiers[kind] = value
            self.site |= set(tokens) if kind == "site" else set()

    def mentions(self, last: Mention | None) -> list[Mention]:
        side, site, severity = (self.modifiers.get(kind) for kind in ("side", "site", "severity"))
        if self.findings:
            return [Mention(finding, (side, site, severity), words) for finding, words in self.findings]
        if self.other:
            return [Mention(None, (side, site, severity), frozenset(self.other | self.site))]
        if self.modifiers and last is not None:
            return [Mention(last.finding, (side, site, severity or last.place[2]), last.words)]
        return [Mention(None, (side, site, severity), frozenset(self.site))] if self.modifiers else []


def _marks(sentence: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The sentence as (kind, value, words): findings, places, negations, boundaries and other words."""
    tokens = [_same(t) for t in re.findall(r"[a-z0-9][a-z0-9'-]*|[,;:]", sentence.lower())]
    i = 0
    while i < len(tokens):
        for phrase, kind, value in _phrases().get(tokens[i], ()):
            if tuple(tokens[i : i + len(phrase)]) == phrase:
                yield kind, value, phrase
                i += len(phrase)
                break
        else:
            yield "word", tokens[i], (tokens[i],)
            i += 1


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
    rows += [("negation", "no", phrase) for phrase in NEGATIONS.split(", ")]
    rows += [("boundary", token, token) for token in BOUNDARIES]
    rows += [("definition", "", "typically"), *(("word", p, p) for p in NO_FINDING_WORDS.split(", "))]
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
def _distinctive() -> frozenset[str]:
    """Words that only labels beyond the 14 findings use: a description may not contain another label's."""
    inside = [text for table in (FINDING_WORDS, SITE_WORDS) for text in table.values()]
    taken = frozenset().union(*map(_all_words, inside), _EMPTY, _FRAME)
    labels = [label for table in (nih.FINDING_OF, padchest.FINDING_OF) for label, f in table.items() if f is None]
    return frozenset().union(*map(_all_words, labels)) - taken


# Labels whose words a description replaces altogether.
_SAID_AS = {"dai": "implanted defibrillator", "NSG tube": "nasogastric tube", "Hernia": "hernia"}
_FRAME = frozenset(
    "a an and of the in on at to via for finding impression show shows demonstrate demonstrates reveal "
    "reveals examination there is are be also noted seen radiograph image film stated x-ray chest evident "
    "visible present this study include includes".split()
)


# --- how good is the check itself? ---


def plant_faults(df: pl.DataFrame, n: int = 300, seed: int = 0) -> pl.DataFrame:
    """Columns fault, n, found: the share of planted faults of each kind that ``check`` reports.

    df: records whose description passes. For each kind up to ``n`` records to which it applies are drawn;
    most faults describe an altered record and check the text against the true one.
    """
    rng = np.random.default_rng(seed)
    ill = df.filter(pl.any_horizontal(pl.col(f) == 1 for f in FINDINGS[1:]))
    sided = df.filter(pl.col("description").str.contains(r"Findings:.*\b(left|right)\b"))
    placed = df.filter(pl.col("details").list.len() > 0)
    cases = {
        "finding omitted": (ill, _omit),
        "finding added": (df, _add),
        "finding negated": (ill, _negate),
        "side swapped": (sided, _swap_sides),
        "site changed": (placed, _change_site),
        "severity changed": (placed, _change_severity),
        "sex swapped": (df.drop_nulls("sex"), lambda d: _describe(d.with_columns(sex=_SWAP_SEX))),
        "age changed": (df.drop_nulls("age"), lambda d: _describe(d.with_columns((pl.col("age") + 7) % 90))),
        "view changed": (df, lambda d: _describe(d.with_columns(view=_NEXT_VIEW))),
        "speculation": (ill, lambda d: d.with_columns(_replaced(r"Impression: ", "Impression: Possible "))),
    }
    rows = []
    for name, (eligible, plant) in cases.items():
        chosen = eligible[np.sort(rng.permutation(eligible.height)[:n]).tolist()]
        texts = plant(chosen)["description"]
        checked = check(chosen.with_columns(texts)).filter(texts != chosen["description"])
        found = (checked["qc"] != PASS).mean() if checked.height else None
        rows.append((name, checked.height, found))
    return pl.DataFrame(rows, schema={"fault": pl.String, "n": pl.Int64, "found": pl.Float64}, orient="row")


_SWAP_SEX = pl.when(pl.col("sex") == "M").then(pl.lit("F")).otherwise(pl.lit("M"))
_NEXT_VIEW = pl.col("view").fill_null("").replace_strict({"PA": "AP", "AP": "LATERAL"}, default="PA")


def _describe(df: pl.DataFrame) -> pl.DataFrame:
    return df.with_columns(full(df).alias("description"))


def _replaced(pattern: str, value: str) -> pl.Expr:
    return pl.col("description").str.replace(pattern, value)


def _first_present() -> pl.Expr:
    return pl.coalesce(pl.when(pl.col(f) == 1).then(pl.lit(f)) for f in FINDINGS[1:])


def _omit(df: pl.DataFrame) -> pl.DataFrame:
    """The first finding is left unsaid."""
    gone = df.select(_first_present().alias("gone"))["gone"]
    return _describe(df.with_columns(pl.when(gone != f).then(pl.col(f)).alias(f) for f in FINDINGS[1:]))


def _add(df: pl.DataFrame) -> pl.DataFrame:
    """The last finding that is not present is said to be."""
    absent = pl.coalesce(pl.when(pl.col(f).fill_null(0) == 0).then(pl.lit(f)) for f in reversed(FINDINGS[1:]))
    added = df.select(absent.alias("added"))["added"]
    return _describe(df.with_columns(pl.when(added == f).then(1.0).otherwise(pl.col(f)).alias(f) for f in FINDINGS[1:]))


def _negate(df: pl.DataFrame) -> pl.DataFrame:
    """A present finding is denied in a sentence of its own."""
    names = {f: FINDING_WORDS[f].split(", ")[0] for f in FINDINGS[1:]}
    sentence = pl.format("Findings: There is no {}. ", _first_present().replace_strict(names))
    return df.with_columns(pl.col("description").str.replace("Findings: ", sentence))


def _swap_sides(df: pl.DataFrame) -> pl.DataFrame:
    text = pl.col("description")
    for old, new in ((r"\bleft\b", "\0"), (r"\bright\b", "left"), ("\0", "right")):
        text = text.str.replace_all(old, new)
    return df.with_columns(text)


def _change_site(df: pl.DataFrame) -> pl.DataFrame:
    return _describe(df.with_columns(details=_changed("site", {"upper lobe": "base"}, "upper lobe")))


def _change_severity(df: pl.DataFrame) -> pl.DataFrame:
    return _describe(df.with_columns(details=_changed("severity", {"severe": "mild"}, "severe")))


def _changed(field: str, values: dict[str, str], default: str) -> pl.Expr:
    """Every detail's ``field`` set to another value."""
    value = pl.element().struct.field(field).fill_null("").replace_strict(values, default=default)
    return pl.col("details").list.eval(pl.element().struct.with_fields(value.alias(field)))
