"""ED Figure 15 shows samples beside their record's own image, and every reading against what was asked."""

import numpy as np
import polars as pl

from chexgen_lib.experiments.arms import CHEXGEN
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.experiments.severity import agreement
from chexgen_lib.figures import ed_fig15
from chexgen_lib.learners.regressor import GRADES

REPEATS = Repeats(1, n_resamples=50)


def readings(records=12, copies=2):
    rows, rng = [], np.random.default_rng(0)
    for at, name in enumerate(("test", CHEXGEN, "baseline")):
        for k in range(records):
            for copy in range(copies if name != "test" else 1):
                asked = k // 3 * 0.1 + (k > 2) * 0.01 * (k % 3)
                about = {"set": name, "row": 100 * at + 20 * copy + k, "real": k, "image_id": f"i{k}"}
                about |= {"patient_id": f"p{k}", "copy": copy, "asked": asked, "grade": GRADES[k // 3]}
                rows.append(about | {"read": asked + 0.02 * rng.random()})
    return pl.DataFrame(rows)


def test_pictures_and_points_are_those_of_the_table():
    read, images = readings(), np.arange(300, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    figure = ed_fig15.draw(read, agreement(read, REPEATS), images)
    chosen = ed_fig15.shown(read)
    assert chosen["image_id"].n_unique() == ed_fig15.RECORDS * len(GRADES) and set(chosen["set"]) == {CHEXGEN}
    severe = chosen.filter(grade="severe")
    assert "i10" in severe["image_id"]  # the median of its grade
    pictured = [ax for ax in figure.axes if ax.images]
    assert len(pictured) == len(GRADES) * ed_fig15.RECORDS * (1 + ed_fig15.COPIES)
    for ax in pictured:
        value = int(ax.images[0].get_array()[0, 0])
        words = ax.get_xlabel()
        if words.startswith("real"):
            assert value < 12 and f"{read.filter(real=value)['asked'][0]:.2f}" in words
        else:
            (row,) = read.filter(row=value).iter_rows(named=True)
            assert row["set"] == CHEXGEN and words == f"request {row['asked']:.2f}\npredicted {row['read']:.2f}"
    (plot,) = [ax for ax in figure.axes if ax.get_ylabel().startswith("score predicted")]
    assert [len(line.get_xdata()) for line in plot.lines[:2]] == [24, 24] and "requested score" in plot.get_xlabel()
    words = [text.get_text() for text in plot.get_legend().get_texts()]
    assert words[0].startswith("ChexGen: r = ") and words[0].endswith("n = 24 of 12 patients")
    assert words[2].startswith("real test images: r = ")


def test_a_grade_that_nobody_has_stays_empty():
    read = readings().filter(pl.col("grade") != "severe")
    figure = ed_fig15.draw(read, agreement(read, REPEATS), np.zeros((300, 8, 8), np.uint8))
    assert len([ax for ax in figure.axes if ax.images]) == 3 * ed_fig15.RECORDS * (1 + ed_fig15.COPIES)


def test_a_pool_of_one_patient_is_drawn_without_a_correlation():
    one = pl.when(pl.col("set") == CHEXGEN).then(pl.lit("p0")).otherwise("patient_id").alias("patient_id")
    read = readings().with_columns(one)
    figure = ed_fig15.draw(read, agreement(read, REPEATS), np.zeros((300, 8, 8), np.uint8))
    (plot,) = [ax for ax in figure.axes if ax.get_ylabel().startswith("score predicted")]
    assert plot.get_legend().get_texts()[0].get_text() == "ChexGen: no r,\nof one patient"


def test_a_cohort_without_scores_is_said_to_have_none():
    figure = ed_fig15.draw(pl.DataFrame(), agreement(pl.DataFrame(), REPEATS), None)
    assert "states no severity" in figure.texts[0].get_text() and not figure.axes
