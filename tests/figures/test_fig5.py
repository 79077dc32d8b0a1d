"""Figure 5 from made-up cohorts: what is plotted is what is saved, and the paper's numbers stay apart."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments import fairness
from chexgen_lib.experiments.fairness import scores as fs
from chexgen_lib.experiments.fairness.agreement import agreement
from chexgen_lib.experiments.fairness.disparity import disparity
from chexgen_lib.experiments.fairness.mitigation import compare
from chexgen_lib.figures import fig5, style
from chexgen_lib.pools.groups import age_group, groups

RACES = ["White"] * 6 + ["Black"] * 3 + ["Asian"]


def cohort(patients):
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "patient_id": [f"a:{i}" for i in range(patients)],
            "sex": rng.choice(["F", "M"], patients),
            "race": rng.choice(RACES, patients),
            "age": rng.integers(10, 90, patients),
        }
    )
    race = pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("race")
    table = table.with_columns(age_group(table["age"]), race=race)
    return table, np.where(np.arange(14) < 2, rng.random((patients, 14)) < 0.4, np.nan)


def made_up(patients, min_n):
    """What a run hands to `fig5.table`."""
    table, labels = cohort(patients)
    grouped = groups(table, ["sex", "race", "age group"], min_n=min_n)

    def evaluate(seed):
        scores = np.nan_to_num(labels) + np.random.default_rng(seed).normal(size=labels.shape)
        return fs.evaluate(grouped, labels, scores, np.full(14, 0.5), n_resamples=30)

    real, synthetic = evaluate(1), evaluate(2)
    copies = {fig5.COPY: synthetic, fig5.PERMUTED: evaluate(3), "RoentGen": evaluate(4)}
    agreed = pl.concat(agreement(real, own).with_columns(arm=pl.lit(name)) for name, own in copies.items())
    return {
        "training": grouped,
        "real": fs.group_table(real),
        "synthetic": fs.group_table(synthetic),
        "agreed": agreed,
        "unequal": disparity(real),
        "compared": compare({"imbalanced": [real], "balanced": [synthetic]}, before="imbalanced"),
    }


@pytest.fixture(scope="module")
def run():
    return made_up(80, 12)


@pytest.fixture(scope="module")
def plotted(run):
    return fig5.table(**run)


@pytest.fixture(scope="module")
def figure(plotted):
    return fig5.draw(plotted)


def axes_of(figure, title):
    """The axes whose title begins so."""
    return next(
        ax for ax in figure.findobj(lambda o: hasattr(o, "get_xlabel")) if ax.get_title(loc="left").startswith(title)
    )


def words(figure):
    return [t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_fontsize")) if t.get_visible()]


def test_the_papers_numbers_stand_apart_under_our_names(plotted):
    paper = plotted.filter(source="paper")
    assert dict(paper.filter(panel="a").select("group", "value").rows()) == {"White": 72.1, "Black": 23.5, "Asian": 4.4}
    assert dict(paper.filter(panel="b").select("attribute", "value").rows()) == {
        "sex": 1.0,
        "race": 0.995,
        "age group": 0.93,
        "sex × race × age group": 0.831,
    }
    gap = paper.filter(panel="c", measure=fairness.GAP, attribute="sex").sort("value")["value"].to_list()
    assert gap == pytest.approx([0.016, 0.025])  # printed as %, here fractions like the run's
    assert paper.filter(panel="c", measure=fairness.WORST)["value"].max() == 0.419
    assert paper["low"].null_count() == paper.height and set(paper["note"].str.slice(0, 9)) == {"MIMIC-CXR"}
    assert set(plotted["source"]) == {"this run", "paper"}


def test_the_table_holds_the_runs_numbers(plotted, run):
    ours = plotted.filter(source="this run")
    a = ours.filter(panel="a")
    assert a.group_by("attribute").agg(pl.col("value").sum(), pl.col("n").sum())["value"].to_list() == pytest.approx(
        [100] * 3
    )
    assert a.filter(attribute="race", group="not stated")["n"].to_list() == [1]
    for arm in ("real", "synthetic"):
        assert ours.filter(panel="b", arm=arm)["value"].equals(run[arm]["f1"].rename("value"))
        assert ours.filter(panel="b", arm=arm)["n"].equals(run[arm]["n_patients"].rename("n"))
    assert set(ours.filter(panel="c")["arm"]) == {"imbalanced", "balanced", "equal groups"}
    key = {"attribute": "race", "measure": fairness.GAP}
    assert (
        ours.filter(panel="c", arm="equal groups", **key)["high"].item()
        == run["unequal"].filter(**key)["equal_high"].item()
    )
    assert ours.filter(arm="balanced", **key)["p"].item() == run["compared"].filter(arm="balanced", **key)["p"].item()


def test_what_is_drawn_is_in_the_table(figure, plotted):
    shares = plotted.filter(pl.col("n") > 0, panel="a", source="this run")
    assert [p.get_width() for p in axes_of(figure, "a").patches] == pytest.approx(shares["value"].to_list())
    f1 = plotted.filter(~pl.col("attribute").str.contains("×"), panel="b", measure=fig5.F1).drop_nulls("value")
    ax = axes_of(figure, "b1  this run, F1")
    drawn = [x for bars in ax.containers for x in bars.lines[0].get_xdata()]
    assert sorted(drawn) == pytest.approx(sorted(f1["value"]))
    pairs = plotted.filter(panel="b", measure=fig5.F1).drop_nulls("value").filter(pl.col("attribute") != "everyone")
    points = np.concatenate(
        [c.get_offsets() for c in axes_of(figure, "b2  this run, every").collections if len(c.get_offsets()) > 1]
    )
    assert sorted(points[:, 0]) == pytest.approx(sorted(pairs.filter(arm="real")["value"]))
    assert sorted(points[:, 1]) == pytest.approx(sorted(pairs.filter(arm="synthetic")["value"]))


def test_groups_have_n_and_withheld_ones_only_that(figure, plotted, run):
    labels = [t.get_text() for t in axes_of(figure, "b1  this run, F1").get_yticklabels()]
    sizes = run["real"].filter(~pl.col("attribute").str.contains("×"))
    assert labels == [f"{g}, n = {n}" for g, n in sizes.select("group", "n_patients").rows()]
    withheld = run["real"].filter("withheld")
    assert "Asian" in withheld["group"].to_list()
    assert words(figure).count("real: withheld") == withheld.filter(~pl.col("attribute").str.contains("×")).height
    hidden = plotted.filter(panel="b", arm="real").filter(pl.col("note").str.starts_with("withheld"))
    assert hidden.height == withheld.height and hidden["value"].null_count() == hidden.height
    total = run["real"].height - 1
    assert f"weighted F1, real (of {total} groups {withheld.height} withheld)" in words(figure)


def test_a_correlation_that_says_nothing_has_words(figure):
    ax = axes_of(figure, "b3  agreement")
    assert "fewer than 3 groups" in [t.get_text() for t in ax.texts]
    squares = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "s"]
    assert squares == [1.0, 0.995, 0.93, 0.831]  # the paper's, grey
    assert {line.get_color() for line in ax.lines if line.get_marker() == "s"} == {style.GREY}


def test_arms_stand_above_the_papers(figure):
    labels = [t.get_text() for t in axes_of(figure, "sex\n").get_yticklabels()]
    assert labels == ["imbalanced", "balanced", "paper: imbalanced", "paper: balanced with synthetic"]
    heights = {line.get_marker(): line.get_ydata()[0] for line in axes_of(figure, "race\n").lines}
    assert heights["o"] == 1 and heights["s"] == 3  # the last of each
    assert sum("n = 80 patients" in text for text in words(figure)) == 2  # sex: worst group and gap


def test_text_is_at_least_7_points(figure):
    texts = [t for t in figure.findobj(lambda o: hasattr(o, "get_fontsize")) if t.get_text() and t.get_visible()]
    assert min(t.get_fontsize() for t in texts if "mathdefault" not in t.get_text()) >= 7


def test_bytes_repeat_and_the_csv_lies_beside(figure, plotted, tmp_path):
    first = style.save(figure, plotted, tmp_path / "a" / "fig5.png")
    second = style.save(fig5.draw(plotted), plotted, tmp_path / "b" / "fig5.png")
    assert first.read_bytes() == second.read_bytes() and len(first.read_bytes()) > 20_000
    assert pl.read_csv(first.with_suffix(".csv")).height == plotted.height


def test_nothing_to_show_is_drawn_as_such():
    figure = fig5.draw(fig5.table(**made_up(8, 10)))
    figure.draw_without_rendering()
    said = words(figure)
    assert said.count("real: withheld") == 1 + 2 + 3 + 3 and "no estimate" in said
