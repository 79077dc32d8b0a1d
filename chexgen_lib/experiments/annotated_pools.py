"""Annotated radiographs to train and test on: real ones with their truth, and pools drawn from their masks and boxes.

A pool holds what the control adapter drew for some annotations of training images (`annotation_to_image.requests`).
The label of such an image is the mask or the boxes that were asked, whatever it shows (paper, Methods, Training data
augmentation experiments).

A pool that was drawn from other masks or boxes than the cohort's is refused: `annotation_to_image.draw_pool` notes a
hash of each drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import CohortError
from chexgen_lib.experiments.annotation_to_image import KINDS, Annotated, digest, drawings, frontal, with_truth
from chexgen_lib.experiments.augmentation import REAL
from chexgen_lib.experiments.pools import check_patients
from chexgen_lib.images import reduced, resize

TESTS = ("test", "external test")


@dataclass(frozen=True)
class Task:
    """Images of one task, the real ones and then the pool's.

    Attributes:
        images: uint8 [N, S, S].
        origin: [N], the annotated image (row of `Sets.data`) whose annotation each has.
        rows: rows of `images`: "train" (the images that the pool was drawn from), "val", "test", "external test".
        arms: arm -> rows to train on: the real images alone, and with one, two, ... synthetic copies of each.
    """

    images: np.ndarray
    origin: np.ndarray
    rows: dict[str, np.ndarray]
    arms: dict[str, np.ndarray]

    @property
    def tests(self) -> dict[str, np.ndarray]:
        """The test sets that have images."""
        return {name: self.rows[name] for name in TESTS if len(self.rows[name])}


@dataclass(frozen=True)
class Sets:
    """Annotated images of a cohort, which are for what, and the pools drawn from some of them.

    Attributes:
        data: the records of the pools, and the validation and test images.
        rows: rows of `data` that are "val", "test" (both of the pools' sources) and "external test" (of the others).
        asked: a row for each request: row (of `data`) and kind.
        samples: uint8 [R, K, H, W], what was drawn for each.
    """

    data: Annotated
    rows: dict[str, np.ndarray]
    asked: pl.DataFrame
    samples: np.ndarray

    def task(self, kind: str, size: int) -> Task:
        """Images at `size` pixels for one kind of annotation, a key of `KINDS`.

        A search for pneumothorax needs images without: those are drawn from other annotations of images that show none.

        Raises:
            CohortError: if the pools hold no such request.
        """
        chosen = (self.asked["kind"] == kind).to_numpy()
        if kind == "pneumothorax":
            negative = np.array([not self.data.mask(row, KINDS[kind]).any() for row in self.asked["row"]])
            chosen |= negative & self.asked["row"].is_first_distinct().to_numpy()  # each image once
        if not chosen.any():
            raise CohortError(f"the pools hold nothing drawn for {kind!r}: ask for more in stage 06_pools")
        train = self.asked["row"].to_numpy()[chosen]
        drawn = self.samples[chosen].swapaxes(0, 1)  # [K, R, H, W]
        images = np.concatenate([reduced(self.data.images, size), reduced(drawn.reshape(-1, *drawn.shape[2:]), size)])
        origin = np.concatenate([np.arange(len(self.data.images)), np.tile(train, len(drawn))])
        copies = len(self.data.images) + np.arange(len(drawn) * len(train)).reshape(len(drawn), -1)
        arms = {f"real + {k + 1}x": np.concatenate([train, *copies[: k + 1]]) for k in range(len(copies))}
        return Task(images, origin, {"train": train} | self.rows, {REAL: train} | arms)

    def masks(self, task: Task, kind: str) -> np.ndarray:
        """Bool [N, S, S]: the mask of each image of a task, at its size."""
        masks = self.data.masks[:, self.data.classes.index(KINDS[kind])].astype(np.float32)
        return (resize(masks, task.images.shape[-1]) > 0.5)[task.origin]

    def boxes(self, task: Task, classes: Sequence[str]) -> list[list[dict]]:
        """The boxes of some classes in each image of a task."""
        found = [[b for b in self.data.boxes(row) if b["class"] in classes] for row in range(len(self.data.images))]
        return [found[row] for row in task.origin]

    def patients(self, task: Task, name: str) -> list[str]:
        return self.data.table["patient_id"].gather(task.origin[task.rows[name]]).to_list()


def load(root: str | Path, resolution: int, pools: Sequence[str | Path]) -> Sets:
    """The cohort of a run and what stage 06_pools drew from its annotations.

    Raises:
        CohortError: if a pool is not there, holds other than its manifest says, or was drawn from other records or
            masks than the cohort's; or if a patient is on both sides.
    """
    folder = Path(root) / "cohort"
    manifests, samples = zip(*(read_pool(Path(pool)) for pool in pools), strict=True)
    asked, table = pl.concat(manifests), frontal(folder)
    if absent := sorted(set(asked["record"]) - set(table["image_id"])):
        raise CohortError(
            f"{len(absent)} records of the pools are not in the cohort, first {absent[0]!r}; redo stage 06_pools"
        )
    drawn_from = pl.col("image_id").is_in(asked["record"].unique().to_list())
    internal = pl.col("source").is_in(table.filter(drawn_from)["source"].unique().to_list())
    sets = {
        "train": drawn_from,
        "val": internal & (pl.col("split") == "val"),
        "test": internal & (pl.col("split") == "test"),
        "external test": ~internal & (pl.col("split") == "test"),
    }
    data = with_truth(folder, resolution, table.filter(pl.any_horizontal(*sets.values())))
    kept = data.table.select("image_id").join(table, on="image_id", maintain_order="left")
    rows = {name: np.flatnonzero(kept.select(keep).to_series().to_numpy()) for name, keep in sets.items()}
    check_patients(kept, rows)
    return drawn_for(data, {k: v for k, v in rows.items() if k != "train"}, asked, samples)


def drawn_for(data: Annotated, rows: dict[str, np.ndarray], asked: pl.DataFrame, samples: Sequence[np.ndarray]) -> Sets:
    """The sets of some annotated images and what was drawn for them; asked, samples: of pools, one after the other.

    Raises:
        CohortError: if a pool was drawn from other masks or boxes than these images'.
    """
    place = {image_id: row for row, image_id in enumerate(data.table["image_id"])}
    asked = asked.with_columns(row=pl.col("record").replace_strict(place, return_dtype=pl.Int64))
    changed = [d != digest(image) for d, image in zip(asked["drawing"], drawings(data, asked), strict=True)]
    if any(changed):
        first = asked["image_id"].filter(pl.Series(changed))[0]
        raise CohortError(
            f"{sum(changed)} images were drawn from other masks than the cohort's, first {first!r}; redo stage 06_pools"
        )
    copies = min(len(some[0]) for some in samples)
    samples = np.concatenate([some[:, :copies] for some in samples])
    return Sets(data, rows, asked.select("row", "kind"), samples)


def read_pool(pool: Path) -> tuple[pl.DataFrame, np.ndarray]:
    """What was asked (image_id, record, kind, drawing of each) and drawn, uint8 [R, K, H, W].

    Raises CohortError if a file or column is missing, or the two do not fit.
    """
    for name in ("samples.npy", "manifest.parquet"):
        if not (pool / name).is_file():
            raise CohortError(f"{pool / name} does not exist: run the stage 06_pools first")
    manifest = pl.read_parquet(pool / "manifest.parquet")
    if absent := [c for c in ("image_id", "record", "kind", "drawing") if c not in manifest.columns]:
        raise CohortError(f"{pool}: the manifest lacks {absent}; redo stage 06_pools")
    samples = np.load(pool / "samples.npy", allow_pickle=False)  # [R, K, H, W]
    if samples.ndim != 4 or len(samples) != len(manifest):
        raise CohortError(
            f"{pool}: {len(manifest)} requests and samples {samples.shape} do not fit; redo stage 06_pools"
        )
    return manifest.select("image_id", "record", "kind", "drawing"), samples
