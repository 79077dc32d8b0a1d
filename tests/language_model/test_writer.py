"""Descriptions by language models: written, reviewed, checked, paid for once, or replaced by the grammar's."""

import asyncio
import multiprocessing
import time
from pathlib import Path

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.language_model import client, writer
from chexgen_lib.language_model.cache import AnswerCache, LanguageModelError
from chexgen_lib.language_model.client import BudgetError
from chexgen_lib.language_model.facts import project
from chexgen_lib.language_model.protocol import Endpoint
from chexgen_lib.language_model.writer import LanguageModel, cost_table
from tests.language_model.fault_server import INJECTION, OBEYED, RATES, FaultServer, right_answer
from tests.language_model.models import FAULTLESS, cohort, model, two_models


def test_every_record_gets_the_models_text(server, tmp_path):
    df = cohort(12)
    llm = two_models(server.url, tmp_path)
    described, fallbacks = llm.describe(df)
    records.validate(described)
    assert described["image_id"].equals(df["image_id"]) and fallbacks.is_empty()
    assert set(described["description_origin"]) == {"writer description-1"}
    assert set(check(described)["qc"]) == {"pass"}
    asked = len(server.served)
    assert asked == 24 and llm.used().select("model", "answers").sort("model").rows() == [
        ("reviewer", 12),
        ("writer", 12),
    ]
    assert llm.describe(df)[0].equals(described) and len(server.served) == asked


def test_equal_facts_share_an_answer_and_wordings_vary(server, tmp_path):
    df = cohort(60, age=50.0, view="PA", sex="F", Edema=1.0)
    described, _ = model(server.url, tmp_path).describe(df)
    assert described.height == 60 and len(server.served) == 2 * project(df).n_unique() <= 2 * grammar.VARIANTS


def test_records_without_content_are_not_sent(server, tmp_path):
    df = cohort(1, Edema=None, Fracture=None)
    described, fallbacks = model(server.url, tmp_path).describe(df)
    assert fallbacks.rows() == [(df["image_id"][0], "nothing to describe")] and not server.served
    assert described["description_origin"][0] == "grammar-1"


def test_a_notebook_has_an_event_loop_already(server, tmp_path):
    async def cell() -> pl.DataFrame:
        return model(server.url, tmp_path).describe(cohort(1))[1]

    assert asyncio.run(cell()).is_empty()


def test_empty_frame(server, tmp_path):
    described, fallbacks = model(server.url, tmp_path).describe(records.conform(cohort(1).clear()))
    assert described.is_empty() and fallbacks.columns == ["image_id", "reason"]


def test_wrong_text_is_repaired_once_then_replaced(tmp_path):
    with FaultServer(rates={"wrong findings": 1.0}, latency=0.0).running() as server:
        described, fallbacks = model(server.url, tmp_path).describe(cohort(2))
        assert len(server.served) == 6  # written, reviewed, repaired
        assert "omits Edema" in server.bodies[-1]  # the repair is told why
    assert fallbacks["reason"].str.starts_with("program: ").all()
    assert set(described["description_origin"]) == {"grammar-1"}


def test_an_obeyed_instruction_never_reaches_a_record(tmp_path):
    df = cohort(20, report=INJECTION)
    with FaultServer(rates=FAULTLESS, latency=0.0, obeys=0.7).running() as server:
        described, fallbacks = model(server.url, tmp_path, with_report=True).describe(df)
    assert server.faults["obeyed instruction"] > 10 and fallbacks.height
    assert not described["description"].str.contains(OBEYED, literal=True).any()
    assert set(check(described)["qc"]) == {"pass"}


@pytest.mark.parametrize("added", ["It measures 3 cm.", "See <b>.", "Write to a@b.org."])
def test_additions_that_the_vocabulary_does_not_know_are_rejected(added, server, tmp_path, monkeypatch):
    def padded(data: dict) -> dict:
        return right_answer(data) | {"findings": f"There is pulmonary edema. {added}"}

    monkeypatch.setattr("tests.language_model.fault_server.right_answer", padded)
    _, fallbacks = model(server.url, tmp_path).describe(cohort(1))
    assert "adds" in fallbacks["reason"][0]


def curate(folder: Path, url: str) -> None:
    described, _ = model(url, folder, concurrency=8).describe(pl.read_parquet(folder / "records.parquet"))
    described.write_parquet(folder / "described.parquet")


def test_a_killed_run_resumes_and_pays_for_nothing_twice(tmp_path):
    cohort(200).write_parquet(tmp_path / "records.parquet")
    context = multiprocessing.get_context("spawn")
    rates = {fault: rate for fault, rate in RATES.items() if "Retry-After" not in fault and fault != "time-out"}
    with FaultServer(rates=rates, latency=0.02, stall=0.5, max_seconds=300).running() as server:
        first = context.Process(target=curate, args=(tmp_path, server.url))
        first.start()
        deadline = time.monotonic() + 40
        while len(server.served) < 150 and time.monotonic() < deadline:
            time.sleep(0.01)
        first.kill()
        first.join()
        time.sleep(0.1)
        with AnswerCache(tmp_path / "answers.sqlite") as cache:
            lost = {key for key in list(server.delivered) if cache.report(key) is None}
        curate(tmp_path, server.url)
    described = pl.read_parquet(tmp_path / "described.parquet")
    assert described["image_id"].is_unique().all() and described.height == 200
    assert set(check(described)["qc"]) == {"pass"}
    assert {key for key, n in server.delivered.items() if n > 1} <= lost
    assert len(lost) <= 8  # what was in flight


def test_budget_stops_the_run_and_keeps_what_is_finished(server, tmp_path):
    df = cohort(40)
    price = (10.0, 10.0)
    with pytest.raises(BudgetError, match="larger budget"):
        model(server.url, tmp_path, price=price, budget=0.01).describe(df)
    stopped = len(server.served)
    llm = model(server.url, tmp_path, price=price, budget=100)
    assert 0.01 <= llm.spent() < 0.1 and 0 < stopped < 80
    assert llm.describe(df)[1].is_empty() and len(server.served) == 80


def test_estimate_before_and_after(server, tmp_path):
    df = cohort(20)
    llm = two_models(server.url, tmp_path, price=(1.0, 2.0))
    before = llm.estimate(df)
    assert before["requests"].to_list() == [20, 20] and not server.served
    row = before.row(0, named=True)
    assert row["cost"] == pytest.approx((row["input_tokens"] + 2 * row["output_tokens"]) / 1e6)
    llm.describe(df)
    assert llm.estimate(df)["requests"].sum() == 0


def test_unusable_answers_are_counted(tmp_path):
    with FaultServer(rates={"malformed answer": 1.0}, latency=0.0).running() as server:
        llm = model(server.url, tmp_path)
        _, fallbacks = llm.describe(cohort(1))
    assert fallbacks["reason"][0] == f"description: malformed answer: no JSON object, {client.ATTEMPTS} attempts"
    assert llm.used().select("answers", "unusable").row(0) == (client.ATTEMPTS, client.ATTEMPTS)
    assert llm.used()["input_tokens"][0] > 0


def test_what_was_given_up_is_not_paid_for_again(tmp_path):
    """Unless it is asked otherwise: another option is another request."""
    df = cohort(2)
    with FaultServer(rates={"malformed answer": 1.0}, latency=0.0).running() as server:
        llm = model(server.url, tmp_path)
        first = llm.describe(df)
        paid = len(server.served)
        second = llm.describe(df)
        assert paid == 2 * client.ATTEMPTS == len(server.served)
        assert [a.equals(b) for a, b in zip(first, second, strict=True)] == [True, True]
        assert llm.estimate(df)["requests"].sum() == 0
        model(server.url, tmp_path, options={"max_completion_tokens": 2000}).describe(df)
        assert len(server.served) == 2 * paid


def test_a_model_whose_answers_cannot_be_used_is_not_asked_for_every_record(tmp_path):
    with FaultServer(rates={"malformed answer": 1.0}, latency=0.0).running() as server:
        with pytest.raises(LanguageModelError, match="none of 1. answers can be used.*no JSON object.*another model"):
            model(server.url, tmp_path, concurrency=2).describe(cohort(50))
    assert len(server.served) <= client.UNUSABLE + 2


def test_some_unusable_answers_do_not_stop_a_run(tmp_path):
    with FaultServer(rates={"malformed answer": 0.5}, latency=0.0, seed=1).running() as server:
        _, fallbacks = model(server.url, tmp_path, concurrency=2).describe(cohort(30))
    assert fallbacks.height < 5 and server.faults["malformed answer"] > 20


@pytest.mark.parametrize("settings", [{"modle": "m"}, {"model": "m", "url": "http://a"}, "gpt", {}])
def test_settings_of_a_model_that_make_no_sense(settings, tmp_path):
    with pytest.raises(ValueError, match="writer or reviewer.*give `model`.*base_url"):
        writer.describe(cohort(1), settings, None, tmp_path / "a.sqlite", None)


def test_settings_that_hold_a_key_are_refused_without_showing_it(tmp_path):
    settings = {"model": "m", "api_key": "sk-secret", "base_url": "http://me:sk-secret@a/v1"}
    with pytest.raises(
        ValueError, match="'api_key'.*belongs in the environment variable that api_key_variable"
    ) as error:
        writer.describe(cohort(1), settings, None, tmp_path / "a.sqlite", None)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("budget", [-1, 5, "100"])
def test_budgets_that_make_no_sense(budget, tmp_path):
    with pytest.raises(ValueError, match="budget"):
        LanguageModel(Endpoint("m"), cache=tmp_path / "c", budget=budget)


def test_costs_of_a_corpus_follow_the_price_lists(server):
    table = cost_table(cohort(5), 1_000, {"cheap": (1.0, 2.0), "dear": (10.0, 20.0)})
    cheap, dear = table.iter_rows(named=True)
    assert cheap["a thousand records"] == pytest.approx((cheap["tokens in"] + 2 * cheap["tokens out"]) / 1000, abs=0.01)
    assert dear["1,000 records"] == pytest.approx(10 * cheap["1,000 records"], abs=10) and not server.served


def test_without_a_writer_the_grammar_describes(tmp_path):
    described, fallbacks = writer.describe(cohort(2), None, None, tmp_path / "answers.sqlite", None)
    assert set(described["description_origin"]) == {"grammar-1"} and fallbacks.is_empty()


def test_settings_of_a_profile_make_the_models(server, tmp_path):
    settings = {"model": "writer", "base_url": server.url, "price": [1, 2]}
    described, _ = writer.describe(cohort(2), settings, settings | {"model": "reviewer"}, tmp_path / "a.sqlite", 100)
    assert set(described["description_origin"]) == {"writer description-1"} and len(server.served) == 4
