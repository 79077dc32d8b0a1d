"""The figures of notebook 12 show every arm, n and unit, and what has no value is left out."""

import numpy as np
import polars as pl

from chexgen_lib.figures import fig12_balanced, fig12_comparison, fig12_control

NUMBERS = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 20}


def test_comparison_has_a_line_for_each_objective_and_the_bound():
    rows = [
        {"objective": objective, "steps": steps, "metric": metric, "seeds": 3} | NUMBERS
        for metric in ("FID-x", "Pearson r", "seconds an image", "r age")
        for objective in fig12_comparison.LOOKS
        for steps in (5, 10)
    ]
    table = pl.DataFrame(rows).with_columns(low=pl.when(pl.col("metric") != "seconds an image").then("low"))
    figure = fig12_comparison.draw(table, {"FID-x": 0.5})
    fid, r, seconds = figure.axes[:3]
    assert [ax.get_ylabel() for ax in (fid, r, seconds)] == ["FID-x", "Pearson r", "seconds an image"]
    assert [t.get_text() for t in fid.get_xticklabels()] == ["5", "10"]
    assert [ax.axison for ax in figure.axes] == [True] * 4 + [False] * 2
    assert len(fid.containers) == 2 and 0.5 in {line.get_ydata()[0] for line in fid.lines}
    assert r.containers[0].has_yerr and not seconds.containers[0].has_yerr
    assert "n = 20 images x 3 trainings" in figure.legends[0].get_title().get_text()


def test_control_shows_samples_beside_real():
    rows = [
        {"attribute": name, "measure": measure, "images": images} | NUMBERS | {"n": n}
        for name, measure in (("age", "correlation"), ("age", "mean error (years)"), ("sex", "AUROC"))
        for images, n in (("samples", 20), ("real", 50))
    ]
    figure = fig12_control.draw(pl.DataFrame(rows))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["age, r (20, 50)", "sex (20, 50)"]
    assert len(figure.axes[0].containers) == 2


def test_control_shows_other_generators_by_their_names():
    rows = [
        {"attribute": name, "measure": "AUROC", "images": images} | NUMBERS
        for name in ("sex", "view")
        for images in ("samples", "real", "ChexGen", "MINIM")
    ]
    figure = fig12_control.draw(pl.DataFrame(rows))
    assert len(figure.axes[0].containers) == 4
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[2:] == ["pool of ChexGen, n = 20", "pool of MINIM, n = 20"]


def test_off_target_marks_what_is_sure_off_the_diagonal():
    rows = [
        {"asked": a, "measured": b, "value": v, "low": v - 0.1, "high": v + 0.1, "n": 9}
        for a, b, v in (("age", "age", 2.0), ("age", "sex", 0.5), ("sex", "age", 0.05), ("sex", "sex", 1.0))
    ]
    figure = fig12_control.draw_off_target(pl.DataFrame(rows))
    ax = figure.axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[1, 0]]  # column sex, row age
    assert ax.images[0].get_clim() == (-2, 2) and "n = 9" in ax.get_ylabel() and "sd" in figure.axes[1].get_ylabel()


def test_walks_share_lines_where_they_fit():
    walks = [("age", list("abcde"), np.zeros((5, 4, 4))), *[("sex", ["F", "M"], np.zeros((2, 4, 4)))] * 2]
    figure = fig12_control.draw_walks(walks)
    assert len(figure.axes) == 12
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:5] == list("abcde") and titles[6:8] == ["F", "M"] and titles[5] == titles[8] == titles[11]


def test_balanced_leaves_out_what_has_no_value():
    surface = pl.DataFrame(
        {
            "cohort": ["balanced", "balanced", "real"],
            "attribute": ["sex"] * 3,
            "group": ["F", "M", "F"],
            "n_patients": [5, 6, 7],
            "f1": [0.5, None, 0.6],
            "low": [0.4, None, 0.5],
            "high": [0.6, None, 0.7],
        }
    )
    ranks = pl.DataFrame(
        {"attribute": ["sex", "age"], "measure": ["Kendall tau"] * 2, "value": [None, 0.3], "low": [None, 0.1],
         "high": [None, 0.6], "n": [2, 3]}
    )  # fmt: skip
    stressed = pl.DataFrame(
        {"arm": ["base", "sex: F"], "difference": [None, 0.1], "difference_low": [None, 0.0],
         "difference_high": [None, 0.2], "n": [8, 8]}
    )  # fmt: skip
    a, b, c = fig12_balanced.draw(surface, ranks, stressed).axes
    assert [t.get_text() for t in a.get_yticklabels()] == ["F", "M"]
    assert [t.get_text() for t in b.get_yticklabels()] == ["age (3)"]
    assert [t.get_text() for t in c.get_yticklabels()] == ["sex: F"] and "n = 8" in c.get_xlabel()
    assert a.get_legend().get_texts()[1].get_text() == "real, n = 7 to 7"
