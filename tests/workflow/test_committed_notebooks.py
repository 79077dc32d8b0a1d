"""The contract that every committed notebook keeps."""

import ast
import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from chexgen_lib.workflow import notebooks, publication
from chexgen_lib.workflow.notebooks import code_cells, declared
from tests.asked import missing_names

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
def test_every_cell_was_executed_and_shows_what_a_reader_needs(notebook):
    assert publication.faults(notebook) == []


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_outputs_are_of_a_run_of_these_parameters(notebook):
    """A parameter without a value in the outputs came after them: they are of another version of the notebook."""
    (cell,) = (cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", []))
    shown = {line.partition(" = ")[0] for line in cell.outputs[0].text.splitlines()[1:]} if cell.outputs else set()
    assert not cell.outputs or declared(notebook, "it").keys() == shown


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
def test_modules_have_what_notebooks_ask_of_them(notebook):
    """In seconds, where executing the notebook tells it after minutes."""
    assert list(missing_names("\n".join(cell.source for cell in code_cells(notebook)))) == []


@pytest.mark.parametrize("notebook", COMMITTED, indirect=True)
def test_only_the_parameters_cell_has_a_tag_and_no_cell_a_marker_of_nbval(notebook):
    """Such tags and comments let a cell fail or be skipped unseen."""
    for cell in notebook.cells:
        assert cell.metadata.get("tags", []) in ([], ["parameters"])
        assert not re.search(r"^\s*#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source, re.MULTILINE)


def test_results_are_expected_of_every_notebook_and_of_no_other(root):
    assert sorted(path.name for path in (root / "tests/expected").glob("*/")) == COMMITTED


# How a notebook opens and ends.

OPENING = re.compile(
    r"""
    \A\#\ (?P<number>\d\d)\ ·\ [^\n]+\n\n
    \*\*Question\.\*\*\ .+\n\n
    \*\*Method\.\*\*\ .+\n\n
    \|\ \*\*reads\*\*\ \|\ \*\*writes\*\*\ \|\ \*\*paper\*\*\ \|\n
    \|(?:\ ?-+\ ?\|){3}\n
    (?:\|[^\n|]+\|[^\n|]+\|[^\n|]+\|\n?)+
    """,
    re.DOTALL | re.VERBOSE,
)
SETUP = re.compile(r"^stage = Stage\(\"(\d\d_\w+)\", root, figures_dir\)$", re.MULTILINE)
LAST = "Paper beside this run"


def template_faults(notebook, name):
    """What in a notebook is not as in every other one."""
    first, parameters, setup = notebook.cells[:3]
    headings = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    opening = OPENING.match(first.source) if first.cell_type == "markdown" else None
    stage = SETUP.search(setup.source)
    holds = {
        "title, question, method and the table of reads, writes, paper": opening and opening["number"] == name[:2],
        "then the parameters": parameters.metadata.get("tags") == ["parameters"],
        "then the imports and the stage": setup.source.startswith(("import ", "from ")) and stage and stage[1] == name,
        f"## {LAST} last": headings[-1:] == [f"## {LAST}"],
    }
    return [part for part, is_so in holds.items() if not is_so]


@pytest.mark.parametrize("name", COMMITTED)
def test_opens_and_ends_as_every_notebook(name):
    assert template_faults(notebooks.read(notebooks.path_of(name)), name) == []


def templated():
    opening = "# 01 · Toy\n\n**Question.** Why?\n\n**Method.** So.\n\n"
    table = "| **reads** | **writes** | **paper** |\n|---|---|---|\n| `a` | `b` | Fig 1 |"
    cells = [
        new_markdown_cell(opening + table),
        new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
        new_code_cell('import polars as pl\n\nstage = Stage("01_toy", root, figures_dir)'),
        new_markdown_cell(f"## {LAST}"),
    ]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("cell", "old", "new"),
    [
        (0, "# 01", "# 02"),
        (0, "**Question.**", "Question."),
        (0, "**Method.**", "Method."),
        (0, "| **paper** ", ""),
        (2, "01_toy", "02_toy"),
        (2, "stage = ", ""),
        (3, LAST, "The end"),
    ],
)
def test_another_opening_or_end_is_a_fault(cell, old, new):
    notebook = templated()
    assert template_faults(notebook, "01_toy") == []
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new)
    assert len(template_faults(notebook, "01_toy")) == 1
    notebook.cells[1].metadata = {}
    assert "then the parameters" in template_faults(notebook, "01_toy")
