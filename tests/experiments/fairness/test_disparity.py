"""Disparities equal fairlearn's; planted bias is told from what equal groups show."""

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from chexgen_lib.experiments import fairness
from chexgen_lib.experiments.fairness import disparity
from chexgen_lib.experiments.fairness.mitigation import compare
from tests.builders import few, grouped_cohort, harder, scored, scores_around, trainings


def test_differences_equal_fairlearn_on_single_rows():
    table, labels = grouped_cohort(unknown=0.2)
    scores, labels = scores_around(labels, noise=harder(table)), few(labels)
    found = scored(table, labels, scores, attributes=["race"], n_resamples=20)
    result = {r["measure"]: r for r in disparity.disparity(found).iter_rows(named=True)}
    for measure, library in (
        (fairness.ODDS, equalized_odds_difference),
        (fairness.PARITY, demographic_parity_difference),
    ):
        values = []
        for y, s in zip(labels.T[:3], scores.T, strict=False):
            known = ~np.isnan(y)
            race = table["race"].to_numpy()[known]
            values.append(library(y[known].astype(int), s[known] >= 0.5, sensitive_features=race))
        assert result[measure]["value"] == pytest.approx(np.mean(values)) and result[measure]["findings"] == 3
    # what is measured on permuted groups is the same measure
    again = disparity.unequal(found.totals[:1, found.shown("race")], np.arange(14) < 3)
    assert {k: v[0] for k, v in again.items()} == pytest.approx({k: r["value"] for k, r in result.items()})


def test_a_finding_that_a_group_lacks_is_left_out_of_the_differences():
    table, labels = grouped_cohort()
    labels[(table["race"] == "Asian").to_numpy(), 0] = 0  # no hits to be had: a rate of 0 would be a difference of 1
    result = disparity.disparity(scored(table, few(labels), scores_around(labels), attributes=["race"], n_resamples=20))
    assert set(result["findings"]) == {2} and result.filter(measure=fairness.ODDS)["value"][0] < 0.5


def test_planted_bias_is_found_and_noise_is_not():
    table, labels = grouped_cohort(300, most=2)
    fair, biased = (
        disparity.disparity(
            scored(table, few(labels, 4), scores_around(labels, 4, noise), attributes=["sex", "race"], combine=1)
        )
        for noise in (0.5, harder(table))
    )
    for measure in disparity.MEASURES:
        found = biased.filter(attribute="race", measure=measure).row(0, named=True)
        beyond = (
            found["value"] < found["equal_low"] if measure == fairness.WORST else found["value"] > found["equal_high"]
        )
        assert beyond and found["p"] == pytest.approx(1 / 101), measure
        others = [fair.filter(attribute=a, measure=measure).row(0, named=True) for a in ("sex", "race")]
        for row in (*others, biased.filter(attribute="sex", measure=measure).row(0, named=True)):
            assert row["p"] > 0.02, (measure, row["attribute"])
            assert row["equal_low"] <= row["equal"] <= row["equal_high"]
    gap = fair.filter(attribute="race", measure=fairness.GAP).row(0, named=True)
    assert gap["value"] > 0 and gap["low"] == 0 and gap["equal"] > 0  # equal groups have a gap, too


def test_equal_groups_and_equal_arms_are_rarely_called_unequal():
    gaps, differences = [], []
    for seed in range(40):
        table, labels = grouped_cohort(100, seed)
        one, other = (trainings(table, labels, 0.5, (1000 * k + seed,))[0] for k in (1, 2))
        shown = one.shown("race")
        equal = disparity.unequal(disparity.permuted(one, "race", shown), np.ones(14, bool))[fairness.GAP]
        gaps.append(disparity.beside(np.ptp(one.f1[0, shown]), equal, fairness.GAP)["p"])
        result = compare({"one": [one], "other": [other]}, before="one").filter(arm="other")
        differences.append(
            [result.filter(measure=m)["p"][-1] for m in (fairness.WEIGHTED, fairness.WORST, fairness.GAP)]
        )
    assert np.mean(np.array(gaps) < 0.05) <= 0.15  # 5 % of 40 are 2; more than 6 have a chance below 1 %
    assert (np.mean(np.array(differences) < 0.05, 0) <= 0.15).all()
    assert 0.3 < np.mean(gaps) < 0.7 and (np.mean(differences, 0) > 0.3).all()


def test_permuting_moves_whole_patients_and_keeps_all_rows():
    table, labels = grouped_cohort(60)
    found = scored(table, labels, scores_around(labels), attributes=["sex"], n_resamples=30)
    permuted = disparity.permuted(found, "sex", found.shown("sex"))
    np.testing.assert_array_equal(permuted.sum(1), np.broadcast_to(found.totals[0, 0], (30, 14, 4)))
    assert len(np.unique(permuted[:, 0].reshape(30, -1), axis=0)) == 30
    # with one finding positive in one patient only, its images all go to one group
    most = table["patient_id"].mode()[0]
    only = np.zeros_like(labels)
    only[table["patient_id"] == most, 0] = 1
    images = only.sum()
    found = scored(table, only, scores_around(only), attributes=["sex"], n_resamples=30)
    positives = disparity.permuted(found, "sex", np.array([1, 2]))[:, :, 0][..., [0, 2]].sum(-1)
    assert images > 1 and set(positives.ravel()) == {0, images}
