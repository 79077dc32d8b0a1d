"""What every notebook does with its results."""

import re
import subprocess
import sys

import polars as pl
import pytest

from chexgen_lib.workflow import notebooks
from chexgen_lib.workflow.stage import Stage


def test_tables_are_shown_whole(tmp_path):
    with pl.Config(restore_defaults=True):
        Stage("13_report", tmp_path, tmp_path / "figures")
        table = pl.DataFrame({f"column {k}": [f"a claim of {60 * 'x'}, {row}" for row in range(45)] for k in range(11)})
        shown = table._repr_html_()
    assert "hellip" not in shown and "\u2026" not in shown
    assert all(f", {row}&quot;" in shown for row in range(45))


def test_a_stage_that_draws_imports_no_networks():
    program = """
import sys
from chexgen_lib.figures import claims, fig2, fig5, report
from chexgen_lib.workflow import dag, data_files, notebooks, stage
print(sorted({"torch", "sklearn", "skimage", "transformers", "diffusers"} & sys.modules.keys()))
from chexgen_lib.learners import classifier, regressor, segmenter
print(sorted({"torchvision", "transformers", "diffusers"} & sys.modules.keys()))
from chexgen_lib.learners import detector
print(sorted({"monai", "torchmetrics", "sklearn"} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "[]", "[]"]


def test_results_are_not_written_through_the_links_of_dvc(tmp_path):
    stage, cached = Stage("07_quality", tmp_path, tmp_path / "figures"), tmp_path / "cached"
    cached.write_text("of another run")
    for name in ("table.csv", "metrics.json"):
        (stage.folder / name).symlink_to(cached)
    stage.result(pl.DataFrame({"a": [1]}), "table")
    stage.metrics({"a": 1})
    assert cached.read_text() == "of another run"
    assert stage.read("table").rows() == [(1,)]


@pytest.mark.parametrize("name", notebooks.names())
def test_no_notebook_writes_into_its_folder_by_itself(name):
    """Such a write would go through a link into DVC's cache, and be half done when it is interrupted."""
    cells = "\n".join(cell.source for cell in notebooks.code_cells(notebooks.read(notebooks.path_of(name))))
    assert not re.search(r"(write_csv|write_parquet|write_text|save_pretrained|np\.save\w*)\(\s*stage\.", cells)
