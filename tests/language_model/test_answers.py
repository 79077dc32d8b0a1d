"""A report is found in whatever a model or a server wraps it, tokens are estimated, and faults name their cause."""

import json
import re

import pytest

from chexgen_lib.language_model.answers import read_answer
from chexgen_lib.language_model.protocol import Report
from tests.language_model.fault_server import completion

REPORT = dict(nonce="k", patient_information="A man.", technique="PA view.", findings="Edema.", impression="Edema.")
GOOD = json.dumps(REPORT)
DRAFT = json.dumps(REPORT | {"impression": "A draft."})


def body(content, finish="stop", usage=None, **message) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage})


@pytest.mark.parametrize(
    "content",
    [
        f"```json\n{GOOD}\n```".replace("\\\n", "\n"),
        f"\n```\n{GOOD}```\n",
        f"Here is the report:\n```json\n{GOOD}\n```\nAnything else?",
        f"{GOOD} That is all {{really}}.",
        f"<think>\nthe heart {DRAFT}\n</think>\n\n{GOOD}",
        f"<think></think>{GOOD}",
        f"the heart {DRAFT} </think> {GOOD}",
        f"[THINK]{DRAFT}[/THINK]{GOOD}",
        f"<Thinking>{DRAFT}</Thinking><reasoning>and</reasoning>{GOOD}",
        f"<think>{GOOD}",
        f"{GOOD}\n<think>Or rather {DRAFT}?</think>",
        f"{GOOD[:-1]},}}",
        f"{GOOD[:-1]}",
        f"```python\n{REPORT!r}\n```",
        GOOD.replace("_", "\\_"),
        json.dumps(GOOD),
        json.dumps({"nonce": "k", "report": {name: text for name, text in REPORT.items() if name != "nonce"}}),
        json.dumps(REPORT | {"nonce": "`k`"}),
        f"{DRAFT} No, corrected: {GOOD}",
        f'The form is {{"nonce": "...", "findings": "..."}}. {GOOD}',
        json.dumps({"report": REPORT}),
        json.dumps([REPORT]),
        json.dumps(REPORT | {"confidence": 0.9, "findings": ["Edema."]}),
        json.dumps({name.replace("_", " ").title(): text for name, text in REPORT.items()}),
        json.dumps(REPORT | {"nonce": " k "}),
        json.dumps({re.sub("_i", "I", name): text for name, text in REPORT.items()}),
        f'{GOOD[:-1]}, "notes": null,}}',
        GOOD.replace("{", "{ // the report\n").replace("}", " /* its end */ }"),
        re.sub(r'"([^"]*)"', r"“\1”", GOOD),
        GOOD.replace('"', "&quot;"),
        GOOD.replace(", ", "}\n{"),
        GOOD.replace(", ", "\n"),
        f"<tool_call>{json.dumps({'name': 'report', 'arguments': GOOD})}</tool_call>",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{GOOD}",
        REPORT,
        [{"type": "text", "text": GOOD[:30]}, {"type": "text", "text": GOOD[30:]}],
        [{"type": "thinking", "thinking": DRAFT}, {"type": "text", "text": GOOD}],
        [{"type": "text", "text": {"value": GOOD}}],
        [GOOD],
        f"◁think▷{DRAFT}◁/think▷{GOOD}",
        f"<seed:think>{DRAFT}</seed:think>{GOOD}",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{GOOD}",
        f"<scratchpad>{DRAFT}</scratchpad>{GOOD}",
        re.sub(r'"([^"]*)"', r"„\1“", GOOD),
        GOOD.replace('": ', '"：').replace('", ', '"，'),
        re.sub(r'"(\w+)":', r'**"\1"**:', GOOD),
        re.sub(r'"(\w+)":', r"\1:", GOOD),
        GOOD.replace('", ', '", # as asked\n'),
        GOOD.replace('"A man."', '"""A man."""').replace('"PA view."', '"PA " + "view."'),
        f"{GOOD[:-1]}, ...}}",
        json.dumps(json.dumps(GOOD)),
        json.dumps(REPORT | {"nonce": "K"}),
        json.dumps(REPORT | {"nonce": "<k>"}),
        json.dumps({f"{name}:": text for name, text in REPORT.items()}),
        json.dumps([{"name": name, "value": text} for name, text in REPORT.items()]),
        json.dumps({name: {"text": text} if name != "nonce" else text for name, text in REPORT.items()}),
        json.dumps({"properties": {name: {"type": "string", "value": text} for name, text in REPORT.items()}}),
        "<report>" + "".join(f"<{name}>{text}</{name}>" for name, text in REPORT.items()) + "</report>",
    ],
)
@pytest.mark.parametrize("finish", ["stop", "length", None])
def test_a_report_is_found_in_its_wrapping(content, finish):
    answer = read_answer("k", body(content, finish))
    if content == f"<think>{GOOD}" and finish == "length":
        assert answer.fault.startswith("truncated while thinking")
    else:
        assert answer.report == Report(**REPORT)


LINES = [f"{name}: {text}" for name, text in REPORT.items()]
TITLES = {name.replace("_", " ").title(): text for name, text in REPORT.items()}


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES),
        "Here it is:\n```yaml\n" + "\n".join(LINES) + "\n```\n\nAnything else?",
        "\n".join(f"**{title}:** {text}" for title, text in TITLES.items()) + "\n\nLet me know.",
        "\n".join(f"{n}. **{title}**: {text}" for n, (title, text) in enumerate(TITLES.items(), start=1)),
        "\n\n".join(f"## {title}\n{text}" for title, text in TITLES.items()),
        "| field | text |\n|---|---|\n" + "\n".join(f"| {name} | {text} |" for name, text in REPORT.items()),
    ],
)
def test_sections_under_their_names_are_read_unless_they_may_be_cut_off(content):
    assert read_answer("k", body(content)).report == Report(**REPORT)
    assert read_answer("k", body(content, "length")).fault.startswith("truncated")


USES = {"prompt_tokens": 5, "completion_tokens": 7}
HALVES = [GOOD[:9], GOOD[9:]]
TOOL = {"toolUse": {"name": "report", "input": REPORT}}
ANTHROPIC = [
    {"type": "message_start", "message": {"role": "assistant", "content": [], "usage": {"input_tokens": 5}}},
    *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": part}} for part in HALVES),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
]


@pytest.mark.parametrize(
    "response",
    [
        json.dumps({"model": "m", "response": GOOD, "done": True, "prompt_eval_count": 5, "eval_count": 7}),
        "\n".join(json.dumps({"response": part, "eval_count": 7, "prompt_eval_count": 5}) for part in HALVES),
        json.dumps([{"generated_text": GOOD, "usage": USES}]),
        json.dumps({"text": GOOD, "finish_reason": "COMPLETE", "usage": USES}),
        json.dumps({"candidates": [{"content": {"parts": [{"functionCall": {"args": REPORT}}]}}], "usage": USES}),
        json.dumps({"output": {"message": {"content": [TOOL]}}, "usage": {"inputTokens": 5, "outputTokens": 7}}),
        body([{"type": "json", "json": REPORT}], usage=USES),
        "".join(f"event: {part['type']}\ndata: {json.dumps(part)}\n\n" for part in ANTHROPIC),
        json.dumps({"result": {"response": REPORT, "usage": USES}, "success": True}),
        json.dumps({"status": "succeeded", "output": HALVES, "usage": USES}),
        json.dumps({"choices": [{"message": {"content": "Sorry."}}, {"message": {"content": GOOD}}], "usage": USES}),
        json.dumps({"choices": [{"message": GOOD, "finish_reason": "stop"}], "usage": USES}),
        json.dumps({"output_text": GOOD, "object": "response", "output": [], "usage": USES}),
        body(None, tool_calls=[{"type": "custom", "custom": {"name": "report", "input": GOOD}}], usage=USES),
        body(None, tool_calls=[{"function": {"name": "report", "parameters": REPORT}}], usage=USES),
        json.dumps({"error": {"message": "Failed.", "failed_generation": f"Here: {GOOD}"}, "usage": USES}),
        json.dumps(REPORT | {"usage": USES}),
    ],
)  # fmt: skip
def test_a_report_is_found_in_a_form_that_nobody_has_told_of(response):
    assert read_answer("k", response) == (Report(**REPORT), None, (5, 7))


@pytest.mark.parametrize("response", [GOOD, json.dumps(body(GOOD)), body(None) + body(GOOD), f"```json\n{GOOD}\n```"])
def test_a_report_is_found_in_a_body_that_is_no_completion(response):
    answer = read_answer("k", response, 100)
    assert answer.report == Report(**REPORT) and answer.tokens[0] == 100 and answer.tokens[1] >= WRITTEN


@pytest.mark.parametrize(
    "response",
    [
        json.dumps({"response": "", "thinking": DRAFT}),
        json.dumps({"output": {"message": {"content": [{"reasoning": {"text": DRAFT}}]}}}),
        json.dumps({"candidates": [{"content": {"parts": [{"text": DRAFT, "thought": True}]}}]}),
        json.dumps({"output": [{"type": "thinking", "text": DRAFT}]}),
        "[" * 900 + '"x"' + "]" * 900,
    ],
)
def test_a_draft_in_thoughts_is_no_report_in_any_form(response):
    assert read_answer("k", response).report is None


STREAMED = [{"choices": [{"delta": {"content": part}}]} for part in (GOOD[:9], GOOD[9:70], GOOD[70:])]
USED = {"input_tokens": 5, "output_tokens": 7}


@pytest.mark.parametrize(
    "response",
    [
        "".join(f"data: {json.dumps(part)}\n\n" for part in [*STREAMED, {"choices": [], "usage": USED}])
        + "data: [DONE]\n\n",
        f": PROCESSING\n\n{body(GOOD, usage=USED)}",
        "\n".join(
            [json.dumps({"message": {"content": part}, "done": False}) for part in (GOOD[:50], GOOD[50:])]
            + [json.dumps({"message": {"content": ""}, "done": True, "prompt_eval_count": 5, "eval_count": 7})]
        ),
        json.dumps({"message": {"role": "assistant", "content": GOOD}, "prompt_eval_count": 5, "eval_count": 7}),
        json.dumps({"choices": [{"text": GOOD, "finish_reason": "stop"}], "usage": USED}),
        json.dumps({"choices": [{"message": {"content": ""}}, {"message": {"content": GOOD}}], "usage": USED}),
        json.dumps({"type": "message", "content": [{"type": "text", "text": GOOD}], "usage": USED}),
        json.dumps({"content": [{"type": "tool_use", "input": REPORT}], "role": "assistant", "usage": USED}),
        json.dumps(
            {
                "candidates": [{"content": {"parts": [{"text": DRAFT, "thought": True}, {"text": GOOD}]}}],
                "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7},
            }
        ),
        json.dumps(
            {
                "object": "response",
                "output": [{"type": "reasoning"}, {"content": [{"type": "output_text", "text": GOOD}]}],
                "usage": USED,
            }
        ),
        json.dumps({"code": 200, "data": json.loads(body(GOOD, usage=USED))}),
        json.dumps([json.loads(body(None, parsed=REPORT, usage=USED))]),
    ],
)
def test_a_response_in_another_servers_form_is_read(response):
    assert read_answer("k", response) == (Report(**REPORT), None, (5, 7))


@pytest.mark.parametrize("tag", ["◁think▷", "<scratchpad>", "<|begin_of_thought|>", "<|channel|>analysis<|message|>"])
def test_a_draft_in_thoughts_that_were_cut_off_is_no_answer(tag):
    assert read_answer("k", body(f"{tag}{DRAFT}", "length")).fault.startswith("truncated while thinking")
    assert read_answer("k", json.dumps({"content": f"{tag}{DRAFT}", "role": "assistant", "stop_reason": "max_tokens"}))[
        1
    ].startswith("truncated while thinking")


@pytest.mark.parametrize("findings", [{"1": "Edema."}, [{"finding": "Edema."}]])
def test_remains_of_objects_are_no_section(findings):
    fault = read_answer("k", body(json.dumps(REPORT | {"findings": findings}))).fault
    assert fault == "malformed answer: without findings"


def test_quotes_within_texts_are_read():
    found = read_answer("k", body(GOOD.replace("Edema.", 'A "ground-glass" opacity.'))).report
    assert found.findings == found.impression == 'A "ground-glass" opacity.'


@pytest.mark.parametrize("end", ["Edem", 'A "ground-glass', "The heart's"])
def test_a_text_that_is_cut_off_is_no_section(end):
    cut = GOOD.replace('"impression": "Edema."}', f'"impression": "{end}')
    assert read_answer("k", body(cut, "MAX_TOKENS")).fault.startswith("truncated")


def test_line_breaks_within_texts_are_read():
    found = read_answer("k", body(GOOD.replace("PA view.", "PA\nview."))).report
    assert found.technique == "PA\nview."


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": GOOD},
        {"reasoning": f"So: {GOOD}"},
        {"reasoning_details": [{"type": "reasoning.text", "text": GOOD}]},
        {"tool_calls": [{"type": "function", "function": {"name": "report", "arguments": GOOD}}]},
        {"tool_calls": [{"type": "function", "function": {"name": "report", "arguments": REPORT}}]},
        {"function_call": {"name": "report", "arguments": GOOD}},
    ],
)
@pytest.mark.parametrize("content", [None, "", " \n"])
def test_an_answer_in_another_field_is_read(message, content):
    assert read_answer("k", body(content, **message)).report == Report(**REPORT)


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (body(None), "empty"),
        (body("", reasoning_content="the heart"), "thinking (reasoning) and no answer"),
        (body("<think>the heart</think>"), "thinking (reasoning) and no answer"),
        (body("<think>the heart is", "length"), "truncated while thinking: allow more tokens"),
        (body(None, "length", reasoning_content=DRAFT), "truncated while thinking"),
        (body(f"<think>{DRAFT}", "length"), "truncated while thinking"),
        (body(GOOD[:40], "length"), "truncated: allow more tokens"),
        (body("I cannot see images."), "malformed answer: no JSON object"),
        (body("null"), "malformed answer: no JSON object"),
        (body(json.dumps({"nonce": "k", "findings": "Edema."})), "without patient_information, technique, impression"),
        (body(json.dumps(REPORT | {"findings": None})), "empty section"),
        (body(json.dumps(REPORT | {"nonce": "j"})), "another record's answer"),
        (body(json.dumps(REPORT | {"findings": {"heart": "large"}})), "malformed answer: without findings"),
        (body(None, refusal="I will not."), "refused"),
        (body(GOOD, "content_filter"), "refused"),
        (json.dumps({"error": {"message": "model is\n loading"}}), "malformed response: model is loading"),
        ('{"error": "model \\ud83d is loading"}', "malformed response: model ? is loading"),
        (json.dumps({"detail": "Not authenticated"}), "malformed response: Not authenticated"),
        (
            json.dumps({"choices": [{"error": {"message": "upstream down"}, "message": {"content": ""}}]}),
            "malformed response: upstream down",
        ),
        ("<html>Bad gateway</html>", "malformed response: no chat completion"),
        ("", "malformed response: an empty body"),
        (b"\xff\xfe", "malformed response"),
        ("[" * 10_000, "malformed response"),
        *((text, "malformed response") for text in ("[]", "{}", '{"choices": []}', '{"choices": [7]}')),
    ],
)
def test_what_cannot_be_used_names_its_cause(response, fault):
    answer = read_answer("k", response)
    assert answer.report is None and fault in answer.fault


@pytest.mark.parametrize(
    "content",
    [
        "{" * 100_000,
        '{"a":' * 50_000,
        "<think>" * 50_000,
        "[{" * 50_000,
        '"nonce":' + '"' * 100_000 + "x",
        '" ' * 50_000,
        "\ud800{}",
    ],
)
def test_hostile_answers_end_soon(content):
    assert read_answer("k", body(content)).report is None


def test_halves_of_characters_are_replaced():
    assert read_answer("k", body(GOOD.replace("Edema.", "\\ud800."))).report.findings == "?."


WRITTEN = round(len(GOOD) / 3.5)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, (5, 7)),
        ({"input_tokens": 5, "output_tokens": 7}, (5, 7)),
        (None, (100, WRITTEN)),
        ({}, (100, WRITTEN)),
        ({"prompt_tokens": 5}, (5, WRITTEN)),
        ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 12}, (5, 7)),
        ({"completion_tokens": 7, "total_tokens": 12}, (5, 7)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 50}, (5, 45)),  # Gemini's thoughts, Grok's
        ({"completion_tokens": 7}, (100, 7)),
        ({"total_tokens": 12}, (100, WRITTEN)),
        ({"prompt_tokens": -5, "completion_tokens": "7"}, (100, WRITTEN)),
        ({"prompt_tokens": 1e300, "completion_tokens": True}, (100, WRITTEN)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (100, WRITTEN)),
        ([], (100, WRITTEN)),
    ],
)
def test_tokens_that_are_not_reported_are_estimated(usage, tokens):
    answer = read_answer("k", body(GOOD, usage=usage), sent=100)
    assert answer.report is not None and answer.tokens == tokens


def test_thoughts_are_counted_among_the_tokens():
    assert read_answer("k", body(GOOD, reasoning_content="x" * 350), sent=9).tokens == (9, round(len(GOOD) / 3.5 + 100))


def test_answers_of_the_fault_server_are_read():
    assert read_answer("k", completion(GOOD, "")).report == Report(**REPORT)
    assert read_answer("k", completion(GOOD[:40], "", truncated=True)).fault.startswith("truncated")
