"""What every notebook does with its results."""

import polars as pl

from chexgen_lib.workflow.stage import Stage


def test_tables_are_shown_whole(tmp_path):
    with pl.Config(restore_defaults=True):
        Stage("13_report", tmp_path, tmp_path / "figures")
        table = pl.DataFrame({f"column {k}": [f"a claim of {60 * 'x'}, {row}" for row in range(45)] for k in range(11)})
        shown = table._repr_html_()
    assert "hellip" not in shown and "\u2026" not in shown
    assert all(f", {row}&quot;" in shown for row in range(45))
