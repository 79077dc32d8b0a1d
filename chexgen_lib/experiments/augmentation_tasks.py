"""What segmentation, severity regression and detection with synthetic images share (paper, Figure 3d to 3f).

Arms, seeds and intervals are those of `augmentation`. Each task has one training function, which is called for every
arm and seed, and one table (ED Tables 7 to 9). A test set with fewer than `measures.LEAST` cases of a kind gets no
estimate for it, and a task without cases for training or checkpoint selection is left out (`missing`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.estimates import worth
from chexgen_lib.estimates.comparison import ESTIMATE, compare
from chexgen_lib.estimates.measures import LEAST, mean
from chexgen_lib.estimates.wording import readable
from chexgen_lib.experiments.arms import REAL, against, augmented, oracle
from chexgen_lib.experiments.repeats import Repeats, Results
from chexgen_lib.learners.detector import OVERALL
from chexgen_lib.pools.annotated import TESTS, Task

FOREIGN_OBJECT = "Foreign Object"  # the paper's name of a category
Truth = Mapping[str, Any]  # test set -> ground truth of its images
Measure = Callable[[Any, np.ndarray], np.ndarray]  # predictions of a test set, weights [B, N] -> [B, M]


@dataclass(frozen=True)
class TaskResult:
    """The results of all arms of a task.

    Attributes:
        table: ABOUT, arm, the columns of `comparison.compare` and of `worth`; empty if the task was left out.
        images: set, images, positive: how many images each set has, and how many of them are positive.
        left_out: why the task was left out, else empty.
        readings: of a severity task, see `severity.readings`.
    """

    table: pl.DataFrame
    images: pl.DataFrame
    left_out: str = ""
    readings: pl.DataFrame = field(default_factory=pl.DataFrame)

    def summary(self, categories: Sequence[str] = ("all", OVERALL, FOREIGN_OBJECT)) -> pl.DataFrame:
        """For display: the numbers of some categories with their intervals, and the differences from real images."""
        if self.left_out:
            return pl.DataFrame({"left out": [self.left_out]})
        shown = self.table.filter(pl.col("category").is_in(list(categories)))
        return readable(shown.drop("seeds", "patients"))


def left_out(reason: str, images: pl.DataFrame | None = None) -> TaskResult:
    """The result of a task that cannot be run, with an empty table."""
    text = dict.fromkeys(("test", "category", "metric", "arm"), pl.String)
    counts = dict.fromkeys(("n", "patients", "seeds"), pl.Int64)
    beside = dict.fromkeys(worth.NAMES, pl.String) | dict.fromkeys(worth.NUMBERS, pl.Float64)
    empty = pl.DataFrame(schema=text | dict.fromkeys(ESTIMATE, pl.Float64) | beside | counts)
    return TaskResult(empty, pl.DataFrame() if images is None else images, reason)


def task_arms(task: Task, copies: Sequence[int]) -> dict[str, np.ndarray]:
    """Arm -> rows to train on: the real images alone, and with synthetic or new real ones for each (the oracles).

    copies: images beside each real one; at most as many as the pool holds.
    """
    arms = {REAL: task.rows["train"]}
    for k in sorted({min(k, len(task.copies)) for k in copies}):
        arms[augmented(k)] = np.concatenate([arms[REAL], *task.copies[:k]])
        if k <= len(task.further):
            arms[oracle(k)] = np.concatenate([arms[REAL], *task.further[:k]])
    return arms


def set_sizes(rows: Mapping[str, np.ndarray], positive: np.ndarray) -> pl.DataFrame:
    """How many images each set has, and how many of them are positive; positive: bool [N]."""
    counts = [(name, len(own), int(positive[own].sum())) for name, own in rows.items()]
    return pl.DataFrame(counts, ["set", "images", "positive"], orient="row")


def missing(rows: Mapping[str, np.ndarray], positive: np.ndarray) -> str | None:
    """Why nothing can be trained, selected or tested: a set lacks a positive case or an image; None if none does.

    positive: bool [N].
    """
    if not any(len(rows[name]) for name in TESTS):
        return "no image to test on"
    lacking = [f"{name} ({len(rows[name])} images)" for name in ("train", "val") if not positive[rows[name]].any()]
    return f"no positive case in {' and '.join(lacking)}" if lacking else None


def task_table(
    results: Results,
    truth: Truth,
    patients: Mapping[str, Sequence[str]],
    repeats: Repeats,
    measures: Callable[[Any], tuple[list[dict], Measure]],
) -> pl.DataFrame:
    """Compare the arms on every test set.

    measures: maps the truth of a test set to what its numbers are and to a function that computes them from
    predictions.
    """
    tables = []
    for test, own in truth.items():
        resampling = repeats.resampling(patients[test])
        about, measure = measures(own)
        arms = {
            arm: np.stack([measure(run[test], resampling.weights) for run in runs]) for arm, runs in results.items()
        }
        named = [{"test": test} | one for one in about]
        tables.append(compare(arms, named, resampling, REAL, against(arms), over_runs=True))
    return pl.concat(tables, how="vertical_relaxed")


def case_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean [B] of values [N] under weights [B, N]; NaN for fewer than `measures.LEAST` values."""
    return mean(values, weights) if len(values) >= LEAST else np.full(len(weights), np.nan)
