"""The power law S = a D^b, fitted to the runs of one model on parts of the data, and how well it is supported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import LEVEL, Resampling, Z, percentile_interval
from chexgen_lib.experiments.scaling import SEEN

MIN_R2 = 0.8  # a fit that explains less of log S is not called a power law


@dataclass(frozen=True)
class PowerLaw:
    """S = a D^b by least squares in log S and log D over all runs.

    low, high: 95 % bootstrap interval of b. r2: share of the variance of log S that the line explains. bends: p-value
    of the F test for lack of fit, which compares how far the means at each D are from the line with how far the seeds
    are from their means; a small one says that no straight line fits, whatever r2 is.
    """

    a: float
    b: float
    low: float
    high: float
    r2: float
    bends: float
    runs: int

    @property
    def verdict(self) -> str:
        """A fit is supported if there are repeats, the interval of b excludes 0 and r2 is at least `MIN_R2`."""
        if np.isnan(self.bends):
            return "not supported: one run of each part of the data does not tell how far others would be"
        if not (self.low > 0 or self.high < 0):
            return "not supported: the interval of b holds 0"
        if self.r2 < MIN_R2:
            return f"not supported: R2 below {MIN_R2}"
        return "supported as a trend, but it bends" if self.bends < 0.05 else "supported"


def power_law(pairs: np.ndarray, shares: Sequence[str], measured: np.ndarray, resampling: Resampling) -> PowerLaw:
    """Fit S = a D^b to K runs (paper, ED Fig 2).

    A resample has seeds of its own for each subset, and its patients. Few seeds widen the interval, as in
    `resampling.SeedsMean`; the largest and the smallest subset count most, and so do their seeds.

    Args:
        pairs: [K], D of each run.
        shares: [K], the name of its subset.
        measured: [1 + R, K], S of each run, on the data and on R resamples of the patients.

    Raises:
        ValueError: for fewer than 3 subsets, or a score that is not positive.
    """
    shares = np.asarray(shares)
    groups = [np.flatnonzero(shares == name) for name in dict.fromkeys(shares.tolist())]
    if len(groups) < 3:
        raise ValueError(f"a power law is fitted to at least 3 fractions of the data, got {len(groups)}")
    values, resampled = measured[0], measured[1:]
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"a power law needs positive scores, got {values.min():g}: leave that measure out")
    x, y = np.log(pairs), np.log(values)
    b, log_a = np.polyfit(x, y, 1)
    interval = percentile_interval(_slopes(x, y, np.log(resampled), groups, resampling))
    off_line = ((y - log_a - b * x) ** 2).sum()
    r2 = 1 - off_line / max(((y - y.mean()) ** 2).sum(), np.finfo(float).tiny)
    bends = _lack_of_fit(off_line, sum(((y[own] - y[own].mean()) ** 2).sum() for own in groups), len(x), len(groups))
    return PowerLaw(float(np.exp(log_a)), float(b), interval.low, interval.high, float(r2), bends, len(x))


def _slopes(
    x: np.ndarray, y: np.ndarray, scores: np.ndarray, groups: Sequence[np.ndarray], resampling: Resampling
) -> np.ndarray:
    """The slope of y over x [1 + R], first on the data, then on all resamples of patients and seeds.

    A slope is a weighted sum of the runs; its variance over the seeds is one of the groups' means, whose degrees of
    freedom add up by Satterthwaite's rule.

    Args:
        scores: y on resampled patients, [R, K].
        groups: runs that differ by seed alone.
    """
    share = (x - x.mean()) / ((x - x.mean()) ** 2).sum()  # of each run in the slope
    slopes, parts = scores @ share, []
    for k, own in enumerate(groups):
        n, away = len(own), scores[:, own] - scores[:, own].mean(axis=1, keepdims=True)
        drawn = (resampling.seed_counts(n, stream=1 + k) - 1) * np.sqrt(n / max(n - 1, 1))
        slopes = slopes + (drawn * away) @ share[own]
        parts += [(share[own].sum() ** 2 * y[own].var(ddof=1) / n, n - 1)] if n > 1 else []
    b, of_seeds = share @ y, sum(part for part, _ in parts)
    spread = slopes[np.isfinite(slopes)].var(ddof=1)  # a score of a resample may not be positive
    if of_seeds > 0:
        freedom = of_seeds**2 / sum(part**2 / f for part, f in parts) * (spread / of_seeds) ** 2
        freedom = max(freedom, min(f for _, f in parts))
        slopes = b + (slopes - b) * stats.t.ppf(0.5 + LEVEL / 2, freedom) / Z
    return np.array([b, *slopes])


def _lack_of_fit(off_line: float, off_means: float, runs: int, groups: int) -> float:
    """p-value of the F test of a straight line against a mean for each group; NaN without repeats."""
    if runs == groups:
        return float("nan")
    bend = max(off_line - off_means, 0) / (groups - 2)
    return float(stats.f.sf(bend / max(off_means / (runs - groups), np.finfo(float).tiny), groups - 2, runs - groups))


def fits(about: pl.DataFrame, measured: Mapping[str, np.ndarray], resampling: Resampling) -> pl.DataFrame:
    """The power law of each measure over the first model's runs: measure, the fields of `PowerLaw`, verdict."""
    own = np.flatnonzero((about["model"] == about["model"][0]).to_numpy())
    pairs, shares, rows = about["pairs"].to_numpy()[own], about["share"].to_numpy()[own], []
    for name, m in measured.items():
        if name != SEEN:
            law = power_law(pairs, shares, m[:, own], resampling)
            rows.append({"measure": name, **vars(law), "verdict": law.verdict})
    return pl.DataFrame(rows)
