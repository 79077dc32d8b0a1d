"""Frechet distance between two sets of features (FID, Heusel et al. 2017; paper, Figure 2a).

d^2 = |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2). With S = X^T X, the last trace is the sum of the
singular values of X1 X2^T. That form is symmetric, needs no matrix square root and no ridge, and stays exact
when there are fewer images than features, where the usual `sqrtm(S1 @ S2)` breaks down. Far from there the
trace is the sum of the roots of the eigenvalues of R1 S2 R1^T, R1 the Cholesky factor of S1: faster, and exact
to 1e-9.

The estimate is biased upwards, the more the fewer images there are (Binkowski et al. 2018), so distances
compare only at equal n: the real-vs-real floor and every arm beside it use sets of the same size, and n is
always given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import eigvalsh, lapack

FULL_RANK = 1e-6  # smallest singular value by the largest: far enough from 0 for squares in float64


@dataclass(frozen=True)
class Moments:
    """Mean [D] and X [n, D] with X^T X = the sample covariance (divisor n - 1)."""

    mean: np.ndarray
    deviations: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """S [D, D]."""
        return self.deviations.T @ self.deviations

    @cached_property
    def norm(self) -> float:
        """Frobenius norm of S, at least its largest eigenvalue."""
        return float(np.linalg.norm(self.covariance))

    @cached_property
    def factor(self) -> np.ndarray | None:
        """R [D, D], upper triangular, with R^T R = S; None where features depend on each other."""
        factor, failed = lapack.dpotrf(self.covariance.T)
        return None if failed else factor

    @cached_property
    def thin(self) -> np.ndarray:
        """X, or where it has more rows than columns a square R in its place."""
        tall = len(self.deviations) > self.deviations.shape[1]
        return np.linalg.qr(self.deviations, mode="r") if tall else self.deviations


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
        return Moments(mean, (x - mean) / np.sqrt(len(x) - 1))
    x, weights = x[weights > 0], weights[weights > 0]
    mean = weights @ x / weights.sum()
    return Moments(mean, (x - mean) * np.sqrt(weights / (weights.sum() - 1))[:, None])


def _trace_of_root(a: Moments, b: Moments) -> float:
    """tr (S1 S2)^(1/2)."""
    if min(len(a.deviations), len(b.deviations)) > len(a.mean) and a.factor is not None:
        product, _ = lapack.dsygst(b.covariance.T, a.factor, itype=2)  # R1 S2 R1^T
        squares = eigvalsh(product, lower=False, overwrite_a=True, check_finite=False)
        if squares[0] > FULL_RANK**2 * a.norm * b.norm:  # so neither covariance is near to singular
            return float(np.sqrt(squares).sum())
    return float(np.linalg.svd(a.thin @ b.thin.T, compute_uv=False).sum())


def distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians; never negative."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"the two sets have {len(a.mean)} and {len(b.mean)} features; use one embedder")
    spread = np.vdot(a.deviations, a.deviations) + np.vdot(b.deviations, b.deviations) - 2 * _trace_of_root(a, b)
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


def halves(patients: Sequence, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [K] each of two random halves of images that share no patient, of equal size; what is over is left out.

    patients: of the images [N].

    Raises:
        ValueError: for fewer than 4 images, or where one patient's are more than half of all.
    """
    names, of = np.unique(np.asarray(patients), return_inverse=True)
    if len(of) < 4:
        raise ValueError(f"needs at least 4 real images to split in two halves, got {len(of)}")
    rows = np.argsort(np.random.default_rng(seed).permutation(len(names))[of], kind="stable")  # by patient
    left, right = rows[: len(of) // 2], rows[len(of) // 2 :]
    right = right[of[right] != of[left[-1]]]
    size = min(len(left), len(right))
    if size < 2:
        raise ValueError(f"one of {len(names)} patients has more than half of the {len(of)} real images: use more")
    return np.sort(left[:size]), np.sort(right[:size])
