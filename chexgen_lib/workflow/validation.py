"""Committed notebooks: re-execute them, and compare what they give with what is expected.

python -m chexgen_lib.workflow.validation refresh    re-execute the committed notebooks in place
python -m chexgen_lib.workflow.validation check      re-execute them and compare with what is committed
"""

import argparse
import copy
import os
import re
import shutil
import sys

from nbformat import NotebookNode

from chexgen_lib.workflow.notebooks import (
    ENVIRONMENT,
    ROOT,
    NotebookError,
    code_cells,
    names,
    normalise,
    path_of,
    read,
    write,
)

NUMBER = re.compile(r" *[+-]?\d+\.\d+")  # with the spaces before it, of which a sign takes one
ABSOLUTE, RELATIVE = 0.02, 0.05  # how far a number may be from the committed one; another processor made that


def refresh(name: str) -> None:
    """Execute a committed notebook in place with its own defaults; text on stderr (progress) is not kept."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    os.environ.update(ENVIRONMENT)
    notebook = normalise(read(path_of(name)))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(ROOT)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"{name} failed and is left as it was\n{error}") from None
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    write(normalise(notebook), path_of(name))


def check() -> int:
    """Re-execute every notebook in order in one pytest process; outputs of marked cells must be as committed.

    Mark a cell with the comment `# NBVAL_CHECK_OUTPUT`. Printed words and whole numbers must be the same, decimal ones
    as `settled` says; HTML must be equal. Returns pytest's exit status.
    """
    import pytest
    from nbval import plugin

    class KernelAtRoot(plugin.RunningKernel):
        """nbval starts a kernel in the notebook's folder; the DAG starts it in the root."""

        def __init__(self, kernel_name: str, cwd: str, startup_timeout: int):
            super().__init__(kernel_name, cwd=str(ROOT), startup_timeout=startup_timeout)

    strictly = plugin.IPyNbCell.compare_outputs

    def nearly(cell: plugin.IPyNbCell, found: list, committed: list, skip_compare=None) -> bool:
        return strictly(cell, _settled_outputs(found, committed), committed, skip_compare)

    plugin.RunningKernel, plugin.IPyNbCell.compare_outputs = KernelAtRoot, nearly
    os.environ.update(ENVIRONMENT)
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--verbose",
        "-Wignore::pytest.PytestAssertRewriteWarning",
    ]
    return int(pytest.main([*options, *(str(path_of(name)) for name in names())]))


def settled(found: str, committed: str) -> str:
    """`found`, with the committed one in place of each decimal number that is within `ABSOLUTE` or `RELATIVE` of it.

    Processors round the last digit of a product differently, which some steps of training magnify. Verdicts, counts,
    and which rows there are may not differ even so.
    """
    pairs = [NUMBER.findall(found), NUMBER.findall(committed)]
    if len(pairs[0]) != len(pairs[1]):
        return found
    chosen = iter([theirs if _near(ours, theirs) else ours for ours, theirs in zip(*pairs, strict=True)])
    return NUMBER.sub(lambda _: next(chosen), found)


def _near(a: str, b: str) -> bool:
    return abs(float(a) - float(b)) <= max(ABSOLUTE, RELATIVE * abs(float(b)))


def _settled_outputs(found: list[NotebookNode], committed: list[NotebookNode]) -> list[NotebookNode]:
    if len(found) != len(committed):
        return found
    result = copy.deepcopy(found)
    for output, other in zip(result, committed, strict=True):
        for texts, others in ((output, other), (output.get("data", {}), other.get("data", {}))):
            for key in {"text", "text/plain"} & set(texts) & set(others):
                texts[key] = settled(texts[key], others[key])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chexgen_lib.workflow.validation", description="Check notebooks.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("refresh").add_argument("names", nargs="*", help="default: all, in order")
    commands.add_parser("check")
    arguments = parser.parse_args()
    if arguments.command == "check" or not arguments.names:  # nothing of an earlier run may hide a missing dependency
        shutil.rmtree(ROOT / "runs/ci", ignore_errors=True)
    if arguments.command == "check":
        return check()
    for name in arguments.names or names():
        print(f"refresh {name}", flush=True)
        refresh(name)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotebookError as error:
        sys.exit(f"error: {error}")
