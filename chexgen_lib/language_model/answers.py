"""What counts as an answer: a report is found wherever a model or a server put it, and a fault names its cause.

Servers differ in what they report of tokens and of thinking, and models put prose, fences or thoughts around their JSON
where nothing holds them to the schema. All of it was paid for, so it is read as long as one report is meant.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from chexgen_lib.language_model.protocol import CHARACTERS_PER_TOKEN, Report
from chexgen_lib.language_model.responses import DEEPEST, Response, encodable, everywhere, field, read_response, tokens

NAMED = re.compile(r"[\"'](\w[\w ]{0,40})[\"']\s*:")  # a name, as in JSON, a Python dict or a text like them
QUOTED = re.compile(  # none where it is cut off
    r"""\s*(?:"(.*?)"|'(.*?)')(?=[\s,\]{]*(?:\}|//|/\*|,\s*\#|\.\.\.|$))""", re.DOTALL
)
SECTION = "|".join(name.replace("_", "[ _-]?") for name in Report.model_fields)
HEADED = re.compile(  # a section's name in front of its text: of YAML, JSON without quotes, Markdown, a table or XML
    rf"""(?:^|[\n{{,<|>])[ \t\#*_`"'-]*(?:\d[.)][ *_]*)?({SECTION})[ \t*_`"']*(?:[:=|>]|\n)""", re.IGNORECASE
)
ESCAPES = {'\\"': '"', "\\'": "'", "\\_": "_", "\\n": "\n", '"""': '"', "\u200b": ""}
ESCAPES |= dict.fromkeys("“”„«»", '"') | {"：": ": ", "，": ", "}
THOUGHT = re.compile(
    r"(?P<open>[<\[◁](?:\w+:)?{0}[>\]▷]|<\|begin_of_{0}\|>|<\|channel\|>(?:analysis|commentary)<\|message\|>)"
    r"|[<\[◁]/(?:\w+:)?{0}[>\]▷]|<\|end_of_{0}\|>|<\|channel\|>final<\|message\|>".replace(
        "{0}", "(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)"
    ),
    re.IGNORECASE,
)
NO_MESSAGE = "malformed response"
MORE_TOKENS = "allow more tokens in the endpoint's options"
DECODER = json.JSONDecoder(strict=False)  # models break lines within texts
OPENS = re.compile(r"[{\[]")
MOST_OBJECTS = 1000  # looked at in one answer; a report may be wrapped in other objects
NAMES, TEXTS = ("name", "key", "field", "section", "title"), ("text", "value", "content")  # of a section in an object


class Answer(NamedTuple):
    """What came back: a report, or the fault that makes it unusable; tokens of request and answer."""

    report: Report | None
    fault: str | None
    tokens: tuple[int, int]

    @property
    def is_outage(self) -> bool:
        """Whether there is no message of a model, and nothing to pay for: an error with the status of success."""
        return (self.fault or "").startswith(NO_MESSAGE) and not any(self.tokens)


def read_answer(key: str, response: bytes | str, sent: int = 0) -> Answer:
    """Judge the body of a response; never raises, whatever the body holds.

    Args:
        key: of the request, the nonce that the report must repeat.
        response: what the server sent, see `responses`. Tokens that it does not report are estimated.
        sent: tokens of the request, estimated.
    """
    said = read_response(response)
    report, fault = _judged(key, said) if said.error is None else (None, f"{NO_MESSAGE}: {said.error}")
    texts = [*said.content, said.thought]
    if report is None and said.ended is None:  # another interface; what repeats the nonce in all sections is meant
        report = _report(key, found := everywhere(response), cut=True)[0]
        texts = found if report else texts
    if report is None and said.error is not None:
        return Answer(None, fault, tokens(said.usage, 0, 0))
    written = round(sum(map(len, texts)) / CHARACTERS_PER_TOKEN)
    return Answer(report, None if report else fault, tokens(said.usage, sent, written))


def _judged(key: str, said: Response) -> tuple[Report | None, str | None]:
    """The report with the nonce `key`, or the cause why there is none."""
    if said.ended == "refused":
        return None, "refused"
    cut = said.ended == "length"
    answered = [text for text in map(_spoken, said.content) if text]
    # Some servers and models take a whole answer for thinking; a draft in thoughts that were cut off is no answer.
    texts = answered or ([] if cut else [said.thought, *said.content])
    report, fault = _report(key, texts, cut)
    if report is None and cut:
        fault = (
            f"truncated: {MORE_TOKENS}" if answered else f"truncated while thinking: {MORE_TOKENS}, or less thinking"
        )
    elif report is None and not answered:
        fault = "empty: thinking (reasoning) and no answer" if said.thought or any(said.content) else "empty"
    return report, fault


def _report(key: str, texts: Iterable[str], cut: bool) -> tuple[Report | None, str | None]:
    """The last whole report with the nonce `key` (models correct themselves), or the fault of what is there.

    cut: whether the texts end where no more tokens were allowed.
    """
    texts = [_unquoted(text) for text in texts]
    found: list[dict[str, str]] = []
    for reading in (_objects, _mended, lambda text: _headed(text, cut)):
        read = [_fields(value) for text in texts for value in reading(text)]
        for fields in reversed(read):
            if _is_for(key, fields) and all(fields.get(name, "").strip() for name in Report.model_fields):
                return Report(**{name: encodable(text) for name, text in fields.items()} | {"nonce": key}), None
        found = found or (read if reading is _objects else [fields for fields in read if "nonce" in fields])
    named = [fields for fields in found if _is_for(key, fields)]
    if not found:
        return None, "malformed answer: no JSON object"
    best = max(named or found, key=len)
    lacking = [name for name in Report.model_fields if name not in best]
    if lacking:
        return None, f"malformed answer: without {', '.join(lacking)}"
    return None, "empty section" if named else "another record's answer"


def _is_for(key: str, fields: dict[str, str]) -> bool:
    return key.lower() in re.sub(r"[\W_]", "", fields.get("nonce", "").lower())


def _objects(text: str) -> Iterator[dict]:
    """The JSON objects in a text, in order, each before those that it holds."""
    end = 0
    for _ in range(MOST_OBJECTS):
        start = OPENS.search(text, end)
        if start is None:
            return
        try:
            value, end = DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            end = start.end()
        else:
            yield from _nested(value)


def _nested(value: Any, depth: int = DEEPEST, nonce: Any = None) -> Iterator[dict]:
    """An object and those that it holds; these have its nonce, unless they have one of their own."""
    if isinstance(value, dict):
        yield value if nonce is None else {"nonce": nonce, **value}
        nonce = value.get("nonce", nonce)
        value = list(value.values())
    if isinstance(value, list) and depth:
        if pairs := dict(pair for inner in value if (pair := _pair(inner))):
            yield pairs
        for inner in value:
            yield from _nested(inner, depth - 1, nonce)


def _pair(value: Any) -> tuple[str, str] | None:
    """Name and text of a section that is an object of its own, {"name": "findings", "text": "..."}."""
    if not isinstance(value, dict):
        return None
    name, text = (next(filter(None, (field(value, key, str) for key in keys)), None) for keys in (NAMES, TEXTS))
    return (name, text) if name and text else None


def _unquoted(text: str) -> str:
    """A text out of the JSON texts that it is wrapped in."""
    for _ in range(DEEPEST):
        try:
            inner = json.loads(text, strict=False) if text.lstrip().startswith('"') else None
        except (ValueError, RecursionError):
            return text
        if not isinstance(inner, str):
            return text
        text = inner
    return text


def _plain(text: str) -> str:
    """A text without escapes, with plain quotes and marks, and with texts joined that a plus joins."""
    for escape, meant in ESCAPES.items():
        text = text.replace(escape, meant)
    return re.sub(r"""(["'])\s{0,9}\+\s{0,9}\1""", "", html.unescape(text))


def _mended(text: str) -> Iterator[dict]:
    """What is nearly JSON: each name in quotes with the quoted text after it, up to the next name.

    So are read a Python dict, a comma too many or too few, a comment, quotes within a text or of typographers, escapes
    of Markdown or HTML, and fields in objects of their own.
    """
    names = list(NAMED.finditer(_plain(text)))[:MOST_OBJECTS]
    fields: dict[str, str] = {}
    for name, following in pairwise([*names, None]):
        if name[1] in fields:  # another object begins
            yield fields
            fields = {}
        value = QUOTED.match(name.string, name.end(), following.start() if following else len(name.string))
        fields[name[1]] = value[value.lastindex] if value else ""
    if fields:
        yield fields


def _headed(text: str, cut: bool) -> Iterator[dict]:
    """What is no JSON: each section's name with what stands between it and the next; a blank line ends the last.

    cut: whether the text may end within a section; the last then counts only where a quote or tag ends it.
    """
    names = list(HEADED.finditer(_plain(text)))[:MOST_OBJECTS]
    fields: dict[str, str] = {}
    for name, following in pairwise([*names, None]):
        if name[1].lower() in fields:
            yield fields
            fields = {}
        value = name.string[name.end() : following.start() if following else None].strip()
        whole, tag, _ = value.partition(f"</{name[1]}")
        whole = whole.strip(" \t\r\n|*_`,;{}")
        if whole[:1] in ("'", '"'):
            whole = whole[1:-1] if whole[-1] == whole[0] else ""
        elif following is None and not tag:
            whole = "" if cut else whole.partition("\n\n")[0]
        if re.search(r"""^(?:\[|null$|none$)|["']\s*[:,]""", whole, re.IGNORECASE):  # what JSON has beside texts
            whole = ""
        fields[name[1].lower()] = whole.strip(" \t\r\n|*_`")
    if fields:
        yield fields


def _fields(value: dict) -> dict[str, str]:
    """The fields of a report that an object has, however their names are written."""
    fields = {}
    for name, text in value.items():
        name = re.sub(r"\W+|(?<=[a-z])(?=[A-Z])", "_", name).strip("_").lower()
        if isinstance(text, list) and all(isinstance(part, str) for part in text):
            text = " ".join(text)
        if isinstance(text, dict):  # {"text": "..."}
            text = next((text[key] for key in TEXTS if isinstance(text.get(key), str)), text)
        if name in Report.model_fields and (text is None or isinstance(text, str)):
            fields[name] = (text or "").strip(" \n`*'\"") if name == "nonce" else text or ""
    return fields


def _spoken(text: str) -> str:
    """A text without thoughts, before the answer or after it; the tag that opens the first may be missing."""
    spoken, start, thinking = [], 0, False
    for tag in THOUGHT.finditer(text):
        closes = tag["open"] is None
        if closes and not thinking:
            spoken = []
        if not closes and not thinking:
            spoken.append(text[start : tag.start()])
        start, thinking = tag.end(), not closes
    return " ".join([*spoken, "" if thinking else text[start:]]).strip()
