"""Asking over HTTP: faults are survived, and what cannot work ends at once with the remedy."""

import asyncio
import itertools
import json
import signal
import socket
import threading
import time

import pytest
from aiohttp import web

from chexgen_lib.descriptions.check import check
from chexgen_lib.language_model.cache import LanguageModelError
from chexgen_lib.language_model.client import ATTEMPTS
from chexgen_lib.language_model.protocol import Endpoint
from chexgen_lib.language_model.writer import LanguageModel
from tests.language_model.fault_server import RATES, FaultServer, completion, right_answer
from tests.language_model.models import FAULTLESS, cohort, model


@pytest.mark.parametrize("fault", [f for f in RATES if f not in ("stall", "wrong findings")])
def test_each_fault_is_survived(fault, tmp_path):
    rates = {fault: 0.3}
    with FaultServer(rates=rates, latency=0.0, hang=3.0, retry_after=0.1, seed=3).running() as server:
        described, _ = model(server.url, tmp_path, timeout=0.5 if fault == "time-out" else 5.0).describe(cohort(6))
    assert server.faults[fault] > 0
    assert set(described["description_origin"]) <= {"writer description-1", "grammar-1"}
    assert (described["description_origin"] != "grammar-1").sum() >= 5
    assert set(check(described)["qc"]) == {"pass"}
    assert max(server.delivered.values()) == 1


def test_retry_after_is_honoured(tmp_path, monkeypatch):
    faults = iter(["429 with Retry-After", "503 with Retry-After"])
    monkeypatch.setattr(FaultServer, "_draw", lambda _: next(faults, None))
    with FaultServer(latency=0.0, retry_after=0.3).running() as server:
        model(server.url, tmp_path).describe(cohort(1))
    first, second, third, _ = server.served
    assert second - first >= 0.3 and third - second >= 0.3


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [("429 without Retry-After", []), ("500", [f"description: error 500, {ATTEMPTS} attempts"])],
)
def test_a_busy_server_is_asked_until_it_answers_a_failing_one_six_times(fault, reasons, tmp_path, monkeypatch):
    faults = iter([fault] * ATTEMPTS)
    monkeypatch.setattr(FaultServer, "_draw", lambda _: next(faults, None))
    with FaultServer(latency=0.0).running() as server:
        _, fallbacks = model(server.url, tmp_path).describe(cohort(1))
    assert fallbacks["reason"].to_list() == reasons
    assert len(server.served) == ATTEMPTS + (0 if reasons else 2)  # written and reviewed at last


def test_unreachable_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LanguageModelError, match=f"at http://127.0.0.1:{port}/v1.* does not answer.*base_url"):
        model(f"http://me:password@127.0.0.1:{port}/v1", tmp_path).describe(cohort(20))


def test_an_outage_ends_the_run(tmp_path):
    with FaultServer(rates={"500": 1.0}, latency=0.0).running() as server:
        with pytest.raises(LanguageModelError, match="error 500"):
            model(server.url, tmp_path, concurrency=2).describe(cohort(200))
    assert len(server.served) < 50


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (401, "invalid_api_key", "API key"),
        (403, "forbidden", "access"),
        (404, "model_not_found", "model's name"),
        (400, "invalid_request", "JSON-schema.*response_format: {type: json_object}"),
        (402, "insufficient_balance", "credit"),
        (501, "not_implemented", "JSON-schema"),
        (400, "the model's context length is 512", "serve the model with a longer context"),
        (429, "insufficient_quota", "credit"),
    ],
)
def test_refusals_end_the_run_at_once(status, code, remedy, tmp_path):
    with FaultServer(status=(status, code)).running() as server:
        with pytest.raises(LanguageModelError, match=remedy):
            model(server.url, tmp_path, concurrency=2).describe(cohort(50))
        assert next(server._number) <= 40


def test_a_refusal_in_a_servers_own_form_is_passed_on(tmp_path, monkeypatch):
    def refusal(status: int, *_: str) -> web.Response:
        return web.json_response({"detail": "unexpected field top_k"}, status=status)

    monkeypatch.setattr("tests.language_model.fault_server._error", refusal)
    with FaultServer(status=(422, "")).running() as server:
        with pytest.raises(LanguageModelError, match="422.*unexpected field top_k.*options"):
            model(server.url, tmp_path).describe(cohort(1))


def test_a_filtered_record_does_not_stop_the_others(tmp_path):
    with FaultServer(status=(400, "content_filter")).running() as server:
        _, fallbacks = model(server.url, tmp_path).describe(cohort(3))
    assert fallbacks["reason"].to_list() == ["description: content_filter"] * 3


@pytest.mark.parametrize("key", ["“sk-1”", "sk\n1"])
def test_a_key_with_what_no_key_has(key, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(LanguageModelError, match="API key in OPENAI_API_KEY"):
        LanguageModel(Endpoint("gpt-4o"), cache=tmp_path / "c").describe(cohort(1))


def test_missing_key(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LanguageModelError, match="OPENAI_API_KEY.*base_url"):
        LanguageModel(Endpoint("gpt-4o"), cache=tmp_path / "c").describe(cohort(1))


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: a process that a shell puts into the background ignores it from the start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_run(tmp_path, ctrl_c):
    with FaultServer(rates=FAULTLESS, latency=20.0).running() as server:
        began = time.monotonic()
        threading.Timer(1.5, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            model(server.url, tmp_path, timeout=60.0).describe(cohort(10))
    assert time.monotonic() - began < 15


BUSY = '{"error": {"message": "Provider returned error", "code": 429}}'


def test_an_error_with_the_status_of_success_is_waited_for_and_not_kept(tmp_path, monkeypatch):
    sent = iter([BUSY] * (ATTEMPTS - 1))
    monkeypatch.setattr("tests.language_model.fault_server.completion", lambda *a, **k: next(sent, completion(*a, **k)))
    waited = []
    monkeypatch.setattr("chexgen_lib.language_model.client.WAIT", 1e-3)
    monkeypatch.setattr("asyncio.sleep", lambda s, sleep=asyncio.sleep: waited.append(s) or sleep(s))
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as server:
        llm = model(server.url, tmp_path)
        assert llm.describe(cohort(1))[1].is_empty()
    assert llm.used()["unusable"].to_list() == [0]
    assert [s for s in waited if s in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)] == [1e-3, 2e-3, 4e-3, 8e-3, 16e-3]


def test_what_an_outage_cost_no_tokens_for_is_asked_again_in_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.language_model.fault_server.completion", lambda *_, **__: BUSY)
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as server:
        _, fallbacks = model(server.url, tmp_path).describe(cohort(1))
        assert fallbacks["reason"][0] == (
            f"description: malformed response: Provider returned error, {ATTEMPTS} attempts"
        )
        monkeypatch.setattr("tests.language_model.fault_server.completion", completion)
        assert model(server.url, tmp_path).describe(cohort(1))[1].is_empty()


def test_a_page_in_place_of_answers_ends_the_run_with_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.language_model.fault_server.completion", lambda *_, **__: "<html>Open WebUI</html>")
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as server:
        with pytest.raises(LanguageModelError, match=f"at {server.url}.* does not answer .*check base_url"):
            model(server.url, tmp_path, concurrency=2).describe(cohort(50))
    assert len(server.served) < 10


def test_an_answer_that_the_server_finds_unfit_is_one_answer_of_many(tmp_path, monkeypatch):
    """Groq refuses it with an error that holds its text; the run goes on, and a whole report in it counts."""
    real, number = web.json_response, itertools.count()

    async def answer(self, request):
        body = await request.json()
        data = json.loads(body["messages"][-1]["content"].removeprefix("<data>\n").removesuffix("\n</data>"))
        text = json.dumps(right_answer(data))
        text = text if next(number) else text[:50]
        error = {"message": "Failed to generate JSON.", "code": "json_validate_failed", "failed_generation": text}
        return real({"error": error}, status=400)

    monkeypatch.setattr(FaultServer, "_answer", answer)
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as server:
        llm = model(server.url, tmp_path)
        assert llm.describe(cohort(1))[1].is_empty()
    assert llm.used().select("answers", "unusable").row(0) == (3, 1)


def test_one_record_that_is_too_long_does_not_stop_the_others(tmp_path, monkeypatch):
    real = FaultServer._answer

    async def answer(self, request):
        if "LATERAL" in await request.text():
            return web.json_response({"message": "This model's maximum context length is 9 tokens."}, status=400)
        return await real(self, request)

    monkeypatch.setattr(FaultServer, "_answer", answer)
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as server:
        _, fallbacks = model(server.url, tmp_path, concurrency=1).describe(cohort(4))
    assert fallbacks["reason"].to_list() == ["description: context_length_exceeded"]
