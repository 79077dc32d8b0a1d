"""The contract that every committed notebook keeps, and the tools that execute notebooks."""

import ast
import copy
import re
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from chexgen_lib.workflow import notebooks, validation
from chexgen_lib.workflow.notebooks import NotebookError, code_cells, declared, stage_parameters, strip

COMMITTED = notebooks.names()
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(home|root|Users|work|tmp|opt|usr|mnt|var|private|content)/|\b[A-Z]:\\\\?\w")


@pytest.fixture
def notebook(request):
    return notebooks.read(notebooks.path_of(request.param))


def texts(cell):
    yield cell.source
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))
        yield from (
            text for kind, text in output.get("data", {}).items() if isinstance(text, str) and "image/png" != kind
        )


@pytest.mark.parametrize("name", COMMITTED)
def test_name_size_and_parameters_cell(name):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", name)
    assert notebooks.path_of(name).stat().st_size < 400_000
    assert declared(notebooks.read(notebooks.path_of(name)), name)


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_cells_were_run_once_in_order_without_error(notebook):
    cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run `make notebooks`"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_no_absolute_path(notebook):
    for cell in notebook.cells:
        for text in texts(cell):
            assert not ABSOLUTE.search(text), f"{ABSOLUTE.search(text)[0]!r} in {text[:200]!r}"


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_no_definition_over_ten_lines(notebook):
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 10, f"{node.name} has {length} lines: move it to the library"


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_outputs_are_checked(notebook):
    checked = [cell for cell in code_cells(notebook) if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked, "mark the cells whose numbers must not change with # NBVAL_CHECK_OUTPUT"
    assert all(cell.outputs for cell in checked), "a cell marked NBVAL_CHECK_OUTPUT has no output"


# The tools.


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


def test_unreadable_notebook_is_named(folder):
    (folder / "notebooks/01_x.ipynb").write_text('{"cells": [')
    with pytest.raises(NotebookError, match="01_x.ipynb is not a readable notebook"):
        notebooks.read(folder / "notebooks/01_x.ipynb")


def test_refresh_executes_in_place_at_the_root_in_this_environment(folder):
    notebook = example()
    notebook.cells[2].source = "import os, sys\nprint(n, os.getcwd(), sys.prefix)\nprint('bar', file=sys.stderr)"
    notebooks.write(notebook, folder / "notebooks/01_x.ipynb")
    validation.refresh("01_x")
    executed = notebooks.read(folder / "notebooks/01_x.ipynb")
    assert [cell.get("execution_count") for cell in executed.cells] == [None, 1, 2]
    assert [output.text for output in executed.cells[2].outputs] == [f"1 {folder} {sys.prefix}\n"]


def test_a_notebook_that_fails_is_left_as_it_was(folder):
    notebook = example()
    notebook.cells[2].source = "1 / 0"
    notebooks.write(notebook, folder / "notebooks/01_x.ipynb")
    before = (folder / "notebooks/01_x.ipynb").read_bytes()
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        validation.refresh("01_x")
    assert (folder / "notebooks/01_x.ipynb").read_bytes() == before
    assert [path.name for path in (folder / "notebooks").iterdir()] == ["01_x.ipynb"]


@pytest.mark.parametrize(
    ("found", "committed", "same"),
    [
        ("Dice 0.731 [0.70, 0.76] n = 12", "Dice 0.729 [0.70, 0.77] n = 12", True),
        ("difference  0.001", "difference -0.002", True),  # the sign takes a space
        ("FID 428.2", "FID 423.5", True),
        ("FID 428.2", "FID 400.5", False),
        ("Dice 0.731", "Dice 0.680", False),
        ("gain +0.028", "gain -0.020", False),
        ("n = 12, 0.5", "n = 13, 0.5", False),
        ("better 0.5", "worse 0.5", False),
        ("0.5 0.6", "0.5", False),
    ],
)
def test_only_another_processors_rounding_is_overlooked(found, committed, same):
    assert (validation.settled(found, committed) == committed) is same


CHECKED = "# NBVAL_CHECK_OUTPUT\nprint('n 3, mean', 0.5)"


@pytest.mark.parametrize(("committed", "passes"), [("n 3, mean 0.52\n", True), ("n 4, mean 0.52\n", False)])
def test_check_compares_numbers_and_words(folder, committed, passes):
    cells = [new_code_cell("n = 1", metadata={"tags": ["parameters"]}), new_code_cell(CHECKED)]
    cells[0].execution_count, cells[1].execution_count = 1, 2
    cells[1].outputs = [new_output("stream", name="stdout", text=committed)]
    notebooks.write(notebooks.normalise(new_notebook(cells=cells)), folder / "notebooks/01_x.ipynb")
    program = (
        "from pathlib import Path; from chexgen_lib import notebooks as n; n.ROOT = Path(); raise SystemExit(n.check())"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert (finished.returncode == 0) is passes, finished.stdout + finished.stderr
