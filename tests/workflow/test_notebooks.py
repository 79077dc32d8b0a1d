"""Reading, stripping and running notebooks, and the parameters that they declare."""

import copy
import errno
import os
import tempfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill import PapermillExecutionError

from chexgen_lib.workflow import notebooks
from chexgen_lib.workflow.notebooks import NotebookError, declared, stage_parameters, strip


def example():
    return new_notebook(
        cells=[
            new_markdown_cell("Text"),
            new_code_cell("n = 1\nname: str = 'a'", metadata={"tags": ["parameters"], "collapsed": True}),
            new_code_cell("print(n)"),
        ]
    )


def test_strip_depends_on_sources_and_tags_only():
    executed = copy.deepcopy(example())
    executed.metadata["language_info"] = {"version": "3.11.4"}
    executed.cells[0].id = "another"
    executed.cells[2].execution_count = 7
    executed.cells[2].outputs = [new_output("stream", text="1\n")]
    executed.cells[2].metadata["execution"] = {"iopub.execute_input": "2025"}
    assert nbformat.writes(strip(executed)) == nbformat.writes(strip(example()))
    assert strip(executed).cells[1].metadata.tags == ["parameters"]
    assert executed.cells[2].outputs, "the notebook given is left as it was"
    executed.cells[2].source += "\n"
    assert nbformat.writes(strip(executed)) != nbformat.writes(strip(example()))


def test_declared_reads_the_defaults():
    assert declared(example(), "01_x") == {"n": 1, "name": "a"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("n = 2 * 3", "'n' is '2 \\* 3'; write a plain value"),
        ("import os", "has 'import os'"),
        ("a = b = 1", "has 'a = b = 1'"),
    ],
)
def test_parameters_cell_holds_plain_assignments(source, message):
    notebook = example()
    notebook.cells[1].source = source
    with pytest.raises(NotebookError, match=message):
        declared(notebook, "01_x")


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_parameters_cell(count):
    notebook = example()
    for index, cell in enumerate(notebook.cells):
        cell.metadata["tags"] = ["parameters"] if 1 <= index <= count else []
    with pytest.raises(NotebookError, match=f"01_x: {count} cells are tagged"):
        declared(notebook, "01_x")


def test_stage_parameters_are_the_section_and_the_declared_common_keys():
    params = {"root": "runs/ci", "seed": 3, "profile": "ci", "x": {"n": 2}, "y": {"n": 5}}
    assert stage_parameters("01_x", ["n", "seed"], params) == {"n": 2, "seed": 3}


@pytest.mark.parametrize(
    ("names", "params", "message"),
    [
        (["n"], {}, "no section 'x'"),
        (["n"], {"x": {"n": 1, "m": 2}}, "x.m, but the parameters cell does not declare it"),
        (["n", "k"], {"x": {"n": 1}}, "declares 'k', which params.yaml gives no value"),
        (["n", "seed"], {"x": {"n": 1}}, "declares 'seed', which params.yaml gives no value"),
    ],
)
def test_parameters_that_do_not_match_are_named(names, params, message):
    with pytest.raises(NotebookError, match=message):
        stage_parameters("01_x", names, params)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository with the notebook 01_x."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    notebooks.write(example(), tmp_path / "notebooks/01_x.ipynb")
    return tmp_path


def test_unknown_notebook_is_named_with_those_that_exist(folder):
    with pytest.raises(NotebookError, match="'02_y'; there are: 01_x"):
        notebooks.run("02_y")


def test_run_without_stripped_copy_says_what_to_do(folder):
    with pytest.raises(NotebookError, match="dvc repro 01_x"):
        notebooks.run("01_x")


@pytest.fixture
def runnable(folder, monkeypatch):
    """The same repository, its notebook stripped and given values."""
    monkeypatch.setattr(notebooks, "STRIPPED", folder)
    monkeypatch.setattr(notebooks, "ENVIRONMENT", {})
    monkeypatch.setenv(notebooks.LAUNCH, "")
    notebooks.write(example(), folder / "01_x.ipynb")
    (folder / "params.yaml").write_text("root: runs/ci\nx: {n: 1, name: a}\n")
    return folder


def test_a_disk_that_the_executed_copy_fills_is_named(runnable, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("papermill.execute_notebook", full)
    said = r"01_x failed: runs/ci/notebooks/01_x.ipynb: cannot be written \(No space left on device\); make room"
    with pytest.raises(NotebookError, match=said):
        notebooks.run("01_x")


def test_a_disk_that_a_cell_fills_is_named_without_the_lines_of_the_library(runnable, monkeypatch):
    def full(*_, **__):
        said = "runs/a.csv: cannot be written (No space left on device); make room, and start again"
        raise PapermillExecutionError(1, 1, "write()", "OSError", said, ["Traceback (most recent call last)"])

    monkeypatch.setattr("papermill.execute_notebook", full)
    with pytest.raises(NotebookError, match=r"\A\w+ failed: runs/a.csv: cannot be written .*start again\Z"):
        notebooks.run("01_x")


@pytest.mark.parametrize(("depth", "expected"), [(0, ["ipc", "0o40700"]), (20, ["tcp", "False"])])
def test_no_other_user_can_listen_to_a_kernel(runnable, monkeypatch, depth, expected):
    with tempfile.TemporaryDirectory() as short:
        temporary = os.path.join(short, *["deep"] * depth)
        os.makedirs(temporary, exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        notebook = strip(example())
        notebook.cells[2].source = (
            "import json, os, ipykernel\n"
            "info = json.loads(ipykernel.get_connection_info())\n"
            "print(info['transport'], info['transport'] == 'ipc' and oct(os.stat(os.path.dirname(info['ip'])).st_mode))"
        )
        notebooks.write(notebook, runnable / "01_x.ipynb")
        notebooks.run("01_x")
        assert not os.listdir(temporary), "the sockets are gone with the kernel"
    executed = notebooks.read(runnable / "runs/ci/notebooks/01_x.ipynb")
    assert executed.cells[-1].outputs[0].text.split() == expected


def test_unreadable_notebook_is_named(folder):
    (folder / "notebooks/01_x.ipynb").write_text('{"cells": [')
    with pytest.raises(NotebookError, match="01_x.ipynb is not a readable notebook"):
        notebooks.read(folder / "notebooks/01_x.ipynb")
