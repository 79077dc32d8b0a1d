"""Intervals cover what they claim, tests are paired and two-sided, and undefined input is refused."""

import numpy as np
import pytest
from scipy import stats

from chexgen_lib.estimates import resampling as st


def test_interval_of_a_mean_is_seeded_and_close_to_theory():
    x = np.random.default_rng(0).normal(3, 2, 400)
    a, b = (st.bootstrap_interval(np.mean, x, n_resamples=2000, seed=1) for _ in range(2))
    assert a == b and a.n == 400 and a.value == x.mean()
    half = 1.96 * x.std(ddof=1) / 20
    assert a.low == pytest.approx(x.mean() - half, abs=0.04)
    assert a.high == pytest.approx(x.mean() + half, abs=0.04)
    assert a != st.bootstrap_interval(np.mean, x, n_resamples=2000, seed=2)


def test_coverage_is_about_95_percent():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        interval = st.bootstrap_interval(np.mean, rng.normal(0, 1, 60), n_resamples=200, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_paired_statistics_resample_rows_together():
    x = np.random.default_rng(0).normal(size=50)
    interval = st.bootstrap_interval(lambda a, b: np.corrcoef(a, b)[0, 1], x, x, n_resamples=50)
    assert interval.low == pytest.approx(1)  # unpaired resampling would give about 0


def test_pearson_agrees_with_scipy_and_the_direct_bootstrap():
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1, 300)  # a large mean must not cost accuracy
    y = 0.5 * x + rng.normal(size=300)
    fast = st.pearson(x, y, n_resamples=2000)
    slow = st.bootstrap_interval(lambda a, b: np.corrcoef(a, b)[0, 1], x, y, n_resamples=2000)
    assert fast.value == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-9)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=0.02)


def test_pearson_over_rows_skips_nan_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 14))
    y[3, 5] = np.nan
    keep = ~np.isnan(y)
    assert st.pearson(x, y).value == pytest.approx(stats.pearsonr(x[keep], y[keep])[0], abs=1e-9)
    assert st.pearson(x, y).n == 40  # rows, not values
    with pytest.raises(ValueError, match="undefined"):
        st.pearson(np.ones(10), rng.normal(size=10))


def test_wilcoxon():
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    assert st.paired_wilcoxon(a, a + 0.5 + 0.1 * rng.normal(size=40)) < 1e-6
    assert st.paired_wilcoxon(a, a + rng.normal(size=40)) > 0.01
    assert st.paired_wilcoxon(a, a) == 1.0


def test_format():
    assert str(st.Interval(0.412, 0.384, 0.441, 9)) == "0.41 [0.38, 0.44]"
    assert st.format_interval(12.34, 1, 20, digits=1) == "12.3 [1.0, 20.0]"


@pytest.mark.parametrize(
    "call",
    [
        lambda: st.bootstrap_interval(np.mean, [1.0]),
        lambda: st.bootstrap_interval(np.mean, [1.0, np.nan]),
        lambda: st.bootstrap_interval(np.mean),
        lambda: st.bootstrap_interval(lambda a, b: 0.0, [1, 2], [1, 2, 3]),
        lambda: st.bootstrap_interval(np.mean, [1.0, 2.0], n_resamples=1),
        lambda: st.paired_wilcoxon([1, 2], [1, 2, 3]),
        lambda: st.paired_wilcoxon([1, np.nan], [1, 2]),
        lambda: st.pearson(np.zeros((3, 2)), np.zeros((3, 4))),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize(
    ("p", "text"), [(0.25, "p = 0.25"), (0.0341, "p = 0.034"), (1.0, "p = 1"), (1e-5, "p < 0.001")]
)
def test_a_p_value_keeps_two_digits(p, text):
    assert st.format_p(p) == text
