"""Segmentation of pneumothorax and ribs with synthetic images added to real ones (paper, Figure 3d; ED Table 8)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.experiments.augmentation import arm_jobs
from chexgen_lib.experiments.augmentation_tasks import (
    Measure,
    TaskResult,
    Truth,
    case_mean,
    left_out,
    missing,
    set_sizes,
    task_arms,
    task_table,
)
from chexgen_lib.experiments.repeats import Repeats, Results, of_one_patient
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.segmenter import SIZES, dice, train_segmenter
from chexgen_lib.pools.annotated import AnnotatedSplits

POSITIVE, NEGATIVE, DICE = "Positive Dice", "Negative Dice", "Dice"


def segment(
    sets: AnnotatedSplits | None,
    kind: str,
    copies: Sequence[int],
    folder: Path,
    settings: Mapping,
    repeats: Repeats,
) -> TaskResult:
    """Train and compare all arms of one segmentation.

    Args:
        sets: None for a cohort without masks; the task is left out then.
        kind: "pneumothorax" or "ribs".
        copies: synthetic images of each real one.
        folder: for finished trainings.
        settings: of `LearnerConfig`.
    """
    if sets is None:
        return left_out("the cohort has no masks")
    config = LearnerConfig(**settings)
    task = sets.task(kind, config.size_in(SIZES).input_size)
    masks = sets.masks(task, kind)
    shown = masks.any(axis=(1, 2))
    images = set_sizes(task.rows, shown)
    patients = {name: sets.patients(task, name) for name in task.tests}
    if reason := missing(task.rows, shown) or of_one_patient(patients):
        return left_out(reason, images)
    jobs = arm_jobs(task_arms(task, copies), config, repeats, val=task.rows["val"], tests=task.tests)
    results = repeats.train(train_and_segment, {"images": task.images, "masks": masks}, jobs, folder)
    truth = {name: masks[rows] for name, rows in task.tests.items()}
    return TaskResult(segmentation_table(results, truth, patients, repeats), images)


def train_and_segment(
    images: np.ndarray,
    masks: np.ndarray,
    *,
    train: np.ndarray,
    val: np.ndarray,
    tests: Mapping[str, np.ndarray],
    config: LearnerConfig,
) -> dict[str, np.ndarray]:
    """Train a U-Net on the rows `train`, select its checkpoint on `val`, and segment the test sets.

    Args:
        masks: bool [N, S, S].
        tests: name -> rows.

    Returns:
        Name of the test set -> Dice of each image; without a true mask 1 if none is predicted, else 0.
    """
    model = train_segmenter(
        images[train], masks[train][:, None], ("mask",), config, val=(images[val], masks[val][:, None])
    )
    predicted = model.predict_sets(images, tests)
    return {name: dice(predicted[name][:, 0], masks[rows]) for name, rows in tests.items()}


def segmentation_table(
    results: Results, truth: Truth, patients: Mapping[str, Sequence[str]], repeats: Repeats
) -> pl.DataFrame:
    """Dice of each arm on each test set (ED Table 8): of images with a mask, and, if there are any, of those without.

    truth: test set -> masks, bool [N, S, S].
    """

    def measures(masks: np.ndarray) -> tuple[list[dict], Measure]:
        shown = masks.any(axis=(1, 2))
        kinds = {DICE: shown} if shown.all() else {POSITIVE: shown, NEGATIVE: ~shown}
        about = [{"category": "all", "metric": kind, "n": int(some.sum())} for kind, some in kinds.items()]
        return about, lambda scores, weights: np.stack(
            [case_mean(scores[some], weights[:, some]) for some in kinds.values()], axis=1
        )

    return task_table(results, truth, patients, repeats, measures)
