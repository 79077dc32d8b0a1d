"""Every command of docs/own_data.md runs: on stand-ins, or, where a run of the DAG takes hours, up to its first stage.

The DAG itself runs in `make rehearse`, which is a part of `make test`.
"""

import re
import shlex
from pathlib import Path

import pytest
from huggingface_hub import constants

from chexgen_lib.cli.main import main
from chexgen_lib.models import weights_catalogue, weights_store
from chexgen_lib.rehearsal import datasets, sizes, weights, workplace
from chexgen_lib.sources import registry
from chexgen_lib.workflow import dag, settings
from tests.models.catalogue_stand_ins import stand_in

ROOT = Path(__file__).parents[2]
PLACEHOLDERS = {"DATA": "data"}  # the page's word for a folder of the reader's


def commands() -> list[str]:
    """The commands in the page's blocks of shell, scripts of Slurm among them, each on one line."""
    page = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if shlex.split(line, comments=True)]


@pytest.fixture
def place(tmp_path, monkeypatch, quick_pictures):
    """A folder with stand-ins of the datasets and of the weights, whose catalogue is of their sizes."""
    tiny = tuple(stand_in(w.name) if w.store != "shipped" else w for w in weights_catalogue.CATALOGUE)
    monkeypatch.setattr(weights_catalogue, "CATALOGUE", tiny)
    monkeypatch.setattr(weights_store, "PINS", tmp_path / "records")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/.cache/huggingface/hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda *source: tuple(table.head(200) for table in load(*source)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(target: str, *variables: str) -> None:
    """What a target does before the first stage: its profile with SET is composed, and its stages exist."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    given = dict(variable.split("=", 1) for variable in variables)
    profile, together = given.pop("PROFILE", "paper" if target == "rehearse" else "laptop"), given.pop("SET", "")
    beside = settings.split(together, dag.plain(profile)) if together else []
    if target == "rehearse":
        beside = workplace.with_rivals(beside)
    params = dag.compose(profile, Path("params.yaml"), beside)
    if target == "rehearse":
        params = sizes.reduced(params, dag.plain(sizes.SMALL))
    dag.with_needed(given.pop("STAGE", "").split(), dag.stages(params))
    assert not given, f"make {target} has no {', '.join(given)}"


def chexgen(*words: str) -> None:
    """A command of the library, with all that the page says is on the disk."""
    if words[0] == "data" and not Path("data").is_dir():
        datasets.lay_out(Path("data"))
    if words[0] == "weights":
        weights.lay_out(Path.cwd(), dag.plain(words[words.index("--profile") + 1]))
    assert main([PLACEHOLDERS.get(word, word).replace("=DATA/", "=data/") for word in words]) == 0


RUN = {"make": make, "chexgen": chexgen}


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_page_runs(place, command):
    program, *words = shlex.split(command, comments=True)
    RUN[program](*words)


@pytest.mark.parametrize("wrong", ["make repro STAGE=08_none", 'make repro SET="none.such=1"', "make nothing"])
def test_a_command_that_fails_is_found(place, wrong):
    program, *words = shlex.split(wrong)
    with pytest.raises((AssertionError, dag.NotebookError)):
        RUN[program](*words)
