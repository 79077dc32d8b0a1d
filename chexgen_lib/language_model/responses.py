"""What the body of a response says, whatever form the server gives it.

Requests go to OpenAI's interface for chats; what comes back through gateways and servers of one's own may be a stream
of parts, wrapped in an object of the gateway, or in the form of another maker's interface. All of it was paid for.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

REASONING = ("reasoning_content", "reasoning", "thinking")  # fields of a message, by server
WRAPPERS = ("data", "result", "response", "completion", "body")  # of gateways
ENDED = ("finish_reason", "stop_reason", "finishReason", "done_reason")
CUT = ("length", "max_tokens", "max_output_tokens", "max_length", "model_length")
REFUSED = ("content_filter", "refusal", "safety", "prohibited_content", "blocklist")
USAGE = ("usage", "usageMetadata", "timings")
PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count", "tokens_evaluated", "prompt_n")
PROMPT += ("inputTokens",)
WRITTEN = ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count", "tokens_predicted")
WRITTEN += ("predicted_n", "outputTokens")
TOTAL = ("total_tokens", "totalTokenCount", "totalTokens")
MOST_TOKENS = 10**9  # that a server is believed
DEEPEST = 4  # objects around a completion
INNERMOST = 20  # objects and lists around a text, in any interface


class Response(NamedTuple):
    """A message in parts, and what is said about it.

    Attributes:
        content: what the message says, calls of tools among it.
        thought: what was thought before.
        ended: "length", "refused" or None for all else.
        usage: whatever counts tokens.
        error: what the body says in place of a message, shortened; None where there is one.
    """

    content: list[str]
    thought: str
    ended: str | None
    usage: dict[str, Any]
    error: str | None


def read_response(response: bytes | str) -> Response:
    """Take the body of a response apart; never raises, whatever it holds."""
    values = _decoded(response)
    found = [part for value in values if (part := _part(value)) is not None]
    usage = {name: count for value in values for name, count in _usage(value).items()}
    if not found:
        return Response([], "", None, usage, _said(values[-1] if values else None, response))
    messages = [message for message, _ in found]
    ended = [str(end).lower() for _, end in found if end]
    cause = next((name for name, ends in (("refused", REFUSED), ("length", CUT)) if {*ends} & {*ended}), None)
    if any(isinstance(message.get("refusal"), str) and message["refusal"] for message in messages):
        cause = "refused"
    if len(messages) == 1:
        return Response(*_content(messages[0]), cause, usage, None)
    streamed = [_content(message) for message in messages]
    said, thought = "".join("".join(said) for said, _ in streamed), "".join(thought for _, thought in streamed)
    return Response([said] if said else [], thought, cause, usage, None)


def tokens(usage: Mapping[str, Any], sent: int, written: int) -> tuple[int, int]:
    """Tokens of request and answer, as reported, or the rest of the total, or as estimated (`sent`, `written`)."""
    prompt, completion, total = (max(_count(usage.get(name)) for name in names) for names in (PROMPT, WRITTEN, TOTAL))
    rest = max(total - prompt - completion, 0)  # of the one that is missing, or thoughts that the total alone counts
    return prompt or (completion and rest) or sent, (prompt and completion + rest) or completion or written


def everywhere(response: bytes | str) -> list[str]:
    """All texts of a body, whatever its form, without thoughts; those of one place, as of a stream, are one text.

    An object with a nonce is a text too, in JSON.
    """
    places: dict[tuple[str, ...], list[str]] = {}
    for value in _decoded(response) or [response]:
        for place, text in _leaves(value):
            places.setdefault(place, []).append(text)
    return ["".join(texts) for texts in places.values()]


def _leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts in a value, each with the names of its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict) and any(name.lower() == "nonce" for name in value):
        yield place, json.dumps(value)
    elif isinstance(value, dict | list) and len(place) < INNERMOST and not _is_thought(value):
        inner = value.items() if isinstance(value, dict) else (("", part) for part in value)
        for name, part in inner:
            if name not in REASONING:
                yield from _leaves(part, (*place, name))


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and (part.get("thought") is True or part.get("type") in (*REASONING, "thought"))


def encodable(text: str) -> str:
    """Without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def field(value: Any, name: str, kind: type) -> Any:
    """The value of a key, None where there is none of that type."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, kind) else None


def _decoded(response: bytes | str) -> list[Any]:
    """The JSON values of a body: one, or those of a stream (server-sent events, or a value a line)."""
    try:
        text = response.decode() if isinstance(response, bytes) else response
        text = text.strip("\ufeff \r\n\t")
        try:
            return [json.loads(text, strict=False)]
        except ValueError:
            lines = [line.strip().removeprefix("data:").strip() for line in text.splitlines()]
            return [json.loads(line, strict=False) for line in lines if line.startswith("{")]
    except (ValueError, RecursionError):
        return []


def _part(value: Any, depth: int = DEEPEST) -> tuple[dict, Any] | None:
    """A message, or a part of a streamed one, with why it ended; None where a value holds none."""
    if isinstance(value, list):
        value = next((inner for inner in value if isinstance(inner, dict)), None)
    if not isinstance(value, dict) or not depth:
        return None
    choices = [part for choice in field(value, "choices", list) or [] if (part := _choice(choice)) is not None]
    choices += [part for choice in field(value, "candidates", list) or [] if (part := _choice(choice)) is not None]
    if choices:
        return next((part for part in choices if any(_content(part[0])[0])), choices[0])
    if isinstance(value.get("choices"), list):
        return None
    ended = next((value[name] for name in ENDED if value.get(name)), None)
    if message := field(value, "message", dict):
        return message, ended
    if "content" in value and ("role" in value or "type" in value or "stop" in value):
        return value, ended
    if (items := field(value, "output", list)) is not None and "object" in value:  # OpenAI's interface of responses
        why = field(value, "incomplete_details", dict) or {}
        parts = [part for item in items for part in field(item, "content", list) or []]
        return {"content": parts}, why.get("reason")
    wrapped = (_part(value.get(name), depth - 1) for name in WRAPPERS)
    return next((part for part in wrapped if part is not None), None)


def _choice(choice: Any) -> tuple[dict, Any] | None:
    """One choice of a completion; None of one that failed or is none."""
    message = field(choice, "message", dict) or field(choice, "delta", dict) or field(choice, "content", dict)
    if message is None and isinstance(choice, dict) and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if message is None and field(choice, "message", dict) is None and field(choice, "delta", dict) is None:
        return None
    message = {} if message is None else message
    if isinstance(message.get("parts"), list):
        message = {"content": message["parts"]}
    if field(choice, "error", dict) and not message.get("content"):
        return None
    return message, next((choice[name] for name in ENDED if choice.get(name)), None)


def _content(message: dict) -> tuple[list[str], str]:
    """What a message says, calls of tools among it, and what was thought before."""
    content, thought = message.get("content"), [message.get(name) for name in REASONING]
    said = [content, message.get("parsed")]
    if isinstance(content, list):
        said[0] = "".join(_texts(content))
        thought += [part.get("thinking") for part in content if isinstance(part, dict)]
    thought += [field(part, "text", str) for part in field(message, "reasoning_details", list) or []]
    calls = [field(call, "function", dict) for call in field(message, "tool_calls", list) or []]
    calls = [*calls, message.get("function_call")]
    said += [call.get("arguments") for call in calls if isinstance(call, dict)]
    said += [json.dumps(part["input"]) for part in content or () if field(part, "input", dict)]
    thoughts = [text for text in thought if isinstance(text, str)]
    said = [json.dumps(value) if isinstance(value, dict) else value for value in said]  # decoded by the server
    return [text for text in said if isinstance(text, str)], max(thoughts, key=len, default="")


def _texts(parts: list[Any]) -> Iterable[str]:
    """The texts of a message in parts, without thoughts."""
    for part in parts:
        text = field(part, "text", str) or field(field(part, "text", dict), "value", str)
        if isinstance(part, str) or (text and part.get("thought") is not True):
            yield text or part


def _usage(value: Any, depth: int = DEEPEST) -> dict[str, Any]:
    """What counts tokens in a value and what wraps it."""
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, dict) or not depth:
        return {}
    found = {name: value[name] for name in (*PROMPT, *WRITTEN, *TOTAL) if name in value}
    found |= {name: count for key in USAGE for name, count in (field(value, key, dict) or {}).items()}
    inner = (*WRAPPERS, "message")
    return found | {name: count for key in inner for name, count in _usage(value.get(key), depth - 1).items()}


def _count(value: Any) -> int:
    """A number of tokens; 0 where none is reported."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return int(value) if usable else 0


def _said(value: Any, response: bytes | str) -> str:
    """What a body that is no chat completion says, shortened."""
    told = value[0] if isinstance(value, list) and value else value
    choices = field(told, "choices", list)
    told = choices[0] if choices and field(choices[0], "error", dict) else told
    told = told if isinstance(told, dict) else {}
    error = told.get("error") or told.get("detail") or told.get("message")
    error = error.get("message") if isinstance(error, dict) else error
    if isinstance(error, str) and error.strip():
        return encodable(" ".join(error.split())[:200])
    return "no chat completion" if response else "an empty body"
