"""What a notebook computes is compared with what is expected: exactly, except for another processor's rounding."""

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from chexgen_lib.workflow import expected
from chexgen_lib.workflow.expected import Tolerance, Tolerances, differences
from chexgen_lib.workflow.notebooks import ROOT, NotebookError

TOLERANCES = expected.load_tolerances(ROOT / "tests/expected")
TABLE = "arm,auroc,n\nreal,0.731,12\nsynthetic,0.820,12\n"
FIGURES = "figure,width,height,ink\nfig1.png,700,520,0.2000\nfig2.png,1400,520,0.1000\n"
CELLS = "digest,begins\naaaa,n = 1\nbbbb,print(n)\n"
METRICS = "metric,value\nFID.this run,428.2\nparameters,7012\nclock.seconds,12.5\n"
EXPECTED = {"cells.csv": CELLS, "figures.csv": FIGURES, "metrics.csv": METRICS, "tables/fig1.csv": TABLE}


def changed(file, old, new):
    assert old in EXPECTED[file]
    return EXPECTED | {file: EXPECTED[file].replace(old, new)}


def found(actual):
    return differences("01_x", actual, EXPECTED, TOLERANCES)


@pytest.mark.parametrize(
    ("actual", "wanted", "same"),
    [
        ("Dice 0.731 [0.70, 0.76] n = 12", "Dice 0.729 [0.70, 0.77] n = 12", True),
        ("FID 428.2", "FID 423.5", True),
        ("1e-05", "2e-05", True),
        ("FID 428.2", "FID 400.5", False),
        ("Dice 0.731", "Dice 0.680", False),
        ("+0.028", "-0.020", False),
        ("n = 12, 0.5", "n = 13, 0.5", False),
        ("better 0.5", "worse 0.5", False),
        ("0.5 0.6", "0.5", False),
        ("NaN", "0.5", False),
        ("", "0.5", False),
    ],
)
def test_only_another_processors_rounding_is_overlooked(actual, wanted, same):
    assert Tolerance(absolute=0.02, relative=0.05).allows(actual, wanted) is same


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("tables/fig1.csv", "0.731", "0.739"),
        ("metrics.csv", "428.2", "431.0"),
        ("metrics.csv", "12.5", "90.1"),  # seconds measure the machine
        ("figures.csv", "0.2000", "0.1800"),
    ],
)
def test_rounding_passes(file, old, new):
    assert found(changed(file, old, new)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("tables/fig1.csv", "0.731", "0.780", "tables/fig1.csv, line 2: auroc is '0.780', expected '0.731'"),
        ("tables/fig1.csv", "0.820,12", "0.820,13", "tables/fig1.csv, line 3: n is '13', expected '12'"),
        ("tables/fig1.csv", "synthetic", "permuted", "line 3: arm is 'permuted', expected 'synthetic'"),
        ("tables/fig1.csv", "auroc", "dice", "columns arm, dice, n; expected arm, auroc, n"),
        ("tables/fig1.csv", "synthetic,0.820,12\n", "", "tables/fig1.csv: 1 rows, expected 2"),
        ("metrics.csv", "428.2", "500.0", "metrics.csv, FID.this run: value is '500.0', expected '428.2'"),
        ("metrics.csv", "parameters,7012\n", "", "metrics.csv: missing 'parameters'"),
        ("cells.csv", "bbbb,print(n)\n", "", "cells.csv: missing 'print(n)'"),
        ("cells.csv", "bbbb", "cccc", "cells.csv: missing 'print(n)'"),
        ("figures.csv", "700,520", "700,510", "figures.csv, fig1.png: height is '510', expected '520'"),
        ("figures.csv", "0.2000", "0.0900", "figures.csv, fig1.png: ink is '0.0900', expected '0.2000'"),
        ("figures.csv", "0.2000", "0.0000", "fig1.png is blank"),
        ("figures.csv", "fig2.png,1400,520,0.1000\n", "", "figures.csv: missing 'fig2.png'"),
        ("figures.csv", "fig2.png", "fig3.png", "figures.csv: not expected 'fig3.png'"),
    ],
)
def test_a_change_is_named_with_its_place(file, old, new, message):
    assert any(message in line for line in found(changed(file, old, new)))


def test_a_table_that_is_missing_or_not_declared_is_named():
    missing = {name: text for name, text in EXPECTED.items() if name != "tables/fig1.csv"}
    assert found(missing) == ["tables/fig1.csv: expected, but not written"]
    assert found(EXPECTED | {"tables/fig9.csv": TABLE}) == ["tables/fig9.csv: written, but not expected"]


def test_many_differences_are_counted_not_listed():
    rows = "".join(f"{row},0.5\n" for row in range(50))
    actual, wanted = {"tables/a.csv": "x,y\n" + rows}, {"tables/a.csv": "x,y\n" + rows.replace("0.5", "0.9")}
    lines = differences("01_x", actual, wanted, TOLERANCES)
    assert len(lines) == expected.SHOWN + 1
    assert lines[-1] == "tables/a.csv: 45 more differences"


def test_the_last_rule_that_fits_counts_and_without_one_nothing_may_differ():
    tolerances = Tolerances({"*": {"absolute": 0.5}, "02_*:loss": "any", "02_b/*:x": {"relative": 0.1}})
    assert tolerances.of("01_a/tables/t.csv:x") == Tolerance(absolute=0.5)
    assert tolerances.of("02_b/tables/t.csv:loss") is None
    assert tolerances.of("02_b/tables/t.csv:x") == Tolerance(relative=0.1)
    assert Tolerances({}).of("01_a/tables/t.csv:x") == Tolerance()


def test_cells_depend_on_code_and_not_on_comments_or_outputs():
    def cells(*sources):
        return expected.of_cells(new_notebook(cells=[new_markdown_cell("Text"), *map(new_code_cell, sources)]))

    assert cells("# why\nn = 1", "print(n)") == cells("n = 1", "print(n)\n\n# the end")
    assert cells("n = 1", "print(n)") != cells("n = 2", "print(n)")
    assert len(cells("n = 1").splitlines()) == 2


def test_a_figure_is_described_by_its_size_and_ink(tmp_path):
    pixels = np.full((20, 40), 255, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "blank.png")
    pixels[:10] = 0
    pixels[0] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    text = expected.of_figures({path.name: path for path in tmp_path.iterdir()})
    assert text.splitlines()[1:] == ["blank.png,40,20,0.0000", "half.png,40,20,0.4500"]


def test_metrics_are_named_by_their_path(tmp_path):
    (tmp_path / "metrics.json").write_text('{"FID": {"n": 4, "value": 1.5}, "sizes": [1, 2], "best": "a", "p": NaN}')
    rows = expected.of_metrics(tmp_path / "metrics.json").splitlines()[1:]
    assert rows == ["FID.n,4", "FID.value,1.5", "sizes.0,1", "sizes.1,2", "best,a", "p,NaN"]


def test_what_is_saved_is_loaded_and_replaces_what_was_there(tmp_path):
    expected.save(EXPECTED | {"tables/old.csv": TABLE}, tmp_path / "01_x")
    expected.save(EXPECTED, tmp_path / "01_x")
    assert expected.load(tmp_path / "01_x") == EXPECTED


def test_outputs_of_other_notebooks_are_told_from_a_notebooks_own(tmp_path):
    expected.save(EXPECTED, tmp_path / "01_x")
    expected.save({"tables/fig1.csv": TABLE, "tables/other.csv": TABLE}, tmp_path / "02_y")
    assert expected.outputs_of_others(tmp_path, "01_x") == {"other.csv"}
    assert expected.outputs_of_others(tmp_path, "02_y") == {"fig1.png", "fig2.png"}


def test_a_notebook_without_expected_results_is_named(tmp_path):
    with pytest.raises(NotebookError, match="expected of 03_z yet: `make expected NAMES=03_z`"):
        expected.load(tmp_path / "03_z")
