"""Every test of this folder talks to a server on this machine, and does not wait between attempts."""

import pytest

from tests.language_model.fault_server import FaultServer
from tests.language_model.models import FAULTLESS


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr("chexgen_lib.language_model.client.WAIT", 0.0)


@pytest.fixture
def server():
    with FaultServer(rates=FAULTLESS, latency=0.0).running() as running:
        yield running
