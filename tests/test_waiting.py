"""Threads of every process that our code starts sleep while they wait, unless the user wants otherwise."""

import os
import subprocess
import sys

import pytest

from chexgen_lib import WAITING

# What OpenMP says of its own settings when it is loaded.
SHOWN = "import chexgen_lib, torch; torch.ones(8).sum()"
STARTED = "import chexgen_lib, subprocess, sys; subprocess.run([sys.executable, '-c', 'import torch'], check=True)"


def settings_of_openmp(program, **environment):
    """OpenMP's settings in a process that starts without those of this one."""
    clean = {key: value for key, value in os.environ.items() if key not in WAITING}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(
        command, env=clean | {"OMP_DISPLAY_ENV": "verbose"} | environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    if "GOMP_SPINCOUNT" not in shown.stderr:
        pytest.skip("this torch is not built with GNU OpenMP")
    pairs = (line.partition("=") for line in shown.stderr.splitlines() if "=" in line)
    return {name.split()[-1]: value.strip(" '") for name, _, value in pairs}


@pytest.mark.parametrize("program", [SHOWN, STARTED], ids=["itself", "a process that it starts"])
def test_importing_the_library_reaches_openmp(program):
    settings = settings_of_openmp(program)
    assert {name: settings[name] for name in WAITING} == WAITING


def test_what_the_user_has_set_stays():
    settings = settings_of_openmp(SHOWN, OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="7")
    assert (settings["OMP_WAIT_POLICY"], settings["GOMP_SPINCOUNT"]) == ("ACTIVE", "7")
