"""Factual correctness: do the samples show the findings that their prompts request? (paper, Figure 2a)

A classifier scores the 14 findings on every image. The paper's main text correlates the scores of synthetic
and paired real images, its Methods the scores and the ground truth, both over all N x 14 values; here both
are computed. Over N x 14 values a constant prediction already correlates, because common findings score high
everywhere. It is therefore shown with two others: the same correlation with each finding's mean removed ("within
findings"), and that of a generator that ignores its prompt: the same samples, permuted among the prompts.
"""

import numpy as np

from chexgen_lib.estimates.measures import correlation, pair_sums

UNDEFINED = "Pearson r is undefined: the scores or the targets are constant, or all are unknown"


def derangement(n: int, seed: int) -> np.ndarray:
    """A random order of n items in which none keeps its place (one cycle, Sattolo 1986)."""
    if n < 2:
        raise ValueError(f"needs at least 2 prompts to permute samples among them, got {n}")
    rng, order = np.random.default_rng(seed), np.arange(n)
    for i in range(n - 1, 0, -1):
        j = rng.integers(i)  # below i, never i itself
        order[i], order[j] = order[j], order[i]
    return order


def score_correlation(
    synthetic: np.ndarray, target: np.ndarray, weights: np.ndarray, within_findings: bool = False
) -> np.ndarray:
    """Pearson r of synthetic scores [P, S, F] and target [P, F] (real scores or labels, NaN = unknown), [1 + B].

    One r over P x F values for each of the S samples of a prompt, averaged over S; NaN where it is `UNDEFINED`.

    Args:
        weights: int [1 + B, P] of `Resampling`.
        within_findings: remove each finding's mean first, which leaves only what differs between prompts.
    """
    synthetic, target = np.asarray(synthetic, np.float64), np.asarray(target, np.float64)
    if synthetic.ndim != 3 or target.shape != (synthetic.shape[0], synthetic.shape[2]):
        raise ValueError(f"needs scores [P, S, F] and targets [P, F], got {synthetic.shape} and {target.shape}")
    sums = pair_sums(synthetic, np.broadcast_to(target[:, None], synthetic.shape))  # [P, S, F, 6]
    totals = (weights @ sums.reshape(len(target), -1)).reshape(len(weights), *sums.shape[1:])  # [1 + B, S, F, 6]
    return (_within(totals) if within_findings else correlation(totals.sum(2))).mean(1)


def _within(sums: np.ndarray) -> np.ndarray:
    """[B, S, F, 6] sums -> [B, S]: correlation of deviations from each finding's own mean."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)  # a finding without known values has sums of 0 and adds nothing
    cov, var_x, var_y = ((c - a * b / n).sum(-1) for c, a, b in ((xy, x, y), (xx, x, x), (yy, y, y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((var_x > 1e-12) & (var_y > 1e-12), cov / np.sqrt(var_x * var_y), np.nan)


def score_errors(synthetic: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean absolute difference of scores per prompt, [P, S, F] and [P, F] -> [P], for paired tests.

    NaN where nothing of a prompt's target is known.
    """
    errors = np.abs(synthetic - target[:, None])
    means, known = np.full(len(errors), np.nan), np.isfinite(errors).any((1, 2))
    means[known] = np.nanmean(errors[known], axis=(1, 2))
    return means


def same_findings(labels: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """For each row, the row of another patient with the most similar labels; ties are broken at random.

    labels: [N, 14], NaN = unknown, which differs from both 0 and 1 by one half. The real images of these rows
    show what a perfect generator would score: the requested findings in another patient.
    """
    labels = np.where(np.isnan(labels), 0.5, labels)
    differs = np.abs(labels[:, None] - labels[None]).sum(-1)  # [N, N]
    differs += np.random.default_rng(seed).random(differs.shape) * 1e-3
    differs[patients[:, None] == patients[None]] = np.inf
    if np.isinf(differs).all(1).any():
        raise ValueError("all rows belong to one patient; factual correctness needs several patients")
    return differs.argmin(1)
