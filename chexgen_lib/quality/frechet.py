"""Frechet distance between two sets of features (FID, Heusel et al. 2017; paper, Figure 2a).

d^2 = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = R^T R, the last trace is the sum of the
singular values of R1 R2^T. That form is symmetric, needs no matrix square root and no ridge, and stays exact
when there are fewer images than features, where the usual `sqrtm(S1 @ S2)` breaks down. R is a Cholesky factor
and the singular values are roots of eigenvalues where that is as exact, and faster; else QR and SVD.

The estimate is biased upwards, the more the fewer images there are (Binkowski et al. 2018), so distances
compare only at equal n: the real-vs-real floor and every arm beside it use sets of the same size, and n is
always given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

FULL_RANK = 1e-6  # smallest of the largest: far enough from 0 for squares in float64


@dataclass(frozen=True)
class Moments:
    """Mean [D] and R [min(n, D), D] with R^T R = the sample covariance (divisor n - 1)."""

    mean: np.ndarray
    root: np.ndarray


def moments(features: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """First two moments of features [n, D], in float64.

    Args:
        weights: int [n], how often each image counts; None: once.

    Raises:
        ValueError: for fewer than 2 images or a value that is not finite.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"needs features [n, D] of at least 2 images, got shape {x.shape}")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ValueError(f"the features of image {row} are not finite; check that image and the embedder")
    if weights is None:
        mean = x.mean(0)
        return Moments(mean, _root((x - mean) / np.sqrt(len(x) - 1)))
    x, weights = x[weights > 0], weights[weights > 0]
    mean = weights @ x / weights.sum()
    return Moments(mean, _root((x - mean) * np.sqrt(weights / (weights.sum() - 1))[:, None]))


def _root(x: np.ndarray) -> np.ndarray:
    """R [min(n, D), D] with R^T R = x^T x."""
    if len(x) > x.shape[1]:
        try:
            root = np.linalg.cholesky(x.T @ x, upper=True)
        except np.linalg.LinAlgError:  # features depend on each other
            return np.linalg.qr(x, mode="r")
        diagonal = np.diagonal(root)
        if diagonal.min() > FULL_RANK * diagonal.max():
            return root
    return np.linalg.qr(x, mode="r")


def _nuclear(x: np.ndarray) -> float:
    """The sum of the singular values."""
    squares = np.linalg.eigvalsh(x @ x.T)
    if squares[0] > FULL_RANK**2 * squares[-1]:
        return float(np.sqrt(squares).sum())
    return float(np.linalg.svd(x, compute_uv=False).sum())


def distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians; never negative."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the two sets have {len(a.mean)} and {len(b.mean)} features; use one embedder")
    spread = (a.root**2).sum() + (b.root**2).sum() - 2 * _nuclear(a.root @ b.root.T)
    return max(float(((a.mean - b.mean) ** 2).sum() + spread), 0.0)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of features a [n, D] and b [m, D]; see the module for bias and comparability."""
    return distance(moments(a), moments(b))


def resampled_distances(
    reference: np.ndarray,
    arms: Mapping[str, np.ndarray],
    weights: np.ndarray,
    arm_weights: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Frechet distance of each arm to the reference [n, D], on the data and on all resamples: [1 + B].

    A resample repeats images, which adds bias once more; so the resampled distances are scaled to have the estimate as
    their mean, and they stay positive.

    Args:
        arms: name -> [n, D], or [n, S, D] for S samples of each of n prompts: then the mean of the S distances. All
            sets must have one n (see the module).
        weights: int [1 + B, n] of `Resampling`, of the reference and, without `arm_weights`, also of the arms.
    """
    arms = {name: x if x.ndim == 3 else x[:, None] for name, x in arms.items()}  # [n, S, D]
    if sizes := {name: len(x) for name, x in arms.items() if len(x) != len(reference)}:
        raise ValueError(
            f"Frechet distances compare at equal n only: the reference has {len(reference)} images, arms {sizes}"
        )

    def distances(here: np.ndarray | None, there: np.ndarray | None) -> list[float]:
        if here is not None and min((here > 0).sum(), (there > 0).sum()) < 2:
            return [np.nan] * len(arms)  # all images of one patient
        ref = moments(reference, here)
        return [np.mean([distance(ref, moments(x[:, s], there)) for s in range(x.shape[1])]) for x in arms.values()]

    pairs = zip(weights[1:], (weights if arm_weights is None else arm_weights)[1:], strict=True)
    values = np.array([distances(None, None), *(distances(*pair) for pair in pairs)], np.float64)
    return {name: scaled(values[:, i]) for i, name in enumerate(arms)}


def scaled(resampled: np.ndarray) -> np.ndarray:
    """Distances [1 + B], first on the data, with the resampled ones scaled to have the estimate as their mean."""
    drawn = resampled[1:][np.isfinite(resampled[1:])]
    factor = resampled[0] / max(drawn.mean(), np.finfo(float).tiny) if len(drawn) else 1.0
    return np.concatenate([resampled[:1], resampled[1:] * factor])


def halves(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random halves of n rows, of equal size (one row is left over when n is odd)."""
    if n < 4:
        raise ValueError(f"needs at least 4 real images to split in two halves, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 : 2 * (n // 2)])
