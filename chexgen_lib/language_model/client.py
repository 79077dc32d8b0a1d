"""Requests to models over HTTP: many at once, each counted and kept, and stopped when going on makes no sense.

The openai package retries what may pass (lost connections, busy or failing servers): after 0.5 s, doubling to 8 s, or
when the server says. Answers that cannot be used are asked for again here, because each of them costs tokens; so are
errors that come with the status of success, which the package takes for answers.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping

import openai
from openai import AsyncOpenAI
from tqdm import tqdm

from chexgen_lib.language_model.answers import Answer, read_answer
from chexgen_lib.language_model.cache import AnswerCache, LanguageModelError
from chexgen_lib.language_model.protocol import Endpoint, Report, Request, without_secrets

ATTEMPTS = 6  # of a request to reach the server, and of a record to get an answer that can be used
WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds after an error with the status of success: doubling, as after others
UNUSABLE = 2 * ATTEMPTS  # answers of a model, before which none could be used: after these it is not asked any more


class BudgetError(LanguageModelError):
    """The budget is spent."""


class NoAnswerError(Exception):
    """This record has no usable answer, for the reason given; others are not affected."""


class Asker:
    """Sends requests to the models of a run, at most `concurrency` at once to each. Use inside one event loop.

    Every answer is in the cache before anyone sees it. The run stops (`stopped` holds why, requests in flight are still
    received) where the budget is spent, the server refuses what is common to all requests (key, model, format), a
    model's first answers are all unusable, or more requests than there are slots have failed with no answer between.
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
        unusable = outages = 0
        while max(unusable, outages) < ATTEMPTS:
            answer = await self._answer(request)
            if answer is None:
                continue
            if answer.report:
                return answer.report
            if answer.is_outage:
                await asyncio.sleep(min(WAIT * 2**outages, LONGEST_WAIT))
            outages += answer.is_outage
            unusable += not answer.is_outage
        raise NoAnswerError(f"{answer.fault}, {ATTEMPTS} attempts")

    async def _answer(self, request: Request) -> Answer | None:
        """What the model answers, usable or not; None where the server still defers the request."""
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
                answer = read_answer(request.key, response, request.tokens)
            except openai.APIError as error:
                if error.code != UNFIT:
                    if failure := self._failure(endpoint, error):
                        raise failure from error
                    return None
                answer = read_answer(request.key, error.response.text, request.tokens)
                answer = answer._replace(tokens=answer.tokens if any(answer.tokens) else (request.tokens, 0))
        if answer.is_outage:
            self._failed_in_a_row += 1
            if self._failed_in_a_row > endpoint.concurrency:
                self.stopped = self._unanswered(endpoint, answer.fault)
                raise self.stopped
            return answer
        return self._kept(request, answer)

    def _kept(self, request: Request, answer: Answer) -> Answer:
        """An answer of a model, in the cache; LanguageModelError where none of its first ones can be used."""
        endpoint = request.endpoint
        self._reached.add(endpoint)
        self._failed_in_a_row = 0
        self.cache.add(request.key, endpoint.model, answer)
        self._spent += endpoint.cost(*answer.tokens)
        if answer.report:
            self._used.add(endpoint)
        elif answer.fault != "refused":
            self._unusable[endpoint] += 1
        if endpoint not in self._used and self._unusable[endpoint] > UNUSABLE:
            self.stopped = self.stopped or LanguageModelError(
                f"{self._where(endpoint)}: none of {self._unusable[endpoint]} answers can be used, the last one: "
                f"{answer.fault}; try another model, or other options of the endpoint"
            )
            raise self.stopped
        return answer

    def _where(self, endpoint: Endpoint) -> str:
        return f"{endpoint.model} at {without_secrets(str(self._clients[endpoint].base_url))}"

    def _unanswered(self, endpoint: Endpoint, reason: str, said: str = "") -> LanguageModelError:
        where, says = self._where(endpoint), f", which says: {said}" if said else ""
        return LanguageModelError(
            f"{where} does not answer ({reason}); check base_url and the server{says}; or run again later"
        )

    def _failure(self, endpoint: Endpoint, error: openai.APIError) -> Exception | None:
        """What an error means after the retries: give this record up, stop the run, or (None) ask again."""
        status, code = getattr(error, "status_code", None), error.code
        where = self._where(endpoint)
        if code in ("content_filter", "context_length_exceeded"):
            return NoAnswerError(code)
        passing = status is None or status in (408, 409, 425, 429) or status >= 500 and status != 501
        said = " ".join(error.response.text.split())[:500] if status else ""  # the client's message has OpenAI's form
        if status in (400, 413, 422) and endpoint in self._reached and TOO_LONG.search(said):  # this record, not all
            return NoAnswerError("context_length_exceeded")
        if not passing or code == "insufficient_quota":
            remedy = ROOM if TOO_LONG.search(said) else REMEDIES.get(status, "check the endpoint")
            self.stopped = LanguageModelError(f"{where}: error {status}: {said}; {remedy}")
            return self.stopped
        reason = f"error {status}" if status else str(error).strip(".").lower()
        self._failed_in_a_row += 1
        never = endpoint not in self._reached and _unconnected(error)
        if never or self._failed_in_a_row > endpoint.concurrency:
            self.stopped = self._unanswered(endpoint, reason, said)
            return self.stopped
        return None if status == 429 else NoAnswerError(f"{reason}, {ATTEMPTS} attempts")


FORMAT = (
    "does it know JSON-schema output and the endpoint's options? If not, set these, for example "
    "options: {max_tokens: 1000, response_format: {type: json_object}}"
)
ROOM = "serve the model with a longer context, or allow fewer tokens in the endpoint's options"
UNFIT = "json_validate_failed"  # Groq's code of an answer that is not of the schema; its text comes with it
# As vLLM, llama.cpp, TGI and others say that a request and its answer do not fit.
TOO_LONG = re.compile(r"context (?:length|window|size)|too long|too many tokens|max_new_tokens", re.IGNORECASE)
REMEDIES = {
    400: FORMAT,
    401: "check the API key in the endpoint's environment variable",
    402: "the account has no credit left: add some and run again",
    403: "the key has no access to this model",
    404: "check the model's name and base_url, which ends before /chat/completions",
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
    retries = ATTEMPTS - 1
    return AsyncOpenAI(api_key=key or "none", base_url=endpoint.base_url, max_retries=retries, timeout=endpoint.timeout)


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
