"""Segmentation of lungs in real radiographs, cross-validated, with synthetic images added to the real ones.

The images are few (`pools.lungs`), so the segmenter of real images alone is cross-validated: each image is tested once,
by networks that saw no image of its patient. Arms with synthetic images are compared on the one fold whose patients the
control adapter did not see either.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import compare
from chexgen_lib.experiments.arms import REAL, against
from chexgen_lib.experiments.augmentation import arm_jobs
from chexgen_lib.experiments.augmentation_tasks import TaskResult, case_mean, task_arms
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.experiments.segmentation import DICE, train_and_segment
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.segmenter import SIZES
from chexgen_lib.pools.annotated import AnnotatedSplits, Task
from chexgen_lib.pools.lungs import FOLDS, UNSEEN, folds

EVERYONE, HELD_OUT = f"{FOLDS}-fold cross-validation", "unseen by the adapter"
Runs = Mapping[tuple[str, int], Sequence[np.ndarray]]  # arm and fold -> Dice of the fold's images for each seed


def segment(
    sets: AnnotatedSplits, copies: Sequence[int], folder: Path, settings: Mapping, repeats: Repeats
) -> TaskResult:
    """Train and compare all arms; the checkpoint is selected on the next fold, on which nothing is trained.

    Args:
        copies: synthetic images of each real one, where there are any.
        folder: for finished trainings.
        settings: of `LearnerConfig`.
    """
    config = LearnerConfig(**settings)
    task = sets.task("lungs", config.size_in(SIZES).input_size)
    fold = folds(sets.data)
    jobs, names = {}, {}
    for k in range(FOLDS):
        test, val = (np.flatnonzero(fold == which) for which in (k, (k + 1) % FOLDS))
        for arm, own in arm_jobs(
            fold_arms(task, fold, k, copies), config, repeats, val=val, tests={DICE: test}
        ).items():
            names[arm, k] = f"{arm} / fold {k}"
            jobs[names[arm, k]] = own
    results = repeats.train(
        train_and_segment, {"images": task.images, "masks": sets.masks(task, "lungs")}, jobs, folder
    )
    runs = {key: [run[DICE] for run in results[name]] for key, name in names.items()}
    patients = sets.data.table["patient_id"]
    sizes = [
        (f"fold {k}", int((fold == k).sum()), patients.filter(pl.Series(fold == k)).n_unique()) for k in range(FOLDS)
    ]
    images = pl.DataFrame(sizes, ["set", "images", "patients"], orient="row")
    return TaskResult(lungs_table(runs, fold, patients.to_list(), repeats), images)


def fold_arms(task: Task, fold: np.ndarray, k: int, copies: Sequence[int]) -> dict[str, np.ndarray]:
    """Arm -> rows to train on when fold `k` is tested: all other folds but the next; with copies only if `UNSEEN`."""
    train = np.flatnonzero((fold != k) & (fold != (k + 1) % FOLDS))
    arms = {REAL: train}
    if k == UNSEEN:  # the task's arms hold every mask that the adapter was trained on, and the samples of it
        arms |= {
            arm: rows[np.isin(task.origin[rows], train)] for arm, rows in task_arms(task, copies).items() if arm != REAL
        }
    return arms


def lungs_table(runs: Runs, fold: np.ndarray, patients: Sequence[str], repeats: Repeats) -> pl.DataFrame:
    """Mean Dice: of real images alone over all folds (`EVERYONE`), and of every arm on `UNSEEN` (`HELD_OUT`).

    Args:
        fold, patients: of each image.

    Returns:
        The columns of the other tasks' tables, and `note`, which counts the patients.
    """
    each = [runs[REAL, k] for k in range(FOLDS)]  # [fold][seed]
    everyone = {REAL: [np.concatenate(own) for own in zip(*each, strict=True)]}
    unseen = {arm: own for (arm, k), own in runs.items() if k == UNSEEN}
    tests = {EVERYONE: (everyone, np.argsort(fold, kind="stable")), HELD_OUT: (unseen, np.flatnonzero(fold == UNSEEN))}
    tables = []
    for name, (arms, rows) in tests.items():
        resampling = repeats.resampling([patients[row] for row in rows])
        values = {
            arm: np.stack([case_mean(dice, resampling.weights)[:, None] for dice in own]) for arm, own in arms.items()
        }
        about = {"test": name, "category": "all", "metric": DICE, "n": len(rows)}
        table = compare(values, [about], resampling, REAL, against(values))
        tables.append(table.with_columns(note=pl.lit(f"{resampling.patients} patients")))
    return pl.concat(tables, how="vertical_relaxed")
