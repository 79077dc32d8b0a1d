"""Frechet distance between two sets of features (FID, Heusel et al. 2017; paper, Figure 2a).

d^2 = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = R^T R, the last trace is the sum of the
singular values of R1 R2^T. That form is symmetric, needs no matrix square root and no ridge, and stays exact
when there are fewer images than features, where the usual `sqrtm(S1 @ S2)` breaks down.

The estimate is biased upwards, the more the fewer images there are (Binkowski et al. 2018), so distances
compare only at equal n: the real-vs-real floor and every arm beside it use sets of the same size, and n is
always given.
"""

from dataclasses import dataclass

import numpy as np

from chexgen_lib.estimates.resampling import Interval, interval_of


@dataclass(frozen=True)
class Moments:
    """Mean [D] and R [min(n, D), D] with R^T R = the sample covariance (divisor n - 1)."""

    mean: np.ndarray
    root: np.ndarray


def moments(features: np.ndarray) -> Moments:
    """First two moments of features [n, D], in float64. Raises ValueError for n < 2 or a non-finite value."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"needs features [n, D] of at least 2 images, got shape {x.shape}")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ValueError(f"the features of image {row} are not finite; check that image and the embedder")
    mean = x.mean(0)
    return Moments(mean, np.linalg.qr((x - mean) / np.sqrt(len(x) - 1), mode="r"))


def distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians; never negative."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the two sets have {len(a.mean)} and {len(b.mean)} features; use one embedder")
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    spread = (a.root**2).sum() + (b.root**2).sum() - 2 * cross
    return max(float(((a.mean - b.mean) ** 2).sum() + spread), 0.0)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of features a [n, D] and b [m, D]; see the module for bias and
    comparability."""
    return distance(moments(a), moments(b))


def frechet_intervals(
    reference: np.ndarray, arms: dict[str, np.ndarray], *, n_resamples: int = 200, seed: int = 0
) -> dict[str, Interval]:
    """Frechet distance of each arm to `reference` [n, D] with a 95 % bootstrap interval.

    An arm is [n, D], or [n, S, D] for S samples of each of n prompts: then the mean of the S distances. All
    sets must have one n (see the module). Rows of the reference and of the arms are resampled independently,
    all samples of a prompt together. A resample repeats images, which adds bias once more, so the resampled
    distances are moved to have the estimate as their mean before the percentiles are taken.
    """
    arms = {name: x if x.ndim == 3 else x[:, None] for name, x in arms.items()}  # [n, S, D]
    n = len(reference)
    if sizes := {name: len(x) for name, x in arms.items() if len(x) != n}:
        raise ValueError(f"Frechet distances compare at equal n only: the reference has {n} images, arms {sizes}")

    def distances(real: np.ndarray, fake: np.ndarray) -> list[float]:
        ref = moments(reference[real])
        return [float(np.mean([distance(ref, moments(x[fake, s])) for s in range(x.shape[1])])) for x in arms.values()]

    rng = np.random.default_rng(seed)
    values = distances(np.arange(n), np.arange(n))
    resampled = np.array([distances(rng.integers(n, size=n), rng.integers(n, size=n)) for _ in range(n_resamples)])
    resampled = np.maximum(resampled - resampled.mean(0) + values, 0)
    return {name: interval_of(values[i], resampled[:, i], n) for i, name in enumerate(arms)}


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random halves of n rows, of equal size (one row is left over when n is odd)."""
    if n < 4:
        raise ValueError(f"needs at least 4 real images to split in two halves, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 : 2 * (n // 2)])
