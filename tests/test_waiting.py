"""Threads of every process that our code starts sleep while they wait, unless the user wants otherwise."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from chexgen_lib import WAITING

# OpenMP says its settings when it is loaded. It is loaded alone here: importing torch, which loads it, takes seconds.
OPENMP = [str(path) for path in (Path(find_spec("torch").origin).parent / "lib").glob("libgomp*")]
LOADED = f"import ctypes; ctypes.CDLL({OPENMP}[0])"
SHOWN = f"import chexgen_lib; {LOADED}"
STARTED = f"import chexgen_lib, subprocess, sys; subprocess.run([sys.executable, '-c', {LOADED!r}], check=True)"

pytestmark = pytest.mark.skipif(not OPENMP, reason="this torch is not built with GNU OpenMP")


def settings_of_openmp(program, **environment):
    """OpenMP's settings in a process that starts without those of this one."""
    clean = {key: value for key, value in os.environ.items() if key not in WAITING}
    command = [sys.executable, "-c", program]
    shown = subprocess.run(
        command, env=clean | {"OMP_DISPLAY_ENV": "verbose"} | environment, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    pairs = (line.partition("=") for line in shown.stderr.splitlines() if "=" in line)
    return {name.split()[-1]: value.strip(" '") for name, _, value in pairs}


@pytest.mark.parametrize("program", [SHOWN, STARTED], ids=["itself", "a process that it starts"])
def test_importing_the_library_reaches_openmp(program):
    settings = settings_of_openmp(program)
    assert {name: settings[name] for name in WAITING} == WAITING


def test_what_the_user_has_set_stays():
    settings = settings_of_openmp(SHOWN, OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT="7")
    assert (settings["OMP_WAIT_POLICY"], settings["GOMP_SPINCOUNT"]) == ("ACTIVE", "7")
