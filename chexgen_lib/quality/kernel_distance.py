"""Kernel distance between two sets of features (KID, Binkowski et al. 2018).

The squared maximum mean discrepancy with the kernel (x y / D + 1)^3, as an average over all pairs of different images.
It is unbiased, so unlike Frechet distances it compares between sets of different size; near zero it may be negative.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kernels:
    """The kernel between all images of two sets of n and m images: within [n, n] and [m, m], and between [n, m]."""

    first: np.ndarray
    second: np.ndarray
    between: np.ndarray


def kernels(a: np.ndarray, b: np.ndarray) -> Kernels:
    """Kernels of features a [n, D] and b [m, D], in float64.

    Raises:
        ValueError: for sets of other shapes, of fewer than 2 images, or with a value that is not finite.
    """
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"needs features [n, D] and [m, D] of at least 2 images each, got {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("the features hold values that are not finite; check the images and the embedder")
    return Kernels(*(_kernel(x, y) for x, y in ((a, a), (b, b), (a, b))))


def kernel_distances(found: Kernels, weights_a: np.ndarray, weights_b: np.ndarray) -> np.ndarray:
    """KID [B] of the sets whose images count as often as the weights [B, n] and [B, m] say.

    An image is never paired with itself, also not with its copies in a resample. NaN where a set has fewer than two
    different images.
    """
    a, b = (np.asarray(w, np.float64) for w in (weights_a, weights_b))
    between = np.einsum("bn,bn->b", a, b @ found.between.T) / np.maximum(a.sum(1) * b.sum(1), 1)
    return _within(found.first, a) + _within(found.second, b) - 2 * between


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """KID of features a [n, D] and b [m, D], each image once."""
    return float(kernel_distances(kernels(a, b), np.ones((1, len(a))), np.ones((1, len(b))))[0])


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = x @ y.T  # changed in place: fresh memory for each step takes as long as the steps
    found /= x.shape[1]
    found += 1
    return np.power(found, 3, out=found)


def _within(kernel: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean kernel [B] over pairs of different images."""
    total = np.einsum("bn,bn->b", weights, weights @ kernel) - weights**2 @ np.diag(kernel)
    pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
    return np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)
