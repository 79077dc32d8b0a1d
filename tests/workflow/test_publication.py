"""The committed notebooks take the outputs of a run, and never anything else of it."""

import base64
import copy
import io

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from chexgen_lib.workflow import notebooks, publication
from chexgen_lib.workflow.notebooks import NotebookError, normalise
from chexgen_lib.workflow.publication import published

WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Loading: 0%"}


def source():
    parameters = new_code_cell("n = 1", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell("# Text"), parameters, new_code_cell("print(n)"), new_code_cell("figure")]
    return normalise(new_notebook(cells=cells))


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def png(pixels):
    """An image of an output: PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def executed():
    """The copy of `source` that papermill leaves."""
    notebook = copy.deepcopy(source())
    injected = new_code_cell("# Parameters\nn = 7\n", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(2, injected)
    for count, cell in enumerate(notebooks.code_cells(notebook), 1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"duration": 1.5}
    notebook.cells[3].outputs = [
        stream("7"),
        stream("\n"),
        stream("a warning", "stderr"),
        new_output("display_data", WIDGET),
        stream(" \n"),
    ]
    notebook.cells[4].outputs = [new_output("execute_result", {"image/png": png(np.eye(8) * 255)}, execution_count=4)]
    notebook.metadata["papermill"] = {"input_path": "x"}
    return notebook


def test_outputs_are_taken_and_the_source_stays(executed):
    result = published(executed, source(), "01_x")
    assert notebooks.strip(result) == notebooks.strip(source())
    assert [cell.get("execution_count") for cell in result.cells] == [None, 1, 2, 3]
    assert result.cells[3].outputs[0].data == {"image/png": png(np.eye(8) * 255)}
    assert result.cells[3].outputs[0].execution_count == 3
    assert "papermill" not in str(result)


def test_the_parameters_cell_shows_the_values_of_the_run(executed):
    assert [o.text for o in published(executed, source(), "01_x").cells[1].outputs] == ["# values of this run\nn = 7\n"]


def test_warnings_progress_bars_and_blank_text_are_left_out_and_text_in_a_row_is_one_output(executed):
    assert [output.text for output in published(executed, source(), "01_x").cells[2].outputs] == ["7\n \n"]


def test_text_that_a_terminal_would_overwrite_is_left_out():
    assert [o.text for o in publication.tidy([stream("10 %\r20 %\rdone\n")], 1)] == ["done\n"]
    assert publication.tidy([stream(" \n"), stream("\n")], 1) == []


def test_a_copy_of_another_version_is_refused(executed):
    executed.cells[3].source = "print(n + 1)"
    with pytest.raises(NotebookError, match="01_x: the executed copy is of another version"):
        published(executed, source(), "01_x")


def test_a_copy_with_an_error_or_an_unexecuted_cell_is_refused(executed):
    executed.cells[3].execution_count = None
    executed.cells[4].outputs = [new_output("error", ename="ValueError", evalue="", traceback=[])]
    with pytest.raises(NotebookError, match="01_x: its executed copy") as raised:
        published(executed, source(), "01_x")
    assert str(raised.value).splitlines()[1:] == [
        "  cell 2, 'print(n)', was not executed, or not in order",
        "  cell 3, 'figure', failed",
    ]


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (new_output("error", ename="ValueError", evalue="", traceback=[]), "failed"),
        (stream("a warning", "stderr"), "shows a warning"),
        (new_output("display_data", WIDGET), "shows a progress bar"),
        (stream(" \n"), "shows blank text"),
        (new_output("display_data", {"image/png": png(np.full((8, 8), 255))}), "shows a blank figure"),
        (new_output("display_data", {"image/png": png(np.eye(8) * 255)}), None),
        (stream("7\n"), None),
    ],
)
def test_faults_of_a_committed_notebook_are_named(executed, output, fault):
    notebook = published(executed, source(), "01_x")
    notebook.cells[2].outputs = [output]
    assert publication.faults(notebook) == ([f"cell 2, 'print(n)', {fault}"] if fault else [])


def test_an_unexecuted_cell_of_a_committed_notebook_is_named(executed):
    notebook = published(executed, source(), "01_x")
    notebook.cells[3].execution_count, notebook.cells[3].outputs = None, []
    assert publication.faults(notebook) == ["cell 3, 'figure', was not executed, or not in order"]


def test_a_notebook_that_was_not_run_is_named_with_the_remedy(tmp_path):
    with pytest.raises(NotebookError, match="01_curation has no executed copy .*make repro STAGE=01_curation"):
        publication.publish("01_curation", tmp_path)


def test_publishing_replaces_the_outputs_of_the_committed_notebook(executed, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    notebooks.write(source(), tmp_path / "notebooks/01_x.ipynb")
    notebooks.write(executed, tmp_path / "runs/laptop/notebooks/01_x.ipynb")
    publication.publish("01_x", tmp_path / "runs/laptop")
    assert notebooks.read(tmp_path / "notebooks/01_x.ipynb") == published(executed, source(), "01_x")
