"""Re-identification: whether pool images lead to a patient through more than one of the patient's images.

A pool image is linked if the two training images most alike to it are of one patient. Unseen real images are linked by
chance (`FLOOR`); real training images with their own second study as the best match show what likeness can recognise
at all (`CEILING`): a pool of exact copies would be linked as often.
"""

import numpy as np

from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Interval, Resampling, percentile_interval
from chexgen_lib.privacy.copies import share
from chexgen_lib.privacy.folders import Images
from chexgen_lib.privacy.likeness import Matches, Reference

LINKED, FLOOR, CEILING = "linked to a patient", "linked to a patient, unseen images", "real images recognised"


def identity(
    of_pool: Matches,
    of_unseen: Matches,
    pool: Images,
    training: Images,
    held_out: Images,
    trained: Reference,
    most: int = 500,
    seed: int = 0,
) -> dict[str, tuple[Interval, int]]:
    """`LINKED`, `FLOOR` and `CEILING`, each with its number of images; empty if no patient has two training images.

    Args:
        of_pool, of_unseen: matches of the pool and of the held-out images in training.
        most: training images to measure the ceiling on, a random sample of those with a second image.
    """
    _, member, count = np.unique(training.patients, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[member] > 1)
    if not len(several):
        return {}
    rows = np.sort(np.random.default_rng(seed).permutation(several)[:most])
    apart = rows[:, None] == np.arange(len(training))
    nearest = trained.search(training.pixels[rows], apart).index[:, 0]
    linked = {
        LINKED: (_linked(of_pool, member), pool.patients),
        FLOOR: (_linked(of_unseen, member), held_out.patients),
        CEILING: (member[nearest] == member[rows], training.patients[rows]),
    }
    return {name: (_share(values, units, seed), len(values)) for name, (values, units) in linked.items()}


def _linked(matches: Matches, member: np.ndarray) -> np.ndarray:
    """Whether the first two matches are of one patient, bool [N]."""
    first, second = matches.index[:, 0], matches.index[:, 1]
    return (second >= 0) & (member[first] == member[second])


def _share(values: np.ndarray, units: np.ndarray, seed: int) -> Interval:
    """The mean of values [N] with its interval over the units, at least as wide as the exact one of as many units."""
    n = len(np.unique(units))
    exact = share(round(float(values.mean()) * n), n)
    drawn = percentile_interval(mean(values, Resampling(units, seed=seed).weights))
    return Interval(drawn.value, min(drawn.low, exact.low), max(drawn.high, exact.high))
