"""Arms are compared on the same patients; trainings are resampled with them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from chexgen_lib.experiments import fairness
from chexgen_lib.experiments.fairness import scores as fs
from chexgen_lib.experiments.fairness.mitigation import compare
from chexgen_lib.pools import groups as gr
from tests.builders import grouped_cohort, harder, scored, scores_around, trainings

HALF = np.full(14, 0.5)


def test_compare_finds_the_arm_that_helps():
    table, labels = grouped_cohort(300, most=2)
    bad = trainings(table, labels, harder(table), (1, 2))
    same = trainings(table, labels, harder(table), (3, 4))
    result = compare({"before": bad, "same": same, "fair": trainings(table, labels, 0.5, (5, 6))}, before="before")

    def row(name, measure, attribute="race"):
        return result.filter(arm=name, measure=measure, attribute=attribute).row(0, named=True)

    for measure, sign in ((fairness.WORST, 1), (fairness.GAP, -1)):
        helped, unchanged = row("fair", measure), row("same", measure)
        assert sign * helped["difference"] > 0 and helped["p"] <= 0.01
        assert not helped["difference_low"] <= 0 <= helped["difference_high"]
        assert unchanged["p"] > 0.05 and unchanged["difference_low"] <= 0 <= unchanged["difference_high"]
        assert helped["difference"] == pytest.approx(helped["value"] - row("before", measure)["value"])
        half = (helped["difference_high"] - helped["difference_low"]) / 2
        assert helped["detectable"] == pytest.approx(half / 1.96 * 2.8, rel=0.25)
        assert helped["low"] <= helped["value"] <= helped["high"]
        assert row("before", measure)["p"] is None and helped["seeds"] == 2 and helped["n_groups"] == 3
    mean_f1 = np.mean([run.f1[0] for run in bad], 0)[bad[0].shown("race")]
    assert row("before", fairness.WORST)["value"] == pytest.approx(mean_f1.min())
    assert row("before", fairness.WEIGHTED, gr.EVERYONE)["value"] == pytest.approx(np.mean([r.f1[0, 0] for r in bad]))
    macro = f1_score(labels, scores_around(labels, 5, 0.5) >= 0.5, average="macro")
    macro = (macro + f1_score(labels, scores_around(labels, 6, 0.5) >= 0.5, average="macro")) / 2
    assert row("fair", fairness.MACRO, gr.EVERYONE)["value"] == pytest.approx(macro)
    assert row("fair", fairness.AUROC, gr.EVERYONE)["p"] <= 0.01


def test_an_arm_does_not_differ_from_itself_and_pairs_are_resampled_together():
    table, labels = grouped_cohort()
    before = trainings(table, labels, 0.5)
    nearly = scores_around(labels, 0, 0.5)
    nearly[:3] += 0.3
    changed = [scored(table, labels, nearly, attributes=["sex", "race"])]
    result = compare({"before": before, "twin": before, "nearly": changed}, before="before")
    twin = result.filter(arm="twin")
    assert set(twin["difference"]) == set(twin["detectable"]) == {0.0} and set(twin["p"]) == {1.0}
    row = result.filter(arm="nearly", measure=fairness.WEIGHTED).row(0, named=True)
    assert row["difference_high"] - row["difference_low"] < 0.3 * (row["high"] - row["low"])


def test_trainings_are_resampled():
    table, labels = grouped_cohort()
    noises = (0.4, 0.6, 0.8)
    each = [trainings(table, labels, noise, (k,))[0] for k, noise in enumerate(noises)]
    three = compare({"before": each}, before="before").filter(measure=fairness.WEIGHTED).row(0, named=True)
    one = compare({"before": each[1:2]}, before="before").filter(measure=fairness.WEIGHTED).row(0, named=True)
    assert three["high"] - three["low"] > 1.5 * (one["high"] - one["low"])


def test_unlike_arms_are_refused():
    table, labels = grouped_cohort()
    before = trainings(table, labels, 0.5)
    with pytest.raises(ValueError, match="of 'first'"):
        compare({"before": before}, before="first")
    with pytest.raises(ValueError, match="at least one evaluation"):
        compare({"before": before, "none": []}, before="before")
    other = labels.copy()
    other[0, 0] = 1 - other[0, 0]
    with pytest.raises(ValueError, match="changed, training 1: evaluated on other rows, labels or findings"):
        compare({"before": before, "changed": trainings(table, other, 0.5)}, before="before")
    thresholds = HALF.copy()
    thresholds[1] = np.nan
    without = fs.evaluate(before[0].groups, labels, scores_around(labels), thresholds, n_resamples=100)
    with pytest.raises(ValueError, match="same validation labels"):
        compare({"before": before, "without": [without]}, before="before")
    with pytest.raises(ValueError, match="resamples"):
        compare({"before": before, "seed": trainings(table, labels, 0.5, seed=1)}, before="before")
