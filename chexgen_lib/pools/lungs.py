"""Lungs in real radiographs: a segmenter cross-validated on drawn masks, and synthetic images beside the real ones.

The paper segments pneumothorax and ribs (Figure 3d). Real radiographs with those masks need an account; a small folder
of real radiographs with drawn lungs (`annotations.load_lung_masks`) does not. Being small, it is used by
cross-validation: each image is tested once, by networks that saw no image of its patient.

Images drawn by a control adapter may serve only where the adapter, too, saw no image of the tested patients. Stage 05
trains one adapter, so its held-out patients are one fold, and arms with synthetic images are compared on that fold
alone. (Comparing them on all folds takes an adapter for each.)
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.model_selection import GroupKFold

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments.augmentation import REAL, by_arm, compare, jobs, weighted_mean
from chexgen_lib.experiments.augmentation_tasks import DICE, Results, train_and_segment
from chexgen_lib.kept import run_all
from chexgen_lib.learners.base import device_for
from chexgen_lib.learners.segmenter import SIZES
from chexgen_lib.pools.annotated import AnnotatedSplits, Task, join, read_requests
from chexgen_lib.pools.annotations import Annotated, load_lung_masks
from chexgen_lib.pools.folder import REDO

FOLDS = 5
UNSEEN = 0  # the fold of the adapter's held-out patients
EVERYONE, HELD_OUT = f"{FOLDS}-fold cross-validation", "unseen by the adapter"


def load(folder: str | Path, pool: str | Path, resolution: int) -> AnnotatedSplits:
    """A folder of lung masks, and the pool sampled from the masks that the adapter was trained on.

    Raises:
        CohortError: if folder or pool is missing or wrong, see `load_lung_masks` and `load`; or the pool was not
            sampled from all of the adapter's training images, or from others.
    """
    data = load_lung_masks(Path(folder), resolution)
    requests, samples = read_requests([pool], resolution)
    train = set(data.table.filter(split="train")["image_id"])
    if other := sorted(set(requests["record"]) - train):
        raise CohortError(
            f"{pool}: {len(other)} records are no training images of {folder}, first {other[0]!r}; {REDO}"
        )
    if absent := sorted(train - set(requests["record"])):
        raise CohortError(
            f"{pool}: no sample for {len(absent)} training images of {folder}, first {absent[0]!r}; arms would differ "
            "in their real images: sample for all"
        )
    return join(data, {}, requests, samples)


def folds(data: Annotated) -> np.ndarray:
    """The fold of each image, [N]: `UNSEEN` for the adapter's held-out patients, the others shared out by patient.

    Raises CohortError if there are too few patients.
    """
    seen, fold = data.of("train"), np.full(len(data.images), UNSEEN)
    patients = data.table["patient_id"].gather(seen).to_list()
    if len(set(patients)) < FOLDS - 1:
        raise CohortError(f"{len(set(patients)) + 1} patients do not make {FOLDS} folds; give more images")
    for k, (_, tested) in enumerate(GroupKFold(FOLDS - 1).split(seen, groups=patients), start=UNSEEN + 1):
        fold[seen[tested]] = k
    return fold


def segment(
    sets: AnnotatedSplits, folder: Path, settings: Mapping, *, seeds: int, seed: int, workers: int, n_resamples: int
) -> tuple[str, pl.DataFrame]:
    """A line on the images, and the table of all arms, with the columns of `augmentation_tasks.segmentation_table`.

    folder: for finished runs (`run_all`). settings: of `train_segmenter`. The moment is chosen on the next fold, on
    which nothing is trained.
    """
    task = sets.task("lungs", SIZES[settings["size"]].input_size)
    fold, common = folds(sets.data), dict(settings) | {"device": device_for(workers)}
    runs: dict[str, dict] = {}
    for k in range(FOLDS):
        rows = {name: np.flatnonzero(fold == which) for name, which in (("test", k), ("val", (k + 1) % FOLDS))}
        arms = {f"{arm} / fold {k}": train for arm, train in fold_arms(task, fold, k).items()}
        runs |= jobs(arms, seeds, seed, **rows, **common)
    data = {"images": task.images, "masks": sets.masks(task, "lungs")}
    results = run_all(train_and_segment, data, runs, folder, workers)
    patients = sets.data.table["patient_id"]
    table = lungs_table(results, fold, patients.to_list(), n_resamples=n_resamples, seed=seed)
    sizes = ", ".join(str(n) for n in np.bincount(fold))
    return f"{len(fold)} real images of {patients.n_unique()} patients in {FOLDS} folds of {sizes}", table


def fold_arms(task: Task, fold: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Arm -> rows to train on when fold `k` is tested: all other folds but the next; with copies only if `UNSEEN`."""
    train = np.flatnonzero((fold != k) & (fold != (k + 1) % FOLDS))
    arms = {REAL: train}
    if k == UNSEEN:  # task.arms hold every mask that the adapter was trained on, and what it drew for them
        arms |= {arm: rows[np.isin(task.origin[rows], train)] for arm, rows in task.arms.items() if arm != REAL}
    return arms


def lungs_table(results: Results, fold: np.ndarray, patients: list[str], **options) -> pl.DataFrame:
    """Mean Dice: of real images alone over all folds (`EVERYONE`), and of every arm on `UNSEEN` (`HELD_OUT`).

    results: "ARM / fold K / seed S" -> ``dice`` of the fold's images in turn. patients: of each image; they are what is
    resampled. `note` counts them.
    """
    found = {name: [run["dice"] for run in runs] for name, runs in by_arm(results).items()}
    each = [found[f"{REAL} / fold {k}"] for k in range(FOLDS)]  # [fold][seed]
    unseen = {name.rsplit(" / ", 1)[0]: runs for name, runs in found.items() if name.endswith(f" / fold {UNSEEN}")}
    everyone = {REAL: [np.concatenate(runs) for runs in zip(*each, strict=True)]}
    tests = {EVERYONE: (everyone, np.argsort(fold, kind="stable")), HELD_OUT: (unseen, np.flatnonzero(fold == UNSEEN))}
    tables = []

    def measure(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return weighted_mean(found, counts)[:, None]

    for name, (arms, rows) in tests.items():
        tested = [patients[row] for row in rows]
        about = {"test": name, "category": "all", "metric": DICE, "n": len(rows)}
        note = pl.lit(f"{len(set(tested))} patients").alias("note")
        tables.append(compare(arms, measure, [about], tested, **options).with_columns(note))
    return pl.concat(tables, how="vertical_relaxed")
