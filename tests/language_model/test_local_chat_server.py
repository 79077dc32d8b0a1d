"""The describer against a real chat server on this machine, whose model has random weights."""

import pytest

from benchmarks import local_chat_server as local
from chexgen_lib.language_model import client
from chexgen_lib.language_model.cache import LanguageModelError
from chexgen_lib.language_model.protocol import Endpoint
from chexgen_lib.language_model.writer import LanguageModel
from chexgen_lib.sources import registry

pytestmark = pytest.mark.skipif(
    bool(local.MISSING), reason=f"{', '.join(local.MISSING)} not installed: pip install 'transformers[serving]'"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    local.write_model(folder / local.MODEL)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with local.serving(folder) as url:
        yield url


@pytest.fixture(scope="module")
def df():
    """Three real records."""
    return registry.load("nih")[0].gather_every(50_000)


def test_nonsense_is_caught_replaced_and_paid_for_once(folder, url, df):
    results = local.run(folder, url, df)
    assert results["records"] == results["fallbacks to the grammar"] == 3
    assert results["final texts that pass quality control"] == 3
    assert results["model's texts that passed the check"] == results["answers that were JSON of the schema"] == 0
    assert results["answers received"] == results["answers, by the server's log"] == 3 * client.ATTEMPTS
    assert results["input tokens"] > 3 * client.ATTEMPTS * 500  # the prompt alone is longer
    assert 0 < results["output tokens"] <= 3 * client.ATTEMPTS * local.OPTIONS["max_completion_tokens"]
    assert results["second run, answers paid for"] == results["second run, answers by the server's log"] == 0
    assert results["second run, same texts"]


@pytest.mark.parametrize(
    ("model", "options", "said"), [(local.MODEL, {"top_k": 5}, "top_k"), ("another", {}, local.MODEL)]
)
def test_what_the_server_refuses_ends_the_run_with_its_words(model, options, said, url, df, tmp_path):
    endpoint = Endpoint(model, base_url=url, options=options)
    with pytest.raises(LanguageModelError, match=said):
        LanguageModel(endpoint, cache=tmp_path / "answers.sqlite").describe(df)
