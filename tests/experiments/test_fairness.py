"""F1 by group equals scikit-learn's, bias is told from noise, and small groups have no estimate."""

import numpy as np
import polars as pl
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from scipy import stats
from sklearn.metrics import f1_score

from chexgen_lib.estimates.resampling import resample_counts
from chexgen_lib.experiments import fairness as fa
from chexgen_lib.pools import groups as gr
from chexgen_lib.records import FINDINGS

ATTRIBUTES = ["sex", "race", "age group"]
RACES = ("Asian", "Black", "White")
HALF = np.full(14, 0.5)
ESTIMATES = ("f1", "low", "high", "prevalence", "findings")


def cohort(patients=150, seed=0, most=3, unknown=0.0):
    """Rows of patients with one to `most` images, and labels [N, 14], of which the share `unknown` is NaN."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    table = pl.DataFrame(
        {
            "patient_id": [f"a:{i}" for i in patient],
            "sex": rng.choice(["F", "M"], patients)[patient],
            "race": rng.choice(RACES, patients, p=[0.2, 0.3, 0.5])[patient],
            "age group": pl.Series(
                rng.choice(list(gr.AGE_GROUPS), patients)[patient], dtype=pl.Enum(list(gr.AGE_GROUPS))
            ),
        }
    )
    labels = (rng.random((len(table), 14)) < np.linspace(0.2, 0.5, 14)).astype(float)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return table, labels


def score(labels, seed=0, noise=0.5):
    """Scores around the label; `noise`: a number, or one for each row."""
    random = np.random.default_rng(seed).normal(size=labels.shape)
    return np.nan_to_num(labels, nan=0.5) + np.broadcast_to(noise, len(labels))[:, None] * random


def evaluate(table, labels, scores, *, attributes=ATTRIBUTES, min_n=10, n_resamples=100, seed=0, **options):
    groups = gr.groups(table, attributes, min_n=min_n, **options)
    return fa.evaluate(groups, labels, scores, HALF, n_resamples=n_resamples, seed=seed)


def harder(table, race="Black"):
    """Noise with which a classifier does badly in one group."""
    return np.where(table["race"] == race, 2.0, 0.5)


def few(labels, n=3):
    """The labels of the first n findings; the others are unknown, which makes fairlearn's work small."""
    return np.where(np.arange(14) < n, labels, np.nan)


def by_sklearn(labels, scores):
    """Weighted F1 over findings whose unknown rows are left out."""
    known = ~np.isnan(labels)
    each = [f1_score(y[k], s[k] >= 0.5, zero_division=0) for y, s, k in zip(labels.T, scores.T, known.T, strict=True)]
    return np.average(each, weights=np.nansum(labels, 0))


# ------------------------------------------------------------------------------------------------- measuring


def test_thresholds_maximise_f1_on_validation():
    _, labels = cohort(unknown=0.1)
    scores = np.round(score(labels), 1)  # with ties
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 0)  # no positive
    scores[:, 3] = np.nan  # a finding that the classifier does not know
    chosen = fa.thresholds(labels, scores)
    assert np.isnan(chosen[[2, 3]]).all() and np.isfinite(np.delete(chosen, [2, 3])).all()
    for f in (0, 7, 13):
        known = ~np.isnan(labels[:, f])
        y, s = labels[known, f], scores[known, f]
        best = max(f1_score(y, s >= t) for t in np.unique(s))
        assert fa.finding_f1(fa.confusion(labels, scores, chosen).sum(0))[f] == pytest.approx(best, abs=1e-12)
    with pytest.raises(ValueError, match="no finding has a known positive"):
        fa.thresholds(np.zeros((5, 14)), np.ones((5, 14)))


def test_f1_of_every_group_equals_sklearn():
    table, labels = cohort()
    scores = score(labels)
    scored = evaluate(table, labels, scores)
    for row, own in zip(fa.group_table(scored).iter_rows(named=True), scored.groups.member.T, strict=True):
        if not row["withheld"]:
            assert row["f1"] == pytest.approx(f1_score(labels[own], scores[own] >= 0.5, average="weighted"), abs=1e-12)
            assert row["prevalence"] == pytest.approx(labels[own].mean())
            assert row["low"] <= row["f1"] <= row["high"]
    assert fa.group_table(scored)["withheld"].sum() > 0


def test_unknown_labels_count_for_no_finding():
    table, labels = cohort(unknown=0.3)
    labels[:, 5] = np.nan
    scores = score(labels)
    scored = evaluate(table, labels, scores)
    assert scored.f1[0, 0] == pytest.approx(by_sklearn(np.delete(labels, 5, 1), np.delete(scores, 5, 1)), abs=1e-12)
    assert fa.group_table(scored)["findings"][0] == 13


def test_a_finding_without_a_threshold_counts_nowhere():
    table, labels = cohort()
    scores = score(labels)
    scores[:, 4] = np.nan
    thresholds = HALF.copy()
    thresholds[4] = np.nan
    scored = fa.evaluate(gr.groups(table, ["sex"]), labels, scores, thresholds, n_resamples=10)
    expected = f1_score(np.delete(labels, 4, 1), np.delete(scores, 4, 1) >= 0.5, average="weighted")
    assert scored.f1[0, 0] == pytest.approx(expected, abs=1e-12)
    assert np.isfinite(scored.auroc).all()


def test_patients_are_resampled_not_images():
    table, labels = cohort(40, most=2)
    scores = score(labels)
    scored = evaluate(table, labels, scores, n_resamples=5, seed=3)
    counts = resample_counts(40, 5, np.random.default_rng(3))
    for b in range(5):
        rows = np.repeat(np.arange(len(table)), counts[b, scored.groups.patient])
        female = rows[(table["sex"] == "F").to_numpy()[rows]]
        assert scored.f1[1 + b, 1] == pytest.approx(f1_score(labels[female], scores[female] >= 0.5, average="weighted"))
    # four copies of each image know no more than one
    copies = evaluate(pl.concat([table] * 4), np.tile(labels, (4, 1)), np.tile(scores, (4, 1)), n_resamples=5, seed=3)
    np.testing.assert_allclose(copies.f1[:, 0], scored.f1[:, 0], atol=1e-12)


def test_intervals_hold_the_truth():
    """Of the F1 of everyone, of the worst group and of the gap, where groups are equal and where they are not."""
    big, labels = cohort(6000, seed=99, most=1)
    held = {"f1": 0, "equal gap": 0, "gap": 0, "worst": 0}
    truth = {}
    for name, noise in (("equal", 0.5), ("unequal", harder(big))):
        scores = score(labels, 98, noise)
        truth[name] = [by_sklearn(labels[own], scores[own]) for own in ((big["race"] == r).to_numpy() for r in RACES)]
    everyone = by_sklearn(labels, score(labels, 98))
    for seed in range(40):
        table, y = cohort(120, seed=seed, most=1)
        same, apart = (evaluate(table, y, score(y, seed, noise), attributes=["race"]) for noise in (0.5, harder(table)))
        row = fa.group_table(same).row(0, named=True)
        held["f1"] += row["low"] <= everyone <= row["high"]
        held["equal gap"] += fa._gap(same.f1[:, same.shown("race")])["low"] == 0
        gap, worst = (measure(apart.f1[:, apart.shown("race")]) for measure in (fa._gap, fa._worst))
        held["gap"] += gap["low"] <= np.ptp(truth["unequal"]) <= gap["high"]
        held["worst"] += worst["low"] <= min(truth["unequal"]) <= worst["high"]
    assert np.ptp(truth["equal"]) < 0.02 and np.ptp(truth["unequal"]) > 0.1
    assert min(held.values()) >= 34, held  # 95 % of 40 are 38; fewer than 34 have a chance below 1 %


def test_the_result_is_a_function_of_data_and_seed():
    table, labels = cohort()
    a, b, other = (evaluate(table, labels, score(labels), seed=s) for s in (1, 1, 2))
    assert fa.group_table(a).equals(fa.group_table(b)) and not fa.group_table(a).equals(fa.group_table(other))
    assert fa.group_table(a)["f1"].equals(fa.group_table(other)["f1"])


def test_bad_scores_and_labels_are_named():
    table, labels = cohort()
    groups, scores = gr.groups(table, ["sex"]), score(labels)
    for value in (np.nan, np.inf):
        broken = scores.copy()
        broken[[4, 9], 2] = value
        for call in (
            lambda s: fa.evaluate(groups, labels, s, HALF),
            lambda s: fa.thresholds(labels, s),
        ):
            with pytest.raises(ValueError, match=rf"row 4, {FINDINGS[2]}: the score is {value} \(2 such rows\)"):
                call(broken)
    wrong = labels.copy()
    wrong[3, 1] = -1
    with pytest.raises(ValueError, match=rf"row 3, {FINDINGS[1]}: label -1"):
        fa.evaluate(groups, wrong, scores, HALF)
    with pytest.raises(ValueError, match="for each of the"):
        fa.evaluate(groups, labels[:-1], scores[:-1], HALF)
    with pytest.raises(ValueError, match=r"\[N, 14\]"):
        fa.evaluate(groups, labels[:, :3], scores[:, :3], HALF)
    with pytest.raises(ValueError, match="thresholds: needs"):
        fa.evaluate(groups, labels, scores, HALF[:3])
    with pytest.raises(ValueError, match="all are NaN"):
        fa.evaluate(groups, labels, scores, np.full(14, np.nan))


def test_withheld_groups_never_leak_an_estimate():
    table, labels = cohort()
    # one patient is alone in a group; nobody is in another
    alone = pl.when(pl.col("patient_id") == "a:7").then(pl.lit("alone")).otherwise(pl.lit("others"))
    table = table.with_columns(alone.cast(pl.Enum(["alone", "nobody", "others"])).alias("site"))
    scored = evaluate(table, few(labels), score(labels), attributes=["site", "sex"], min_n=5)
    groups = fa.group_table(scored)
    withheld = groups.filter("withheld")
    assert set(withheld.filter(attribute="site")["group"]) == {"alone", "nobody"}
    assert all(withheld[c].null_count() == withheld.height for c in ESTIMATES)
    assert all(note.startswith("withheld: fewer than 5") for note in withheld["note"])
    assert not scored.totals[:, scored.groups.withheld].any() and np.isnan(scored.f1[:, scored.groups.withheld]).all()
    kept = groups.filter(~pl.col("withheld"))
    assert all(kept[c].null_count() == 0 for c in ESTIMATES)

    shown = {"site": 1, "sex": 2, "site × sex": 2}
    tables = {
        "agreement": fa.agreement(scored, scored).filter(measure=fa.PEARSON),
        "disparity": fa.disparity(scored).filter(measure=fa.GAP),
        "compare": fa.compare({"one": [scored]}, before="one").filter(measure=fa.GAP),
    }
    for name, result in tables.items():
        for attribute, n in shown.items():
            row = result.row(by_predicate=pl.col("attribute") == attribute, named=True)
            assert row["n_groups"] == n, (name, attribute)
            assert (row["value"] is None) == (n < (3 if name == "agreement" else 2)), (name, attribute)
            assert bool(row["note"]) == (row["value"] is None)


def test_nobody_with_a_known_attribute():
    table, labels = cohort()
    nothing = table.with_columns(pl.lit(None, pl.String).alias(name) for name in ("sex", "race"))
    scored = evaluate(nothing, labels, score(labels), attributes=["sex", "race"])
    assert fa.group_table(scored)["group"].to_list() == [gr.EVERYONE]
    assert scored.groups.unknown["n_patients"].to_list() == [150] * 3
    assert scored.groups.attributes == []


def test_everyone_withheld():
    table, labels = cohort(5)
    scored = evaluate(table, labels, score(labels), attributes=["sex"])
    assert np.isnan(scored.auroc).all() and fa.group_table(scored)["f1"].null_count() == 3
    comparison = fa.compare({"one": [scored]}, before="one")
    assert comparison["value"].null_count() == comparison.height and (comparison["note"] != "").all()


def test_one_class_only():
    table, labels = cohort()
    negative = evaluate(table, np.zeros_like(labels), score(labels))
    groups = fa.group_table(negative).filter(~pl.col("withheld"))
    assert groups["f1"].null_count() == groups.height and set(groups["note"]) == {"no positive label"}
    assert set(groups["prevalence"]) == {0.0}
    result = fa.disparity(negative)
    assert result["value"].null_count() == result.height and set(result["note"]) == {fa.TOO_FEW}

    positive = evaluate(table, np.ones_like(labels), score(labels), attributes=["sex"])
    result = fa.disparity(positive)
    assert result.filter(measure=fa.GAP)["value"].null_count() == 0
    odds = result.filter(measure=fa.ODDS).row(0, named=True)
    assert odds["value"] is None and odds["findings"] == 0 and "both labels" in odds["note"]


# ---------------------------------------------------------------------------------------- detection of bias


def test_agreement_is_the_correlation_of_the_groups():
    table, labels = cohort(300, most=2)
    real = evaluate(table, labels, score(labels, 1, harder(table)))
    synthetic = evaluate(table, labels, score(labels, 2, 1.2 * harder(table)))
    result = fa.agreement(real, synthetic)
    groups = fa.group_table(real).select("attribute", "group", real="f1").drop_nulls()
    groups = groups.join(
        fa.group_table(synthetic).select("attribute", "group", synthetic="f1"), on=["attribute", "group"]
    )
    for attribute, own in groups.filter(pl.col("attribute") != gr.EVERYONE).group_by("attribute"):
        rows = {r["measure"]: r for r in result.filter(attribute=attribute[0]).iter_rows(named=True)}
        shift = (own["synthetic"] - own["real"]).mean()
        assert rows[fa.SHIFT]["value"] == pytest.approx(shift) and shift < 0
        for measure, r in ((fa.PEARSON, stats.pearsonr), (fa.SPEARMAN, stats.spearmanr)):
            row = rows[measure]
            assert row["n_groups"] == own.height
            if own.height == 2:
                assert row["value"] is None and "1 or -1" in row["note"]
            else:
                assert row["value"] == pytest.approx(r(own["real"], own["synthetic"])[0])
                assert -1 <= row["low"] <= row["value"] <= row["high"] <= 1 and row["low"] < row["high"]
    everything = result.filter(attribute=fa.ALL_GROUPS, measure=fa.PEARSON).row(0, named=True)
    assert everything["n_groups"] == groups.height - 1 and everything["low"] > 0.3


def test_both_cohorts_are_resampled_together():
    table, labels = cohort()
    real = evaluate(table, labels, score(labels))
    for row in fa.agreement(real, real).drop_nulls("value").iter_rows(named=True):
        expected = 0 if row["measure"] == fa.SHIFT else 1
        assert (row["value"], row["low"], row["high"]) == pytest.approx((expected,) * 3)  # unpaired: far from it


def test_a_constant_side_has_no_correlation():
    table, labels = cohort()
    real, perfect = evaluate(table, labels, score(labels)), evaluate(table, labels, labels)
    result = fa.agreement(real, perfect).filter(attribute="race", measure=fa.PEARSON).row(0, named=True)
    assert (result["value"], result["low"], result["note"]) == (None, None, "all groups are equal on one side")


def test_unpaired_cohorts_are_refused():
    table, labels = cohort()
    real = evaluate(table, labels, score(labels))
    fewer = (table["patient_id"] != "a:0").to_numpy()
    with pytest.raises(ValueError, match="differ in their patients"):
        fa.agreement(real, evaluate(table.filter(fewer), labels[fewer], score(labels)[fewer]))
    with pytest.raises(ValueError, match="differ in their resamples"):
        fa.agreement(real, evaluate(table, labels, score(labels), seed=1))
    with pytest.raises(ValueError, match="differ in their groups"):
        fa.agreement(real, evaluate(table, labels, score(labels), min_n=20))


def test_differences_equal_fairlearn_on_single_rows():
    table, labels = cohort(unknown=0.2)
    scores, labels = score(labels, noise=harder(table)), few(labels)
    scored = evaluate(table, labels, scores, attributes=["race"], n_resamples=20)
    result = {r["measure"]: r for r in fa.disparity(scored).iter_rows(named=True)}
    for measure, library in ((fa.ODDS, equalized_odds_difference), (fa.PARITY, demographic_parity_difference)):
        values = []
        for y, s in zip(labels.T[:3], scores.T, strict=False):
            known = ~np.isnan(y)
            race = table["race"].to_numpy()[known]
            values.append(library(y[known].astype(int), s[known] >= 0.5, sensitive_features=race))
        assert result[measure]["value"] == pytest.approx(np.mean(values)) and result[measure]["findings"] == 3
    # what is measured on dealt groups is the same measure
    again = fa._unequal(scored.totals[:1, scored.shown("race")], np.arange(14) < 3)
    assert {k: v[0] for k, v in again.items()} == pytest.approx({k: r["value"] for k, r in result.items()})


def test_a_finding_that_a_group_lacks_is_left_out_of_the_differences():
    table, labels = cohort()
    labels[(table["race"] == "Asian").to_numpy(), 0] = 0  # no hits to be had: a rate of 0 would be a difference of 1
    result = fa.disparity(evaluate(table, few(labels), score(labels), attributes=["race"], n_resamples=20))
    assert set(result["findings"]) == {2} and result.filter(measure=fa.ODDS)["value"][0] < 0.5


def test_planted_bias_is_found_and_noise_is_not():
    table, labels = cohort(300, most=2)
    fair, biased = (
        fa.disparity(evaluate(table, few(labels, 4), score(labels, 4, noise), attributes=["sex", "race"], combine=1))
        for noise in (0.5, harder(table))
    )
    for measure in fa.MEASURES:
        found = biased.filter(attribute="race", measure=measure).row(0, named=True)
        beyond = found["value"] < found["equal_low"] if measure == fa.WORST else found["value"] > found["equal_high"]
        assert beyond and found["p"] == pytest.approx(1 / 101), measure
        others = [fair.filter(attribute=a, measure=measure).row(0, named=True) for a in ("sex", "race")]
        for row in (*others, biased.filter(attribute="sex", measure=measure).row(0, named=True)):
            assert row["p"] > 0.02, (measure, row["attribute"])
            assert row["equal_low"] <= row["equal"] <= row["equal_high"]
    gap = fair.filter(attribute="race", measure=fa.GAP).row(0, named=True)
    assert gap["value"] > 0 and gap["low"] == 0 and gap["equal"] > 0  # equal groups have a gap, too


def test_equal_groups_and_equal_arms_are_rarely_called_unequal():
    gaps, differences = [], []
    for seed in range(40):
        table, labels = cohort(100, seed)
        one, other = (arm(table, labels, 0.5, (1000 * k + seed,))[0] for k in (1, 2))
        shown = one.shown("race")
        equal = fa._unequal(fa._dealt(one, "race", shown), np.ones(14, bool))[fa.GAP]
        gaps.append(fa._beside(np.ptp(one.f1[0, shown]), equal, fa.GAP)["p"])
        result = fa.compare({"one": [one], "other": [other]}, before="one").filter(arm="other")
        differences.append([result.filter(measure=m)["p"][-1] for m in (fa.WEIGHTED, fa.WORST, fa.GAP)])
    assert np.mean(np.array(gaps) < 0.05) <= 0.15  # 5 % of 40 are 2; more than 6 have a chance below 1 %
    assert (np.mean(np.array(differences) < 0.05, 0) <= 0.15).all()
    assert 0.3 < np.mean(gaps) < 0.7 and (np.mean(differences, 0) > 0.3).all()


def test_dealing_moves_whole_patients_and_keeps_all_rows():
    table, labels = cohort(60)
    scored = evaluate(table, labels, score(labels), attributes=["sex"], n_resamples=30)
    dealt = fa._dealt(scored, "sex", scored.shown("sex"))
    np.testing.assert_array_equal(dealt.sum(1), np.broadcast_to(scored.totals[0, 0], (30, 14, 4)))
    assert len(np.unique(dealt[:, 0].reshape(30, -1), axis=0)) == 30
    # with one finding positive in one patient only, its images all go to one group
    most = table["patient_id"].mode()[0]
    only = np.zeros_like(labels)
    only[table["patient_id"] == most, 0] = 1
    images = only.sum()
    scored = evaluate(table, only, score(only), attributes=["sex"], n_resamples=30)
    positives = fa._dealt(scored, "sex", np.array([1, 2]))[:, :, 0][..., [0, 2]].sum(-1)
    assert images > 1 and set(positives.ravel()) == {0, images}


# --------------------------------------------------------------------------------------- mitigation of bias


def arm(table, labels, noise, seeds=(0,), **options):
    return [evaluate(table, labels, score(labels, s, noise), attributes=["sex", "race"], **options) for s in seeds]


def test_compare_finds_the_arm_that_helps():
    table, labels = cohort(300, most=2)
    bad = arm(table, labels, harder(table), (1, 2))
    same = arm(table, labels, harder(table), (3, 4))
    result = fa.compare({"before": bad, "same": same, "fair": arm(table, labels, 0.5, (5, 6))}, before="before")

    def row(name, measure, attribute="race"):
        return result.filter(arm=name, measure=measure, attribute=attribute).row(0, named=True)

    for measure, sign in ((fa.WORST, 1), (fa.GAP, -1)):
        helped, unchanged = row("fair", measure), row("same", measure)
        assert sign * helped["difference"] > 0 and helped["p"] < 0.01
        assert not helped["difference_low"] <= 0 <= helped["difference_high"]
        assert unchanged["p"] > 0.05 and unchanged["difference_low"] <= 0 <= unchanged["difference_high"]
        assert helped["difference"] == pytest.approx(helped["value"] - row("before", measure)["value"])
        half = (helped["difference_high"] - helped["difference_low"]) / 2
        assert helped["detectable"] == pytest.approx(half / 1.96 * 2.8, rel=1e-2)
        assert helped["low"] <= helped["value"] <= helped["high"]
        assert row("before", measure)["p"] is None and helped["trainings"] == 2 and helped["n_groups"] == 3
    mean_f1 = np.mean([run.f1[0] for run in bad], 0)[bad[0].shown("race")]
    assert row("before", fa.WORST)["value"] == pytest.approx(mean_f1.min())
    assert row("before", fa.WEIGHTED, gr.EVERYONE)["value"] == pytest.approx(np.mean([r.f1[0, 0] for r in bad]))
    macro = f1_score(labels, score(labels, 5, 0.5) >= 0.5, average="macro")
    macro = (macro + f1_score(labels, score(labels, 6, 0.5) >= 0.5, average="macro")) / 2
    assert row("fair", fa.MACRO, gr.EVERYONE)["value"] == pytest.approx(macro)
    assert row("fair", fa.AUROC, gr.EVERYONE)["p"] < 0.01


def test_an_arm_does_not_differ_from_itself_and_pairs_are_resampled_together():
    table, labels = cohort()
    before = arm(table, labels, 0.5)
    nearly = score(labels, 0, 0.5)
    nearly[:3] += 0.3
    changed = [evaluate(table, labels, nearly, attributes=["sex", "race"])]
    result = fa.compare({"before": before, "twin": before, "nearly": changed}, before="before")
    twin = result.filter(arm="twin")
    assert set(twin["difference"]) == set(twin["detectable"]) == {0.0} and set(twin["p"]) == {1.0}
    row = result.filter(arm="nearly", measure=fa.WEIGHTED).row(0, named=True)
    assert row["difference_high"] - row["difference_low"] < 0.3 * (row["high"] - row["low"])


def test_trainings_are_resampled():
    table, labels = cohort()
    noises = (0.4, 0.6, 0.8)
    each = [arm(table, labels, noise, (k,))[0] for k, noise in enumerate(noises)]
    three = fa.compare({"before": each}, before="before").filter(measure=fa.WEIGHTED).row(0, named=True)
    one = fa.compare({"before": each[1:2]}, before="before").filter(measure=fa.WEIGHTED).row(0, named=True)
    assert three["high"] - three["low"] > 1.5 * (one["high"] - one["low"])


def test_unlike_arms_are_refused():
    table, labels = cohort()
    before = arm(table, labels, 0.5)
    with pytest.raises(ValueError, match="of 'first'"):
        fa.compare({"before": before}, before="first")
    with pytest.raises(ValueError, match="at least one evaluation"):
        fa.compare({"before": before, "none": []}, before="before")
    other = labels.copy()
    other[0, 0] = 1 - other[0, 0]
    with pytest.raises(ValueError, match="changed, training 1: evaluated on other rows, labels or findings"):
        fa.compare({"before": before, "changed": arm(table, other, 0.5)}, before="before")
    thresholds = HALF.copy()
    thresholds[1] = np.nan
    without = fa.evaluate(before[0].groups, labels, score(labels), thresholds, n_resamples=100)
    with pytest.raises(ValueError, match="same validation labels"):
        fa.compare({"before": before, "without": [without]}, before="before")
    with pytest.raises(ValueError, match="resamples"):
        fa.compare({"before": before, "seed": arm(table, labels, 0.5, seed=1)}, before="before")


def test_words_say_what_is_known():
    row = {"value": 0.4, "low": 0.3, "high": 0.5, "note": ""}
    assert fa.said(row) == "0.400 [0.300, 0.500]" and fa.said(row | {"low": None}) == "0.400"
    assert fa.said(row | {"value": None, "note": "withheld: fewer than 9"}) == "withheld"
    difference = {"difference": 0.02, "difference_low": 0.01, "difference_high": 0.03, "p": 0.04, "detectable": 0.05}
    assert fa.verdict(difference) == "+0.020 [0.010, 0.030], p = 0.04"
    unseen = "+0.020 [-0.010, 0.030]: no detectable difference (could see 0.050)"
    assert fa.verdict(difference | {"difference_low": -0.01}) == unseen and fa.verdict({"difference": None}) == ""
