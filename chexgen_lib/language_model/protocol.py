"""A request to a chat model, and the report that it asks for.

A request's key is a hash of all that determines its answer (model, prompt, data, options). It is also the nonce that
the answer must repeat, so an answer to another record is recognised; as a hash of the facts it says nothing about whose
they are.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

ADDRESS = re.compile("https?://[^/]")
OWN = ("model", "messages", "extra_body")  # which options cannot hold: the request's own, and a word of a client
CHARACTERS_PER_TOKEN = 3.5  # of English prose and JSON in the vocabularies of GPT-4 and Qwen2.5, roughly


class Report(BaseModel):
    """The four sections of ED Table 5."""

    model_config = ConfigDict(extra="forbid")  # required by strict structured output

    nonce: str
    patient_information: str
    technique: str
    findings: str
    impression: str

    def text(self) -> str:
        """The description as one paragraph."""
        sections = {
            "Patient Information": self.patient_information,
            "Technique": self.technique,
            "Findings": self.findings,
            "Impression": self.impression,
        }
        return " ".join(f"{title}: {_sentences(title, text)}" for title, text in sections.items())


def _sentences(title: str, text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(rf"(?i)^\W*{title}:\s*", "", text)
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address.

    Attributes:
        model: its name.
        base_url: None for OpenAI's own, otherwise such as "http://127.0.0.1:8000/v1" (vLLM, transformers serve). It may
            hold a password: print `without_secrets(base_url)` only.
        api_key_variable: the environment variable that holds the key; a server of one's own may need none.
        concurrency: requests in flight at once.
        timeout: seconds, of one attempt.
        price: money per million tokens, of requests and of answers.
        options: further fields of the request, None to leave one out. A change of them, of the model or of a prompt
            asks every record again.
    """

    model: str
    base_url: str | None = field(default=None, repr=False)
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 32
    timeout: float = 60.0
    price: tuple[float, float] = (0.0, 0.0)
    options: Mapping[str, object] = field(default_factory=lambda: {"max_completion_tokens": 1000}, hash=False)

    def __post_init__(self) -> None:
        fit = {
            "model": isinstance(self.model, str) and self.model,
            "concurrency": isinstance(self.concurrency, int) and self.concurrency >= 1,
            "timeout": _is_number(self.timeout) and self.timeout > 0,
            "price": isinstance(self.price, tuple | list)
            and len(self.price) == 2
            and all(_is_number(price) and price >= 0 for price in self.price),
        }
        if not all(fit.values()):
            values = ", ".join(f"{name} {getattr(self, name)!r}" for name in fit)
            raise ValueError(f"{values}: needs a model, concurrency >= 1, timeout > 0 and two prices >= 0")
        if self.base_url is not None and not (isinstance(self.base_url, str) and ADDRESS.match(self.base_url)):
            raise ValueError(f"base_url {without_secrets(str(self.base_url))!r}: write it as http://127.0.0.1:8000/v1")
        if not (isinstance(self.api_key_variable, str) and self.api_key_variable.isidentifier()):
            raise ValueError("api_key_variable must be the name of an environment variable, which holds the key")
        if not isinstance(self.options, Mapping) or (taken := [name for name in OWN if name in self.options]):
            given = f"options {', '.join(taken)}" if isinstance(self.options, Mapping) else "options"
            raise ValueError(f"{given}: must be a mapping of further fields of the request, without {', '.join(OWN)}")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        return (input_tokens * self.price[0] + output_tokens * self.price[1]) / 1e6


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def without_secrets(address: str) -> str:
    """An address as it may be printed: without user, password and query."""
    return re.sub(r"(https?://)?.*@|[?#].*", r"\1", address)


@dataclass(frozen=True)
class Request:
    """One question to a model: `body` is what the chat completions interface takes."""

    key: str
    endpoint: Endpoint
    body: dict

    @property
    def tokens(self) -> int:
        """Tokens of the messages, estimated."""
        return round(sum(len(m["content"]) for m in self.body["messages"]) / CHARACTERS_PER_TOKEN)


def request(endpoint: Endpoint, prompt: str, **data: object) -> Request:
    """The request that puts `data` to a model under the prompt of that name, such as "description-1"."""
    parts = [endpoint.model, template(prompt), data, dict(endpoint.options), _response_format()]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    # "<" is escaped, so no text in the data can close the delimiter.
    payload = json.dumps({"nonce": key, **data}, ensure_ascii=False).replace("<", "\\u003c")
    messages = [
        {"role": "system", "content": template(prompt)},
        {"role": "user", "content": f"<data>\n{payload}\n</data>"},
    ]
    body = {"model": endpoint.model, "messages": messages, "response_format": _response_format()}
    return Request(key, endpoint, {name: v for name, v in (body | dict(endpoint.options)).items() if v is not None})


@cache
def template(name: str) -> str:
    """The text of a prompt; names end in its version."""
    return (files(__package__) / "templates" / f"{name}.txt").read_text(encoding="utf-8").strip()


@cache
def _response_format() -> dict:
    schema = {"name": "report", "strict": True, "schema": Report.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}
