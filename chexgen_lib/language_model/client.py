"""Requests to models over HTTP: many at once, retried, counted, and stopped when going on makes no sense."""

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from email.utils import parsedate_to_datetime

import openai
from openai import AsyncOpenAI
from tenacity import RetryCallState, retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from tqdm import tqdm

from chexgen_lib.language_model.answers import Answer, read_answer
from chexgen_lib.language_model.cache import AnswerCache, LanguageModelError
from chexgen_lib.language_model.protocol import Endpoint, Report, Request

ATTEMPTS = 6  # per request, not counting those that the server deferred
UNUSABLE = 2 * ATTEMPTS  # answers of a model, before which none could be used: after these it is not asked any more
BACKOFF = wait_random_exponential(multiplier=1, max=60)  # seconds, where the server names none
LONGEST_WAIT = 3600  # seconds; if the server asks for a longer wait, the run stops


class BudgetError(LanguageModelError):
    """The budget is spent."""


class NoAnswerError(Exception):
    """This record has no usable answer, for the reason given; others are not affected."""


class _FaultError(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds, from the server


class _BusyError(_FaultError):
    """The server deferred the request (429)."""


def _wait(state: RetryCallState) -> float:
    """The wait that the server asks for, with jitter so that not all requests return at once; else exponential."""
    asked = state.outcome.exception().wait
    backoff = BACKOFF(state)
    return backoff if asked is None else asked + min(backoff, 0.1 * asked)


class Asker:
    """Sends requests to the models of a run, at most `concurrency` at once to each. Use inside one event loop.

    Every answer is in the cache before anyone sees it. The run stops (`stopped` holds why, requests in flight are still
    received) where the budget is spent, the server refuses what is common to all requests (key, model, format), a
    model's first answers are all unusable, or nobody has had an answer for ATTEMPTS attempts of every slot.
    """

    def __init__(self, cache: AnswerCache, endpoints: Collection[Endpoint], budget: float | None) -> None:
        self.cache, self.budget = cache, budget
        self.stopped: LanguageModelError | None = None
        self._clients = {e: _client(e) for e in endpoints}
        self._slots = {e: asyncio.Semaphore(e.concurrency) for e in endpoints}
        self._given_up = cache.given_up(ATTEMPTS)
        self._spent = spent(cache, endpoints)
        self._failed_in_a_row = 0
        self._reached: set[Endpoint] = set()
        self._unusable = dict.fromkeys(endpoints, 0)  # answers before the first usable one
        self._used: set[Endpoint] = set()

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()

    async def ask(self, request: Request) -> Report:
        """The answer, from the cache or the model; NoAnswerError for this record, LanguageModelError for all."""
        if report := kept(self.cache, self._given_up, request.key):
            return report
        try:
            return await self._attempts(request)
        except _FaultError as fault:
            raise NoAnswerError(f"{fault}, {ATTEMPTS} attempts") from fault

    @retry(retry=retry_if_exception_type(_FaultError), stop=stop_after_attempt(ATTEMPTS), wait=_wait, reraise=True)
    @retry(retry=retry_if_exception_type(_BusyError), wait=_wait, reraise=True)
    async def _attempts(self, request: Request) -> Report:
        endpoint = request.endpoint
        async with self._slots[endpoint]:
            if self.budget is not None and self._spent >= self.budget:
                self.stopped = self.stopped or BudgetError(
                    f"{self._spent:.2f} of the budget of {self.budget:.2f} are spent; finished work is kept: "
                    "run again with a larger budget to go on"
                )
            if self.stopped:
                raise self.stopped
            try:
                # the plain body: the typed method spends a quarter of the time on copying it
                response = await self._clients[endpoint].post("/chat/completions", body=request.body, cast_to=str)
            except openai.APIError as error:
                raise self._failure(endpoint, error) from error
        self._reached.add(endpoint)
        self._failed_in_a_row = 0
        answer = read_answer(request.key, response, request.tokens)
        self.cache.add(request.key, endpoint.model, answer)
        self._spent += endpoint.cost(*answer.tokens)
        if answer.report is None:
            raise self._unusable_answer(endpoint, answer)
        self._used.add(endpoint)
        return answer.report

    def _unusable_answer(self, endpoint: Endpoint, answer: Answer) -> Exception:
        """Try again, or stop the run where nothing that this model answers can be used."""
        self._unusable[endpoint] += answer.fault != "refused"
        if endpoint not in self._used and self._unusable[endpoint] > UNUSABLE:
            self.stopped = self.stopped or LanguageModelError(
                f"{self._where(endpoint)}: none of {self._unusable[endpoint]} answers can be used, the last one: "
                f"{answer.fault}; try another model, or other options of the endpoint"
            )
            return self.stopped
        return _FaultError(answer.fault)

    def _where(self, endpoint: Endpoint) -> str:
        return f"{endpoint.model} at {self._clients[endpoint].base_url}"

    def _failure(self, endpoint: Endpoint, error: openai.APIError) -> Exception:
        """What an error means: try again, give this record up, or stop the run."""
        status, code = getattr(error, "status_code", None), error.code
        where = self._where(endpoint)
        if code in ("content_filter", "context_length_exceeded"):
            return NoAnswerError(code)
        passing = status is None or status in (408, 409, 425, 429) or status >= 500 and status != 501
        said = error.response.text.strip()[:500] if status else ""  # the client's message has only OpenAI's form
        if not passing or code == "insufficient_quota":
            remedy = REMEDIES.get(status, "check the endpoint")
            self.stopped = LanguageModelError(f"{where}: error {status}: {said}; {remedy}")
            return self.stopped
        reason = f"error {status}" if status else str(error).strip(".").lower()
        wait = retry_after(error.response.headers) if status else None
        self._failed_in_a_row += 1
        never = endpoint not in self._reached and _unconnected(error)
        if never or self._failed_in_a_row > ATTEMPTS * endpoint.concurrency:
            self.stopped = LanguageModelError(
                f"{where} does not answer ({reason}); check base_url and the server{said and ', which says: '}{said}"
            )
        elif wait is not None and wait > LONGEST_WAIT:
            self.stopped = LanguageModelError(f"{where} asks to wait for {wait:.0f} s; run again after that")
        return self.stopped or (_BusyError if status == 429 else _FaultError)(reason, wait)


FORMAT = (
    "does it know JSON-schema output and the endpoint's options? If not, set these, for example "
    "options: {max_tokens: 1000, response_format: {type: json_object}}"
)
REMEDIES = {
    400: FORMAT,
    401: "check the API key in the endpoint's environment variable",
    403: "the key has no access to this model",
    404: "check the model's name and base_url",
    422: FORMAT,
    429: "the account has no credit left: add some and run again",
    501: FORMAT,
}


def _unconnected(error: openai.APIError) -> bool:
    """No connection could be made, as opposed to one that was lost; by name, as the client's HTTP library varies."""
    return type(error.__cause__).__name__ == "ConnectError"


def _client(endpoint: Endpoint) -> AsyncOpenAI:
    key = os.environ.get(endpoint.api_key_variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise LanguageModelError(f"the API key in {endpoint.api_key_variable} has characters that no key has")
    if not key and endpoint.base_url is None:
        raise LanguageModelError(
            f"no API key: set {endpoint.api_key_variable}, or give base_url, the address of a server of your own"
        )
    return AsyncOpenAI(api_key=key or "none", base_url=endpoint.base_url, max_retries=0, timeout=endpoint.timeout)


def kept(cache: AnswerCache, given_up: Mapping[str, str], key: str) -> Report | None:
    """The usable answer in the cache; NoAnswerError where earlier runs gave the request up (`cache.given_up`)."""
    report = cache.report(key)
    if report is None and key in given_up:
        raise NoAnswerError(f"{given_up[key]}, {ATTEMPTS} attempts")
    return report


def spent(cache: AnswerCache, endpoints: Collection[Endpoint]) -> float:
    """Money for all answers in the cache, usable or not, at the endpoints' prices."""
    price = {e.model: e for e in endpoints}
    rows = cache.used().select("model", "input_tokens", "output_tokens").iter_rows()
    return sum(price[model].cost(*tokens) for model, *tokens in rows if model in price)


def retry_after(headers) -> float | None:
    """Seconds to wait by a response's headers (a number of seconds or a date), None without a usable value."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


async def for_each(items: Collection[str], do: Callable[[str], Awaitable[None]], workers: int, title: str) -> None:
    """Await `do(item)` for every item, `workers` at a time, with a progress bar.

    Raises:
        LanguageModelError: the first that an item raises, after the others have finished what they began.
    """
    queue, errors = iter(items), []
    with tqdm(total=len(items), desc=title, leave=False) as bar:

        async def work() -> None:
            for item in queue:
                if errors:
                    return
                try:
                    await do(item)
                except LanguageModelError as error:
                    errors.append(error)
                bar.update()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(items))):
                group.create_task(work())
    if errors:
        raise errors[0]
