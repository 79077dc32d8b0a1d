"""Factual correctness tells a generator that obeys its prompts from one that does not."""

import numpy as np
import pytest
from scipy import stats

from chexgen_lib.estimates.resampling import Resampling, percentile_interval
from chexgen_lib.quality.factuality import derangement, same_findings, score_correlation, score_errors


def cohort(n=200, seed=0):
    """Scores whose findings differ in prevalence: the trap of a flat correlation."""
    rng = np.random.default_rng(seed)
    prevalence = np.linspace(0.05, 0.9, 14)
    labels = (rng.random((n, 14)) < prevalence).astype(float)
    noise = rng.normal(0, 0.1, (n, 4, 14))
    return labels, 0.5 * prevalence + 0.5 * labels[:, None] + noise


def interval(scores, labels, n_resamples=20, seed=0, within=False):
    weights = Resampling(np.arange(len(labels)), n_resamples, seed).weights
    return percentile_interval(score_correlation(scores, labels, weights, within))


def test_flat_r_is_the_mean_of_scipy_over_samples():
    labels, scores = cohort()
    labels[3, 2] = np.nan
    known = ~np.isnan(labels)
    expected = np.mean([stats.pearsonr(scores[:, s][known], labels[known])[0] for s in range(4)])
    assert interval(scores, labels).value == pytest.approx(expected, abs=1e-9)


def test_within_findings_removes_the_prevalence():
    labels, scores = cohort()
    permuted = scores[derangement(len(labels), 0)]
    flat, within = (interval(permuted, labels, 200, within=w) for w in (False, True))
    assert flat.low > 0.3  # ignoring the prompt still correlates ...
    assert abs(within.value) < 0.1 and within.low < 0 < within.high  # ... until the findings' means are gone
    centred = [
        stats.pearsonr((scores[:, s] - scores[:, s].mean(0)).ravel(), (labels - labels.mean(0)).ravel())[0]
        for s in range(4)
    ]
    obeying = interval(scores, labels, 200, within=True)
    assert obeying.value == pytest.approx(np.mean(centred), abs=1e-9)
    assert obeying.low > within.high


def test_interval_holds_the_estimate_and_repeats():
    labels, scores = cohort(80)
    a = interval(scores, labels, 200, seed=3)
    assert a.low < a.value < a.high
    assert a == interval(scores, labels, 200, seed=3)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_derangement_moves_everyone(n):
    for seed in range(20):
        order = derangement(n, seed)
        assert sorted(order) == list(range(n)) and (order != np.arange(n)).all()
    assert (derangement(50, 1) == derangement(50, 1)).all()


def test_same_findings_takes_another_patient():
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 0]] * 2, float)
    patients = np.array(list("aabbccdd"))
    twins = same_findings(labels, patients, 0)
    assert (patients[twins] != patients).all()
    assert (labels[twins] == labels).all()
    with pytest.raises(ValueError, match="one patient"):
        same_findings(labels, np.array(["a"] * 8), 0)


def test_errors_are_per_prompt_and_skip_unknown():
    target = np.array([[0.0, 1.0], [np.nan, 0.5]])
    synthetic = np.array([[[0.5, 1.0], [0.5, 1.0]], [[9.0, 0.0], [9.0, 0.0]]])
    np.testing.assert_allclose(score_errors(synthetic, target), [0.25, 0.5])
    assert np.isnan(score_errors(synthetic, np.full_like(target, np.nan))).all()


@pytest.mark.parametrize("within", [False, True])
def test_constants_have_no_correlation(within):
    assert np.isnan(interval(np.ones((5, 2, 14)), np.ones((5, 14)), within=within)).all()


def test_bad_input():
    with pytest.raises(ValueError, match="needs scores"):
        interval(np.ones((5, 14)), np.ones((5, 14)))
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, 0)
