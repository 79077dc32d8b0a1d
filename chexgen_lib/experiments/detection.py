"""Detection of findings and foreign objects with synthetic images added to real ones (paper, Fig. 3e; ED Table 7)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.estimates.measures import LEAST
from chexgen_lib.experiments.augmentation import arm_jobs
from chexgen_lib.experiments.augmentation_tasks import (
    FOREIGN_OBJECT,
    Measure,
    TaskResult,
    Truth,
    left_out,
    missing,
    set_sizes,
    task_arms,
    task_table,
)
from chexgen_lib.experiments.repeats import Repeats, Results, of_one_patient
from chexgen_lib.learners import detector
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.pools.annotated import AnnotatedSplits

FOREIGN = "Support Devices"  # boxes of foreign objects; all others are findings'
FOREIGN_TASK = "foreign objects"  # a detector of these alone


def detect(
    sets: AnnotatedSplits | None, copies: Sequence[int], folder: Path, settings: Mapping, repeats: Repeats
) -> TaskResult:
    """Train and compare all arms of the detection of `settings["classes"]`; arguments otherwise as `segment`'s."""
    if sets is None:
        return left_out("the cohort has no boxes")
    classes = tuple(settings["classes"])
    config = LearnerConfig(**{name: value for name, value in settings.items() if name != "classes"})
    task = sets.task("boxes", config.size_in(detector.SIZES).input_size)
    boxes = sets.boxes(task, classes)
    boxed = np.array([bool(own) for own in boxes])
    images = set_sizes(task.rows, boxed)
    patients = {name: sets.patients(task, name) for name in task.tests}
    if reason := missing(task.rows, boxed) or of_one_patient(patients):
        return left_out(reason, images)
    data = {"images": task.images, "boxes": detector.to_arrays(boxes, classes)}
    shared = {"val": task.rows["val"], "tests": task.tests, "classes": classes}
    jobs = arm_jobs(task_arms(task, copies), config, repeats, **shared)
    results = repeats.train(train_and_detect, data, jobs, folder)
    truth = {name: [boxes[row] for row in rows] for name, rows in task.tests.items()}
    return TaskResult(detection_table(results, truth, classes, patients, repeats), images)


def detect_all(
    sets: Mapping[str, AnnotatedSplits], copies: Sequence[int], folder: Path, settings: Mapping, repeats: Repeats
) -> TaskResult:
    """The detection of a run; where foreign objects are a dataset of their own, by a detector of their own.

    Args:
        sets: of `annotated.of_run`.
        copies, folder, settings, repeats: as `detect` takes them.
    """
    if FOREIGN_TASK not in sets:
        return detect(sets.get("detection"), copies, folder, settings, repeats)
    results = {}
    for name in ("detection", FOREIGN_TASK):
        classes = [FOREIGN] if name == FOREIGN_TASK else settings["classes"]
        results[name] = detect(sets.get(name), copies, folder / name, {**settings, "classes": classes}, repeats)
    is_foreign = pl.col("category") == FOREIGN_OBJECT
    tables = [r.table.filter(is_foreign if name == FOREIGN_TASK else ~is_foreign) for name, r in results.items()]
    images = [r.images.with_columns(detector=pl.lit(name)) for name, r in results.items() if len(r.images)]
    reasons = "; ".join(f"{name}: {r.left_out}" for name, r in results.items() if r.left_out)
    whole = pl.concat(tables, how="diagonal_relaxed")
    return TaskResult(whole, pl.concat(images) if images else pl.DataFrame(), reasons if whole.is_empty() else "")


def train_and_detect(
    images: np.ndarray,
    boxes: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    train: np.ndarray,
    val: np.ndarray,
    tests: Mapping[str, np.ndarray],
    config: LearnerConfig,
) -> dict[str, np.ndarray]:
    """Train a Faster R-CNN on the rows `train`, select its checkpoint on `val`, and detect in the test sets.

    Args:
        boxes: the true ones of all images, as `detector.to_arrays` stores them.
        tests: name -> rows.

    Returns:
        "NAME of the test set/ARRAY" -> the predicted boxes, stored likewise; see `predicted_boxes`.
    """
    true = detector.from_arrays(boxes, len(images), classes)
    given, selected = ((images[rows], [true[row] for row in rows]) for rows in (train, val))
    model = detector.train_detector(*given, tuple(classes), config, val=selected)
    predicted = model.predict_sets(images, tests)
    return {
        f"{name}/{key}": array
        for name, own in predicted.items()
        for key, array in detector.to_arrays(own, classes).items()
    }


def predicted_boxes(run: Mapping[str, np.ndarray], test: str, n: int, classes: Sequence[str]) -> list[list[dict]]:
    """The boxes that `train_and_detect` predicted for the n images of a test set."""
    stored = {key.removeprefix(f"{test}/"): array for key, array in run.items() if key.startswith(f"{test}/")}
    return detector.from_arrays(stored, n, classes)


def detection_table(
    results: Results, truth: Truth, classes: Sequence[str], patients: Mapping[str, Sequence[str]], repeats: Repeats
) -> pl.DataFrame:
    """mAP50 and mAR50 of each arm on each test set: each finding, their mean, and foreign objects (ED Table 7).

    truth: test set -> the true boxes of each image; n counts them.
    """
    classes = tuple(classes)
    findings = [c for c, name in enumerate(classes) if name != FOREIGN]
    names = [FOREIGN_OBJECT if name == FOREIGN else name for name in classes] + [detector.OVERALL]

    def measures(true: detector.Boxes) -> tuple[list[dict], Measure]:
        counts = np.array([sum(box["class"] == c for own in true for box in own) for c in classes])
        enough = np.where(counts >= LEAST, counts, 0)  # the classes with an estimate
        numbers = zip(names, [*counts.tolist(), int(enough[findings].sum())], strict=True)
        about = [{"category": c, "metric": m, "n": n} for c, n in numbers for m in ("mAP50", "mAR50")]

        def measure(predicted: detector.Boxes, weights: np.ndarray) -> np.ndarray:
            values = detector.resampled(true, predicted, classes, weights)[:, : len(classes)]  # [B, C, 2]
            values = np.where((counts >= LEAST)[:, None], values, np.nan)
            overall = np.ma.masked_invalid(values[:, findings]).mean(axis=1, keepdims=True).filled(np.nan)
            return np.concatenate([values, overall], axis=1).reshape(len(weights), -1)

        return about, measure

    predicted = {
        arm: [{test: predicted_boxes(run, test, len(own), classes) for test, own in truth.items()} for run in runs]
        for arm, runs in results.items()
    }
    return task_table(predicted, truth, patients, repeats, measures)
