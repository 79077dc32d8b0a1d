"""Does a description agree with its Record? (The paper's second stage, done there by Qwen-2.5; ED Table 5.)

The text is read by `report_parser.read`, which knows nothing of the grammar that wrote it, so the check works for any
writer. `check` compares what was read with the record:

- each finding that is 1 is affirmed; no finding that is not 1 is affirmed; only a finding that is 0 is denied
- side, site and severity are those of `details`, no more and no fewer
- labels beyond the 14 findings are named, and no such label that the record lacks
- age, sex and view are the record's
- the text does not speculate, and there is something to describe
"""

import re
from collections.abc import Iterator
from functools import cache

import polars as pl

from chexgen_lib.descriptions.grammar import asserted, per_combination, places_in
from chexgen_lib.descriptions.label_meaning import finding_of
from chexgen_lib.descriptions.nouns import SILENT, Place
from chexgen_lib.descriptions.report_parser import Mention, Reading, read, together
from chexgen_lib.descriptions.vocabulary import FINDING_WORDS, FRAME, SITE_WORDS, words_in
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources import nih, padchest_labels
from chexgen_lib.sources.mesh_headings import parse_heading

PASS = "pass"
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
# Words of labels that carry no content.
_EMPTY = frozenset(
    "a an and of the in on at to via with for other than sign change normal seen pattern lung pulmonary chest thorax "
    "heart bone multiple single left right bilateral both side mild moderate severe small large chronic region "
    "disease wall end through".split()
)


def check(df: pl.DataFrame) -> pl.DataFrame:
    """`df` with `qc`: "pass", or "fail: " and the reasons, separated by semicolons."""
    parts = pl.col("description").fill_null("").str.splitn("Findings:", 2).struct
    columns = df.select(
        pl.col("age", "sex", "race", "view"),
        head=parts["field_0"],
        text=pl.coalesce(parts["field_1"], parts["field_0"]),
        **asserted(),
    )
    stated = per_combination(columns, ("text", "states", "labels", "details"), _reasons)
    patient = per_combination(columns, ("head", "age", "sex", "race", "view"), _patient_reasons)
    guesses = pl.when(pl.col("description").str.contains(SPECULATION)).then(pl.lit("speculates")).otherwise(pl.lit(""))
    text = pl.concat_str(stated, patient, guesses, separator="; ").str.replace_all("(; )+", "; ").str.strip_chars("; ")
    qc = pl.when(text == "").then(pl.lit(PASS)).otherwise(pl.concat_str(pl.lit("fail: "), text))
    return df.with_columns(qc=qc)


def reasons_for(qc: pl.Series) -> pl.DataFrame:
    """How often each kind of reason occurs: columns reason (first word or two) and n, most frequent first."""
    kinds = qc.filter(qc != PASS).str.strip_prefix("fail: ").str.split("; ").explode()
    return kinds.str.extract(r"^([a-z ]+)").str.strip_chars().alias("reason").value_counts(sort=True, name="n")


# Comparing


def _reasons(text: str, states: str, labels: str, details: str) -> str:
    """What is wrong with the findings and impression of one description; empty where nothing is."""
    state = dict(zip(FINDINGS, states, strict=True))
    placed = {subject: set(places) for subject, places in places_in(details).items()}
    outside = [label for label in labels.split("\t") if finding_of(label) is None and label not in SILENT]
    sections = [read(section) for section in text.split("Impression:")]
    reading = together(sections)
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
        stated = {m.place for m in mentions}
        certain = {m.place for m in mentions if not any(m.words <= words for words in own)}
        if state[finding] == "1":
            recorded = placed.get(finding, set())
            if finding not in in_all:
                yield f"omits {finding}"
            elif _misplaced(recorded, stated, certain) and _misplaced(*map(_merged, (recorded, stated, certain))):
                yield f"misplaces {finding}"
        elif certain:
            yield f"adds {finding}"
        if state[finding] != "0" and finding in denied:
            yield f"denies {finding}"


def _misplaced(recorded: set[Place], stated: set[Place], certain: set[Place]) -> bool:
    return bool(recorded - stated or certain - recorded - {(None, None, None)})


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
    known = words_in(record)
    for label in outside:
        words = _words_of(label)
        if not all(words <= section.words for section in sections):
            yield f"omits label {label}"
            continue
        named = [m for m in reading.affirmed if m.words & words and (m.finding is None or m.words <= words)]
        stated = [m.place for m in named if words <= m.words] or [m.place for m in named]
        recorded = placed.get(label, set())
        if not recorded and not any(map(any, stated)):
            continue
        # Two labels may share their words: scoliosis of the thoracic and of the lumbar spine.
        sharing = [other for other in outside if words & _words_of(other)] + [m.finding for m in named]
        allowed = set().union(*(placed.get(subject, set()) for subject in sharing))
        named_by = frozenset().union(*(words_in(other) for other in (label, *filter(None, sharing))))
        for i in range(3):
            missing = {p[i] for p in recorded} - {p[i] for p in stated}
            extra = {p[i] for p in stated} - {p[i] for p in allowed}
            if any(value and not words_in(value) <= named_by for value in missing | extra):
                yield f"misplaces label {label}"
    named = frozenset().union(*(_labels_in(m.words) for m in reading.affirmed))
    for label in sorted(label for label in named if not _words_of(label) <= known):
        yield f"adds label {label}"


def _patient_reasons(head: str, age: float | None, sex: str | None, race: str | None, view: str | None) -> str:
    """What is wrong with age, sex, race and view."""
    stated_age = re.search(AGE_WORDS, head)
    years = int(age) if age is not None and age >= 1 else None
    infant = age is not None and age < 1
    wrong = {
        "age": (int(stated_age[1]) if stated_age else None) != years or bool(re.search(INFANT_WORDS, head)) != infant,
        "sex": any(bool(re.search(words, head)) != (sex == s) for s, words in SEX_WORDS.items()),
        "race": (race or "") not in head,
        "view": any(bool(re.search(words, head)) != (v in (view or "").split()) for v, words in VIEW_WORDS.items()),
    }
    return "; ".join(name for name, is_wrong in wrong.items() if is_wrong)


# Labels beyond the 14 findings


@cache
def _words_of(label: str) -> frozenset[str]:
    """The words that a description must use to name a label: its content, without the places of a MeSH heading."""
    if label in _SAID_AS:
        return words_in(_SAID_AS[label])
    heading = parse_heading(label)
    text = " ".join([heading.head, *heading.qualifiers]) if "/" in label else label
    words = words_in(text)
    return words - _EMPTY or words


@cache
def _labels_in(words: frozenset[str]) -> frozenset[str]:
    """The labels beyond the 14 findings that these words of one mention name in full."""
    return frozenset(label for label, own in _outside().items() if own <= words)


@cache
def _outside() -> dict[str, frozenset[str]]:
    """Every label beyond the 14 findings and its words, except those whose words a finding or a frame has too."""
    inside = [text for table in (FINDING_WORDS, SITE_WORDS) for own in table.values() for text in own]
    taken = frozenset().union(*map(words_in, inside), _EMPTY, FRAME)
    labels = [
        label for table in (nih.FINDING_OF, padchest_labels.FINDING_OF) for label, f in table.items() if f is None
    ]
    return {label: words for label in labels if not (words := _words_of(label)) <= taken}


# Labels whose words a description replaces altogether.
_SAID_AS = {
    "dai": "implanted defibrillator",
    "NSG tube": "nasogastric tube",
    "Hernia": "hernia",
    "end on vessel": "end vessel",
}
