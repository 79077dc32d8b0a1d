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

NAMED = re.compile(r"[\"'“”](\w[\w ]{0,40})[\"'“”]\s*:")  # a name, as in JSON, a Python dict or a text like them
QUOTED = re.compile(  # none where it is cut off
    r"""\s*(?:"(.*?)"|'(.*?)'|“(.*?)”)(?=[\s,\]{]*(?:\}|//|/\*|$))""", re.DOTALL
)
ESCAPES = {'\\"': '"', "\\'": "'", "\\_": "_", "\\n": "\n"}
THOUGHT = re.compile(r"[<\[](/?)(?:think|thinking|thought|reasoning)[>\]]", re.IGNORECASE)
REASONING = ("reasoning_content", "reasoning", "thinking")  # fields of a message, by server
MORE_TOKENS = "allow more tokens in the endpoint's options"
DECODER = json.JSONDecoder(strict=False)  # models break lines within texts
MOST_OBJECTS, DEEPEST = 1000, 4  # looked at in one answer; a report may be wrapped in other objects
MOST_TOKENS = 10**9  # that a server is believed


class Answer(NamedTuple):
    """What came back: a report, or the fault that makes it unusable; tokens of request and answer."""

    report: Report | None
    fault: str | None
    tokens: tuple[int, int]


def read_answer(key: str, response: bytes | str, sent: int = 0) -> Answer:
    """Judge the body of a response; never raises, whatever the body holds.

    Args:
        key: of the request, the nonce that the report must repeat.
        response: a chat completion in JSON. Tokens that it does not report are estimated.
        sent: tokens of the request, estimated.
    """
    completion = _decoded(response)
    choice = _first(_field(completion, "choices", list))
    message = _field(choice, "message", dict)
    usage = _field(completion, "usage", dict) or {}
    if message is None or (_field(choice, "error", dict) and not message.get("content")):
        said = _said(choice if _field(choice, "error", dict) else completion, response)
        return Answer(None, f"malformed response: {said}", _tokens(usage, 0, 0))
    content, thought = _content(message)
    written = round(sum(map(len, (*content, thought))) / CHARACTERS_PER_TOKEN)
    report, fault = _judged(key, choice, content, thought)
    return Answer(report, fault, _tokens(usage, sent, written))


def _judged(key: str, choice: dict, content: list[str], thought: str) -> tuple[Report | None, str | None]:
    """The report with the nonce `key`, or the cause why there is none."""
    ended = choice.get("finish_reason")
    ended = "length" if str(ended).lower() == "max_tokens" else ended
    if choice["message"].get("refusal") or ended == "content_filter":
        return None, "refused"
    answered = [text for text in map(_spoken, content) if text]
    # Some servers and models take a whole answer for thinking; a draft in thoughts that were cut off is no answer.
    texts = answered or ([thought, *content] if ended != "length" else [])
    report, fault = _report(key, texts)
    if report is None and ended == "length":
        fault = (
            f"truncated: {MORE_TOKENS}" if answered else f"truncated while thinking: {MORE_TOKENS}, or less thinking"
        )
    elif report is None and not answered:
        fault = "empty: thinking (reasoning) and no answer" if thought or any(content) else "empty"
    return report, fault


def _report(key: str, texts: Iterable[str]) -> tuple[Report | None, str | None]:
    """The last whole report with the nonce `key` (models correct themselves), or the fault of what is there."""
    texts = list(texts)
    found: list[dict[str, str]] = []
    for reading in (_objects, _mended):
        read = [_fields(value) for text in texts for value in reading(text)]
        for fields in reversed(read):
            if fields.get("nonce") == key and all(fields.get(name, "").strip() for name in Report.model_fields):
                return Report(**{name: _encodable(text) for name, text in fields.items()}), None
        found = found or (read if reading is _objects else [fields for fields in read if "nonce" in fields])
    named = [fields for fields in found if fields.get("nonce") == key]
    if not found:
        return None, "malformed answer: no JSON object"
    best = max(named or found, key=len)
    lacking = [name for name in Report.model_fields if name not in best]
    if lacking:
        return None, f"malformed answer: without {', '.join(lacking)}"
    return None, "empty section" if named else "another record's answer"


def _objects(text: str) -> Iterator[dict]:
    """The JSON objects in a text, in order, each before those that it holds."""
    at = text.find("{")
    for _ in range(MOST_OBJECTS):
        if at < 0:
            return
        try:
            value, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield from _nested(value)
        at = text.find("{", end)


def _nested(value: Any, depth: int = DEEPEST, nonce: Any = None) -> Iterator[dict]:
    """An object and those that it holds; these have its nonce, unless they have one of their own."""
    if isinstance(value, dict):
        yield value if nonce is None else {"nonce": nonce, **value}
        nonce = value.get("nonce", nonce)
        value = list(value.values())
    if isinstance(value, list) and depth:
        for inner in value:
            yield from _nested(inner, depth - 1, nonce)


def _mended(text: str) -> Iterator[dict]:
    """What is nearly JSON: each name in quotes with the quoted text after it, up to the next name.

    So are read a Python dict, a comma too many or too few, a comment, quotes within a text or of typographers, escapes
    of Markdown or HTML, JSON in a JSON text, and fields in objects of their own.
    """
    for escape, meant in ESCAPES.items():
        text = text.replace(escape, meant)
    names = list(NAMED.finditer(html.unescape(text)))[:MOST_OBJECTS]
    fields: dict[str, str] = {}
    for name, following in pairwise([*names, None]):
        if name[1] in fields:  # another object begins
            yield fields
            fields = {}
        value = QUOTED.match(name.string, name.end(), following.start() if following else len(name.string))
        fields[name[1]] = value[value.lastindex] if value else ""
    if fields:
        yield fields


def _fields(value: dict) -> dict[str, str]:
    """The fields of a report that an object has, however their names are written."""
    fields = {}
    for name, text in value.items():
        name = re.sub(r"\W+|(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
        if isinstance(text, list) and all(isinstance(part, str) for part in text):
            text = " ".join(text)
        if name in Report.model_fields and (text is None or isinstance(text, str)):
            fields[name] = (text or "").strip(" \n`*'\"") if name == "nonce" else text or ""
    return fields


def _content(message: dict) -> tuple[list[str], str]:
    """What a message says, calls of tools among it, and what was thought before."""
    content, thought = message.get("content"), [message.get(name) for name in REASONING]
    said = [content]
    if isinstance(content, list):  # parts
        said = ["".join(part["text"] for part in content if isinstance(_field(part, "text", str), str))]
        thought += [part.get("thinking") for part in content if isinstance(part, dict)]
    thought += [_field(part, "text", str) for part in _field(message, "reasoning_details", list) or []]
    calls = [_field(call, "function", dict) for call in _field(message, "tool_calls", list) or []]
    calls = [*calls, message.get("function_call")]
    said += [call.get("arguments") for call in calls if isinstance(call, dict)]
    thoughts = [text for text in thought if isinstance(text, str)]
    said = [json.dumps(value) if isinstance(value, dict) else value for value in said]  # decoded by the server
    return [text for text in said if isinstance(text, str)], max(thoughts, key=len, default="")


def _spoken(text: str) -> str:
    """A text without thoughts, before the answer or after it; the tag that opens the first may be missing."""
    spoken, start, thinking = [], 0, False
    for tag in THOUGHT.finditer(text):
        closes = bool(tag[1])
        if closes and not thinking:
            spoken = []
        if not closes and not thinking:
            spoken.append(text[start : tag.start()])
        start, thinking = tag.end(), not closes
    return " ".join([*spoken, "" if thinking else text[start:]]).strip()


def _tokens(usage: dict, sent: int, written: int) -> tuple[int, int]:
    """Tokens of request and answer, as reported, or the rest of the total, or as estimated."""
    names = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"), ("total_tokens",))
    prompt, completion, total = (max(_count(usage.get(name)) for name in either) for either in names)
    rest = max(total - prompt - completion, 0)  # of the one that is missing
    return prompt or (completion and rest) or sent, completion or (prompt and rest) or written


def _count(value: Any) -> int:
    """A number of tokens; 0 where none is reported."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return int(value) if usable else 0


def _decoded(response: bytes | str) -> Any:
    try:
        text = response.decode() if isinstance(response, bytes) else response
        return json.loads(text.strip("\ufeff \r\n\t"), strict=False)
    except (ValueError, RecursionError):
        return None


def _said(completion: Any, response: bytes | str) -> str:
    """What a body that is no chat completion says, shortened."""
    told = completion if isinstance(completion, dict) else {}
    error = told.get("error") or told.get("detail") or told.get("message")
    error = error.get("message") if isinstance(error, dict) else error
    if isinstance(error, str) and error.strip():
        return _encodable(" ".join(error.split())[:200])
    return "no chat completion" if response else "an empty body"


def _encodable(text: str) -> str:
    """Without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _field(value: Any, name: str, kind: type) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else None


def _first(values: list | None) -> Any:
    return values[0] if values else None
