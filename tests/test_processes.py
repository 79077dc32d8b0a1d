"""Waiting threads spin briefly wherever our code starts a process, unless the user says for how long."""

import os
import subprocess
import sys

import pytest

from chexgen_lib.cli.main import main
from chexgen_lib.processes import SPIN_BRIEFLY, spin_briefly
from chexgen_lib.workflow import notebooks

(NAME,) = SPIN_BRIEFLY


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setenv(NAME, "")  # so that what is set here is undone
    monkeypatch.delenv(NAME)


def test_what_the_user_sets_stays(monkeypatch):
    spin_briefly()
    assert os.environ[NAME] == SPIN_BRIEFLY[NAME]
    monkeypatch.setenv(NAME, "7")
    spin_briefly()
    assert os.environ[NAME] == "7"


def test_kernels_of_stages_and_commands_have_it(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: seen.update(os.environ))
    monkeypatch.setattr(notebooks, "STRIPPED", notebooks.ROOT / "notebooks")
    notebooks.run("13_report")
    assert seen[NAME] == SPIN_BRIEFLY[NAME]
    monkeypatch.delenv(NAME)
    assert main(["readers", "score", str(tmp_path / "none")]) == 2
    assert os.environ[NAME] == SPIN_BRIEFLY[NAME]


def test_a_command_sets_it_before_torch_reads_it():
    program = "import sys; from chexgen_lib.cli.main import main; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
