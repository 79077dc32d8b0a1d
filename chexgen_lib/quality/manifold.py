"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) of generated images.

Each image stands in the middle of a ball that reaches to its k-th nearest neighbour in its own set, by features. A
generated image within a real ball is precise; a real image within a generated ball is recalled. Density counts the real
balls around a generated image, so that one outlier among the real images gains little; coverage is the share of real
balls that hold a generated image.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

PRECISION_NEIGHBOURS = 3  # Kynkaanniemi et al., Figure 3
DENSITY_NEIGHBOURS = 5  # Naeem et al., section 4


@dataclass(frozen=True)
class Manifold:
    """What each image contributes; the four measures are means of these.

    Attributes:
        precision, density: float [m], of the generated images.
        recall, coverage: float [n], of the real images.
    """

    precision: np.ndarray
    density: np.ndarray
    recall: np.ndarray
    coverage: np.ndarray


def manifold(real: np.ndarray, generated: np.ndarray) -> Manifold:
    """Compare generated features [m, D] with real ones [n, D].

    Raises:
        ValueError: for sets of other shapes, or with no more images than neighbours are needed.
    """
    real, generated = (np.asarray(x, np.float64) for x in (real, generated))
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"needs features [n, D] and [m, D], got {real.shape} and {generated.shape}")
    if min(len(real), len(generated)) <= DENSITY_NEIGHBOURS:
        raise ValueError(
            f"needs more than {DENSITY_NEIGHBOURS} images of either kind to find neighbours, got {len(real)} real and "
            f"{len(generated)} generated ones"
        )
    among_real, among_generated = euclidean_distances(real), euclidean_distances(generated)
    apart = euclidean_distances(real, generated)  # [n, m]
    dense = apart < _radii(among_real, DENSITY_NEIGHBOURS)[:, None]
    return Manifold(
        precision=(apart <= _radii(among_real, PRECISION_NEIGHBOURS)[:, None]).any(0).astype(float),
        density=dense.sum(0) / DENSITY_NEIGHBOURS,
        recall=(apart <= _radii(among_generated, PRECISION_NEIGHBOURS)[None]).any(1).astype(float),
        coverage=dense.any(1).astype(float),
    )


def _radii(distances: np.ndarray, k: int) -> np.ndarray:
    """Distance [n] of each image to its k-th neighbour, itself left out."""
    return np.partition(distances, k, axis=1)[:, k]
