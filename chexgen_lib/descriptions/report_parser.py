"""Parse a report or description: findings affirmed, denied or left open, with side, site and severity.

The parser applies the vocabulary sentence by sentence. It knows nothing of records or of who wrote the text; `check`
compares its reading with a record.
"""

import re
from functools import cache
from itertools import chain
from typing import NamedTuple

from chexgen_lib.descriptions import vocabulary

Place = tuple[str | None, str | None, str | None]  # side, site, severity


class Mention(NamedTuple):
    """One mention of a finding, or (finding None) of something else, with its place and its words."""

    finding: str | None
    place: Place
    words: frozenset[str]


class Reading(NamedTuple):
    """What a text affirms, denies and leaves open (doubt, history); `words` are all its words outside negations."""

    affirmed: tuple[Mention, ...]
    denied: tuple[Mention, ...]
    hedged: tuple[Mention, ...]
    words: frozenset[str]


def read(text: str) -> Reading:
    """What a text affirms, denies and leaves open, sentence by sentence."""
    return together([_read_sentence(s.strip()) for s in re.split(r"[.?!](?:\s|$)|\n\s*\n", text) if s.strip()])


def together(readings: list[Reading]) -> Reading:
    mentions = (tuple(chain.from_iterable(r[i] for r in readings)) for i in range(3))
    return Reading(*mentions, frozenset().union(*(r.words for r in readings)))


@cache
def _read_sentence(sentence: str) -> Reading:
    """One sentence: modifiers belong to the finding of their segment; segments end at commas, conjunctions and cues.

    A segment that names nothing places the thing named before it: "at the left base and in the right upper lobe".
    """
    segments = _segments(sentence)
    _turn(segments)
    by_state: dict[str, list[Mention]] = {"affirmed": [], "denied": [], "hedged": []}
    words: set[str] = set()
    before = _Segment()
    last: Mention | None = None
    for segment, after in zip(segments, [*segments[1:], _Segment()], strict=True):
        if after.boundary in vocabulary.EXPLAINS and after.findings and not segment.findings:
            before = segment  # an appearance that the finding after it explains
            continue
        found = segment.mentions(last if segment.state == before.state else None, before)
        by_state[segment.state].extend(found)
        last, before = found[-1] if found else last, segment
        if segment.state != "denied":
            words.update(segment.words)
    return Reading(*map(tuple, by_state.values()), frozenset(words))


def _segments(sentence: str) -> list["_Segment"]:
    """The sentence split at boundaries and cues, without a trailing definition of what it named."""
    segments = [_Segment()]
    clauses = re.split(r"(?=[,;])", _canonical(sentence))  # no name has a comma; clauses recur, sentences rarely
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


_TRIGGERS = re.compile("|".join(triggers for triggers, _, _ in vocabulary.PHRASINGS))
_COMPILED = [(triggers.split("|"), re.compile(pattern), words) for triggers, pattern, words in vocabulary.PHRASINGS]


def _turn(segments: list["_Segment"]) -> None:
    """Set the segments' states: each cue applies in its direction, up to the next of `vocabulary.ENDS`."""
    state = "affirmed"
    for i, segment in enumerate(segments):
        if segment.boundary in vocabulary.ENDS:
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
    """The text between two boundaries: findings, other content words, and modifiers."""

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
            self.other |= set(tokens) - vocabulary.FRAME
        else:
            self.modifiers[kind] = value
            self.site |= set(tokens) if kind == "site" else set()

    def mentions(self, last: Mention | None, before: "_Segment") -> list[Mention]:
        """What the segment mentions; `last` was mentioned last, `before` is the segment before it."""
        modifiers = self.modifiers
        # "blunting of the left angle consistent with effusion"
        if self.boundary in vocabulary.EXPLAINS and not before.findings:
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
    tokens = [vocabulary.singular(t) for t in re.findall(r"[a-z0-9][a-z0-9'-]*|[,;:/]", clause)]
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
        ("finding", vocabulary.FINDING_WORDS),
        ("site", vocabulary.SITE_WORDS),
        ("side", vocabulary.SIDE_WORDS),
        ("severity", vocabulary.SEVERITY_WORDS),
    ]
    rows = [(kind, value, phrase) for kind, table in tables for value, own in table.items() for phrase in own]
    rows += [("cue", cue, phrase) for cue, own in vocabulary.CUES.items() for phrase in own]
    rows += [("boundary", token, token) for token in (*vocabulary.BOUNDARIES, *vocabulary.ENDS)]
    rows += [("definition", "", phrase) for phrase in vocabulary.DEFINITIONS]
    rows += [("word", p, p) for p in (*vocabulary.NO_FINDING_WORDS, *vocabulary.NO_NEGATIONS)]
    index: dict[str, list[tuple[tuple[str, ...], str, str]]] = {}
    for kind, value, text in rows:
        phrase = tuple(vocabulary.singular(token) for token in text.split())
        index.setdefault(phrase[0], []).append((phrase, kind, value))
    return {first: sorted(phrases, key=lambda p: -len(p[0])) for first, phrases in index.items()}
