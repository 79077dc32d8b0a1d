"""Figures 3 and 4 draw this run and the paper on axes of their own, and say what is missing."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments.augmentation import REAL, auroc_table
from chexgen_lib.experiments.pretraining import DEFAULT
from chexgen_lib.figures import fig3, fig4


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 14)) < 0.4).astype(float)
    labels[:, 4] = 0  # nobody has it: listed, not drawn
    scores = {arm: labels + rng.normal(0, 1, (2, 60, 14)) for arm in (REAL, "real + 1x")}
    return auroc_table(scores, labels, [str(i) for i in range(60)], n_resamples=50)


def points(ax):
    return [line.get_xdata()[0] for line in ax.lines if line.get_marker() in "os" and len(line.get_xdata()) == 1]


def test_figure_3(measured):
    plotted = fig3.table({"test": measured, "external test": measured})
    figure = fig3.draw(plotted)
    *averages, by_finding = figure.axes
    assert [ax.get_title(loc="left").split(":")[0] for ax in averages] == ["this run"] * 2 + ["paper"] * 2
    assert points(averages[0]) == measured.filter(finding="Average")["value"].to_list()
    paper = plotted.filter(source="paper", test="MIMIC-CXR p19", finding="Average")["value"].to_list()
    assert points(averages[2]) == paper and max(paper) < 1
    drawn = [label.get_text() for label in by_finding.get_xticklabels()]
    assert "Average" in drawn and not any(name.startswith("Lung Lesion") for name in drawn)
    assert "95 % CI" in by_finding.get_ylabel() and "positive" in by_finding.get_xlabel()


def test_figure_4(measured):
    curves = measured.with_columns(pl.col("arm").replace(REAL, DEFAULT))
    groups = {"internal": ["10 %", "100 %"], "few-shot": ["1-shot"]}
    curves = pl.concat(
        curves.with_columns(group=pl.lit(group), set=pl.lit(name), images=pl.lit(10.0 * len(name)))
        for group, names in groups.items()
        for name in names
    )
    attention = {"start": [DEFAULT], "value": [0.2], "low": [0.1], "high": [0.3], "n": [5], "chance": [0.1]}
    figure = fig4.draw(curves, pl.DataFrame(attention))
    internal, external, few, looks, *paper = figure.axes
    assert len(internal.containers) == 2 and internal.get_xscale() == "log"
    assert "no external images" in external.texts[0].get_text()
    assert [t.get_text() for t in few.get_xticklabels()] == ["1-shot"]
    assert "n = 5" in looks.get_ylabel()
    assert all("paper" in ax.get_title(loc="left") for ax in paper)
    empty = fig4.draw(curves, pl.DataFrame(attention).head(0))
    assert "no masks" in empty.axes[3].texts[0].get_text()
