"""Figures 3 and 4 and ED Figures 6 to 8 draw this run and the paper on axes of their own, and say what is missing."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.estimates.comparison import ESTIMATE, auroc_table
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.wording import UNMEASURABLE
from chexgen_lib.estimates.worth import NUMBERS
from chexgen_lib.experiments.arms import DEFAULT, LONGER, REAL, against
from chexgen_lib.figures import ed_fig6_8, ed_tables, fig3, fig4

ARMS = (REAL, "real + 1x", "real + 1x baseline")
ORACLE = "real + 1x new real"


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 14)) < 0.4).astype(float)
    labels[:, 4] = 0  # nobody has it: listed, not drawn
    scores = {arm: labels + rng.normal(0, 1, (2, 60, 14)) for arm in ARMS}
    scores[ORACLE] = labels + rng.normal(0, 0.2, (2, 60, 14))  # much better
    return auroc_table(scores, labels, Resampling(range(60), 50), REAL, against=against(scores))


def points(ax):
    return [line.get_xdata()[0] for line in ax.lines if line.get_marker() in "o^d" and len(line.get_xdata()) == 1]


def task_rows(category, metric, value):
    about = {"test": "test", "category": category, "metric": metric, "n": 30}
    rows = [about | {"arm": arm, "value": value, "low": 0.2, "high": 0.9, "seeds": 2} for arm in ARMS[:2]]
    missing = [c for c in (*ESTIMATE, *NUMBERS) if c not in ("value", "low", "high")]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64}).with_columns(
        *(pl.lit(None, pl.Float64).alias(c) for c in missing),
        oracle=pl.when(pl.col("arm") != REAL).then(pl.lit(ORACLE)),
        control=pl.lit(None, pl.String),
    )


def test_figure_3(measured):
    tasks = {"ribs": task_rows("all", "Dice", 0.5), "pneumothorax": task_rows("all", "Positive Dice", None)}
    plotted = fig3.table({"test": measured, "external test": measured}, tasks | {"severity": pl.DataFrame()})
    figure = fig3.draw(plotted)
    averages, by_finding, worth, others = figure.axes[:4], figure.axes[4], figure.axes[5], figure.axes[6:]
    assert [ax.get_title(loc="left").split(":")[0] for ax in averages] == ["this run"] * 2 + ["paper"] * 2
    assert points(averages[0]) == measured.filter(finding="Average")["value"].to_list()
    paper = plotted.filter(source="paper", test="MIMIC-CXR p19", category="Average")["value"].to_list()
    assert points(averages[2]) == paper and max(paper) < 1
    drawn = [label.get_text() for label in by_finding.get_xticklabels()]
    assert "Average" in drawn and not any(name.startswith("Lung Lesion") for name in drawn)
    assert "95 % CI" in by_finding.get_ylabel() and "positive" in by_finding.get_xlabel()
    ours, theirs = others[: len(others) // 2], others[len(others) // 2 :]
    ribs = next(ax for ax in ours if ax.get_title().startswith("ribs"))
    assert ribs.containers[0].lines[0].get_ydata().tolist() == [0.5, 0.5]
    assert ours[0].texts[0].get_text() == "no number" and all(ax.containers for ax in theirs)
    said = figure.subfigs[3].get_supxlabel()
    assert "detection, severity" in said and "internally only" not in said
    held = plotted.filter(pl.col("oracle").is_not_null(), source="this run", category="Average")
    named = [label.get_text() for label in worth.get_yticklabels()]
    assert named[:4] == [f"classification, AUROC{t}, {arm}" for t in ("", ", external test") for arm in ARMS[1:]]
    drawn = [bars.lines[0].get_xdata() for bars in worth.containers]
    assert [x.tolist() for x in drawn[:4]] == [[value] for value in held["worth"]] and held["worth"].null_count() == 0
    assert named[4:] == ["ribs, Dice, real + 1x", "pneumothorax, Positive Dice, real + 1x"]
    assert [text.get_text() for text in worth.texts] == [UNMEASURABLE] * 2


def test_figure_3_has_room_for_as_many_copies_as_there_are(measured):
    more = task_rows("all", "Dice", 0.5).with_columns(pl.col("arm").replace({ARMS[1]: "real + 4x"}))
    axes = fig3.draw(fig3.table({"test": measured}, {"ribs": more})).axes
    ribs = next(ax for ax in axes if ax.get_title().startswith("ribs"))  # above the paper's
    drawn = np.concatenate([bars.lines[0].get_xdata() for bars in ribs.containers])
    assert ribs.get_xlim()[1] > drawn.max() > 3.5 and ribs.get_xticklabels()[-1].get_text() == "4x"


def test_figure_3_tells_the_generators_apart(measured):
    arms = (
        "real + 1x",
        "real + 2x",
        "real + 1x baseline",
        "real + 2x baseline",
        "5x alone",
        "real + 2x, shuffled",
        ORACLE,
    )
    looks = {arm: fig3.arm_style(arm) for arm in (REAL, *arms)}
    assert len(set(looks.values())) == len(looks)
    assert [looks[arm][1] for arm in arms] == ["o", "o", "^", "^", "o", "o", "d"]
    assert fig3.arm_style("real+2x RoentGen") == looks["real + 2x baseline"]  # the paper's other generator
    assert fig3.arm_style("real+1x ChexGen") == looks["real + 1x"]
    both = pl.concat([task_rows("all", "MAE", 0.5), task_rows("all", "MAE", 0.4).with_columns(
        arm=pl.col("arm") + " baseline").tail(1)])  # fmt: skip
    figure = fig3.draw(fig3.table({"test": measured}, {"severity": both}))
    panel = next(ax for ax in figure.axes if ax.get_title().startswith("severity\nMAE (of 1)"))
    chexgen, baseline = (bars.lines[0] for bars in panel.containers)
    assert (chexgen.get_marker(), baseline.get_marker()) == ("o", "^")
    assert chexgen.get_ydata().tolist() == [0.5, 0.5] and baseline.get_ydata().tolist() == [0.4]
    assert abs(baseline.get_xdata()[0] - 1) < 0.4  # above "1x"
    assert "given text alone" in figure.subfigs[3].get_supxlabel()


def test_figure_3_of_real_radiographs_says_what_they_cannot_give(measured):
    lungs = pl.concat([
        task_rows("all", "Dice", 0.9).head(1).with_columns(test=pl.lit("5-fold cross-validation"), n=pl.lit(57)),
        task_rows("all", "Dice", 0.8).with_columns(test=pl.lit("unseen by the adapter"), n=pl.lit(9)),
    ])  # fmt: skip
    figure = fig3.draw(fig3.table({"test": measured}, {"lungs": lungs, "severity": pl.DataFrame()}))
    (panel,) = figure.subfigs[3].axes  # the paper has no lungs
    assert [bars.lines[0].get_ydata().tolist() for bars in panel.containers] == [[0.9], [0.8, 0.8]]
    named = [text.get_text() for text in panel.get_legend().get_texts()]
    assert named == ["5-fold cross-validation, n = 57", "unseen by the adapter, n = 9"]
    said = figure.subfigs[3].get_supxlabel()
    assert (
        "internally only" in said
        and "left out" in said
        and all(task in said for task in ("pneumothorax", "ribs", "detection", "severity"))
    )
    nothing = fig3.draw(fig3.table({"test": measured}, {"severity": pl.DataFrame()})).subfigs[3]
    assert not nothing.axes and "left out" in nothing.get_supxlabel()


def test_ed_tables_tell_this_run_from_the_paper(measured):
    tables = ed_tables.tables({"test": measured}, {"ribs": task_rows("all", "Dice", 0.5)})
    assert list(tables) == ["ed_table6", "ed_table7", "ed_table8", "ed_table9"]
    ribs = tables["ed_table8"].filter(task="ribs")
    assert ribs["source"].to_list() == ["this run"] * 3 + ["paper"] * 3
    assert ribs["value"].to_list() == [0.5, 0.5, None, 0.8, 0.82, 0.83] and ribs["low"].null_count() == 4
    without = ribs.row(2, named=True)  # the baseline
    assert without["arm"] == "baseline" and "masks or boxes" in without["note"]
    average = tables["ed_table6"].filter(category="Average", test="test")["arm"].to_list()
    assert average == [*ARMS, ORACLE] and tables["ed_table6"]["arm"].str.contains("RoentGen").any()
    overall = tables["ed_table7"].filter(category="Overall", arm="real", metric="mAP50")
    assert overall["value"].to_list() == pytest.approx([0.4785]) and overall["task"].to_list() == ["detection"]
    assert len(tables["ed_table9"]) == 9 and set(tables["ed_table9"]["source"]) == {"paper"}


@pytest.fixture(scope="module")
def curves(measured):
    """Four starts; the third, as the control does, lacks the set in the middle."""
    starts = {REAL: DEFAULT, ARMS[1]: "5x", ARMS[2]: LONGER, ORACLE: "5x new real"}
    renamed = measured.with_columns(pl.col("arm").replace(starts), pl.col("oracle").replace(starts))
    groups = {"internal": ["3 %", "30 %", "100 %"], "few-shot": ["1-shot"]}
    found = pl.concat(
        renamed.with_columns(group=pl.lit(group), set=pl.lit(name), images=pl.lit(10.0 * len(name)))
        for group, names in groups.items()
        for name in names
    )
    return found.filter(~((pl.col("arm") == LONGER) & (pl.col("set") == "30 %")))


def test_figure_4(curves):
    attention = {"start": [DEFAULT], "value": [0.2], "low": [0.1], "high": [0.3], "n": [5], "chance": [0.1]}
    figure = fig4.draw(curves, pl.DataFrame(attention))
    internal, external, few, worth, looks, *paper = figure.axes
    assert [len(bars.lines[0].get_xdata()) for bars in internal.containers] == [3, 3, 2, 3]
    held = curves.filter(pl.col("oracle").is_not_null(), finding="Average")
    assert [bars.lines[0].get_xdata().tolist() for bars in worth.containers] == [[value] for value in held["worth"]]
    assert worth.get_yticklabels()[0].get_text() == "3 %: 5x"
    without = curves.with_columns(oracle=pl.lit(None, pl.String))
    assert "too few" in fig4.draw(without, pl.DataFrame(attention)).axes[3].texts[0].get_text()
    assert internal.get_xscale() == "log"
    assert "no external images" in external.texts[0].get_text()
    assert [t.get_text() for t in few.get_xticklabels()] == ["1-shot"]
    assert "n = 5" in looks.get_ylabel()
    assert all("paper" in ax.get_title(loc="left") for ax in paper)
    empty = fig4.draw(curves, pl.DataFrame(attention).head(0))
    assert "no masks" in empty.axes[4].texts[0].get_text()


def test_no_number_of_copies_looks_like_another_generator():
    looks = [fig4.look_of(name) for name in ("5x synthetic", "4x synthetic", "4x new real", "4x RoentGen")]
    assert len(set(looks)) == 4 and looks.index(fig4.OTHER) == 3 and looks[2][1] == fig4.look_of("5x new real")[1]


def test_ed_figures_6_and_7(curves):
    rows = ed_fig6_8.table(curves, ["internal"])
    assert "Average" not in set(rows["finding"]) and "Lung Lesion" not in set(rows["finding"])  # without an estimate
    assert rows.filter(source="paper")["finding"].unique().sort().to_list() == ["Effusion", "Fracture", "Pneumothorax"]
    assert rows["value"].max() <= 1
    axes = {ax.get_title().split("\n")[0]: ax for ax in ed_fig6_8.draw_findings(rows, ["internal"], "5x").axes}
    assert "of 60 positive" in axes["Edema"].get_title() and len(axes["Edema"].collections) == 2  # bands
    drawn = {line.get_label(): line for line in axes["Effusion"].lines}
    value = curves.filter(finding="Effusion", arm=DEFAULT, group="internal")["value"].to_list()
    assert drawn[DEFAULT].get_ydata().tolist() == value and len(drawn[LONGER].get_xdata()) == 2
    assert [label for label in drawn if label.startswith("paper")] == [
        f"paper, 1 % of other data: {arm}" for arm in ("ImageNet", "5x synthetic")
    ]
    assert not any(line.get_label().startswith("paper") for line in axes["Edema"].lines)
    outside = ["external", "few-shot"]
    figure = ed_fig6_8.draw_findings(ed_fig6_8.table(curves, outside), outside, "5x")
    assert "no external images" in figure.axes[0].texts[0].get_text() and len(figure.axes) > 10


def test_ed_figure_8():
    found = (("Average", 0.3, 0.1, 9), ("Edema", 0.4, 0.2, 6), ("Effusion", None, None, 3))
    about = [(finding, start, *rest) for finding, *rest in found for start in (DEFAULT, LONGER, "5x")]
    schema = ["finding", "start", "value", "difference", "n"]
    rows = pl.DataFrame(about, schema, orient="row").with_columns(
        low=pl.col("value") - 0.1, high=pl.col("value") + 0.1, chance=0.2,
        difference_low=pl.col("difference") - 0.1, difference_high=pl.col("difference") + 0.1,
    )  # fmt: skip
    left, right = ed_fig6_8.draw_attention(rows, "5x").axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["Average (n = 9)", "Edema (n = 6)", "Effusion (n = 3)"]
    assert [bars.lines[0].get_xdata().tolist() for bars in left.containers] == [[0.3, 0.4]] * 3
    assert [bars.lines[0].get_xdata().tolist() for bars in right.containers] == [[0.1, 0.2]] * 2
    assert "no masks" in ed_fig6_8.draw_attention(rows.head(0), "5x").axes[0].texts[0].get_text()


def test_attention_is_drawn_with_its_share_inside_the_mask():
    images, masks = np.zeros((2, 4, 4)), np.zeros((2, 8, 8), bool)
    masks[:, :4] = True
    heat = np.zeros((2, 8, 8))
    heat[0, :4], heat[1, 2:6] = 1, 1
    figure = fig4.draw_maps(images, masks, ["Edema", "Effusion"], {DEFAULT: heat, "5x": np.zeros_like(heat)})
    said = [ax.get_xlabel() for ax in figure.axes]
    assert [text[:4] for text in said] == ["", "", "1.00", "0.50", "0.50", "0.50"]
    nothing = fig4.draw_maps(images[:0], masks[:0], [], {DEFAULT: heat[:0]})
    assert "no masks" in nothing.axes[0].texts[0].get_text()
