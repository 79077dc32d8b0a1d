"""Measures under weights equal scikit-learn and scipy on the repeated images themselves."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from chexgen_lib.estimates import measures as m
from chexgen_lib.estimates.resampling import Resampling

N = 60


@pytest.fixture
def weights():
    return Resampling(np.arange(N) // 2, 6, seed=1).weights


@pytest.fixture
def rows(weights):
    return [np.repeat(np.arange(N), w) for w in weights]


def test_a_mean_counts_each_image_as_often_as_it_was_drawn(weights, rows):
    x = np.random.default_rng(0).normal(size=(N, 3))
    np.testing.assert_allclose(m.mean(x, weights), [x[r].mean(0) for r in rows])
    assert np.isnan(m.mean(np.ones(2), np.zeros((1, 2)))).all()


def test_pearson_equals_scipy_and_skips_nan_pairs(weights, rows):
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1, N)  # a large mean must not cost accuracy
    y = 0.5 * x + rng.normal(size=N)
    np.testing.assert_allclose(m.pearson(x, y, weights), [stats.pearsonr(x[r], y[r])[0] for r in rows], atol=1e-9)
    x, y = rng.normal(size=(2, N, 14))
    y[3, 5] = np.nan
    known = ~np.isnan(y)
    assert m.pearson(x, y, weights)[0] == pytest.approx(stats.pearsonr(x[known], y[known])[0], abs=1e-9)
    assert np.isnan(m.pearson(np.ones(N), rng.normal(size=N), weights)).all()
    with pytest.raises(ValueError, match="one shape"):
        m.pearson(np.zeros((3, 2)), np.zeros((3, 4)), np.ones((1, 3)))


def test_both_ways_to_an_auroc_equal_sklearn_with_ties(weights, rows):
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, N).astype(float), np.round(rng.random(N), 1)
    expected = [roc_auc_score(y[r], s[r]) for r in rows]
    np.testing.assert_allclose(m.auroc(y, s, weights), expected)
    np.testing.assert_array_equal(m.auroc_of_draws(y, s[None], weights), m.auroc(y, s, weights))
    draws = np.round(rng.random((3, N)), 1)
    each = [m.auroc(y, draw, weights) for draw in draws]
    np.testing.assert_allclose(m.auroc_of_draws(y, draws, weights), np.mean(each, axis=0))
    y[:] = np.arange(N) < m.LEAST - 1
    assert np.isnan(m.auroc_of_draws(y, s[None], weights)).all()
    assert np.isfinite(m.auroc_of_draws(y, s[None], weights[:1], fewest=1)).all()


def test_the_macro_auroc_is_over_the_findings_that_have_both_labels():
    rng = np.random.default_rng(0)
    y, s = np.full((N, 14), np.nan), rng.random((N, 14))
    y[:, 0], y[:, 1] = rng.random(N) < 0.5, 1  # all positive
    assert m.macro_auroc(y, s) == pytest.approx(roc_auc_score(y[:, 0], s[:, 0]))
    y[5, 0] = np.nan
    known = np.arange(N) != 5
    assert m.macro_auroc(y, s) == pytest.approx(roc_auc_score(y[known, 0], s[known, 0]))
    with pytest.raises(ValueError, match="no finding"):
        m.macro_auroc(np.ones((5, 14)), s[:5])


def test_weighted_f1_is_sklearns(weights, rows):
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (N, 14)).astype(float), rng.random((N, 14))
    totals = np.tensordot(weights, m.confusion(labels, scores, np.full(14, 0.5)), 1)
    expected = [f1_score(labels[r], scores[r] >= 0.5, average="weighted") for r in rows]
    np.testing.assert_allclose(m.weighted_f1(totals), expected)


@pytest.mark.parametrize("positives", [1, 5])
@pytest.mark.parametrize("true", [0.6, 0.95])
def test_the_interval_of_an_auroc_covers_at_few_positives(positives, true):
    rng, shift = np.random.default_rng(0), stats.norm.ppf(true) * np.sqrt(2)
    high, low = rng.normal(shift, size=(400, positives, 1)), rng.normal(size=(400, 1, 60))
    intervals = np.array([m.auroc_interval(value, positives, 60) for value in (high > low).mean((1, 2))])
    covers = (intervals[:, 0] <= true) & (true <= intervals[:, 1])
    assert 0.92 < covers.mean() < 1


def test_the_interval_of_an_auroc_narrows_with_cases_and_stays_in_range():
    assert m.auroc_interval(1.0, 5, 5)[1] == 1 and m.auroc_interval(0.0, 5, 5)[0] == 0
    widths = [np.diff(m.auroc_interval(0.8, n, n)).item() for n in (1, 5, 50, 5000)]
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.02
    low, high = m.auroc_interval(0.8, 20, 30)
    assert np.allclose(m.auroc_interval(0.2, 20, 30), (1 - high, 1 - low))


def test_distances_and_similarities_have_their_ranges():
    assert m.range_of("FID-radiomics") == (0, np.inf) and m.range_of("MS-SSIM") == (0, 1)
    assert m.range_of("best-worst gap of F1") == (0, 1) and m.range_of("PSNR inside (dB)") == (-np.inf, np.inf)
