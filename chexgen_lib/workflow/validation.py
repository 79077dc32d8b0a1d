"""Execute the committed notebooks with their default parameters (profile `ci`) and compare what they compute.

    python -m chexgen_lib.workflow.validation check [NAME ...]      results must be as in tests/expected
    python -m chexgen_lib.workflow.validation expected [NAME ...]   write tests/expected from what they compute now

nbval executes the cells. The outputs in the committed notebooks come from another profile (`publication`), so they are
not compared; the tables, figures and metrics that a notebook writes are. Without names, the run starts from an empty
runs/ci, so that no notebook can depend on leftovers. Notebooks that do not need each other's results run side by side,
each with one thread: the number of threads changes how sums are rounded.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel
from nbval.plugin import IPyNbFile

from chexgen_lib.workflow import dag, expected
from chexgen_lib.workflow.notebooks import COMMON, ENVIRONMENT, ROOT, NotebookError, declared, read, section_of

WORKERS = 2


class Notebook(IPyNbFile):
    """A notebook whose cells nbval executes, in the repository root and without a look at their outputs."""

    def __init__(self, *args, root: Path, write: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self.root, self.write, self.compare_outputs = root, write, False
        self.started = 0.0

    def setup(self) -> None:
        """Start the kernel; nbval's own method does so in the notebook's folder."""
        self.started = time.time()
        timeout = self.config.option.nbval_kernel_startup_timeout
        self.kernel = RunningKernel(CURRENT_ENV_KERNEL_NAME, cwd=str(self.root), startup_timeout=timeout)

    def collect(self) -> Iterator[pytest.Item]:
        yield from super().collect()
        yield Results.from_parent(self, name="results")


class Results(pytest.Item):
    """The last test of a notebook: what it wrote is what tests/expected says."""

    def runtest(self) -> None:
        notebook = self.parent
        name, folder = notebook.path.stem, notebook.root / "tests/expected"
        actual = written(notebook.root, name, notebook.started, not notebook.write)
        if notebook.write:
            expected.save(actual, folder / name)
            return
        lines = expected.differences(name, actual, expected.load(folder / name), expected.load_tolerances(folder))
        if lines:
            raise NotebookError("\n  ".join([f"{name} does not compute what tests/expected/{name} says:", *lines]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo, style=None) -> str:
        if excinfo.errisinstance(NotebookError):
            return f"{excinfo.value}\nIf this is meant: `make expected`"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}::results"


class Plugin:
    """Collects notebooks of `root` for pytest; with `write`, results become the expected ones."""

    def __init__(self, root: Path, write: bool):
        self.root, self.write = root, write

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Notebook | None:
        if file_path.suffix == ".ipynb":
            return Notebook.from_parent(parent, path=file_path, root=self.root, write=self.write)


def written(root: Path, name: str, since: float, side_by_side: bool) -> expected.Files:
    """What a notebook that was started at the time `since` left in its folders, as the files of `expected`.

    Notebooks share a folder of figures. Where they run side by side, a file that is expected of another is that one's.
    """
    notebook = read(root / "notebooks" / f"{name}.ipynb")
    values = declared(notebook, name)
    files = {"cells.csv": expected.of_cells(notebook)}
    if "figures_dir" in values:
        folder = root / values["figures_dir"]
        others = expected.outputs_of_others(root / "tests/expected", name) if side_by_side else set()
        new = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*")) if _since(path, since)}
        new = {file: path for file, path in new.items() if file not in others}
        files["figures.csv"] = expected.of_figures({file: path for file, path in new.items() if path.suffix == ".png"})
        files |= {f"tables/{file}": path.read_text() for file, path in new.items() if path.suffix == ".csv"}
    metrics = root / values["root"] / section_of(name) / "metrics.json"
    if _since(metrics, since):
        files["metrics.csv"] = expected.of_metrics(metrics)
    return files


def _since(path: Path, time_: float) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.stat().st_mtime >= time_


def needs(root: Path) -> dict[str, set[str]]:
    """For each notebook, those that make what it reads, as dvc.yaml says; for one that is no stage, all before it."""
    names = sorted(path.stem for path in (root / "notebooks").glob("*.ipynb"))
    params: dict[str, Any] = {}
    for name in names:  # their defaults are the profile `ci`
        params[section_of(name)] = values = declared(read(root / "notebooks" / f"{name}.ipynb"), name)
        params |= {key: values[key] for key in COMMON if key in values}
    stages = dag.stages(params, root)
    makers = [(f"{out}/", name) for name, stage in stages.items() for out in dag.output_paths(stage)]
    found = {name: {before for before in names if before < name} for name in names}
    for name, stage in stages.items():
        deps = [f"{dep}/" for dep in stage["deps"]]
        found[name] = {maker for out, maker in makers if any(d.startswith(out) or out.startswith(d) for d in deps)}
        found[name] -= {name}
    return found


def validate(root: Path, name: str, write: bool) -> tuple[bool, str]:
    """Execute one notebook; returns whether all is as it must be, and pytest's report."""
    start, report = time.perf_counter(), io.StringIO()
    options = [
        "--exitfirst",
        "--quiet",
        "--color=no",
        "--disable-warnings",
        "--override-ini=addopts=",
        "-pno:cacheprovider",
        f"--rootdir={root}",
    ]
    with contextlib.redirect_stdout(report):
        status = pytest.main([*options, str(root / "notebooks" / f"{name}.ipynb")], plugins=[Plugin(root, write)])
    verdict = f"{name} {'failed' if status else 'passed'} in {time.perf_counter() - start:.0f} s"
    return not status, f"{verdict}\n{report.getvalue()}" if status else verdict


def validate_all(root: Path, names: list[str], write: bool, workers: int) -> dict[str, bool]:
    """Execute notebooks, each after those that it needs; returns which of them pass. What needs a failure fails."""
    before = needs(root)
    order = TopologicalSorter({name: before[name] & set(names) for name in names})
    order.prepare()
    passed: dict[str, bool] = {}
    ready: set[str] = set()
    running: dict[Future, str] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_set_environment) as pool:
        while order.is_active():
            ready |= set(order.get_ready())
            while ready and len(running) < workers:
                name = min(ready)  # the first notebooks are those that most others need
                ready.remove(name)
                if failed := sorted(other for other in before[name] if not passed.get(other, True)):
                    print(f"{name} not executed: it needs {', '.join(failed)}", flush=True)
                    passed[name] = False
                    order.done(name)
                else:
                    running[pool.submit(validate, root, name, write)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                passed[name], report = future.result()
                print(report, flush=True)
                order.done(name)
    return passed


def _set_environment() -> None:
    os.environ.update(ENVIRONMENT | {"OMP_NUM_THREADS": "1"})  # of the kernels that this process starts


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chexgen_lib.workflow.validation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: that of this file)")
    parser.add_argument("command", choices=("check", "expected"))
    parser.add_argument("names", nargs="*", help="default: all")
    arguments = parser.parse_args()
    root, write = arguments.root.resolve(), arguments.command == "expected"
    known = sorted(needs(root))
    if unknown := sorted(set(arguments.names) - set(known)):
        raise NotebookError(f"no notebook {', '.join(unknown)}; there are: {', '.join(known)}")
    if not arguments.names:
        shutil.rmtree(root / "runs/ci", ignore_errors=True)
    passed = validate_all(root, arguments.names or known, write, workers=1 if write else WORKERS)
    print(f"{sum(passed.values())} of {len(passed)} notebooks passed")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NotebookError as error:
        sys.exit(f"error: {error}")
