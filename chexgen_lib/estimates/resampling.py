"""Intervals and paired tests that stand behind every number: bootstrap, Wilcoxon, Pearson.

The paper gives standard deviations and p-values; here every number also carries n and a 95 % interval
(percentile bootstrap over rows, Efron and Tibshirani 1993), and pairs are compared by the two-sided Wilcoxon
signed-rank test.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval and the number of rows (patients, prompts, images) behind it."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return format_interval(self.value, self.low, self.high)


def format_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """`0.41 [0.38, 0.44]`."""
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def format_p(p: float) -> str:
    """`p = 0.034`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def resample_counts(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n rows is drawn in each bootstrap resample: int [n_resamples, n].

    Statistics that are functions of sums over rows need only `counts @ sums`, far faster than drawing.
    """
    if n < 2 or n_resamples < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows and 2 resamples, got {n} and {n_resamples}")
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)


def interval_of(value: float, resampled: np.ndarray, n: int) -> Interval:
    """Percentile interval from the statistic's resampled values; undefined (NaN) resamples are left out."""
    resampled = np.asarray(resampled, np.float64)
    resampled = resampled[np.isfinite(resampled)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]) if len(resampled) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high), n)


def bootstrap_interval(
    statistic: Callable[..., float], *arrays: np.ndarray, n_resamples: int = 1000, seed: int = 0
) -> Interval:
    """95 % percentile interval of `statistic(*arrays)`; rows of all arrays are resampled together.

    One array and `np.mean` give the interval of a mean; several arrays of equal length give that of a paired
    statistic (correlation, difference, AUROC). Raises ValueError for unequal lengths, too few rows or NaN.
    """
    arrays = tuple(np.asarray(a) for a in arrays)
    if not arrays or len({len(a) for a in arrays}) != 1:
        raise ValueError(f"needs arrays of one length, got lengths {[len(a) for a in arrays]}")
    n = len(arrays[0])
    if n < 2 or n_resamples < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows and 2 resamples, got {n} and {n_resamples}")
    value = float(statistic(*arrays))
    if np.isnan(value):
        raise ValueError("the statistic is NaN on the data themselves; remove or mask undefined rows first")
    rng = np.random.default_rng(seed)
    draws = (rng.integers(n, size=n) for _ in range(n_resamples))
    return interval_of(value, np.array([statistic(*(a[rows] for a in arrays)) for rows in draws]), n)


def paired_wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value of the Wilcoxon signed-rank test of paired values a, b [n]; 1 if all are equal.

    Raises ValueError when lengths differ, a value is not finite or there are fewer than 2 pairs.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"needs two lists of at least 2 paired values, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired values must be finite; remove the pair, not one side of it")
    if (a == b).all():
        return 1.0
    return float(stats.wilcoxon(a, b, alternative="two-sided").pvalue)


def pearson(x: np.ndarray, y: np.ndarray, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Pearson r of x and y, with an interval over resampled rows.

    x, y: [n], or [n, k], where r is over all n x k values and whole rows are resampled, because the k values
    of one row (the findings of one prompt) are not independent. Pairs with a NaN on either side are left out.
    """
    x, y = (np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, y))
    sums = pair_sums(x, y)  # [n, k, 6]
    totals = sums.sum((0, 1))
    value = correlation(totals)
    if np.isnan(value):
        raise ValueError("Pearson r is undefined: fewer than 2 pairs without NaN, or a constant side")
    counts = resample_counts(len(x), n_resamples, np.random.default_rng(seed))
    return interval_of(value, correlation(counts @ sums.sum(1)), len(x))


def pair_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The six terms that a correlation sums: 1, x, y, xx, yy, xy on a new last axis; all 0 where NaN."""
    if x.shape != y.shape:
        raise ValueError(f"paired values need one shape, got {x.shape} and {y.shape}")
    both = ~(np.isnan(x) | np.isnan(y))
    if not both.any():
        return np.zeros((*x.shape, 6))
    # r does not change with a shift; centred values keep the sums of squares accurate
    x, y = (np.where(both, a - a[both].mean(dtype=np.float64), 0) for a in (x, y))
    return np.stack([both, x, y, x * x, y * y, x * y], axis=-1).astype(np.float64)


def correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson r from `pair_sums` totals [..., 6] -> [...]; NaN where undefined."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        var_x, var_y = xx - x * x / n, yy - y * y / n
        # rounding leaves a residue where a side is constant: call that undefined, not a correlation
        defined = (n > 1) & (var_x > 1e-9 * xx) & (var_y > 1e-9 * yy)
        return np.where(defined, (xy - x * y / n) / np.sqrt(var_x * var_y), np.nan)
