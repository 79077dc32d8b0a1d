"""Annotated radiographs to train and test on: real ones with ground truth, and pools sampled from their annotations.

A pool holds samples of the control adapter for some annotations of training images (`annotations.choose_requests`). The
label of such an image is the mask or the boxes that were requested, whatever it shows (paper, Methods, Training data
augmentation experiments). A pool sampled from other masks or boxes than the cohort's is refused by the hashes of its
condition images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import reduced, resize
from chexgen_lib.pools.annotation_sources import of_records
from chexgen_lib.pools.annotations import (
    CANDIDATES,
    KINDS,
    Annotated,
    condition_hash,
    condition_images,
    frontal,
    with_truth,
)
from chexgen_lib.pools.folder import REDO, check_even, read_pool
from chexgen_lib.pools.labelled import check_patients, shuffled

REQUEST = ("record", "kind")
TESTS = ("test", "external test")
WHOLE = {"class": "No Finding", "x": 0.0, "y": 0.0, "w": 1.0, "h": 1.0}
KIND_OF = {"pneumothorax": "pneumothorax", "ribs": "ribs", "detection": "boxes", "foreign objects": "boxes"}  # of tasks


@dataclass(frozen=True)
class Task:
    """Images of one task, the real ones and then the pool's.

    Attributes:
        images: uint8 [N, S, S].
        origin: [N], the annotated image (row of `AnnotatedSplits.data`) whose annotation each has.
        rows: rows of `images`: "train" (the images that the pool was sampled from), "val", "test", "external test".
        copies: [K, R], rows of the K synthetic images of each training image.
        further: [J, R], rows of new real images, as many in each line as training images and as many of them positive;
            of other patients, no image twice.
    """

    images: np.ndarray
    origin: np.ndarray
    rows: dict[str, np.ndarray]
    copies: np.ndarray
    further: np.ndarray

    @property
    def tests(self) -> dict[str, np.ndarray]:
        """The test sets that have images."""
        return {name: self.rows[name] for name in TESTS if len(self.rows[name])}


@dataclass(frozen=True)
class AnnotatedSplits:
    """Annotated images of a cohort, their splits, and the pools sampled from some of them.

    Attributes:
        data: the records of the pools, and the validation and test images.
        rows: rows of `data` that are "further train" (training images of patients whom no pool was sampled for,
            shuffled), "val", "test" (all three of the pools' sources) and "external test" (of the others).
        requests: row (of `data`) and kind of each.
        samples: uint8 [R, K, H, W], of each request.
    """

    data: Annotated
    rows: dict[str, np.ndarray]
    requests: pl.DataFrame
    samples: np.ndarray

    def task(self, kind: str, size: int) -> Task:
        """Images at `size` pixels for one kind of annotation, a key of `KINDS`.

        Segmenting pneumothorax needs images without it: samples of other annotations of images that show none.

        Raises:
            CohortError: if the pools hold no such request.
        """
        chosen = (self.requests["kind"] == kind).to_numpy()
        if kind == "pneumothorax":
            negative = np.array([not self.data.mask(row, KINDS[kind]).any() for row in self.requests["row"]])
            chosen |= negative & self.requests["row"].is_first_distinct().to_numpy()  # each image once
        if not chosen.any():
            raise CohortError(f"the pools hold no request for {kind!r}: add some in stage 06_pools")
        train = self.requests["row"].to_numpy()[chosen]
        samples = self.samples[chosen].swapaxes(0, 1)  # [K, R, H, W]
        images = np.concatenate(
            [reduced(self.data.images, size), reduced(samples.reshape(-1, *samples.shape[2:]), size)]
        )
        origin = np.concatenate([np.arange(len(self.data.images)), np.tile(train, len(samples))])
        copies = len(self.data.images) + np.arange(len(samples) * len(train)).reshape(len(samples), -1)
        rows = {name: own for name, own in self.rows.items() if name != "further train"}
        return Task(images, origin, {"train": train} | rows, copies, self._further(kind, train, len(samples)))

    def _further(self, kind: str, train: np.ndarray, most: int) -> np.ndarray:
        """`Task.further` with at most `most` lines."""
        candidates = self.rows.get("further train", np.zeros(0, np.int64))
        given, found = (np.array([self.data.shows(row, kind) for row in rows], bool) for rows in (train, candidates))
        parts = []
        for sign in (True, False):
            own, wanted = candidates[found == sign], int((given == sign).sum())
            lines = min(most, len(own) // wanted) if wanted else most
            parts.append(own[: lines * wanted].reshape(lines, wanted))
        lines = min(map(len, parts))
        return np.concatenate([part[:lines] for part in parts], axis=1)

    def masks(self, task: Task, kind: str) -> np.ndarray:
        """Bool [N, S, S]: the mask of each image of a task, at its size."""
        size, rows = task.images.shape[-1], range(len(self.data.images))
        masks = (self.data.mask(row, KINDS[kind]).astype(np.float32) for row in rows)
        return np.stack([resize(mask, size) > 0.5 for mask in masks])[task.origin]

    def boxes(self, task: Task, classes: Sequence[str]) -> list[list[dict]]:
        """The boxes of some classes in each image of a task; one of No Finding is around an image without any box."""
        every = [self.data.boxes(row) or [WHOLE] for row in range(len(self.data.images))]
        boxes = [[box for box in own if box["class"] in classes] for own in every]
        return [boxes[row] for row in task.origin]

    def patients(self, task: Task, name: str) -> list[str]:
        """The patient of each image of a set of a task."""
        return self.data.table["patient_id"].gather(task.origin[task.rows[name]]).to_list()


def load(root: str | Path, resolution: int, pools: Sequence[str | Path]) -> AnnotatedSplits:
    """The cohort of a run and the pools that were sampled from its annotations (`folder.read_pool`).

    Raises:
        CohortError: if a pool is missing, does not match its table, or was sampled from other records or masks than the
            cohort's; or if a patient is on both sides.
        ImageError: naming the file that is missing, cannot be read or is not square.
    """
    folder = Path(root) / "cohort"
    requests, samples = read_requests(pools, resolution)
    table = frontal(folder)
    if absent := sorted(set(requests["record"]) - set(table["image_id"])):
        raise CohortError(
            f"{len(absent)} records of the pools are no frontal images of the cohort, first {absent[0]!r}; {REDO}"
        )
    sampled = pl.col("image_id").is_in(requests["record"].unique().to_list())
    internal = pl.col("source").is_in(table.filter(sampled)["source"].unique().to_list())
    further = _further(table.filter(internal, pl.col("split") == "train"), requests)
    sets = _sets(internal, sampled, pl.col("image_id").is_in(further))
    data = with_truth(folder, resolution, table.filter(pl.any_horizontal(*sets.values())))
    used = data.table.select("image_id").join(table, on="image_id", maintain_order="left")
    return _split(data, used, sets, requests, samples)


def load_dataset(
    root: str | Path,
    resolution: int,
    pools: Sequence[str | Path],
    kind: str,
    sources: Sequence[str],
    external: Sequence[str] = (),
) -> AnnotatedSplits:
    """Annotated datasets of a run, and what was sampled from their annotations.

    Args:
        kind: of `KINDS`, of their annotations.
        sources: datasets to train, validate and test on.
        external: those that are tested on as well.

    Raises:
        CohortError: as `load`, or if the pools hold no request for a training image of `sources`.
    """
    data = of_records(Path(root) / "cohort", resolution, {kind: [*sources, *external]})
    requests, samples = read_requests(pools, resolution)
    table = data.table.with_columns(source=pl.col("image_id").str.extract(r"^([^:]+):"))
    internal = pl.col("source").is_in(list(sources))
    own = table.filter(internal, split="train")
    chosen = pl.Series((requests["kind"] == kind) & requests["record"].is_in(own["image_id"].to_list()))
    if not chosen.any():
        raise CohortError(f"the pools hold no request for {kind!r} of {', '.join(sources)}: add some in stage 06_pools")
    requests, samples = requests.filter(chosen), samples[chosen.to_numpy()]
    sampled = pl.col("image_id").is_in(requests["record"].to_list())
    known = table.filter(sampled)["patient_id"].unique().to_list()
    further = internal & (pl.col("split") == "train") & ~pl.col("patient_id").is_in(known)
    return _split(data, table, _sets(internal, sampled, further), requests, samples)


def of_run(
    root: str | Path,
    resolution: int,
    pools: Sequence[str | Path],
    lung_masks: str | None,
    datasets: Mapping[str, Mapping[str, Sequence[str]]] | None,
) -> dict[str, AnnotatedSplits]:
    """Task (a key of `KIND_OF`) -> its annotated images; tasks without any are left out.

    Args:
        lung_masks: the folder that the adapter was trained on, or None; its images are in no task here.
        datasets: task -> `sources` and, if there are any, `external` (`load_dataset`); None: of the embedded cohort,
            which has the same images for all tasks and foreign objects among its findings.
    """
    if datasets is None:
        if lung_masks is not None or not layout.has_masks(Path(root) / "cohort"):
            return {}
        return dict.fromkeys(("pneumothorax", "ribs", "detection"), load(root, resolution, pools))
    if unknown := sorted(set(datasets) - set(KIND_OF)):
        raise CohortError(f"datasets: unknown task {unknown[0]!r}; use some of {', '.join(KIND_OF)}")
    return {task: load_dataset(root, resolution, pools, KIND_OF[task], **own) for task, own in datasets.items()}


def _sets(internal: pl.Expr, sampled: pl.Expr, further: pl.Expr) -> dict[str, pl.Expr]:
    """Which images each set holds; `internal`: of the datasets that are trained on, not only tested on."""
    return {
        "train": sampled,
        "further train": further,
        "val": internal & (pl.col("split") == "val"),
        "test": internal & (pl.col("split") == "test"),
        "external test": ~internal & (pl.col("split") == "test"),
    }


def _split(
    data: Annotated, table: pl.DataFrame, sets: Mapping[str, pl.Expr], requests: pl.DataFrame, samples: np.ndarray
) -> AnnotatedSplits:
    """The annotated images as `sets` of the rows of `table`, which has theirs; CohortError for a patient in two."""
    rows = {name: np.flatnonzero(table.select(keep).to_series().to_numpy()) for name, keep in sets.items()}
    rows["further train"] = shuffled(table, rows["further train"])
    check_patients(table, rows)
    return join(data, {name: r for name, r in rows.items() if name != "train"}, requests, samples)


def _further(train: pl.DataFrame, requests: pl.DataFrame) -> list[str]:
    """Training images of patients whom no request is of: every pneumothorax, and others, some times the requests."""
    requested = pl.col("image_id").is_in(requests["record"].unique().to_list())
    known = train.filter(requested)["patient_id"].unique().to_list()
    others = train.filter(~pl.col("patient_id").is_in(known))
    others = others[shuffled(others, np.arange(len(others)))]
    ordered = others.sort(pl.col("Pneumothorax") != 1, nulls_last=True, maintain_order=True)
    return ordered["image_id"].head(CANDIDATES * len(requests)).to_list()


def read_requests(pools: Sequence[str | Path], resolution: int) -> tuple[pl.DataFrame, np.ndarray]:
    """The requests of some pools, one after the other: image_id, record, kind, condition_hash; and uint8 [R, K, H, W].

    Raises:
        CohortError: for an unknown kind, or if there are more images of some requests than of others.
    """
    requests, samples = zip(*(_read_requests(pool, resolution) for pool in pools), strict=True)
    if len(copies := sorted({images.shape[1] for images in samples})) > 1:
        raise CohortError(f"the pools hold {' and '.join(map(str, copies))} images a request: make them hold as many")
    return pl.concat(requests), np.concatenate(samples)


def _read_requests(pool: str | Path, resolution: int) -> tuple[pl.DataFrame, np.ndarray]:
    table, images = read_pool(pool, resolution, REQUEST)
    if unknown := [(row, kind) for row, kind in enumerate(table["kind"], 1) if kind not in KINDS]:
        row, kind = unknown[0]
        raise CohortError(f"{pool}, row {row}: unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    check_even(table, REQUEST)
    requests = table.unique(REQUEST, keep="first", maintain_order=True).drop("copy").with_row_index("request")
    order = table.join(requests.select("request", *REQUEST), on=REQUEST, maintain_order="left").with_row_index("image")
    rows = order.sort("request", "copy")["image"].to_numpy()
    columns = ("image_id", *REQUEST, "condition_hash")
    return requests.select(columns), np.asarray(images[rows]).reshape(len(requests), -1, *images.shape[1:])


def join(
    data: Annotated, rows: Mapping[str, np.ndarray], requests: pl.DataFrame, samples: np.ndarray
) -> AnnotatedSplits:
    """Annotated images and the samples of some of them.

    Raises:
        CohortError: if a pool was sampled from other masks or boxes than these images', or for what they do not show.
    """
    place = {image_id: row for row, image_id in enumerate(data.table["image_id"])}
    requests = requests.with_columns(row=pl.col("record").replace_strict(place, return_dtype=pl.Int64))
    if blank := [r for *about, r in requests.select("row", "kind", "image_id").iter_rows() if not data.has(*about)]:
        raise CohortError(
            f"{len(blank)} requests are for what the cohort's image does not show, first {blank[0]!r}; {REDO}"
        )
    hashes = zip(requests["condition_hash"], condition_images(data, requests), strict=True)
    changed = [noted is not None and noted != condition_hash(image) for noted, image in hashes]
    if any(changed):
        first = requests["image_id"].filter(pl.Series(changed))[0]
        raise CohortError(
            f"{sum(changed)} images were sampled from other masks than the cohort's, first {first!r}; redo stage "
            "06_pools"
        )
    return AnnotatedSplits(data, dict(rows), requests.select("row", "kind"), samples)
