"""Figure 2c of a study plots what the study found, beside the paper's readers and apart from them."""

import polars as pl
import pytest

from chexgen_lib.figures import fig2c
from chexgen_lib.paper import published
from tests.figures.legibility import faults


def results(readers, arms):
    rows = [
        {"task": "agreement", "measure": "mean score", "reader": reader, "arm": arm, "value": 1.5 - 0.7 * j}
        | {"low": 1.3 - 0.7 * j - 0.1 * i, "high": 1.7 - 0.7 * j + 0.1 * i, "cases": 88, "readers": len(readers)}
        for i, reader in enumerate(readers)
        for j, arm in enumerate(arms)
    ]
    other = rows[0] | {"task": "realism", "measure": "accuracy"}, rows[0] | {"measure": "kappa between readers"}
    return pl.DataFrame([*rows, *other])


def test_means_of_agreement_alone_and_the_papers():
    plotted = fig2c.table(results(["all readers", "ann", "bob"], ["real", "ours"]))
    ours, paper = (plotted.filter(source=source) for source in ("this run", "paper"))
    assert len(ours) == 6 and set(ours["cases"]) == {88} and ours["sd"].null_count() == 6
    assert sorted(paper["value"]) == sorted(published.load("fig2c")["value"]) and set(paper["cases"]) == {150}
    assert paper["low"].null_count() == len(paper) == 4


@pytest.mark.parametrize(
    ("readers", "arms"), [(["ann"], ["real", "ours"]), (["all readers", "ann", "bob"], ["real", "ours", "another"])]
)
def test_it_can_be_read(readers, arms):
    figure = fig2c.draw(fig2c.table(results(readers, arms)))
    assert faults(figure) == []
    left, right = figure.axes
    drawn = [float(point) for line in left.containers for point in line.lines[0].get_ydata()]
    assert sorted(drawn) == sorted(results(readers, arms).filter(measure="mean score", task="agreement")["value"])
    assert [label.get_text() for label in right.get_xticklabels()] == ["radiologist 1", "radiologist 2"]
