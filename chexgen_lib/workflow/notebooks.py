"""The notebooks as stages of the DAG.

    python -m chexgen_lib.workflow.notebooks strip              write what the stages depend on, to runs/stripped
    python -m chexgen_lib.workflow.notebooks run 01_curation    execute a stripped notebook as params.yaml says

Of each notebook `runs/stripped` holds a copy without outputs, and the digests of the library's modules that it imports,
without docstrings and comments. A stage depends on these two files: editing docstrings, comments or outputs re-runs
nothing, and a changed word of a notebook executes that notebook again, from kept results.

A stage is `notebooks/NN_name.ipynb`. Its parameters are the section `name` of params.yaml and those of the
common keys that the notebook declares in its cell tagged `parameters`. The defaults in that cell are the
`ci` profile, so that a notebook runs by itself in a minute. Every kernel starts in the repository root.
"""

import argparse
import ast
import copy
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from ruamel.yaml import YAML
from traitlets.config import Config

from chexgen_lib import code_digest
from chexgen_lib.processes import LAUNCH, spin_briefly
from chexgen_lib.storage import naming_full_disk, replacing

ROOT = Path(__file__).resolve().parents[2]
STRIPPED = ROOT / "runs/stripped"
COMMON = ("profile", "root", "figures_dir", "seed")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Let results depend on inputs and seed alone, and let "python3" be the kernel of this environment, not one
# that the user installed elsewhere. Huge pages save page faults on large tensors, a quarter of a CPU's time.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "JUPYTER_PREFER_ENV_PATH": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class NotebookError(ValueError):
    """A notebook, or its entry in params.yaml or dvc.yaml, breaks the contract above."""


def names() -> list[str]:
    """Names of all committed notebooks, in numerical order: "01_curation", ..."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def path_of(name: str) -> Path:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise NotebookError(f"no notebook {name!r}; there are: {', '.join(names()) or 'none'}")
    return path


def section_of(name: str) -> str:
    """Section of params.yaml that belongs to a notebook: "01_curation" -> "curation"."""
    return name.partition("_")[2]


def read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:  # NotJSONError is a ValueError
        raise NotebookError(f"{path.name} is not a readable notebook: {error}") from error


def write(notebook: NotebookNode, path: Path) -> None:
    with replacing(path) as partial:
        nbformat.write(notebook, partial)


def load_yaml(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path)
    except OSError as error:
        raise NotebookError(f"{path.name} cannot be read: {error}") from error


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Keep what the authors wrote: sources, cell tags, order. Ids and metadata become a function of these."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata, notebook.nbformat, notebook.nbformat_minor = METADATA, 4, 5
    for number, cell in enumerate(notebook.cells):
        tags = sorted(cell.metadata.get("tags", []))
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{number}"
    return nbformat.from_dict(notebook)


def strip(notebook: NotebookNode) -> NotebookNode:
    """Copy without outputs and counts: equal for two notebooks that differ only in what an execution left."""
    notebook = normalise(notebook)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def write_stripped(names_: Iterable[str]) -> None:
    """Write the stripped copy and the code digests of notebooks to runs/stripped; a file that is as it was stays."""
    for name in names_:
        stripped = strip(read(path_of(name)))
        cells = "\n".join(cell.source for cell in code_cells(stripped))
        try:
            lines = code_digest.lines(cells)
        except SyntaxError as error:
            raise NotebookError(
                f"{name}.ipynb: not plain Python (imports in magics cannot be seen): {error}"
            ) from error
        write(stripped, STRIPPED / f"{name}.ipynb")
        with replacing(STRIPPED / f"{name}.code") as partial:
            partial.write_text("\n".join([*lines, ""]))


def declared(notebook: NotebookNode, name: str) -> dict[str, Any]:
    """Names and default values in the one cell tagged `parameters`; `name` is for the error text."""
    cells = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise NotebookError(f"{name}: {len(cells)} cells are tagged 'parameters'; tag exactly one")
    defaults = {}
    for statement in ast.parse(cells[0].source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=key)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.expr() as value):
                pass
            case _:
                raise NotebookError(
                    f"{name}: its parameters cell has {ast.unparse(statement)!r}; write `key = value` only"
                )
        try:
            defaults[key] = ast.literal_eval(value)
        except ValueError as error:
            raise NotebookError(f"{name}: parameter {key!r} is {ast.unparse(value)!r}; write a plain value") from error
    return defaults


def stage_parameters(name: str, declared_names: Iterable[str], params: dict[str, Any]) -> dict[str, Any]:
    """Values of params.yaml for one stage: exactly the names that its notebook declares, or an error."""
    section = params.get(section_of(name))
    if not isinstance(section, dict):
        raise NotebookError(f"{name}: params.yaml has no section {section_of(name)!r}; add it to conf/profile/*.yaml")
    declared_names = set(declared_names)
    values = section | {key: params[key] for key in COMMON if key in declared_names and key in params}
    for key in sorted(values.keys() - declared_names):
        raise NotebookError(
            f"{name}: params.yaml sets {section_of(name)}.{key}, but the parameters cell does not declare it"
        )
    for key in sorted(declared_names - values.keys()):
        raise NotebookError(
            f"{name}: the notebook declares {key!r}, which params.yaml gives no value: "
            f"add it to section {section_of(name)!r} in conf/profile/*.yaml and run `make params`"
        )
    return values


def check_types(name: str, defaults: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise where a value has another type than the notebook's: `dvc exp run -S` makes a true text of int8=no."""
    kinds = {bool: bool, int: (int, float), float: (int, float), list: list, str: (str, dict)}
    for key, value in values.items():
        default = defaults[key]
        kind = kinds.get(type(default), object)
        retyped = not isinstance(value, kind) or isinstance(value, bool) and kind not in (bool, object)
        if value is not None and retyped:
            raise NotebookError(
                f"{name}: params.yaml has {value!r} for {key}, the notebook {default!r}: give a value of that type "
                "(`make params` and `make repro` with SET check it)"
            )


@contextmanager
def private_sockets() -> Iterator[Config]:
    """Settings of a kernel whose messages only this user can read.

    Whoever has an account on a machine may listen at its TCP ports to all that a kernel puts out, credentialed records
    among it. Sockets are files, here in a folder of this user's alone; only where the path of the folder for temporary
    files is too long for a socket's name (107 bytes) does the kernel fall back on ports.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        ip = os.path.join(folder, "socket")
        fits = len(os.fsencode(ip)) < 100
        yield Config(KernelManager={"transport": "ipc", "ip": ip} if fits else {})


def run(name: str) -> None:
    """Execute the stripped copy with the values of params.yaml; the executed copy is in <root>/notebooks."""
    import papermill

    path_of(name)
    stripped = STRIPPED / f"{name}.ipynb"
    if not stripped.is_file():
        raise NotebookError(f"runs/stripped/{name}.ipynb is missing: `dvc repro {name}` makes it first")
    params = load_yaml(ROOT / "params.yaml")
    defaults = declared(read(stripped), name)
    values = stage_parameters(name, defaults, params)
    check_types(name, defaults, values)
    executed = ROOT / params["root"] / "notebooks" / f"{name}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    spin_briefly()
    os.environ.update(ENVIRONMENT | {LAUNCH: params.get("launch") or ""})
    try:
        with naming_full_disk(executed.relative_to(ROOT)), private_sockets() as config:
            papermill.execute_notebook(
                stripped,
                executed,
                values,
                kernel_name="python3",
                config=config,
                cwd=ROOT,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == "OSError":  # a full disk, or another's hold: no line of code is to blame
            raise NotebookError(f"{name} failed: {error.evalue}") from None
        raise NotebookError(f"{name} failed; its cells are in {executed.relative_to(ROOT)}\n{error}") from None
    except OSError as error:  # of the executed copy, which is written after each cell
        raise NotebookError(f"{name} failed: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m chexgen_lib.workflow.notebooks", description="Stages of the DAG.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("strip").add_argument("names", nargs="*", help="default: all")
    commands.add_parser("run").add_argument("name", help="the notebook, for example 01_curation")
    arguments = parser.parse_args()
    match arguments.command:
        case "strip":
            write_stripped(arguments.names or names())
        case "run":
            run(arguments.name)


if __name__ == "__main__":
    try:
        main()
    except NotebookError as error:
        sys.exit(f"error: {error}")
