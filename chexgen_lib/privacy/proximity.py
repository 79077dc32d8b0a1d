"""Whether a pool lies closer to its generator's training images than to as many real images that it never saw.

For each image of a pool: the nearest of a random part of the training images, as many as are held out, against the
nearest held-out image. All parts are averaged exactly: with the training images in order of likeness, the first of them
that is in a part of n of M is the j-th with a hypergeometric probability. A generator that does not remember its
training images is as often closer to the one as to the other.
"""

import numpy as np

from chexgen_lib.estimates.resampling import Interval, Resampling, percentile_interval
from chexgen_lib.privacy.folders import Images

CLOSER, RATIO = "closer to training than to held-out", "distance to training / to held-out"
NEAREST = 256  # images that are kept in order; the nearest of a part is practically always among them


def proximity(
    alike_training: np.ndarray,
    alike_held_out: np.ndarray,
    pool: Images,
    training: Images,
    held_out: Images,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """`CLOSER`, the share of the pool that is closer to training (0.5 expected), and `RATIO`, that of the median
    distances (1 expected), with intervals over the requests of the pool and the patients of both real sets.

    Args:
        alike_training, alike_held_out: `Reference.coarse` of the pool, [N, M] and [N, n]; distance is 1 - likeness.
    """
    near, order = _nearest(alike_training)
    far, far_order = _nearest(alike_held_out)
    weights = [
        Resampling(images.patients, n_resamples, seed + i).weights
        for i, images in enumerate((pool, training, held_out))
    ]
    values = []
    for of_pool, of_training, of_held_out in zip(*weights, strict=True):
        size = int((of_held_out > 0).sum())  # a resample holds fewer distinct images: compare as many of each
        nearest_held_out = _first(far, of_held_out[far_order] > 0)
        here = of_training[order] > 0
        distance, closer = _nearest_of_part(near, here, int((of_training > 0).sum()), size, nearest_held_out)
        repeated = np.repeat(np.arange(len(of_pool)), of_pool)
        ratio = np.median(distance[repeated]) / max(np.median(1 - nearest_held_out[repeated]), 1e-12)
        values.append((closer[repeated].mean(), ratio))
    closer, ratio = np.array(values).T
    return {CLOSER: _interval(closer, 1), RATIO: _interval(ratio, np.inf)}


def _interval(values: np.ndarray, most: float) -> Interval:
    """The interval of values [1 + B] from 0 to `most`, which centring alone would leave."""
    found = percentile_interval(values, centred=True)
    return Interval(found.value, *np.clip(found[1:], 0, most).tolist())


def _nearest(alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `NEAREST` most alike of each row, in order: their likeness and their columns, [N, K]."""
    order = np.argsort(-alike, axis=1, kind="stable")[:, :NEAREST]
    return np.take_along_axis(alike, order, axis=1), order


def _first(values: np.ndarray, here: np.ndarray) -> np.ndarray:
    """The first value of each row [N, K] where `here`; the last value where none is."""
    at = np.where(here.any(1), here.argmax(1), values.shape[1] - 1)
    return values[np.arange(len(values)), at]


def _nearest_of_part(
    near: np.ndarray, here: np.ndarray, available: int, size: int, bar: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of random parts of `size` of the `available` training images that are `here`: the expected distance of the
    nearest, and the probability that it is more alike than `bar`, each [N]."""
    size = min(size, available)
    rank = here.cumsum(1) - 1  # of each image among those that are here
    later = np.arange(near.shape[1])
    step = np.clip((available - size - later) / np.maximum(available - later, 1), 0, 1)
    missed = np.concatenate([[1.0], np.cumprod(step)[:-1]])  # that none of the first j is in the part
    chance = np.where(here, (missed * (1 - step))[np.maximum(rank, 0)], 0)  # [N, K]
    total = chance.sum(1)
    distance = ((1 - near) * chance).sum(1) / np.maximum(total, 1e-12)
    ahead = (chance * (near > bar[:, None])).sum(1)
    return distance, ahead + (1 - total) * (near[:, -1] > bar)
