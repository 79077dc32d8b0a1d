"""Membership inference: can an attacker tell the training images of a generator from unseen ones?

By the pool alone, for any generator: a training image has a pool image nearer to it than its nearest other real image
(the ratio of nearest-neighbour densities, as in DOMIAS, van Breugel et al. 2023; the pool's nearest alone is the
attack of GAN-Leaks, Chen et al. 2020). `model_error` needs the generator itself.
"""

from collections.abc import Sequence

import numpy as np

from chexgen_lib.estimates.measures import auroc, auroc_interval
from chexgen_lib.estimates.resampling import Interval, Resampling, percentile_interval
from chexgen_lib.privacy.folders import Images
from chexgen_lib.privacy.likeness import Reference

FALSE_POSITIVES = 0.01
AUROC, CAUGHT = "AUROC", "TPR at 1 % FPR"


def pool_scores(targets: Images, pool: Reference, real: Images, others: Reference) -> dict[str, np.ndarray]:
    """How likely each target [N] is to be a training image, by attack, given a pool alone.

    Args:
        real: all real images, training and held out alike, which `others` refers to; a target's own patient is left
            out of its comparison.
    """
    by_pool = _fisher(pool.search(targets.pixels).r[:, 0])
    apart = targets.patients[:, None] == real.patients
    by_real = _fisher(others.search(targets.pixels, apart).r[:, 0])
    return {"nearest pool image": by_pool, "density ratio": by_pool - by_real}


def _fisher(r: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(r, -0.9999, 0.9999))


def measure(
    members: np.ndarray, others: np.ndarray, patients: Sequence[str], n_resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """`AUROC` and `CAUGHT` of scores of training images [N] and of unseen ones [n], higher for training images.

    Args:
        patients: of the members, then of the others, [N + n]; they are resampled.
    """
    labels, scores = np.r_[np.ones(len(members)), np.zeros(len(others))], np.r_[members, others]
    weights = Resampling(patients, n_resamples, seed).weights
    area = percentile_interval(auroc(labels, scores, weights))
    units = [len(set(patients[: len(members)])), len(set(patients[len(members) :]))]
    low, high = auroc_interval(area.value, *units)
    caught = percentile_interval(_true_positives(labels, scores, weights))
    return {AUROC: Interval(area.value, min(area.low, low), max(area.high, high)), CAUGHT: caught}


def _true_positives(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of members above the score that at most `FALSE_POSITIVES` of the others reach, [1 + B]."""
    order = np.argsort(-scores, kind="stable")
    labels, scores, weights = labels[order], scores[order], weights[:, order]
    last = np.r_[scores[1:] < scores[:-1], True]  # of equal scores: a threshold takes all of them or none
    positive, negative = (weights * labels).cumsum(1), (weights * (1 - labels)).cumsum(1)
    with np.errstate(invalid="ignore"):
        allowed = last & (negative <= FALSE_POSITIVES * negative[:, -1:] + 1e-9)
        return np.where(allowed, positive, 0).max(1) / positive[:, -1]
