"""What a generator is measured on: held-out real images, samples of the same prompts, and its training images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib import images as im
from chexgen_lib.cohort import layout as cohort
from chexgen_lib.estimates.comparison import auroc_table
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import train_classifier
from chexgen_lib.pools import labelled, rivals
from chexgen_lib.pools.labelled import LabelledSet
from chexgen_lib.pools.requests import stated_findings
from chexgen_lib.quality.novelty import seen
from chexgen_lib.records import FINDINGS
from chexgen_lib.stored_images import StoredImages


@dataclass(frozen=True)
class HeldOut:
    """Prompts of held-out records with their real images and samples, in one order.

    Attributes:
        real: float32 [N, H, W] in [0, 1], the image that each prompt belongs to.
        synthetic: float32 [N, S, H, W] in [0, 1], S >= 2 samples of each prompt.
        labels: [N, 14], 1, 0 or NaN: what the prompts request (`requested_labels`).
        train: [M, H, W], images of this run that the generator was trained on, stored (`StoredImages`) or float32 in
            [0, 1]. What weights from elsewhere saw before, as the shipped foundation, is not among them.
        patients: the patient of each prompt; patients are what is resampled.
        seen: bool [N], whether the prompt stands verbatim among the training texts (`novelty.seen`); None: not known.
        rivals: other generators' samples of the same prompts, each as `synthetic`.

    Raises:
        ValueError: naming the array that does not fit (ImageError for pixels out of range).
    """

    real: np.ndarray
    synthetic: np.ndarray
    labels: np.ndarray
    train: np.ndarray | StoredImages
    patients: Sequence[str]
    seen: np.ndarray | None = None
    rivals: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        im.check(self.real, "real")
        if not isinstance(self.train, StoredImages):
            im.check(self.train, "train")
        n, shape = len(self.real), self.real.shape[1:]
        if self.real.ndim != 3 or n < 4:
            raise ValueError(f"real: needs at least 4 images [N, H, W], got shape {self.real.shape}")
        for name, samples in {"synthetic": self.synthetic, **self.rivals}.items():
            s = samples.shape
            if len(s) != 4 or s[0] != n or s[1] < 2 or s[2:] != shape:
                raise ValueError(f"{name}: needs [{n}, S >= 2, {shape[0]}, {shape[1]}], got shape {s}")
            im.check(samples.reshape(-1, *shape), name)
        if np.shape(self.labels) != (n, len(FINDINGS)):
            raise ValueError(f"labels: needs [{n}, {len(FINDINGS)}], got shape {np.shape(self.labels)}")
        if self.train.ndim != 3 or self.train.shape[1:] != shape or len(self.train) < 2:
            raise ValueError(f"train: needs at least 2 images of {shape}, got shape {self.train.shape}")
        for name, given in (("patients", self.patients), ("seen", self.seen)):
            if given is not None and len(given) != n:
                raise ValueError(f"{name}: needs one for each of {n} prompts, got {len(given)}")


def load(root: str | Path, resolution: int) -> tuple[HeldOut, pl.DataFrame]:
    """The samples of stage 06_synthesis with the real images of their records, and a table of the prompts.

    Its columns are image_id, prompt, and unsaid, how many findings the record has that the prompt leaves out.

    Other generators' samples are enlarged or reduced to `resolution`. Records are looked up by id, never by position.

    Raises:
        ValueError: if samples and cohort do not belong together, or a prompt is not of the test split.
    """
    root = Path(root)
    table = cohort.load(root / "cohort")
    manifest = pl.read_parquet(root / "synthesis/manifest.parquet", glob=False)
    samples = np.load(root / "synthesis/samples.npy", allow_pickle=False)
    if samples.ndim != 4 or len(manifest) != len(samples) or set(samples.shape[2:]) != {resolution}:
        raise ValueError(
            f"{len(manifest)} prompts and samples {samples.shape} do not fit {resolution} px; run stage 06 again"
        )
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"])}
    if unknown := [i for i in manifest["image_id"] if i not in row_of]:
        raise ValueError(
            f"manifest.parquet: {len(unknown)} ids are not in the cohort, first {unknown[0]!r}; run stage 06"
        )
    rows = [row_of[i] for i in manifest["image_id"]]
    if set(table["split"].gather(rows)) != {"test"}:
        raise ValueError(
            "manifest.parquet: prompts must belong to the test split, or the generator was trained on them"
        )
    train = np.flatnonzero((table["split"] == "train").to_numpy())
    real = im.from_uint8(cohort.load_images(root / "cohort", resolution, rows))
    known = cohort.stored_images(root / "cohort", resolution)[train]
    labels = requested_labels(table[rows], manifest["prompt"].to_list())
    patients = table["patient_id"].gather(rows).to_list()
    twins = seen(manifest["prompt"].to_list(), table["prompt"].gather(train))
    others = {
        name: _rival(folder, manifest, resolution)
        for name, folder in rivals.folders(root / "pools/rivals/synthesis").items()
    }
    held_out = HeldOut(real, im.from_uint8(samples), labels, known, patients, twins, others)
    positive = (table[rows].select(FINDINGS) == 1).fill_null(False).to_numpy()
    unsaid = pl.Series("unsaid", (positive & np.isnan(labels)).sum(1))
    return held_out, manifest.select("image_id", "prompt", unsaid)


def _rival(folder: Path, prompts: pl.DataFrame, resolution: int) -> np.ndarray:
    """Another generator's samples of these prompts, float32 [N, S, R, R]."""
    samples = np.load(folder / "samples.npy", allow_pickle=False)
    manifest = pl.read_parquet(folder / "manifest.parquet", glob=False)
    if manifest["image_id"].to_list() != prompts["image_id"].to_list():
        raise ValueError(f"{folder}: its samples are of other prompts than this run's; run stage 06 again")
    flat = im.reduced(samples.reshape(-1, *samples.shape[2:]), resolution)
    return im.from_uint8(flat.reshape(*samples.shape[:2], resolution, resolution))


def requested_labels(records: pl.DataFrame, prompts: Sequence[str]) -> np.ndarray:
    """What prompts request of the 14 findings: the labels of their records, [N, 14], 1, 0 or NaN.

    A finding that a record has and its prompt leaves out is unknown: radiologists' impressions leave out what they
    think unimportant, and no generator can show what it was not asked for. So is one that the prompt affirms and the
    record has not.
    """
    labels = records.select(pl.col(FINDINGS).cast(pl.Float64)).fill_null(np.nan).to_numpy(writable=True)
    for row, stated in zip(labels, stated_findings(prompts), strict=True):
        affirmed = np.array([finding in stated for finding in FINDINGS])
        unsaid = ~affirmed & (np.array(FINDINGS) != "No Finding")
        row[(row == 1) & unsaid | (row == 0) & affirmed] = np.nan
    return labels


def real_images(root: str | Path, resolution: int, split: str) -> LabelledSet:
    """All real images of a split of the cohort, with their labels."""
    folder = Path(root, "cohort")
    table = cohort.load(folder).with_row_index("row").filter(split=split)
    return labelled.real(table, cohort.stored_images(folder, resolution)[table["row"].to_numpy()], resolution)


def train_scorer(folder: Path, train: LabelledSet, val: LabelledSet, config: LearnerConfig) -> None:
    """Train a classifier on real images, select its checkpoint on others, and save it in `folder` (for `kept`)."""
    train_classifier(train.images, train.labels, config, val=(val.images, val.labels)).save(folder)


def scorer_table(scorer: str, scores: np.ndarray, labels: np.ndarray, resampling: Resampling) -> pl.DataFrame:
    """AUROC of the scorer on real images, by finding and on average (`auroc_table`).

    Args:
        scorer: its name, the column `arm`.
        scores: [N, 14], NaN for the findings that it does not know: they have no estimate.
        labels: [N, 14], 1, 0 or NaN.
    """
    known = np.isfinite(scores).all(0)
    labels = np.where(known, labels, np.nan)
    return auroc_table({scorer: np.where(known, scores, 0)[None]}, labels, resampling, fewest=1)


def examples(held_out: HeldOut, at_most: int = 6) -> list[int]:
    """Prompts for a gallery: one for each finding that is requested."""
    chosen: list[int] = []
    for labels in np.asarray(held_out.labels).T:
        chosen += [int(p) for p in np.flatnonzero(labels == 1) if p not in chosen][:1]
    return chosen[:at_most] or list(range(min(at_most, len(held_out.real))))


def requested(held_out: HeldOut) -> pl.DataFrame:
    """Per finding: how many prompts request its presence, and for how many it is known: finding, present, known."""
    labels = np.asarray(held_out.labels)
    return pl.DataFrame(
        {"finding": FINDINGS, "present": np.nansum(labels, 0).astype(int), "known": np.isfinite(labels).sum(0)}
    )
