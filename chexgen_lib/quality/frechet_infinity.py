"""The Frechet distance that infinitely many images would give (FID infinity, Chong and Forsyth 2020).

FID is biased upwards by an amount that falls with 1 / n and differs between generators, so that at a few hundred images
the order of two generators may be that of their biases. Distances of subsets of several sizes lie on a line over 1 / n;
where it meets zero is the distance without that bias.
"""

import numpy as np

from chexgen_lib.estimates.resampling import centre
from chexgen_lib.quality.frechet import frechet_distance

SHARES = (0.4, 0.5, 0.65, 0.8, 1.0)  # sizes of the subsets
REPEATS = 8  # subsets of each size behind the estimate


def extrapolated(
    reference: np.ndarray, generated: np.ndarray, patients: tuple[np.ndarray, np.ndarray], n_resamples: int, seed: int
) -> np.ndarray:
    """FID infinity on the data and on resamples [1 + B], of features [n, D] and [n, D] or [n, S, D] (S samples each).

    Resamples are of patients with replacement, one subset of each size. Repeated images add bias, so resamples are
    shifted to have the estimate as their mean.

    Args:
        patients: numbers of the patients of either set, int [n].
        seed: of subsets and resamples; with equal sizes and seed, those of two generators are paired.

    Raises:
        ValueError: for fewer than 20 images, whose subsets are too small to extrapolate from.
    """
    n = min(len(reference), len(generated))
    if n < 20:
        raise ValueError(f"needs at least 20 images to extrapolate from, got {n}")
    generated = generated if generated.ndim == 3 else generated[:, None]
    sizes = [max(int(share * n), 2) for share in SHARES]
    rng = np.random.default_rng(seed)

    def intercept(left: np.ndarray, right: np.ndarray, repeats: int) -> float:
        found = []
        for size in sizes:
            for _ in range(repeats):
                a, b = (rng.permutation(rows)[:size] for rows in (left, right))
                sample = rng.integers(2**31) % generated.shape[1]  # takes as much of `rng` whatever S is
                found.append((1 / size, frechet_distance(reference[a], generated[b, sample])))
        return float(np.polyfit(*np.array(found).T, 1)[1])

    rows = np.arange(len(reference)), np.arange(len(generated))
    estimate = intercept(*rows, REPEATS)
    drawn = [intercept(*(_resampled(p, rng) for p in patients), 1) for _ in range(n_resamples)]
    return centre(np.array([estimate, *drawn]))


def _resampled(patients: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of as many patients as there are, drawn with replacement."""
    names = np.unique(patients)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
    return np.repeat(np.arange(len(patients)), counts[np.searchsorted(names, patients)])
