"""Real radiographs with lung masks, synthetic images of those masks, and folds of patients to cross-validate on.

The paper segments pneumothorax and ribs (Figure 3d). Real radiographs with those masks need an account; a small folder
of real radiographs with lung masks (`annotations.load_lung_masks`) does not.

A control adapter's samples may serve only where the adapter, too, saw no image of the tested patients. Stage 05 trains
one adapter, so its held-out patients are one fold, and arms with synthetic images are compared on that fold alone.
(Comparing them on all folds takes an adapter for each.)
"""

from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools.annotated import AnnotatedSplits, join, read_requests
from chexgen_lib.pools.annotations import Annotated, load_lung_masks
from chexgen_lib.pools.folder import REDO

FOLDS = 5
UNSEEN = 0  # the fold of the adapter's held-out patients


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
