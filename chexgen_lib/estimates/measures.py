"""Measures of N images under weights [B, N], which say how often each image counts: one value for each row of weights.

The first row of `Resampling.weights` gives the measure of the data themselves, the others that of each resample.
"""

import numpy as np
from scipy import optimize, stats

from chexgen_lib.records import FINDINGS

LEAST = 5  # positive and negative cases that an AUROC needs, or values that a mean needs; fewer give no estimate
ERRORS = ("MAE", "MSE")  # measures of which less is better
# The values that a measure can have
ANY, SHARE, CORRELATION, POSITIVE = (-np.inf, np.inf), (0, 1), (-1, 1), (0, np.inf)
RANGES = {
    **dict.fromkeys(("AUROC", "Dice", "F1", "mAP50", "mAR50"), SHARE),
    **dict.fromkeys(("accuracy", "sensitivity", "specificity", "called", "share"), SHARE),
    **dict.fromkeys(("r", "rho", "tau", "SSIM"), CORRELATION),
    "MS-SSIM": SHARE,
    "score": (-2, 2),  # of a reader's agreement with a report
    **dict.fromkeys((*ERRORS, "FID"), POSITIVE),
}


def range_of(metric: str) -> tuple[float, float]:
    """The least and the largest value that a measure can have, by a word of its name; infinite if none is known.

    A measure that is named with its unit, as in `(%)` or `(sd)`, has no known range.
    """
    if "(" in metric:
        return ANY
    words = [name for word in metric.split() for name in (word, word.partition("-")[0])]  # "FID-radiomics"
    return next((RANGES[word] for word in words if word in RANGES), ANY)


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the images, values [N, ...] -> [B, ...]; NaN for a resample without any of them."""
    with np.errstate(invalid="ignore"):
        total = weights.sum(1).reshape(-1, *[1] * (np.ndim(values) - 1))
        return np.tensordot(weights, values, 1) / total


def known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean along an axis of the values that are not NaN; NaN where there are none (`np.nanmean` also warns)."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


# Correlation


def pair_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The six terms that a correlation sums: 1, x, y, xx, yy, xy on a new last axis; all 0 where either is NaN."""
    if x.shape != y.shape:
        raise ValueError(f"paired values need one shape, got {x.shape} and {y.shape}")
    both = ~(np.isnan(x) | np.isnan(y))
    if not both.any():
        return np.zeros((*x.shape, 6))
    # r does not change with a shift; centred values keep the sums of squares accurate
    x, y = (np.where(both, a - a[both].mean(dtype=np.float64), 0) for a in (x, y))
    return np.stack([both, x, y, x * x, y * y, x * y], axis=-1).astype(np.float64)


def correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson r from `pair_sums` totals [..., 6] -> [...]; NaN where undefined."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        var_x, var_y = xx - x * x / n, yy - y * y / n
        # where a side is constant, rounding leaves a residue: undefined, not a correlation
        defined = (n > 1) & (var_x > 1e-9 * xx) & (var_y > 1e-9 * yy)
        return np.where(defined, (xy - x * y / n) / np.sqrt(var_x * var_y), np.nan)


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson r [B] of paired x and y, [N] or [N, k]: then over all N x k values. Pairs with a NaN are left out."""
    sums = pair_sums(*(np.asarray(a, np.float64).reshape(len(a), -1) for a in (x, y)))
    return correlation(weights @ sums.sum(1))


# Classification


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of one finding, [B]; NaN where there are not both positives and negatives.

    Ties count one half, so this equals the Mann-Whitney statistic.

    Args:
        labels: [N], 1, 0 or NaN (unknown).
        scores: [N], NaN for no score.
        weights: [B, N]; None: every image once.
    """
    weights = np.ones((1, len(labels))) if weights is None else weights
    known = ~(np.isnan(labels) | np.isnan(scores))
    labels, scores, weights = labels[known], scores[known], weights[:, known]
    if not len(labels):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    labels, weights = labels[order], weights[:, order]
    ties = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])  # where each distinct score begins
    positive = np.add.reduceat(weights * labels, ties, axis=1)
    negative = np.add.reduceat(weights * (1 - labels), ties, axis=1)
    won = positive * (negative.cumsum(1) - negative / 2)
    with np.errstate(invalid="ignore"):
        return won.sum(1) / (positive.sum(1) * negative.sum(1))


def auroc_of_draws(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray, fewest: int = LEAST) -> np.ndarray:
    """Mean AUROC [B] over several draws, scores [D, N] without NaN; NaN for fewer than `fewest` cases of either label.

    An AUROC is the share of pairs of a positive and a negative image in which the positive one scores higher; ties
    count half. The draws are averaged pair by pair, so that one matrix product serves all draws and resamples.
    """
    positive, negative = labels == 1, labels == 0
    if min(positive.sum(), negative.sum()) < fewest:
        return np.full(len(weights), np.nan)
    one, other = scores[:, positive, None], scores[:, None, negative]
    won = ((one > other) + 0.5 * (one == other)).mean(0)  # [P, M]
    rows, columns = weights[:, positive].astype(float), weights[:, negative].astype(float)
    with np.errstate(invalid="ignore"):
        return np.einsum("bm,bm->b", rows @ won, columns) / (rows.sum(1) * columns.sum(1))


def auroc_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """95 % interval of an AUROC measured on that many positive and negative patients (Newcombe 2006, method 5).

    Its ends are the true values that would be 1.96 of their own standard errors away (Hanley and McNeil 1982). So it
    has a width where all pairs are in order, and it covers from one positive on, where resamples of these few positives
    do not (`benchmarks/auroc_coverage.csv`).
    """
    half, scale = (positives + negatives) / 2 - 1, stats.norm.ppf(0.975) ** 2 / (positives * negatives)

    def beyond(true: float) -> float:
        spread = true * (1 - true) * (1 + half * (1 - true) / (2 - true) + half * true / (1 + true))
        return (value - true) ** 2 - scale * spread

    near = min(max(value, 1e-9), 1 - 1e-9)  # at 0 and 1 the spread is 0
    return tuple(optimize.brentq(beyond, end, near) if abs(value - end) > 1e-9 else end for end in (0.0, 1.0))


def macro_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean AUROC over the findings that have known positives and negatives; labels, scores: [N, 14].

    Raises:
        ValueError: when no finding has both.
    """
    values = np.concatenate([auroc(y, s) for y, s in zip(labels.T, scores.T, strict=True)])
    if np.isnan(values).all():
        raise ValueError("no finding has both known positives and known negatives; use more records")
    return float(np.nanmean(values))


def confusion(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """True positive, false positive, false negative, true negative of each image and finding: 0 or 1, [N, 14, 4].

    A score at or above the threshold [14] calls the finding present. All four are 0 where the label is unknown (NaN) or
    the finding has no threshold (NaN). Sums over images are all that F1 and rates need.
    """
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (len(FINDINGS),):
        raise ValueError(f"thresholds: needs [{len(FINDINGS)}], one for each finding, got {thresholds.shape}")
    if np.isnan(thresholds).all():
        raise ValueError("thresholds: all are NaN, so that nothing can be decided")
    labels, scores = check_scores(labels, scores, ~np.isnan(thresholds))
    called, known = scores >= thresholds, ~(np.isnan(labels) | np.isnan(thresholds))
    kinds = (called & (labels == 1), called & (labels == 0), ~called & (labels == 1), ~called & (labels == 0))
    return np.stack([known & kind for kind in kinds], -1).astype(np.float64)


def check_scores(labels: np.ndarray, scores: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores [N, 14] as float64; the findings `scored`, bool [14], need finite scores.

    Raises:
        ValueError: naming the row and finding of a label that is not 1, 0 or NaN, or of a missing score.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.ndim != 2 or labels.shape[1] != len(FINDINGS) or scores.shape != labels.shape:
        raise ValueError(f"needs labels and scores [N, {len(FINDINGS)}], got {labels.shape} and {scores.shape}")
    wrong = ~(np.isnan(labels) | (labels == 0) | (labels == 1))
    if wrong.any():
        row, f = np.argwhere(wrong)[0]
        raise ValueError(f"row {row}, {FINDINGS[f]}: label {labels[row, f]}; use 1, 0 or NaN (unknown)")
    missing = ~np.isfinite(scores) & scored
    if missing.any():
        row, f = np.argwhere(missing)[0]
        raise ValueError(
            f"row {row}, {FINDINGS[f]}: the score is {scores[row, f]} ({missing.any(1).sum()} such rows); "
            "look for a diverged training or an unreadable image"
        )
    return labels, scores


def finding_f1(totals: np.ndarray) -> np.ndarray:
    """Summed `confusion` [..., 14, 4] -> F1 of each finding [..., 14]; NaN without a positive label."""
    tp, fp, fn, _ = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def weighted_f1(totals: np.ndarray) -> np.ndarray:
    """Summed `confusion` [..., 14, 4] -> F1 weighted by each finding's positive labels [...] (paper, Methods).

    As sklearn's `f1_score(average="weighted")`; NaN instead of its 0 if there is no positive label.
    """
    support = totals[..., 0] + totals[..., 2]
    with np.errstate(invalid="ignore"):
        return np.nansum(support * finding_f1(totals), -1) / support.sum(-1)
