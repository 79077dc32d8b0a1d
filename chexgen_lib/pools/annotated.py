"""Annotated radiographs to train and test on: real ones with their truth, and pools drawn from their masks and boxes.

A pool holds what the control adapter drew for some annotations of training images (`annotation_to_image.requests`).
The label of such an image is the mask or the boxes that were asked, whatever it shows (paper, Methods, Training data
augmentation experiments).

A pool that was drawn from other masks or boxes than the cohort's is refused: `annotation_to_image.draw_pool` notes a
hash of each drawing. A folder of images with a table, made by any other generator from the same annotations, can stand
in for a pool (`_read_folder`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments.adherence import KINDS, Annotated, digest, drawings, frontal, with_truth
from chexgen_lib.experiments.augmentation import REAL
from chexgen_lib.images import ImageError, reduced, resize, to_uint8
from chexgen_lib.pools.labelled import check_patients, read_labels, read_listed

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

    pools: folders that `draw_pool` wrote, or of any other generator (`_read_folder`).

    Raises:
        CohortError: if a pool is not there, holds other than its table says, or was drawn from other records or
            masks than the cohort's; or if a patient is on both sides.
        ImageError: naming the file that is missing, cannot be read or is not square.
    """
    folder = Path(root) / "cohort"
    manifests, samples = zip(*(read_pool(Path(pool), resolution) for pool in pools), strict=True)
    asked, table = pl.concat(manifests), frontal(folder)
    if absent := sorted(set(asked["record"]) - set(table["image_id"])):
        raise CohortError(
            f"{len(absent)} records of the pools are no frontal images of the cohort, first {absent[0]!r}; redo stage "
            "06_pools, or take them out of labels.csv"
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
        CohortError: if a pool was drawn from other masks or boxes than these images', or for what they do not show, or
            the pools differ in images a request.
    """
    place = {image_id: row for row, image_id in enumerate(data.table["image_id"])}
    asked = asked.with_columns(row=pl.col("record").replace_strict(place, return_dtype=pl.Int64))
    if blank := [r for *about, r in asked.select("row", "kind", "image_id").iter_rows() if not data.shows(*about)]:
        raise CohortError(
            f"{len(blank)} requests ask for what the cohort's image does not show, first {blank[0]!r}; redo stage "
            "06_pools, or take them out of labels.csv"
        )
    hashes = zip(asked["drawing"], drawings(data, asked), strict=True)
    changed = [noted is not None and noted != digest(drawing) for noted, drawing in hashes]
    if any(changed):
        first = asked["image_id"].filter(pl.Series(changed))[0]
        raise CohortError(
            f"{sum(changed)} images were drawn from other masks than the cohort's, first {first!r}; redo stage 06_pools"
        )
    if len(copies := sorted({len(some[0]) for some in samples})) > 1:
        raise CohortError(f"the pools hold {' and '.join(map(str, copies))} images a request: make them hold as many")
    return Sets(data, rows, asked.select("row", "kind"), np.concatenate(samples))


def read_pool(pool: Path, resolution: int) -> tuple[pl.DataFrame, np.ndarray]:
    """What was asked (image_id, record, kind, drawing) and what was drawn: uint8 [R, K, resolution, resolution].

    Raises CohortError if a file or column is missing, or the two do not fit; and as `_read_folder`.
    """
    if (pool / "labels.csv").is_file():
        return _read_folder(pool, resolution)
    for name in ("samples.npy", "manifest.parquet"):
        if not (pool / name).is_file():
            raise CohortError(
                f"{pool / name} does not exist: run the stage 06_pools first, or give a folder with labels.csv"
            )
    manifest = pl.read_parquet(pool / "manifest.parquet")
    if absent := [c for c in ("image_id", "record", "kind", "drawing") if c not in manifest.columns]:
        raise CohortError(f"{pool}: the manifest lacks {absent}; redo stage 06_pools")
    samples = np.load(pool / "samples.npy", allow_pickle=False)  # [R, K, H, W]
    if samples.ndim != 4 or len(samples) != len(manifest):
        raise CohortError(
            f"{pool}: {len(manifest)} requests and samples {samples.shape} do not fit; redo stage 06_pools"
        )
    drawn = reduced(samples.reshape(-1, *samples.shape[2:]), resolution)
    return manifest.select("image_id", "record", "kind", "drawing"), drawn.reshape(*samples.shape[:2], *drawn.shape[1:])


def _read_folder(pool: Path, resolution: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Images of any other generator, in place of a pool of this one.

    `pool/labels.csv` has the columns `image` (a square file below `pool`), `image_id` (the record whose annotation was
    asked) and `kind` (of annotation, a key of `KINDS`). Images of one record and kind are its copies, in the order of
    the table. The annotation is the cohort's own, so that generators are compared on the same requests; stage 06_pools
    leaves it as an image to draw from (`draw_pool`).
    """
    path, table = pool / "labels.csv", read_labels(pool, ("image", "image_id", "kind"))
    for row, kind in enumerate(table["kind"], 1):
        if kind not in KINDS:
            raise CohortError(f"{path}, row {row}: unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    asked = table.group_by(record="image_id", kind="kind", maintain_order=True).agg("image")
    asked = asked.with_columns(image_id=pl.format("{}:{}", "record", "kind"), copies=pl.col("image").list.len())
    if len(other := asked.filter(pl.col("copies") != asked["copies"][0])):
        raise CohortError(
            f"{path}: {other['copies'][0]} images of {other['image_id'][0]!r}, but {asked['copies'][0]} of "
            f"{asked['image_id'][0]!r}: give equally many of each record and kind"
        )
    samples = np.stack([[_read_square(pool / name, resolution) for name in names] for names in asked["image"]])
    return asked.select("image_id", "record", "kind", drawing=pl.lit(None, pl.String)), samples


def _read_square(path: Path, resolution: int) -> np.ndarray:
    image = read_listed(path)
    if image.shape[0] != image.shape[1]:
        raise ImageError(
            f"{path}: {image.shape[1]} x {image.shape[0]} px; the mask or box that it was drawn from is of a square"
        )
    return to_uint8(resize(image, resolution))
