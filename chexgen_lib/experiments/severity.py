"""Regression of severity with synthetic images added to real ones, and whether samples show the requested severity.

(Paper, Figure 3f; ED Table 9; ED Figure 15.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.comparison import estimate, tidy
from chexgen_lib.estimates.measures import pearson
from chexgen_lib.experiments.arms import REAL
from chexgen_lib.experiments.augmentation import arm_jobs, pool_arms
from chexgen_lib.experiments.augmentation_tasks import (
    Measure,
    TaskResult,
    Truth,
    case_mean,
    left_out,
    missing,
    set_sizes,
    task_table,
)
from chexgen_lib.experiments.repeats import Repeats, Results, of_one_patient
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.regressor import SIZES, cut_points, grades, opacity_scores, scored_purpose, train_regressor
from chexgen_lib.pools import labelled
from chexgen_lib.pools.annotated import TESTS
from chexgen_lib.pools.labelled import Splits


def load(
    root: str | Path, cohort: pl.DataFrame, pools: Mapping[str, str | Path], resolution: int, settings: Mapping
) -> dict[str, Splits] | None:
    """The real images of a run with each generator's pool, as `grade` takes them; None if the cohort has no scores.

    Args:
        pools: generator -> folder.
        resolution: of the cohort's images, in pixels.
        settings: of `LearnerConfig`.
    """
    if cut_points(cohort) is None:
        return None
    size = LearnerConfig(**settings).size_in(SIZES).input_size
    (generator, folder), *others = pools.items()
    ours = labelled.assemble(root, folder, resolution, size, purpose=scored_purpose(cohort))
    return {generator: ours} | labelled.beside(ours, dict(others), cohort, size)


def grade(
    sets: Mapping[str, Splits] | None,
    cohort: pl.DataFrame,
    copies: Sequence[int],
    folder: Path,
    settings: Mapping,
    repeats: Repeats,
) -> TaskResult:
    """Train and compare all arms of the regression of `regressor.opacity_scores`.

    Its pools are generated from text, so every text-to-image generator can have arms. The networks of real images alone
    also score the pools' images (`readings`).

    Args:
        sets: as in `augmentation.pool_arms`; None for a cohort without scores, the task is left out then.
        cohort: with the records' severity.
        copies, folder, settings: as in `segment`.
    """
    if sets is None:
        return left_out("the cohort has no scores")
    last = list(sets.values())[-1].everything  # which holds the images of all generators
    scores = scores_of(last.table, cohort)
    known = np.isfinite(scores)
    everyone = {name: list(sets.values())[-1].rows[name] for name in ("train", "val", "further train", *TESTS)}
    rows = {name: some[known[some]] for name, some in everyone.items()}
    sets = {generator: replace(own, rows=own.rows | rows) for generator, own in sets.items()}
    unscored = pl.Series("without score", [len(everyone[name]) - len(rows[name]) for name in everyone])
    images = set_sizes(rows, scores > 0).with_columns(unscored)
    tests = {name: rows[name] for name in TESTS if len(rows[name])}
    patients = {name: last.table["patient_id"].gather(some).to_list() for name, some in tests.items()}
    if reason := missing(rows, scores > 0) or of_one_patient(patients):
        return left_out(reason, images)
    # a pool may have images of records without a score
    arms = {arm: some[known[some]] for arm, some in pool_arms(sets, copies).items()}
    pools = {generator: own.synthetic[known[own.synthetic]] for generator, own in sets.items()}
    jobs = arm_jobs(arms, LearnerConfig(**settings), repeats, val=rows["val"], tests=tests | pools)
    results = repeats.train(train_and_grade, {"images": last.images, "scores": scores}, jobs, folder)
    truth = {name: scores[some] for name, some in tests.items()}
    read = readings(results[REAL], tests | pools, scores, last.table, cut_points(cohort))
    return TaskResult(severity_table(results, truth, patients, repeats), images, readings=read)


def scores_of(table: pl.DataFrame, cohort: pl.DataFrame) -> np.ndarray:
    """The opacity score of each image's record, float64 [N], NaN where it has none; table: with `image_id`."""
    scored = cohort.select("image_id", pl.Series("score", opacity_scores(cohort)))
    return table.select("image_id").join(scored, on="image_id", how="left", maintain_order="left")["score"].to_numpy()


def train_and_grade(
    images: np.ndarray,
    scores: np.ndarray,
    *,
    train: np.ndarray,
    val: np.ndarray,
    tests: Mapping[str, np.ndarray],
    config: LearnerConfig,
) -> dict[str, np.ndarray]:
    """Train a ResNet on the rows `train`, select its checkpoint on `val`, and score the test sets, 0..1."""
    model = train_regressor(images[train], scores[train], config, val=(images[val], scores[val]))
    return model.predict_sets(images, tests)


def severity_table(
    results: Results, truth: Truth, patients: Mapping[str, Sequence[str]], repeats: Repeats
) -> pl.DataFrame:
    """MAE, MSE and Pearson r of each arm on each test set (ED Table 9); truth: test set -> scores [N] in 0..1."""

    def measures(scores: np.ndarray) -> tuple[list[dict], Measure]:
        def measure(predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
            error = np.abs(predicted - scores)
            r = pearson(predicted, scores, weights)
            return np.stack([case_mean(error, weights), case_mean(error**2, weights), r], axis=1)

        return [{"category": "all", "metric": m, "n": len(scores)} for m in ("MAE", "MSE", "Pearson r")], measure

    return task_table(results, truth, patients, repeats, measures)


def readings(
    runs: Sequence[Mapping[str, np.ndarray]],
    rows: Mapping[str, np.ndarray],
    scores: np.ndarray,
    table: pl.DataFrame,
    cuts: np.ndarray,
) -> pl.DataFrame:
    """Scores that networks predict for images, beside the requested score (of real images: the true one).

    Args:
        runs: predictions of each set of `rows`, by networks of real images alone.
        rows: sets of rows of `scores` [N] and `table` (of a `LabelledSet`).
        cuts: of `regressor.grades`.

    Returns:
        set, row, real (row of the record's real image), image_id, patient_id, copy, asked (the requested score), grade
        (of that score, of all opacities together: not the prompt's words), read (the mean prediction of the runs).
    """
    first = table.with_row_index("real").unique("image_id", keep="first").select("image_id", pl.col("real").cast(int))
    parts = [
        table[own].select(
            "image_id",
            "patient_id",
            "copy",
            pl.lit(name).alias("set"),
            pl.Series("row", own),
            pl.Series("asked", scores[own]),
            pl.Series("grade", grades(scores[own], cuts), pl.String),
            pl.Series("read", np.mean([run[name] for run in runs], axis=0), pl.Float64),
        )
        for name, own in rows.items()
    ]
    return pl.concat(parts).join(first, on="image_id", how="left", maintain_order="left")


def agreement(read: pl.DataFrame, repeats: Repeats) -> pl.DataFrame:
    """How well `readings` follow the requested scores: Pearson r and Spearman's rho of each set.

    Returns:
        set, metric, value, low, high, n (images), patients; null where a side is constant. Sets of one patient are
        left out. Empty if `read` is.
    """
    if read.is_empty():
        return pl.DataFrame()
    rows = []
    for (name,), own in read.group_by("set", maintain_order=True):
        if own["patient_id"].n_unique() < 2:
            continue  # a pool of one patient: its images are in `readings`, an interval they do not have
        resampling = repeats.resampling(own["patient_id"])
        scores = own.select("asked", "read").to_numpy()
        for metric, x in {"Pearson r": scores, "Spearman rho": stats.rankdata(scores, axis=0)}.items():
            numbers = estimate(pearson(*x.T, resampling.weights))
            rows.append({"set": name, "metric": metric, **numbers, "n": len(own), "patients": resampling.patients})
    return tidy(rows, ["set", "metric", "value", "low", "high", "n", "patients"])
