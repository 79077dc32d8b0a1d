"""Descriptions written by a language model and reviewed by a second one (paper: GPT-4, then Qwen-2.5; ED Table 5).

    model = LanguageModel(Endpoint("gpt-4o-2024-08-06", price=(2.5, 10)),
                          Endpoint("Qwen/Qwen2.5-72B-Instruct", base_url="http://127.0.0.1:8000/v1"),
                          cache="answers.sqlite", budget=200)
    model.estimate(records)
    records, fallbacks = model.describe(records)

The writer turns a record's facts into four sections; the reviewer corrects them; then a program checks the
text against the record (``quality_control.check``, and numbers that the facts do not hold). What fails goes
back to the writer once, with the reasons. What fails again, or has no usable answer, gets the grammar's text,
and ``fallbacks`` says why. So no text reaches a record that the program has not passed, whatever the models,
or instructions hidden in a record, brought about.

Records with the same facts and wording number (12, from a hash of the image id) share one answer: that keeps
wordings varied and a cohort of many normal radiographs affordable. All answers are kept in ``cache``: a run
that was stopped is resumed by calling it again. What a process had in flight when it was killed was paid for
and is not known, at most ``concurrency`` requests. A request whose answers in the cache are all unusable, as
many as a run attempts, is not asked again: that takes other options (more tokens, say), or another cache.
"""

import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from pathlib import Path
from typing import TypeVar

import anyio.from_thread
import polars as pl
from pydantic import BaseModel, ValidationError

from chexgen_lib.descriptions import check as quality_control
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.language_model.cache import AnswerCache
from chexgen_lib.language_model.client import ATTEMPTS, Asker, NoAnswerError, for_each, kept, spent
from chexgen_lib.language_model.facts import Facts, masked, project
from chexgen_lib.language_model.protocol import (
    CHARACTERS_PER_TOKEN,
    Answer,
    Endpoint,
    Report,
    Request,
    read_answer,
    request,
)
from chexgen_lib.storage import replacing

PROMPT, REVIEW_PROMPT = "description-1", "quality_control-1"
BATCH_LINES = 50_000  # what the batch interface takes in one file
BAD_LINES = {"line": pl.Int64, "key": pl.String, "reason": pl.String}
Ask = Callable[[Request], Awaitable[Report]]
Texts = dict[str, str | NoAnswerError]  # for each facts the text, or why there is none
T = TypeVar("T")

_TYPICAL = Report(
    nonce="0" * 32, patient_information="x" * 40, technique="x" * 40, findings="x" * 400, impression="x" * 120
)
_TYPICAL_TOKENS = round(len(_TYPICAL.model_dump_json()) / CHARACTERS_PER_TOKEN)


class LanguageModel:
    """Writer, reviewer and cache.

    reviewer: None has the writer review, too. cache: path of the file that keeps all answers. budget: money
    that all answers in the cache together may cost, at the endpoints' prices; answers in flight when it is
    reached are still received. with_report: also send the radiologist's words (see ``projection``).
    Raises ValueError for a negative budget, or one without prices.
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
        if budget is not None and (budget < 0 or not any(max(e.price) for e in self._endpoints)):
            raise ValueError(f"budget {budget}: give an amount >= 0, and the price of the endpoints' tokens")

    @property
    def origin(self) -> str:
        """What description_origin says of a text of this model."""
        return f"{self.writer.model} {PROMPT}"

    def describe(self, df: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(records, fallbacks): ``df`` with description and its origin; image_id and reason of the grammar's texts.

        Raises LanguageModelError (BudgetError) where it cannot go on; calling again resumes.
        """
        work = self._work(df)
        with AnswerCache(self.cache) as cache:

            async def run() -> Texts:
                async with Asker(cache, self._endpoints, self.budget) as asker:
                    return await self._final(work, asker.ask)

            texts = _finish(run)
        return self._described(df, texts)

    def estimate(self, df: pl.DataFrame) -> pl.DataFrame:
        """What ``describe(df)`` would still ask: columns model, requests, input_tokens, output_tokens, cost.

        A rough figure: tokens from characters, answers of typical length, no repairs and no faults.
        """
        asked: dict[str, Request] = {}

        async def note(request: Request) -> Report:
            asked[request.key] = request
            return _TYPICAL

        self._from_cache(df, note, self._reviewed)
        rows = []
        for endpoint in self._endpoints:
            requests = [r for r in asked.values() if r.endpoint == endpoint]
            tokens = sum(r.tokens for r in requests), len(requests) * _TYPICAL_TOKENS
            rows.append((endpoint.model, len(requests), *tokens, endpoint.cost(*tokens)))
        return pl.DataFrame(rows, schema=["model", "requests", "input_tokens", "output_tokens", "cost"], orient="row")

    def used(self) -> pl.DataFrame:
        """Answers and tokens per model, over all runs with this cache; see ``AnswerCache.used``."""
        with AnswerCache(self.cache) as cache:
            return cache.used()

    def spent(self) -> float:
        """Money for all answers in the cache."""
        with AnswerCache(self.cache) as cache:
            return spent(cache, self._endpoints)

    # --- batch files ---

    def export_batch(self, df: pl.DataFrame, folder: str | Path) -> list[Path]:
        """Write the requests that can be asked now as batch files (JSON lines, one model a file).

        Upload them, import the results, and export again for the next step (review, repair) until nothing is
        written; then call ``describe``. What is in a file is not asked again until its result is imported.
        """
        asked: dict[str, Request] = {}

        async def note(request: Request) -> Report:
            asked[request.key] = request
            raise NoAnswerError("to be exported")

        waiting = self._from_cache(df, note, self._final)
        new = [r for r in asked.values() if r.key not in waiting]
        paths = []
        for endpoint in self._endpoints:
            requests = [r for r in new if r.endpoint == endpoint]
            for start in range(0, len(requests), BATCH_LINES):
                paths.append(self._write_batch(requests[start : start + BATCH_LINES], Path(folder)))
        return paths

    def _write_batch(self, requests: list[Request], folder: Path) -> Path:
        """One file; its name holds the first key, so no two files share one."""
        model = re.sub(r"[^\w.-]+", "-", requests[0].endpoint.model)
        path = folder / f"{model}-{requests[0].key[:12]}.jsonl"
        lines = (
            {"custom_id": r.key, "method": "POST", "url": "/v1/chat/completions", "body": r.body} for r in requests
        )
        with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with AnswerCache(self.cache) as cache:
            cache.export((r.key, r.endpoint.model) for r in requests)
        return path

    def import_batch(self, path: str | Path) -> pl.DataFrame:
        """Keep the answers of a result (or error) file; line (1-based), key and reason of those not usable.

        A request whose answer is not usable may be exported again, as often as a run attempts one. Lines that
        answer nothing exported from this cache, or the same request again, are listed and not kept.
        """
        bad = []
        with AnswerCache(self.cache) as cache, open(path, encoding="utf-8", errors="replace") as lines:
            exported = cache.exported()
            for number, line in enumerate(lines, 1):
                key, fault = _import_line(cache, exported, line)
                if fault:
                    bad.append((number, key, fault))
        return pl.DataFrame(bad, schema=BAD_LINES, orient="row")

    def withdraw_batches(self) -> None:
        """Forget what was exported and has no result: the batch was cancelled, and may be asked again."""
        with AnswerCache(self.cache) as cache:
            cache.withdraw()

    # --- steps ---

    def _work(self, df: pl.DataFrame) -> pl.DataFrame:
        """One record for each distinct facts."""
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

    def _from_cache(self, df: pl.DataFrame, missing: Ask, step: Callable[..., Awaitable[Texts]]) -> dict[str, str]:
        """Take a step with the cache, ``missing`` in place of a model; the keys that are in batch files."""
        work = self._work(df)
        with AnswerCache(self.cache) as cache:
            given_up = cache.given_up(ATTEMPTS)

            async def ask(request: Request) -> Report:
                return kept(cache, given_up, request.key) or await missing(request)

            _finish(step, work, ask)
            return cache.exported()

    def _described(self, df: pl.DataFrame, texts: Texts) -> tuple[pl.DataFrame, pl.DataFrame]:
        rows = [(f, None, str(t)) if isinstance(t, NoAnswerError) else (f, t, None) for f, t in texts.items()]
        found = pl.DataFrame(rows, schema=dict.fromkeys(("facts", "text", "reason"), pl.String), orient="row")
        facts = project(df, self.with_report).to_frame()
        found = facts.join(found, on="facts", how="left", maintain_order="left")
        text, by_model = found["text"], found["text"].is_not_null()
        records = describe.describe(df).with_columns(
            description=pl.when(by_model).then(text).otherwise("description"),
            description_origin=pl.when(by_model).then(pl.lit(self.origin)).otherwise("description_origin"),
        )
        reason = found["reason"].fill_null("nothing to describe")
        return records, df.select("image_id", reason=reason).filter(~by_model)


def _faults(work: pl.DataFrame, texts: Texts) -> dict[str, list[str]]:
    """Why the program rejects texts: what ``quality_control.check`` found, and what is foreign to the facts."""
    written = {facts: text for facts, text in texts.items() if isinstance(text, str)}
    rows = work.filter(pl.col("facts").is_in(list(written)))
    rows = rows.with_columns(description=pl.col("facts").replace_strict(written, return_dtype=pl.String))
    faults = {}
    # masked, because the reasons name labels as the record has them, and a repair sends the reasons
    for facts, qc in quality_control.check(rows).select("facts", masked(pl.col("qc"))).iter_rows():
        found = [] if qc == quality_control.PASS else qc.removeprefix("fail: ").split("; ")
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
    """Run to the end, in a thread of its own: a notebook's thread has an event loop already."""
    with anyio.from_thread.start_blocking_portal() as portal:
        future = portal.start_task_soon(step, *arguments)
        while not wait([future], timeout=0.5).done:  # an endless wait does not notice Ctrl-C on every system
            pass
        return future.result()


# --- batch files ---


class _Response(BaseModel):
    status_code: int
    body: dict


class _Line(BaseModel):
    """What is read of a line of a result or error file."""

    custom_id: str
    response: _Response | None = None


def _import_line(cache: AnswerCache, exported: dict[str, str], line: str) -> tuple[str, str | None]:
    """Key of a line, and why its answer is not usable (None where it is)."""
    try:
        result = _Line.model_validate_json(line)
    except ValidationError:
        return "", "malformed line"
    key = result.custom_id
    model = exported.pop(key, None)
    if model is None:
        return key, "repeated, or not exported from this cache"
    if result.response is None or result.response.status_code != 200:
        answer = Answer(None, f"error {result.response.status_code if result.response else 'in the batch'}", (0, 0))
    else:
        answer = read_answer(key, json.dumps(result.response.body))
    cache.add(key, model, answer)
    return key, answer.fault
