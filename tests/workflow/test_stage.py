"""What every notebook does with its results."""

import subprocess
import sys

import polars as pl

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
from chexgen_lib.figures import fig2, fig5, report
from chexgen_lib.workflow import stage
print(sorted({"torch", "sklearn", "skimage", "transformers", "diffusers"} & sys.modules.keys()))
from chexgen_lib.learners import classifier, regressor, segmenter
print(sorted({"torchvision", "transformers", "diffusers"} & sys.modules.keys()))
from chexgen_lib.learners import detector
print(sorted({"monai", "torchmetrics", "sklearn"} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[]", "[]", "[]"]
