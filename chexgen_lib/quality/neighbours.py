"""Nearest training images: what a sample resembles most, and whether samples copy the training set.

Distance = 1 - cosine of features standardised with the training set's mean and sd (without that, the positive
features of a pooled network all point one way; a feature that is constant there is left out). A generator that
memorises puts its samples closer to training images than unseen real images are; the comparison with held-out real
patients is what gives a distance its meaning. `chexgen_lib.privacy` audits a whole pool before it is shared, image by
image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from chexgen_lib import images as im
from chexgen_lib.stored_images import StoredImages, float_blocks

BLOCK = 16_384  # training images that are compared at a time


@dataclass(frozen=True)
class Neighbours:
    """For each query: row of the nearest training image, its distance (0 = same direction, 2 = opposite)."""

    index: np.ndarray
    distance: np.ndarray


def nearest(query: np.ndarray, train: np.ndarray) -> Neighbours:
    """Nearest training image by features; query [N, D], train [M, D]."""
    if query.ndim != 2 or train.ndim != 2 or query.shape[1] != train.shape[1] or len(train) < 2:
        raise ValueError(f"needs features [N, D] and [M, D] with M >= 2, got {query.shape} and {train.shape}")
    varied = np.ptp(train, axis=0) > 0  # beside a unit that is dead on all of them, others would not count
    mean, sd = train.mean(0), train.std(0) + 1e-6

    def directions(x: np.ndarray) -> np.ndarray:
        x = (x.astype(np.float64) - mean) / sd * varied
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    q, index, largest = directions(query), np.zeros(len(query), np.int64), np.full(len(query), -np.inf)
    for start in range(0, len(train), BLOCK):
        cosine = q @ directions(train[start : start + BLOCK]).T
        best = cosine.max(1)
        closer = best > largest
        index[closer], largest[closer] = start + cosine.argmax(1)[closer], best[closer]
    return Neighbours(index, 1 - largest)


def pixel_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of the pixels of paired images a, b [N, H, W] -> [N]; 1 = the same image up to contrast."""
    a, b = (im.check(x).reshape(len(x), -1).astype(np.float64) for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.maximum(np.sqrt((a**2).sum(1) * (b**2).sum(1)), 1e-12)


def listed(
    found: Neighbours,
    prompts: Sequence[int],
    samples: np.ndarray,
    train: np.ndarray | StoredImages,
    train_ids: Sequence[str],
) -> tuple[pl.DataFrame, np.ndarray]:
    """The nearest training image of the first sample of some prompts, and these images [K, H, W].

    Args:
        found: of all samples [N, S, H, W] in the order of samples.reshape(N * S, ...).
        prompts: rows of `samples`.

    Returns:
        nearest (image_id), distance (of features), pixel_r (correlation of the pixels).
    """
    first = np.asarray(prompts) * samples.shape[1]
    images = np.concatenate([*float_blocks(train[found.index[first]])])
    table = {
        "nearest": [train_ids[int(i)] for i in found.index[first]],
        "distance": found.distance[first],
        "pixel_r": pixel_correlation(samples[np.asarray(prompts), 0], images),
    }
    return pl.DataFrame(table), images


RATIO, CLOSER = "distance ratio", "closer than 5 % of real"


def memorisation(synthetic: np.ndarray, held_out: np.ndarray, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Distances to the nearest training image: synthetic [N] or [N, S] against held-out real [N]; each [1 + B].

    `distance ratio`: median synthetic / median held-out; 1 = as far as unseen patients, below 1 = closer.
    `closer than 5 % of real`: share of samples closer than the k-th nearest of n held-out images, k = 0.05 (n + 1); of
    samples as far as these a share of 0.05 is expected. NaN below 19 held-out images, of which none is so near.

    Args:
        rows: `Resampling.rows`, those of the data first; a patient's samples and real images are resampled together.
    """

    k = 0.05 * (len(held_out) + 1)

    def measure(s: np.ndarray, h: np.ndarray) -> tuple[float, float]:
        near = np.quantile(h, (k - 1) / (len(held_out) - 1)) if k >= 1 else np.nan
        return np.median(s) / max(np.median(h), 1e-12), np.mean(s < near) if k >= 1 else np.nan

    values = np.array([measure(synthetic[own], held_out[own]) for own in rows])
    return dict(zip((RATIO, CLOSER), values.T, strict=True))
