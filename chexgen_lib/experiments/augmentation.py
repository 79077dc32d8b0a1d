"""Training data augmentation: does a network gain from synthetic images added to the real ones? (paper, Figure 3)

Each arm trains the same network for the same number of optimiser steps, on the real images alone or with one or two
synthetic copies of each (Methods, Training data augmentation experiments). Beside them, oracle arms have as many new
real images of other training patients, with their own labels: what they gain is what there is to gain, and the ratio of
the gains is the worth of a synthetic image. This module has the arms and classification
(ED Table 6); `augmentation_tasks` has segmentation, severity and detection. The checkpoint is selected on real
validation images; each test set is used once. Every arm is trained with several seeds; intervals resample test patients
and seeds, and a difference between arms is taken within each resample.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.estimates import worth
from chexgen_lib.estimates.comparison import ESTIMATE, RUNS, auroc_table
from chexgen_lib.estimates.wording import over_runs, readable
from chexgen_lib.experiments.arms import CHEXGEN, REAL, against, augmented, oracle, shuffled, synthetic_alone
from chexgen_lib.experiments.repeats import Repeats, Results, of_one_patient
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import balanced_weights, train_classifier
from chexgen_lib.pools.annotated import TESTS
from chexgen_lib.pools.labelled import Splits
from chexgen_lib.records import FINDINGS, label_set


def train_and_score(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    train: np.ndarray,
    val: np.ndarray,
    tests: Mapping[str, np.ndarray],
    config: LearnerConfig,
    weights: np.ndarray | None = None,
    names: tuple[str, ...] = FINDINGS,
) -> dict[str, np.ndarray]:
    """Train a classifier on the rows `train`, select its checkpoint on `val`, and score the test sets.

    Args:
        images, labels: those of all arms.
        tests: name -> rows.
        weights: [len(train)], how often each image is sampled; None balances the findings.
        names: of the labels.

    Returns:
        Name of the test set -> scores, float32 [N, L].
    """
    options = {"val": (images[val], labels[val]), "names": names}
    options["weights"] = balanced_weights(labels[train]) if weights is None else weights
    model = train_classifier(images[train], labels[train], config, **options)
    return model.predict_sets(images, tests)


def pool_arms(sets: Mapping[str, Splits], copies: Sequence[int]) -> dict[str, np.ndarray]:
    """Arm -> rows to train on: the real images alone, with synthetic images of each, and with new real ones (oracles).

    Args:
        sets: generator -> its pool with the real images, each `with_pool` of the one before. Only the first has arms of
            all `copies`, the others of the most.
        copies: images beside each real one; at most as many as a pool holds.
    """
    arms = {}
    for number, (generator, own) in enumerate(sets.items()):
        arms[REAL] = train = own.rows["train"]
        possible = sorted({min(k, own.held) for k in copies})
        for k in possible[-1:] if number else possible:
            arms[augmented(k, generator)] = np.concatenate([train, own.copies(k)])
            if len(new := own.further(k)):
                arms[oracle(k)] = np.concatenate([train, new])
    return arms


def classify(
    sets: Mapping[str, Splits],
    copies: Sequence[int],
    config: LearnerConfig,
    repeats: Repeats,
    folder: Path,
    external_labels: Sequence[str] | None = None,
) -> tuple[Results, dict[str, pl.DataFrame]]:
    """Train all arms of the classification and compare them on each test set.

    The arms are those of `pool_arms`, the first generator's most copies alone, and the same beside real ones with
    shuffled labels. What is predicted is the label set of the training images; another dataset is tested on the labels
    that it shares.

    Args:
        sets, copies: as in `pool_arms`; the first generator is ChexGen.
        folder: for finished trainings.
        external_labels: those that the external test is of; None for all that its images know.

    Returns:
        What the trainings predicted, and for each test set `auroc_table` against the real images alone.
    """
    ours, last = sets[CHEXGEN], list(sets.values())[-1]
    pool = ours.everything[ours.synthetic]
    most = min(max(copies), ours.held)
    mislabelled = last.with_pool(pool.shuffled_labels(repeats.seed))
    arms = pool_arms(sets, copies) | {
        synthetic_alone(most): ours.copies(most),
        shuffled(most): np.concatenate([ours.rows["train"], mislabelled.copies(most)]),
    }
    everything, names = mislabelled.everything, label_set(ours.everything.table[ours.rows["train"]])
    labels = everything.states(names)
    if external_labels is not None:
        labels = _restricted(labels, names, ours.rows["external test"], external_labels)
    tests = {name: ours.rows[name] for name in TESTS if len(ours.rows[name])}
    check_shared(labels, tests, names)
    if reason := of_one_patient({name: ours.patients(name) for name in tests}):
        raise CohortError(f"{reason}: select more test images (02_cohort)")
    jobs = arm_jobs(arms, config, repeats, val=ours.rows["val"], tests=tests, names=names)
    results = repeats.train(train_and_score, {"images": everything.images, "labels": labels}, jobs, folder)
    tables = {}
    for name, rows in tests.items():
        options = {"against": against(results), "names": names}
        resampling = repeats.resampling(ours.patients(name))
        tables[name] = auroc_table(scores_of(results, name), labels[rows], resampling, REAL, **options)
    return results, tables


def _restricted(labels: np.ndarray, names: Sequence[str], rows: np.ndarray, kept: Sequence[str]) -> np.ndarray:
    """Labels [N, L] of which only those in `kept` are known of some rows."""
    if unknown := sorted(set(kept) - set(names)):
        raise CohortError(f"external_labels {unknown} are none of the labels that are trained on: {', '.join(names)}")
    labels = labels.copy()
    labels[np.ix_(rows, [k for k, name in enumerate(names) if name not in kept])] = np.nan
    return labels


def check_shared(labels: np.ndarray, tests: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """Raise CohortError if a test set knows none of the labels that are trained on.

    Args:
        labels: [N, L].
        tests: name -> rows.
    """
    for name, rows in tests.items():
        if np.isnan(labels[rows]).all():
            raise CohortError(
                f"{name}: its {len(rows)} images know none of the labels of the training images ({', '.join(names)}); "
                "test on a dataset with some of these, or leave it out of the cohort's sources"
            )


def set_sizes(sets: Mapping[str, Splits]) -> pl.DataFrame:
    """How many images and patients the real sets and each generator's pool have; sets: generator -> its sets."""
    first = next(iter(sets.values()))
    named = [(name, first, rows) for name, rows in first.rows.items()]
    named += [(f"pool of {generator}", own, own.synthetic) for generator, own in sets.items()]
    table = [(name, len(rows), len(set(own.patients_of(rows)))) for name, own, rows in named]
    return pl.DataFrame(table, ["set", "images", "patients"], orient="row")


def arm_jobs(
    arms: Mapping[str, np.ndarray], config: LearnerConfig, repeats: Repeats, **shared: Any
) -> dict[str, list[dict]]:
    """Arm -> the job of each seed: the arm's rows to train on, and what all share."""
    return {
        arm: [{"train": rows, "config": one, **shared} for one in repeats.configs(config)] for arm, rows in arms.items()
    }


def scores_of(results: Results, key: str) -> dict[str, np.ndarray]:
    """Arm -> an array of each seed's results, [S, ...]."""
    return {arm: np.stack([run[key] for run in runs]) for arm, runs in results.items()}


def summary(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """For display: the macro AUROC of each arm on each test set, with the differences from the real images alone."""
    average = _averages(tables)
    if average.select(RUNS).columns:
        print(over_runs(average["seeds"].max()))
    return readable(average.select("test", "n", "arm", *ESTIMATE, RUNS, *worth.COLUMNS))


def _averages(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(table.filter(finding="Average").with_columns(test=pl.lit(k)) for k, table in tables.items())


def metrics(tables: Mapping[str, pl.DataFrame], tasks: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """The numbers of all arms: test set -> arm of the classification, and task -> test set -> measure -> arm.

    Args:
        tables: test set -> `auroc_table`.
        tasks: task -> a table of `augmentation_tasks`.
    """
    values: dict[str, Any] = {}
    for name, table in tables.items():
        for row in table.filter(finding="Average").iter_rows(named=True):
            values.setdefault(name, {})[row["arm"]] = _rounded(row)
    for task, table in tasks.items():
        for row in table.drop_nulls("value").iter_rows(named=True):
            measure = row["metric"] if row["category"] == "all" else f"{row['metric']}, {row['category']}"
            own = values.setdefault(task, {}).setdefault(row["test"], {}).setdefault(measure, {})
            own[row["arm"]] = _rounded(row)
    return values


def _rounded(row: Mapping) -> dict[str, float]:
    known = {k: round(row[k], 5) for k in ("value", "low", "high", "difference", "worth") if row[k] is not None}
    return known | {"n": row["n"]}


def beside_paper(tables: Mapping[str, pl.DataFrame], published: pl.DataFrame) -> pl.DataFrame:
    """Macro AUROC by arm and dataset, the paper's (`published`, ED Table 6) and below them this run's."""
    paper = published.filter(category="Average").select(
        "dataset", "arm", source=pl.lit("paper"), AUROC=(pl.col("value") / 100).round(3)
    )
    own = [
        table.filter(finding="Average").select(
            "arm", dataset=pl.lit(name), source=pl.lit("this run"), AUROC=pl.col("value").round(3)
        )
        for name, table in tables.items()
    ]
    return pl.concat([paper, *own], how="diagonal").select("source", "dataset", "arm", "AUROC")
