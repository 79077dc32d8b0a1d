"""Trainings repeated with several seeds, in parallel, and the resampling of their predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.kept import Arrays, run_all
from chexgen_lib.learners.base import LearnerConfig, device_for

Results = Mapping[str, Sequence[Arrays]]  # arm -> what the training of each seed predicted


def by_arm(results: Mapping[str, Arrays]) -> dict[str, list[Arrays]]:
    """Arm -> the results of its seeds, from results by job, "ARM / seed k"."""
    arms: dict[str, list] = {}
    for name, result in results.items():
        arms.setdefault(name.rsplit(" / ", 1)[0], []).append(result)
    return arms


def of_one_patient(patients: Mapping[str, Sequence[str]]) -> str | None:
    """Why a test set, by the patients of its images, has no interval; None if each has one."""
    lacking = [name for name, own in patients.items() if len(set(own)) < 2]
    return f"all images in {' and '.join(lacking)} are of one patient, and an interval needs two" if lacking else None


@dataclass(frozen=True)
class Repeats:
    """How often a training is repeated, and how the spread of its results is estimated.

    Attributes:
        seeds: how many; seed k of a run with `seed` is 1000 * seed + k. The arms' seeds are paired.
        workers: processes that train in parallel; 0 for one training after the other, on a GPU if there is one.
        n_resamples: bootstrap resamples of test patients and seeds.
    """

    seeds: int
    seed: int = 0
    workers: int = 0
    n_resamples: int = 1000

    def configs(self, config: LearnerConfig) -> list[LearnerConfig]:
        """The settings of each repetition."""
        device = device_for(self.workers)
        return [replace(config, seed=1000 * self.seed + k, device=device) for k in range(self.seeds)]

    def train(
        self, function: Callable[..., Arrays], data: dict, jobs: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path
    ) -> Results:
        """Call `function(**data, **job)` for the jobs of all arms, or read what an earlier call kept in `folder`.

        Args:
            data: what all jobs share.
            jobs: arm -> a job for each seed.
        """
        named = {f"{arm} / seed {k}": dict(job) for arm, own in jobs.items() for k, job in enumerate(own)}
        results = run_all(function, data, named, folder, self.workers)
        return {arm: [results[f"{arm} / seed {k}"] for k in range(len(own))] for arm, own in jobs.items()}

    def resampling(self, patients: Sequence[str]) -> Resampling:
        """The resamples of a test set; patients: of each image."""
        return Resampling(patients, self.n_resamples, self.seed)
