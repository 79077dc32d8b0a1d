"""F1 by group equals scikit-learn's, intervals hold the truth, and small groups have no estimate."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import f1_score

from chexgen_lib.estimates import measures
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments import fairness
from chexgen_lib.experiments.fairness import disparity
from chexgen_lib.experiments.fairness import scores as fs
from chexgen_lib.experiments.fairness.agreement import agreement
from chexgen_lib.experiments.fairness.mitigation import compare
from chexgen_lib.pools import groups as gr
from chexgen_lib.records import FINDINGS
from tests.builders import RACES, few, grouped_cohort, harder, scored, scores_around

HALF = np.full(14, 0.5)
ESTIMATES = ("f1", "low", "high", "prevalence", "findings")


def by_sklearn(labels, scores):
    """Weighted F1 over findings whose unknown rows are left out."""
    known = ~np.isnan(labels)
    each = [f1_score(y[k], s[k] >= 0.5, zero_division=0) for y, s, k in zip(labels.T, scores.T, known.T, strict=True)]
    return np.average(each, weights=np.nansum(labels, 0))


def test_thresholds_maximise_f1_on_validation():
    _, labels = grouped_cohort(unknown=0.1)
    scores = np.round(scores_around(labels), 1)  # with ties
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 0)  # no positive
    scores[:, 3] = np.nan  # a finding that the classifier does not know
    chosen = fs.thresholds(labels, scores)
    assert np.isnan(chosen[[2, 3]]).all() and np.isfinite(np.delete(chosen, [2, 3])).all()
    for f in (0, 7, 13):
        known = ~np.isnan(labels[:, f])
        y, s = labels[known, f], scores[known, f]
        best = max(f1_score(y, s >= t) for t in np.unique(s))
        assert measures.finding_f1(measures.confusion(labels, scores, chosen).sum(0))[f] == pytest.approx(
            best, abs=1e-12
        )
    with pytest.raises(ValueError, match="no finding has a known positive"):
        fs.thresholds(np.zeros((5, 14)), np.ones((5, 14)))


def test_f1_of_every_group_equals_sklearn():
    table, labels = grouped_cohort()
    scores = scores_around(labels)
    found = scored(table, labels, scores)
    for row, own in zip(fs.group_table(found).iter_rows(named=True), found.groups.member.T, strict=True):
        if not row["withheld"]:
            assert row["f1"] == pytest.approx(f1_score(labels[own], scores[own] >= 0.5, average="weighted"), abs=1e-12)
            assert row["prevalence"] == pytest.approx(labels[own].mean())
            assert row["low"] <= row["f1"] <= row["high"]
    assert fs.group_table(found)["withheld"].sum() > 0


def test_unknown_labels_count_for_no_finding():
    table, labels = grouped_cohort(unknown=0.3)
    labels[:, 5] = np.nan
    scores = scores_around(labels)
    found = scored(table, labels, scores)
    assert found.f1[0, 0] == pytest.approx(by_sklearn(np.delete(labels, 5, 1), np.delete(scores, 5, 1)), abs=1e-12)
    assert fs.group_table(found)["findings"][0] == 13


def test_a_finding_without_a_threshold_counts_nowhere():
    table, labels = grouped_cohort()
    scores = scores_around(labels)
    scores[:, 4] = np.nan
    thresholds = HALF.copy()
    thresholds[4] = np.nan
    found = fs.evaluate(gr.groups(table, ["sex"]), labels, scores, thresholds, n_resamples=10)
    expected = f1_score(np.delete(labels, 4, 1), np.delete(scores, 4, 1) >= 0.5, average="weighted")
    assert found.f1[0, 0] == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(found.auroc).all()


def test_patients_are_resampled_not_images():
    table, labels = grouped_cohort(40, most=2)
    scores = scores_around(labels)
    found = scored(table, labels, scores, n_resamples=5, seed=3)
    rows_of = Resampling(table["patient_id"], 5, 3).rows()
    for b in range(5):
        rows = rows_of[1 + b]
        female = rows[(table["sex"] == "F").to_numpy()[rows]]
        assert found.f1[1 + b, 1] == pytest.approx(f1_score(labels[female], scores[female] >= 0.5, average="weighted"))
    # four copies of each image know no more than one
    copies = scored(pl.concat([table] * 4), np.tile(labels, (4, 1)), np.tile(scores, (4, 1)), n_resamples=5, seed=3)
    np.testing.assert_allclose(copies.f1[:, 0], found.f1[:, 0], atol=1e-12)


def test_intervals_hold_the_truth():
    """Of the F1 of everyone, of the worst group and of the gap, where groups are equal and where they are not."""
    big, labels = grouped_cohort(6000, seed=99, most=1)
    held = {"f1": 0, "equal gap": 0, "gap": 0, "worst": 0}
    truth = {}
    for name, noise in (("equal", 0.5), ("unequal", harder(big))):
        scores = scores_around(labels, 98, noise)
        truth[name] = [by_sklearn(labels[own], scores[own]) for own in ((big["race"] == r).to_numpy() for r in RACES)]
    everyone = by_sklearn(labels, scores_around(labels, 98))
    for seed in range(40):
        table, y = grouped_cohort(120, seed=seed, most=1)
        same, apart = (
            scored(table, y, scores_around(y, seed, noise), attributes=["race"]) for noise in (0.5, harder(table))
        )
        row = fs.group_table(same).row(0, named=True)
        held["f1"] += row["low"] <= everyone <= row["high"]
        held["equal gap"] += fs.gap(same.f1[:, same.shown("race")])["low"] == 0
        gap, worst = (measure(apart.f1[:, apart.shown("race")]) for measure in (fs.gap, fs.worst))
        held["gap"] += gap["low"] <= np.ptp(truth["unequal"]) <= gap["high"]
        held["worst"] += worst["low"] <= min(truth["unequal"]) <= worst["high"]
    assert np.ptp(truth["equal"]) < 0.02 and np.ptp(truth["unequal"]) > 0.1
    assert min(held.values()) >= 34, held  # 95 % of 40 are 38; fewer than 34 have a chance below 1 %


def test_the_result_is_a_function_of_data_and_seed():
    table, labels = grouped_cohort()
    a, b, other = (scored(table, labels, scores_around(labels), seed=s) for s in (1, 1, 2))
    assert fs.group_table(a).equals(fs.group_table(b)) and not fs.group_table(a).equals(fs.group_table(other))
    assert fs.group_table(a)["f1"].equals(fs.group_table(other)["f1"])


def test_bad_scores_and_labels_are_named():
    table, labels = grouped_cohort()
    groups, scores = gr.groups(table, ["sex"]), scores_around(labels)
    for value in (np.nan, np.inf):
        broken = scores.copy()
        broken[[4, 9], 2] = value
        for call in (
            lambda s: fs.evaluate(groups, labels, s, HALF),
            lambda s: fs.thresholds(labels, s),
        ):
            with pytest.raises(ValueError, match=rf"row 4, {FINDINGS[2]}: the score is {value} \(2 such rows\)"):
                call(broken)
    wrong = labels.copy()
    wrong[3, 1] = -1
    with pytest.raises(ValueError, match=rf"row 3, {FINDINGS[1]}: label -1"):
        fs.evaluate(groups, wrong, scores, HALF)
    with pytest.raises(ValueError, match="for each of the"):
        fs.evaluate(groups, labels[:-1], scores[:-1], HALF)
    with pytest.raises(ValueError, match=r"\[N, 14\]"):
        fs.evaluate(groups, labels[:, :3], scores[:, :3], HALF)
    with pytest.raises(ValueError, match="thresholds: needs"):
        fs.evaluate(groups, labels, scores, HALF[:3])
    with pytest.raises(ValueError, match="all are NaN"):
        fs.evaluate(groups, labels, scores, np.full(14, np.nan))


def test_withheld_groups_never_leak_an_estimate():
    table, labels = grouped_cohort()
    # one patient is alone in a group; nobody is in another
    alone = pl.when(pl.col("patient_id") == "a:7").then(pl.lit("alone")).otherwise(pl.lit("others"))
    table = table.with_columns(alone.cast(pl.Enum(["alone", "nobody", "others"])).alias("site"))
    found = scored(table, few(labels), scores_around(labels), attributes=["site", "sex"], min_n=5)
    groups = fs.group_table(found)
    withheld = groups.filter("withheld")
    assert set(withheld.filter(attribute="site")["group"]) == {"alone", "nobody"}
    assert all(withheld[c].null_count() == withheld.height for c in ESTIMATES)
    assert all(note.startswith("withheld: fewer than 5") for note in withheld["note"])
    assert not found.totals[:, found.groups.withheld].any() and np.isnan(found.f1[:, found.groups.withheld]).all()
    kept = groups.filter(~pl.col("withheld"))
    assert all(kept[c].null_count() == 0 for c in ESTIMATES)

    shown = {"site": 1, "sex": 2, "site × sex": 2}
    tables = {
        "agreement": agreement(found, found).filter(measure=fairness.PEARSON),
        "disparity": disparity.disparity(found).filter(measure=fairness.GAP),
        "compare": compare({"one": [found]}, before="one").filter(measure=fairness.GAP),
    }
    for name, result in tables.items():
        for attribute, n in shown.items():
            row = result.row(by_predicate=pl.col("attribute") == attribute, named=True)
            assert row["n_groups"] == n, (name, attribute)
            assert (row["value"] is None) == (n < (3 if name == "agreement" else 2)), (name, attribute)
            assert bool(row["note"]) == (row["value"] is None)


def test_nobody_with_a_known_attribute():
    table, labels = grouped_cohort()
    nothing = table.with_columns(pl.lit(None, pl.String).alias(name) for name in ("sex", "race"))
    found = scored(nothing, labels, scores_around(labels), attributes=["sex", "race"])
    assert fs.group_table(found)["group"].to_list() == [gr.EVERYONE]
    assert found.groups.unknown["n_patients"].to_list() == [150] * 3
    assert found.groups.attributes == []


def test_everyone_withheld():
    table, labels = grouped_cohort(5)
    found = scored(table, labels, scores_around(labels), attributes=["sex"])
    assert np.isnan(found.auroc).all() and fs.group_table(found)["f1"].null_count() == 3
    comparison = compare({"one": [found]}, before="one")
    assert comparison["value"].null_count() == comparison.height and (comparison["note"] != "").all()


def test_one_class_only():
    table, labels = grouped_cohort()
    negative = scored(table, np.zeros_like(labels), scores_around(labels))
    groups = fs.group_table(negative).filter(~pl.col("withheld"))
    assert groups["f1"].null_count() == groups.height and set(groups["note"]) == {"no positive label"}
    assert set(groups["prevalence"]) == {0.0}
    result = disparity.disparity(negative)
    assert result["value"].null_count() == result.height and set(result["note"]) == {fairness.TOO_FEW}

    positive = scored(table, np.ones_like(labels), scores_around(labels), attributes=["sex"])
    result = disparity.disparity(positive)
    assert result.filter(measure=fairness.GAP)["value"].null_count() == 0
    odds = result.filter(measure=fairness.ODDS).row(0, named=True)
    assert odds["value"] is None and odds["findings"] == 0 and "both labels" in odds["note"]
