"""The bootstrap behind every interval: patients are resampled with all their images, and seeds with all their draws.

A resample is a row of weights: how often each image counts. Measures that are functions of weighted sums then need one
matrix product for all resamples (Efron and Tibshirani 1993). Two arms that are evaluated with one `Resampling` are
paired: each resample holds the same patients in both.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
Z = stats.norm.ppf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Resampling:
    """Bootstrap resamples of the patients of N images, and of the seeds of repeated trainings.

    Args:
        patients: the patient of each image, or of each prompt: the independent units.
        n_resamples: B, the number of resamples.
        seed: equal patients, B and seed give equal resamples.

    Attributes:
        weights: int [1 + B, N], how often each image counts: once on the data themselves (the first row), then as often
            as its patient was sampled.
        patients: the number of patients.
        patient_of: int [N], the number of each image's patient, from 0.

    Raises:
        ValueError: for fewer than 2 patients or 2 resamples.
    """

    def __init__(self, patients: Sequence, n_resamples: int = 1000, seed: int = 0):
        names, member = np.unique(np.asarray(patients), return_inverse=True)
        if len(names) < 2 or n_resamples < 2:
            raise ValueError(f"a bootstrap needs at least 2 patients and 2 resamples, got {len(names)}, {n_resamples}")
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
        self.weights = np.concatenate([np.ones((1, len(member)), int), drawn[:, member]])
        self.patients, self.patient_of, self.seed = len(names), member, seed
        self._state = rng.bit_generator.state  # from here the seeds are resampled

    def __len__(self) -> int:
        return len(self.weights) - 1

    def rows(self, n_resamples: int | None = None) -> list[np.ndarray]:
        """The images of the data and of at most `n_resamples` resamples, repeated as often as they count."""
        weights = self.weights if n_resamples is None else self.weights[: 1 + n_resamples]
        return [np.repeat(np.arange(len(w)), w) for w in weights]

    def seed_counts(self, n: int, stream: int = 0) -> np.ndarray:
        """How often each of n seeds occurs in each resample, int [B, n].

        It is the same for all arms of n seeds, which pairs them; pass another `stream` for trainings that are not
        paired.
        """
        rng = np.random.default_rng((self.seed, stream) if stream else None)
        if not stream:
            rng.bit_generator.state = self._state
        return rng.multinomial(n, np.full(n, 1 / n), size=len(self))

    def over_seeds(self, values: np.ndarray) -> np.ndarray:
        """Mean over the seeds of values [S, 1 + B, ...] -> [1 + B, ...]; each resample has seeds of its own.

        S seeds that are resampled vary by (S - 1) / S of what their mean varies by; so the shares of each resample are
        that much further from equal.

        Average several draws of a seed (few-shot sets, samples) first: the spread of the seeds' means already contains
        that of their draws (Davison and Hinkley 1997, section 3.8).
        """
        n = len(values)
        shares = self.seed_counts(n) / n
        shares = 1 / n + (shares - 1 / n) * np.sqrt(n / max(n - 1, 1))
        return np.concatenate([values[:, 0].mean(0)[None], np.einsum("bs,sb...->b...", shares, values[:, 1:])])

    def seeds_mean(self, values: np.ndarray) -> "SeedsMean":
        """`over_seeds` with the seeds' own values beside it."""
        return SeedsMean(self.over_seeds(values), values[:, 0])


@dataclass(frozen=True)
class SeedsMean:
    """A measure that was averaged over seeds; differences and multiples of paired ones are such a measure again.

    Few seeds tell their own spread badly: resamples vary by it, and an interval of them must be wider by as much as t
    is than z. The degrees of freedom are those of the sum of both parts, patients and seeds (Satterthwaite 1946); where
    the seeds' part is small, nothing changes.

    Attributes:
        resampled: [1 + B, ...], on the data and on all resamples of patients and seeds.
        of_seeds: [S, ...], of each seed on the data; for a measure that is no mean of its seeds', to first order.
    """

    resampled: np.ndarray
    of_seeds: np.ndarray

    def __sub__(self, other: "SeedsMean") -> "SeedsMean":
        return SeedsMean(self.resampled - other.resampled, self.of_seeds - other.of_seeds)

    def __mul__(self, factor: float) -> "SeedsMean":
        return SeedsMean(factor * self.resampled, factor * self.of_seeds)

    def of(self, part: int | np.ndarray) -> "SeedsMean":
        """This part of the measure's last axis."""
        return SeedsMean(self.resampled[..., part], self.of_seeds[..., part])

    def widening(self) -> np.ndarray:
        """By how much an interval of the resamples must be wider [...], at least 1."""
        n = len(self.of_seeds)
        if n < 2:
            return np.ones(self.of_seeds.shape[1:])
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a measure that is undefined in all resamples
            seeds_part = self.of_seeds.var(0, ddof=1) / n
            freedom = (n - 1) * (np.nanvar(self.resampled[1:], axis=0, ddof=1) / seeds_part) ** 2
        freedom = np.fmax(freedom, n - 1)
        return np.where(np.isfinite(freedom), stats.t.ppf(0.5 + LEVEL / 2, freedom), Z) / Z

    def widened(self, by: np.ndarray | float | None = None) -> np.ndarray:
        """The resamples [1 + B, ...], further from the estimate by this factor; None: by `widening`."""
        estimate, drawn = self.resampled[:1], self.resampled[1:]
        return np.concatenate([estimate, estimate + (self.widening() if by is None else by) * (drawn - estimate)])


def percentile_interval(resampled: np.ndarray, centred: bool = False) -> Interval:
    """The 95 % percentile interval of a measure [1 + B], first on the data themselves.

    Resamples in which the measure is undefined are excluded. centred: shift the others so that their mean is the
    estimate (`centre`).
    """
    resampled = np.asarray(resampled, np.float64)
    value = float(resampled[0])
    drawn = (centre(resampled) if centred else resampled)[1:]
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - LEVEL) / 2
    known = np.isfinite(value) and len(drawn)
    low, high = np.quantile(drawn, [tail, 1 - tail]) if known else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def centre(resampled: np.ndarray) -> np.ndarray:
    """A measure [1 + B] with its resamples shifted so that their mean is the estimate.

    For a measure that noise biases (a correlation of noisy values, an extreme of groups): resamples are noisier than
    the sample, so their percentiles would lie to one side of the estimate.
    """
    finite = resampled[1:][np.isfinite(resampled[1:])]
    shift = resampled[0] - finite.mean() if len(finite) else 0.0
    return np.concatenate([resampled[:1], resampled[1:] + shift])
