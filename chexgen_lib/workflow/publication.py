"""Take the outputs of a finished run into the committed notebooks.

    python -m chexgen_lib.workflow.publication [--run runs/laptop] [NAME ...]

A stage's executed copy lies in <run>/notebooks. Its figures, tables and printed numbers go to notebooks/NN_name.ipynb,
so that a reader of the page sees the run; progress bars and warnings do not. Sources are never changed.
"""

import argparse
import base64
import copy
import io
import re
import sys
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_output

from chexgen_lib.workflow import notebooks
from chexgen_lib.workflow.expected import ink
from chexgen_lib.workflow.notebooks import ROOT, NotebookError, code_cells

WIDGET = "application/vnd.jupyter.widget-view+json"
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # what a terminal would no longer show


def published(executed: NotebookNode, source: NotebookNode, name: str) -> NotebookNode:
    """`source` with the outputs of its executed copy. The parameters cell shows the values of that run.

    Raises:
        NotebookError: The copy is of another version of the notebook, or has `faults`.
    """
    executed = copy.deepcopy(executed)
    injected = [cell for cell in executed.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    executed.cells = [cell for cell in executed.cells if cell not in injected]
    notebook = notebooks.normalise(executed)
    if notebooks.strip(notebook) != notebooks.strip(source):
        raise NotebookError(f"{name}: the executed copy is of another version of the notebook; run `make repro` first")
    executed_cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    for count, cell in enumerate(executed_cells, 1):
        cell.outputs = tidy(cell.outputs, count)
        if cell.execution_count is not None:
            cell.execution_count = count
        if injected and "parameters" in cell.metadata.get("tags", []):
            values = injected[0].source.removeprefix("# Parameters\n").strip()
            cell.outputs = [new_output("stream", name="stdout", text=f"# values of this run\n{values}\n")]
    if lines := faults(notebook):
        raise NotebookError("\n  ".join([f"{name}: its executed copy is not for readers", *lines]))
    return notebook


def faults(notebook: NotebookNode) -> list[str]:
    """What a reader must not find in a committed notebook: one line for each fault of a cell."""
    lines = []
    for count, cell in enumerate([cell for cell in code_cells(notebook) if cell.source.strip()], 1):
        kinds = {output.output_type for output in cell.outputs}
        texts = [output for output in cell.outputs if output.output_type == "stream"]
        images = [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]
        found = {
            "was not executed, or not in order": cell.execution_count != count,
            "failed": "error" in kinds,
            "shows a warning": any(output.name == "stderr" for output in texts),
            "shows a progress bar": any(WIDGET in output.get("data", {}) for output in cell.outputs),
            "shows blank text": any(not output.text.strip() for output in texts),
            "shows a blank figure": any(not ink(io.BytesIO(base64.b64decode(image))) for image in images),
        }
        lines += [f"cell {count}, {cell.source.splitlines()[0]!r}, {fault}" for fault, is_so in found.items() if is_so]
    return lines


def tidy(outputs: list[NotebookNode], count: int) -> list[NotebookNode]:
    """Outputs without standard error, widgets, blank text and plain twins of tables; text in a row is one output."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr" or WIDGET in output.get("data", {}):
            continue
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(copy.deepcopy(output))
    for output in kept:
        if output.output_type == "stream":
            output.text = OVERWRITTEN.sub("", output.text)
        if "execution_count" in output:
            output.execution_count = count
        if "text/html" in output.get("data", {}):  # a table is shown once
            output.data.pop("text/plain", None)
    return [output for output in kept if output.output_type != "stream" or output.text.strip()]


def publish(name: str, run: Path) -> None:
    """Take the outputs of one executed copy into the committed notebook."""
    executed = run / "notebooks" / f"{name}.ipynb"
    if not executed.is_file():
        raise NotebookError(f"{name} has no executed copy {executed}: `make repro STAGE={name}` makes it")
    source = notebooks.path_of(name)
    notebooks.write(published(notebooks.read(executed), notebooks.read(source), name), source)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m chexgen_lib.workflow.publication", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--run", type=Path, default=ROOT / "runs/laptop", help="folder of the run (runs/laptop)")
    parser.add_argument("names", nargs="*", help="default: all stages, and other notebooks that were executed")
    arguments = parser.parse_args()
    stages = notebooks.load_yaml(ROOT / "dvc.yaml")["stages"]
    executed = {path.stem for path in arguments.run.glob("notebooks/*.ipynb")}
    for name in arguments.names or [name for name in notebooks.names() if name in executed | set(stages)]:
        publish(name, arguments.run)
        print(f"notebooks/{name}.ipynb has the outputs of {arguments.run.name}")


if __name__ == "__main__":
    try:
        main()
    except NotebookError as error:
        sys.exit(f"error: {error}")
