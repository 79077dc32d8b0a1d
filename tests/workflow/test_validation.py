"""Re-executed notebooks must run without error, in the root, and compute what is expected of them."""

import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from chexgen_lib.workflow import expected, validation
from chexgen_lib.workflow.notebooks import NotebookError

DVC_YAML = """
stages:
  strip: {cmd: python -m chexgen_lib.workflow.notebooks strip, outs: [runs/stripped]}
  01_good: {cmd: notebooks run 01_good, deps: [data.txt], outs: [{"${root}/good": {cache: false}}]}
  02_error: {cmd: notebooks run 02_error, deps: ["${root}/good/value.txt"], outs: ["${root}/error"]}
  03_after: {cmd: notebooks run 03_after, deps: ["${after.pool}"], outs: ["${root}/after"]}
  04_damaged: {cmd: notebooks run 04_damaged, deps: ["${root}/good"], outs: ["${root}/damaged"]}
"""
PARAMETERS = 'root = "runs/ci"\nfigures_dir = "runs/ci/figures"\npool = "runs/ci/error/pool"'
RESULTS = """
from pathlib import Path
from PIL import Image
value = float(Path("data.txt").read_text())
Path(figures_dir).mkdir(parents=True, exist_ok=True)
picture = Image.new("L", (16, 8))
picture.paste(255, (0, 0, 4, 8))
picture.save(Path(figures_dir, "NAME.png"))
Path(figures_dir, "NAME.csv").write_text(f"x,n\\n{value},4\\n")
Path(figures_dir, "NAME_more.csv").write_text("n\\n1\\n")
Path(root, "NAME").mkdir(parents=True, exist_ok=True)
Path(root, "NAME/metrics.json").write_text(f'{{"value": {value}}}')
"""
NAMES = ["01_good", "02_error", "03_after", "04_damaged", "05_no_stage"]
DAMAGES = [
    ("(16, 8)", "(16, 9)"),
    ("paste(255", "paste(0"),
    ('data.txt").read_text())', 'data.txt").read_text()) + 0.1'),
]
DAMAGES += [("damaged_more", "undeclared")]


def save(folder, name, *cells):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
    nbformat.write(new_notebook(cells=cells), folder / "notebooks" / f"{name}.ipynb")


@pytest.fixture(scope="module")
def repository(tmp_path_factory, root):
    """A repository of small notebooks; what the first one computes is expected of all of them."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "notebooks").mkdir()
    (folder / "tests/expected").mkdir(parents=True)
    shutil.copy(root / "tests/expected/tolerances.yaml", folder / "tests/expected")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "data.txt").write_text("0.5")
    for name in NAMES:
        save(folder, name, RESULTS.replace("NAME", name[3:]), "last = 1")
    assert validation.validate_all(folder, ["01_good"], write=True, workers=1) == {"01_good": True}
    files = expected.load(folder / "tests/expected/01_good")
    cells = [validation.read(folder / f"notebooks/{name}.ipynb") for name in NAMES]
    for name, notebook in zip(NAMES[1:], cells[1:], strict=True):
        own = {file.replace("good", name[3:]): text.replace("good", name[3:]) for file, text in files.items()}
        expected.save(own | {"cells.csv": expected.of_cells(notebook)}, folder / "tests/expected" / name)
    return folder


@pytest.fixture(scope="module")
def report(repository):
    """What `check` prints after results were expected of all notebooks and some of them were then damaged."""
    save(repository, "02_error", RESULTS.replace("NAME", "error"), "last = 1 / 0")
    damaged = RESULTS.replace("NAME", "damaged")
    for old, new in DAMAGES:
        assert old in damaged
        damaged = damaged.replace(old, new)
    save(repository, "04_damaged", damaged)
    (repository / "data.txt").write_text("0.505")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *texts, **_: printed.extend(texts))
        passed = validation.validate_all(repository, NAMES[:4], write=False, workers=2)
    assert passed == {"01_good": True, "02_error": False, "03_after": False, "04_damaged": False}
    return "\n".join(printed)


def of(report, name):
    """The part of the report that is about one notebook."""
    return re.search(rf"^{name} .*?(?=^\d\d_\w+ (passed|failed|not)|\Z)", report, re.MULTILINE | re.DOTALL)[0]


def test_results_are_expected_of_the_notebook_that_writes_them(repository):
    files = expected.load(repository / "tests/expected/01_good")
    assert sorted(files) == ["cells.csv", "figures.csv", "metrics.csv", "tables/good.csv", "tables/good_more.csv"]
    assert files["tables/good.csv"] == "x,n\n0.5,4\n"
    assert files["metrics.csv"] == "metric,value\nvalue,0.5\n"
    assert "good.png,16,8,0.2500" in files["figures.csv"]


def test_another_processors_rounding_passes(report):
    assert re.fullmatch(r"01_good passed in \d+ s\n", of(report, "01_good"))


def test_an_error_in_a_cell_fails(report):
    assert "ZeroDivisionError" in of(report, "02_error")


def test_a_notebook_that_needs_a_failed_one_is_not_executed(report):
    assert "03_after not executed: it needs 02_error" in report


@pytest.mark.parametrize(
    "message",
    [
        "tables/damaged.csv, line 2: x is '0.605', expected '0.5'",
        "metrics.csv, value: value is '0.605', expected '0.5'",
        "damaged.png is blank",
        "figures.csv, damaged.png: height is '9', expected '8'",
        "cells.csv: missing 'last = 1'",
        "tables/damaged_more.csv: expected, but not written",
        "tables/undeclared.csv: written, but not expected",
        "If this is meant: `make expected`",
    ],
)
def test_a_damage_fails_and_is_named(report, message):
    assert message in of(report, "04_damaged")


def test_a_notebook_waits_for_what_it_reads_and_one_that_is_no_stage_for_all_before_it(repository):
    needs = validation.needs(repository)
    assert needs["01_good"] == set()
    assert needs["02_error"] == needs["04_damaged"] == {"01_good"}
    assert needs["03_after"] == {"02_error"}
    assert needs["05_no_stage"] == set(NAMES[:4])


def test_the_committed_notebooks_need_only_earlier_ones(root):
    needs = validation.needs(root)
    assert all(before < name for name in needs for before in needs[name])
    assert needs["13_report"], "it reads the tables of the others"


def test_an_unknown_notebook_is_named(repository, monkeypatch):
    monkeypatch.setattr("sys.argv", ["validation", "--root", str(repository), "check", "09_none"])
    with pytest.raises(NotebookError, match="no notebook 09_none; there are: 01_good"):
        validation.main()
