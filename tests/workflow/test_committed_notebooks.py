"""The contract that every committed notebook keeps."""

import ast
import re

import pytest

from chexgen_lib.workflow import notebooks
from chexgen_lib.workflow.notebooks import code_cells, declared

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
