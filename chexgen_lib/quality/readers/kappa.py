"""Agreement of two ratings beyond chance (Cohen 1968)."""

from collections.abc import Sequence

import numpy as np


def kappa(a: np.ndarray, b: np.ndarray, weights: np.ndarray, codes: Sequence[float]) -> np.ndarray:
    """Quadratically weighted kappa [B] of ratings a and b [N] under weights [B, N]; of two codes the plain kappa.

    1 minus the mean squared difference over that of independent ratings with the same frequencies. NaN where both
    raters give one and the same rating to all.

    Args:
        codes: all possible ratings.

    Raises:
        ValueError: for a rating that is none of them.
    """
    codes = np.asarray(codes, float)
    one, other = (np.asarray(x, float)[:, None] == codes for x in (a, b))  # [N, K]
    if not (one.any(1).all() and other.any(1).all()):
        raise ValueError(f"ratings must be among {codes.tolist()}")
    total = weights.sum(1)
    apart = (codes[:, None] - codes) ** 2  # [K, K]
    observed = weights @ apart[one.argmax(1), other.argmax(1)] / total
    expected = np.einsum("bi,bj,ij->b", weights @ one / total[:, None], weights @ other / total[:, None], apart)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 1e-12, 1 - observed / expected, np.nan)
