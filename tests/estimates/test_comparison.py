"""Differences are paired, p agrees with the interval, and the minimum detectable difference is detected."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from chexgen_lib.estimates import comparison as c
from chexgen_lib.estimates import measures
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.wording import over_runs, readable
from chexgen_lib.records import FINDINGS


def means(arms, resampling):
    """Arm -> values [S, N] of its seeds, as means [S, 1 + B, 1]."""
    return {arm: np.stack([measures.mean(v, resampling.weights)[:, None] for v in x]) for arm, x in arms.items()}


def compared(arms, seed=0, n_resamples=200, patients=None):
    n = next(iter(arms.values())).shape[1]
    resampling = Resampling(np.arange(n) if patients is None else patients, n_resamples, seed)
    return c.compare(means(arms, resampling), [{"metric": "mean", "n": n}], resampling, "real")


def test_a_table_has_every_estimate_of_every_arm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 80))
    table = compared({"real": x, "more": x + 0.3 + 0.01 * rng.normal(size=x.shape)})
    real, more = table.rows(named=True)
    assert table.columns == ["metric", "n", "arm", *c.ESTIMATE, "patients", "seeds"]
    assert real["value"] == pytest.approx(x.mean()) and real["low"] < real["value"] < real["high"]
    assert real["sd"] == pytest.approx(x.mean(1).std(ddof=1)) and real["difference"] is None and real["p"] is None
    assert more["difference_low"] < 0.3 < more["difference_high"] and more["seeds"] == 3 and more["patients"] == 80
    assert more["difference_high"] - more["difference_low"] < 0.1 * (more["high"] - more["low"])  # paired
    assert more["p"] == 1 / 200 and more["detectable"] < 0.3


def test_equal_arms_do_not_differ_and_undefined_numbers_are_null():
    x = np.random.default_rng(0).normal(size=(2, 30))
    same = compared({"real": x, "same": x.copy()}).row(1, named=True)
    assert (same["difference"], same["difference_low"], same["p"], same["detectable"]) == (0, 0, 1, 0)
    unknown = compared({"real": x, "none": np.full_like(x, np.nan)}).row(1, named=True)
    assert all(unknown[name] is None for name in c.ESTIMATE)


def test_p_is_below_5_percent_where_the_interval_leaves_out_zero():
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 0.6, 13):
        x = rng.normal(size=(2, 1, 50))
        row = compared({"real": x[0], "arm": x[1] + shift}, n_resamples=1000).row(1, named=True)
        outside = not row["difference_low"] <= 0 <= row["difference_high"]
        assert outside == (row["p"] < 0.05) or abs(row["p"] - 0.05) < 0.003


def test_the_minimum_detectable_difference_is_found_in_80_percent_of_studies():
    rng = np.random.default_rng(1)
    n, found = 60, 0
    change = np.sqrt(2 / n) * c.STANDARD_ERRORS  # of two independent arms of unit variance
    for seed in range(150):
        x = rng.normal(size=(2, 1, n))
        row = compared({"real": x[0], "arm": x[1] + change}, seed=seed).row(1, named=True)
        found += row["difference_low"] > 0
        assert row["detectable"] == pytest.approx(change, rel=0.4)
    assert 0.7 <= found / 150 <= 0.9


def test_wilcoxon_is_two_sided_and_refuses_what_is_not_paired():
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    assert c.paired_wilcoxon(a, a + 0.5 + 0.1 * rng.normal(size=40)) < 1e-6
    assert c.paired_wilcoxon(a, a + rng.normal(size=40)) > 0.01 and c.paired_wilcoxon(a, a) == 1.0
    for bad in (([1, 2], [1, 2, 3]), ([1, np.nan], [1, 2])):
        with pytest.raises(ValueError):
            c.paired_wilcoxon(*bad)


def test_arms_must_have_equal_seeds_and_the_reference():
    x = np.zeros((2, 30))
    with pytest.raises(ValueError, match="equally many seeds"):
        compared({"real": x, "other": x[:1]})
    with pytest.raises(ValueError, match="one of them 'real'"):
        compared({"other": x})


def test_aurocs_are_averaged_over_findings_with_enough_cases():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 14)) < 0.4).astype(float)
    labels[:, 3] = np.arange(120) < 4
    labels[5, 0] = np.nan
    good, noise = (np.nan_to_num(labels) + sd * rng.normal(size=(4, 120, 14)) for sd in (0.7, 2.0))
    resampling = Resampling([f"p{i // 2}" for i in range(120)], 100)
    table = c.auroc_table({"good": good, "noise": noise}, labels, resampling, "good", draws=2)
    assert table["arm"].to_list() == ["good"] * 15 + ["noise"] * 15
    rare = table.filter(arm="good", finding=FINDINGS[3]).row(0, named=True)
    assert rare["value"] is None and rare["positives"] == 4
    rows = table.filter(arm="noise").rows(named=True)
    average = rows[-1]
    assert average["value"] == pytest.approx(np.mean([r["value"] for r in rows[:-1] if r["value"] is not None]))
    assert average["difference_high"] < 0 and average["p_findings"] < 0.01 and average["seeds"] == 2
    assert rows[0]["n"] == 119 and rows[0]["p_findings"] is None and average["patients"] == 60
    assert table.filter(arm="good")["p_findings"].null_count() == 15
    with pytest.raises(ValueError, match="whole seeds of 3"):
        c.auroc_table({"good": good}, labels, resampling, draws=3)
    with pytest.raises(ValueError, match="no finding has 5 patients"):
        c.auroc_table({"good": good}, np.zeros_like(labels), resampling)
    good[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="'good': scores of run 2"):
        c.auroc_table({"good": good}, labels, resampling)
    assert isinstance(table, pl.DataFrame)


def test_draws_of_one_seed_are_resampled_together():
    rng, labels = np.random.default_rng(0), (np.random.default_rng(1).random((100, 14)) < 0.4).astype(float)
    of_seed = [labels * k + rng.standard_normal((100, 14)) for k in (0.2, 2.0)]  # seeds that differ, draws that do not
    scores, resampling = {"real": np.repeat(of_seed, 3, axis=0)}, Resampling(range(100), 400)
    tables = [c.auroc_table(scores, labels, resampling, draws=draws) for draws in (3, 1)]
    width = [(t["high"] - t["low"]).mean() for t in tables]
    assert width[0] > 1.3 * width[1] and [t["seeds"][0] for t in tables] == [2, 6]
    assert tables[0]["value"].to_list() == pytest.approx(tables[1]["value"].to_list())


def test_the_interval_of_few_positives_is_no_narrower_than_one_that_covers():
    """Here all five positives are in order, so that every resample has an AUROC of 1."""
    labels = np.full((60, 14), np.nan)
    labels[:, 0], labels[:, 1] = np.arange(60) < 5, np.arange(60) < 30
    scores = np.nan_to_num(labels)[None] + 0.1 * np.random.default_rng(0).random((2, 60, 14))
    scores[:, :, 1] = np.random.default_rng(1).random((2, 60))
    resampling = Resampling(range(60), 100)
    few, many, *_, average = c.auroc_table({"real": scores}, labels, resampling).rows(named=True)
    assert (few["value"], few["high"]) == (1, 1) and few["low"] == pytest.approx(measures.auroc_interval(1, 5, 55)[0])
    assert many["low"] <= measures.auroc_interval(many["value"], 30, 30)[0]
    assert average["high"] < 1
    twice = Resampling(np.arange(60) // 2, 100)  # three patients have positives, one of them also a negative
    low = c.auroc_table({"real": scores}, labels, twice, fewest=3)["low"][0]
    assert low == pytest.approx(measures.auroc_interval(1, 3, 28)[0])


def test_rare_findings_are_in_the_average_only_where_all_are_rare():
    rng = np.random.default_rng(0)
    labels = np.full((60, 14), np.nan)
    for finding, positives in enumerate((1, 2, 30)):
        labels[:, finding] = np.arange(60) < positives
    scores, resampling = rng.random((1, 60, 14)), Resampling(range(60), 50)
    table = c.auroc_table({"real": scores}, labels, resampling, fewest=1)
    assert table["value"].null_count() == 11 and table["value"][-1] == pytest.approx(table["value"][2])
    labels[:, 2] = np.nan
    table = c.auroc_table({"real": scores}, labels, resampling, fewest=1)
    assert table["value"][-1] == pytest.approx(table["value"][:2].mean())


def test_many_images_of_one_patient_are_one_case():
    """Six positives of one patient: the finding has no estimate, or where one is asked for, none in the average."""
    rng, patients = np.random.default_rng(0), np.r_[np.zeros(6, int), np.arange(1, 55)]
    labels = np.full((60, 14), np.nan)
    labels[:, 0], labels[:, 1] = patients == 0, rng.permutation(60) < 30
    scores, resampling = rng.random((1, 60, 14)), Resampling(patients, 100)
    one, other, *_, average = c.auroc_table({"real": scores}, labels, resampling).rows(named=True)
    assert one["value"] is None and average["value"] == other["value"]
    one, other, *_, average = c.auroc_table({"real": scores}, labels, resampling, fewest=1).rows(named=True)
    assert one["value"] is not None and average["value"] == other["value"]


def test_an_average_of_rare_findings_alone_is_as_uncertain_as_they_are():
    labels = np.full((60, 14), np.nan)
    labels[:, 0] = np.arange(60) == 0
    scores, resampling = np.random.default_rng(0).random((1, 60, 14)), Resampling(range(60), 100)
    one, *_, average = c.auroc_table({"real": scores}, labels, resampling, fewest=1).rows(named=True)
    assert [average[k] for k in ("value", "low", "high")] == pytest.approx([one[k] for k in ("value", "low", "high")])
    labels[:, 1], scores[:, 1, 1] = np.arange(60) == 1, scores[:, 0, 0]
    one, other, *_, average = c.auroc_table({"real": scores}, labels, resampling, fewest=1).rows(named=True)
    width = [row["high"] - row["low"] for row in (one, other, average)]
    assert 0.4 < width[2] < min(width[:2])  # of the resamples alone 0.2


@pytest.mark.parametrize("seeds", [4, 5, 8])
def test_the_papers_test_over_runs_stands_beside_from_five_on(seeds):
    rng = np.random.default_rng(0)
    arms = {"real": rng.random((seeds, 21, 1)), "more": rng.random((seeds, 21, 1)) + 1}
    resampling = Resampling([str(i) for i in range(9)], 20)
    table = c.compare(arms, [{"metric": "m"}], resampling, "real", over_runs=True)
    assert "p_runs" not in c.compare(arms, [{"metric": "m"}], resampling, "real").columns
    if seeds < 5:
        assert "p_runs" not in table.columns
        return
    expected = stats.wilcoxon(arms["more"][:, 0, 0], arms["real"][:, 0, 0]).pvalue
    assert table["p_runs"].to_list() == [None, pytest.approx(expected)] and expected == 2 / 2**seeds
    shown = readable(table)
    assert shown["Wilcoxon over runs"].to_list() == [None, f"p = {expected:.2g}"] and "p_runs" not in shown.columns


def test_five_runs_cannot_give_the_papers_p():
    assert over_runs(5).startswith("Wilcoxon's signed-rank test over 5 runs of each arm cannot give a p below 0.062")
    assert "not the paper's p < 0.001" in over_runs(5) and "paper" not in over_runs(12)


@pytest.mark.parametrize(("metric", "bound"), [("weighted F1", 1), ("SSIM inside", 1), ("accuracy (%)", np.inf)])
def test_no_interval_leaves_what_its_measure_can_be(metric, bound):
    resampling = Resampling(np.arange(30), 200)
    values = np.repeat([[0.93], [0.99], [0.998]], 201, axis=1)[..., None]  # of three trainings
    row = c.compare({"arm": values}, [{"metric": metric}], resampling).row(0, named=True)
    unbounded = resampling.seeds_mean(values[..., 0]).widened()
    assert np.quantile(unbounded, 0.975) > 1 and row["low"] < 0.95
    assert row["high"] == pytest.approx(min(np.quantile(unbounded[1:], 0.975), bound))


def test_no_difference_is_larger_than_there_can_be():
    """Two readers of a reader study, who differ: their accuracy against chance, and their scores of -2 to 2."""
    resampling = Resampling(np.arange(30), 200)
    chance, right = np.full((2, 201, 1), 0.5), np.repeat([[[0.8]], [[1.0]]], 201, axis=1)
    table = c.compare({"chance": chance, "arm": right}, [{"measure": "accuracy"}], resampling, "chance")
    row = table.row(1, named=True)
    assert (row["high"], row["difference"], row["difference_high"]) == pytest.approx((1, 0.4, 0.5))
    good, poor = np.repeat([[[1.2]], [[2.0]]], 201, axis=1), np.repeat([[[1.0]], [[-2.0]]], 201, axis=1)
    rows = c.compare({"good": good, "poor": poor}, [{"measure": "mean score"}], resampling, "good").rows(named=True)
    assert rows[0]["high"] == 2 and rows[1]["low"] == -2 and rows[1]["difference_low"] == -4


def test_an_estimate_itself_is_never_moved():
    assert c.estimate(np.full(5, 3.0), within=(0, 1))["value"] == 3
