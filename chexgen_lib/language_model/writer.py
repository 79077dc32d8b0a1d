"""Descriptions written by a language model and reviewed by a second one (paper: GPT-4, then Qwen-2.5; ED Table 5).

    model = LanguageModel(Endpoint("gpt-4o-2024-08-06", price=(2.5, 10)),
                          Endpoint("Qwen/Qwen2.5-72B-Instruct", base_url="http://127.0.0.1:8000/v1"),
                          cache="answers.sqlite", budget=200)
    model.estimate(records)
    records, fallbacks = model.describe(records)

The writer turns a record's facts into four sections; the reviewer corrects them; then a program checks the text against
the record (`descriptions.check`, and numbers that the facts do not hold). A text that fails goes back to the writer
once, with the reasons. A record whose text fails again, or that has no usable answer, gets the grammar's text, and
`fallbacks` says why. So no text reaches a record unless the program has passed it, whatever the models, or instructions
hidden in a record, produce.

Records with the same facts and wording number (12, from a hash of the image id) share one answer: that keeps wordings
varied and a cohort of many normal radiographs affordable. All answers are kept in `cache`: calling an interrupted run
again resumes it. The requests in flight when a process is killed, at most `concurrency`, are paid for and lost. A
request with as many unusable answers in the cache as a run attempts is not sent again; to try it again, change the
options (more tokens, say) or use another cache.
"""

import dataclasses
import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from pathlib import Path
from typing import TypeVar

import anyio.from_thread
import polars as pl

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.language_model.cache import AnswerCache
from chexgen_lib.language_model.client import ATTEMPTS, Asker, NoAnswerError, for_each, kept, spent
from chexgen_lib.language_model.facts import Facts, masked, project
from chexgen_lib.language_model.protocol import CHARACTERS_PER_TOKEN, Endpoint, Report, Request, request

PROMPT, REVIEW_PROMPT = "description-1", "quality_control-1"
Ask = Callable[[Request], Awaitable[Report]]
Texts = dict[str, str | NoAnswerError]  # facts -> their text, or why there is none
T = TypeVar("T")

_TYPICAL = Report(
    nonce="0" * 32, patient_information="x" * 40, technique="x" * 40, findings="x" * 400, impression="x" * 120
)
_TYPICAL_TOKENS = round(len(_TYPICAL.model_dump_json()) / CHARACTERS_PER_TOKEN)


def describe(
    records: pl.DataFrame, writer: dict | None, reviewer: dict | None, cache: str | Path, budget: float | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Descriptions by the grammar, or by language models where `writer` gives the settings of one.

    Args:
        records: to describe.
        writer, reviewer: fields of an `Endpoint`; without a reviewer the writer reviews its own texts.
        cache: file of all answers.
        budget: money that all answers may cost, None for no limit.

    Returns:
        The records with their descriptions; image_id and reason of those that a model could not describe.
    """
    if writer is None:
        return grammar.describe(records), pl.DataFrame(schema={"image_id": pl.String, "reason": pl.String})
    endpoints = [_endpoint(settings) for settings in (writer, reviewer) if settings is not None]
    return LanguageModel(*endpoints, cache=cache, budget=budget).describe(records)


def _endpoint(settings: dict) -> Endpoint:
    known = [field.name for field in dataclasses.fields(Endpoint)]
    if not isinstance(settings, dict) or "model" not in settings or not settings.keys() <= set(known):
        names = sorted(map(str, settings)) if isinstance(settings, dict) else type(settings).__name__
        raise ValueError(  # names alone: a value may be a key or a password
            f"writer or reviewer {names}: give `model`, and of {', '.join(known[1:])} what differs; an API key belongs "
            "in the environment variable that api_key_variable names"
        )
    price = settings.get("price", (0, 0))
    return Endpoint(**settings | {"price": tuple(price) if isinstance(price, list) else price})


def cost_table(sample: pl.DataFrame, records: int, price_lists: dict[str, tuple[float, float]]) -> pl.DataFrame:
    """What writing and reviewing would cost at each price list, estimated on a sample of records.

    Args:
        sample: records, of which those with the same facts share an answer.
        records: distinct ones in the whole corpus.
        price_lists: name -> price of a million tokens in and out.

    Returns:
        model, in, out (prices), tokens in, tokens out (of a distinct record), a thousand records, the corpus.
    """
    estimate = LanguageModel(Endpoint("writer"), Endpoint("reviewer"), cache=":memory:").estimate(sample)
    tokens = [estimate[c].sum() / estimate["requests"][0] for c in ("input_tokens", "output_tokens")]
    rows = []
    for name, prices in price_lists.items():
        cost = sum(t * p for t, p in zip(tokens, prices, strict=True)) / 1e6
        rows.append((name, *prices, *map(round, tokens), round(1000 * cost, 2), round(records * cost)))
    columns = ["model", "in", "out", "tokens in", "tokens out", "a thousand records", f"{records:,} records"]
    return pl.DataFrame(rows, columns, orient="row")


class LanguageModel:
    """Writer, reviewer and cache.

    Args:
        writer: endpoint of the model that writes.
        reviewer: of the one that reviews; without one the writer reviews its own texts.
        cache: path of the file that keeps all answers.
        budget: money that all answers in the cache together may cost, at the endpoints' prices; answers in flight when
            it is reached are still received.
        with_report: also send the radiologist's words (see `facts.project`).

    Raises:
        ValueError: for a negative budget, or one without prices.
    """

    def __init__(
        self,
        writer: Endpoint,
        reviewer: Endpoint | None = None,
        *,
        cache: str | Path,
        budget: float | None = None,
        with_report: bool = False,
    ) -> None:
        self.writer, self.reviewer = writer, reviewer or writer
        self.cache, self.budget, self.with_report = Path(cache), budget, with_report
        self._endpoints = list(dict.fromkeys((self.writer, self.reviewer)))
        amount = isinstance(budget, int | float) and budget >= 0
        if budget is not None and not (amount and any(max(e.price) for e in self._endpoints)):
            raise ValueError(f"budget {budget!r}: give an amount >= 0, and the price of the endpoints' tokens")

    @property
    def origin(self) -> str:
        """The description_origin of texts by this model."""
        return f"{self.writer.model} {PROMPT}"

    def describe(self, df: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Descriptions by the models, by the grammar where they fail; calling again resumes.

        Returns:
            `df` with description and its origin; image_id and reason of the grammar's texts.

        Raises:
            LanguageModelError: where it cannot go on (BudgetError: the budget is spent).
        """
        work = self._work(df)
        with AnswerCache(self.cache) as cache:

            async def run() -> Texts:
                async with Asker(cache, self._endpoints, self.budget) as asker:
                    return await self._final(work, asker.ask)

            texts = _finish(run)
        return self._described(df, texts)

    def estimate(self, df: pl.DataFrame) -> pl.DataFrame:
        """What `describe(df)` would still send: columns model, requests, input_tokens, output_tokens, cost.

        A rough figure: tokens from characters, answers of typical length, no repairs and no faults.
        """
        asked: dict[str, Request] = {}

        async def note(request: Request) -> Report:
            asked[request.key] = request
            return _TYPICAL

        work = self._work(df)
        with AnswerCache(self.cache) as cache:
            given_up = cache.given_up(ATTEMPTS)

            async def ask(request: Request) -> Report:
                return kept(cache, given_up, request.key) or await note(request)

            _finish(self._reviewed, work, ask)
        rows = []
        for endpoint in self._endpoints:
            requests = [r for r in asked.values() if r.endpoint == endpoint]
            tokens = sum(r.tokens for r in requests), len(requests) * _TYPICAL_TOKENS
            rows.append((endpoint.model, len(requests), *tokens, endpoint.cost(*tokens)))
        return pl.DataFrame(rows, schema=["model", "requests", "input_tokens", "output_tokens", "cost"], orient="row")

    def used(self) -> pl.DataFrame:
        """Answers and tokens per model, over all runs with this cache; see `AnswerCache.used`."""
        with AnswerCache(self.cache) as cache:
            return cache.used()

    def spent(self) -> float:
        """Money for all answers in the cache."""
        with AnswerCache(self.cache) as cache:
            return spent(cache, self._endpoints)

    # Steps

    def _work(self, df: pl.DataFrame) -> pl.DataFrame:
        """One record for each distinct set of facts."""
        facts = project(df, self.with_report)
        return df.with_columns(facts).drop_nulls("facts").unique("facts", keep="first", maintain_order=True)

    async def _final(self, work: pl.DataFrame, ask: Ask) -> Texts:
        """Texts that passed the program, after one repair where needed."""
        texts = await self._reviewed(work, ask)
        faults = _faults(work, texts)

        async def repair(facts: str) -> None:
            texts[facts] = await self._corrected(self.writer, facts, texts[facts], faults[facts], ask)

        await for_each(list(faults), repair, self.writer.concurrency, "repairs")
        left = _faults(work.filter(pl.col("facts").is_in(list(faults))), texts)
        return texts | {facts: NoAnswerError(f"program: {'; '.join(why)}") for facts, why in left.items()}

    async def _reviewed(self, work: pl.DataFrame, ask: Ask) -> Texts:
        """Texts that were written and reviewed."""
        texts: Texts = {}

        async def write(facts: str) -> None:
            try:
                draft = await ask(request(self.writer, PROMPT, facts=json.loads(facts)))
                texts[facts] = await self._corrected(self.reviewer, facts, draft.text(), [], ask)
            except NoAnswerError as error:
                texts[facts] = NoAnswerError(f"description: {error}")

        workers = sum(e.concurrency for e in self._endpoints)
        await for_each(work["facts"].to_list(), write, workers, "descriptions")
        return texts

    async def _corrected(
        self, endpoint: Endpoint, facts: str, text: str, faults: list[str], ask: Ask
    ) -> str | NoAnswerError:
        data = {"facts": json.loads(facts), "description": text, "faults": faults}
        try:
            return (await ask(request(endpoint, REVIEW_PROMPT, **data))).text()
        except NoAnswerError as error:
            return NoAnswerError(f"{'repair' if faults else 'quality control'}: {error}")

    def _described(self, df: pl.DataFrame, texts: Texts) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows = [(f, None, str(t)) if isinstance(t, NoAnswerError) else (f, t, None) for f, t in texts.items()]
        found = pl.DataFrame(rows, schema=dict.fromkeys(("facts", "text", "reason"), pl.String), orient="row")
        facts = project(df, self.with_report).to_frame()
        found = facts.join(found, on="facts", how="left", maintain_order="left")
        text, by_model = found["text"], found["text"].is_not_null()
        records = grammar.describe(df).with_columns(
            description=pl.when(by_model).then(text).otherwise("description"),
            description_origin=pl.when(by_model).then(pl.lit(self.origin)).otherwise("description_origin"),
        )
        reason = found["reason"].fill_null("nothing to describe")
        return records, df.select("image_id", reason=reason).filter(~by_model)


def _faults(work: pl.DataFrame, texts: Texts) -> dict[str, list[str]]:
    """Why the program rejects texts: what `descriptions.check` found, and what is foreign to the facts."""
    written = {facts: text for facts, text in texts.items() if isinstance(text, str)}
    rows = work.filter(pl.col("facts").is_in(list(written)))
    rows = rows.with_columns(description=pl.col("facts").replace_strict(written, return_dtype=pl.String))
    faults = {}
    # masked, because the reasons name labels as the record has them, and a repair sends the reasons
    for facts, qc in check(rows).select("facts", masked(pl.col("qc"))).iter_rows():
        found = [] if qc == PASS else qc.removeprefix("fail: ").split("; ")
        if found := found + _foreign(facts, written[facts]):
            faults[facts] = found
    return faults


def _foreign(facts: str, text: str) -> list[str]:
    """Numbers that the facts do not hold (measurements, dates), and the signs of markup, code and addresses."""
    known = Facts.model_validate_json(facts).model_dump_json(exclude={"wording", "report"})
    numbers = sorted(set(re.findall(r"\d+", text)) - set(re.findall(r"\d+", known)))
    signs = sorted(set(re.findall(r"[@<>{}|\\#*`]|https?:|www\.", text)))
    return [f"adds number {n}" for n in numbers] + [f"adds {s}" for s in signs]


def _finish(step: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run to the end, in a separate thread, because a notebook's thread already has an event loop."""
    with anyio.from_thread.start_blocking_portal() as portal:
        future = portal.start_task_soon(step, *arguments)
        while not wait([future], timeout=0.5).done:  # an endless wait does not notice Ctrl-C on every system
            pass
        return future.result()
