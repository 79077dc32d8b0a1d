"""Where a run's masks and boxes are from: the embedded cohort's truth, annotated datasets, a folder of lung masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools.annotations import (
    CANDIDATES,
    KINDS,
    Annotated,
    choose_requests,
    frontal,
    load_embedded,
    load_lung_masks,
)
from chexgen_lib.pools.record_masks import RecordMasks, boxes_of, classes_of
from chexgen_lib.sampling.conditions import LEGEND

Datasets = Mapping[str, Sequence[str]]  # kind of annotation -> datasets whose images are all annotated so


def of_records(folder: Path, resolution: int, datasets: Datasets) -> Annotated:
    """The images of annotated datasets in a cohort, with the masks and boxes of their Records.

    Args:
        folder: of the cohort.
        datasets: by kinds of `KINDS`; a dataset is of one kind.

    Raises:
        CohortError: for an unknown kind, a dataset of which the cohort has no image, or boxes of an unknown class.
    """
    if unknown := sorted(set(datasets) - set(KINDS)):
        raise CohortError(f"datasets: unknown kind {unknown[0]!r}; use some of {', '.join(KINDS)}")
    kind_of = {source: kind for kind, sources in datasets.items() for source in sources}
    table = frontal(folder).filter(annotated=True).filter(pl.col("source").is_in(list(kind_of)))
    if absent := sorted(set(kind_of) - set(table["source"])):
        raise CohortError(
            f"the cohort has no annotated image of {absent[0]!r}: name it in cohort.annotated_sources, or leave it out "
            "of the annotated datasets"
        )
    named = classes_of(table["mask"], table["boxes"])
    classes = tuple(name for name in LEGEND if name in named)
    if strange := sorted(named - set(classes)):
        raise CohortError(f"masks or boxes of {strange[0]!r}, which has no colour: use some of {', '.join(LEGEND)}")
    kinds = tuple(kind_of[source] for source in table["source"])
    annotated = {source: classes_of(own["mask"], own["boxes"]) for (source,), own in table.group_by("source")}
    return Annotated(
        table.select("image_id", "patient_id", "split", "prompt"),
        layout.load_images(folder, resolution, table["row"].to_list()),
        RecordMasks(tuple(table["mask"]), classes, resolution),
        classes,
        boxes_of(table),
        kinds,
        np.array([[name in annotated[source] for name in classes] for source in table["source"]]),
    )


def of_run(
    cohort: Path,
    resolution: int,
    train_images: int,
    seed: int,
    lung_masks: str | Path | None,
    datasets: Datasets | None,
    sources: Sequence[str] | None = None,
) -> Annotated:
    """The annotated images of a run: a folder's, those of annotated datasets, or else the embedded cohort's.

    Args:
        cohort: its folder.
        train_images: of the embedded cohort.
        lung_masks, datasets, sources: as `request_annotations` takes them.
    """
    if lung_masks is not None:
        return load_lung_masks(Path(lung_masks), resolution)
    if datasets is not None:
        return of_records(cohort, resolution, datasets)
    return load_embedded(cohort, resolution, train_images, seed, sources)


def request_annotations(
    cohort: Path,
    resolution: int,
    per_pool: Mapping[str, Mapping[str, int]],
    seed: int = 0,
    sources: Sequence[str] | None = None,
    lung_masks: str | Path | None = None,
    datasets: Datasets | None = None,
) -> tuple[Annotated | None, dict[str, pl.DataFrame]]:
    """The annotated images of a run, and for each pool the requests of training images; none where there are no masks.

    Args:
        cohort: folder of the embedded cohort.
        per_pool: name of a pool -> kind -> number of requests, of the embedded cohort.
        sources: datasets of the cohort to take images from; None for all.
        lung_masks: a folder of real radiographs with lung masks, which takes the cohort's place: the adapter was
            trained on it and on nothing else. Its pool is named "lungs" and holds every training image.
        datasets: annotated ones of the cohort, as `of_records` takes them, in place of the embedded truth.
    """
    if lung_masks is None and datasets is None and not layout.has_masks(cohort):
        return None, {}
    candidates = CANDIDATES * sum(n for kinds in per_pool.values() for n in kinds.values())
    data = of_run(cohort, resolution, candidates, seed, lung_masks, datasets, sources)
    if lung_masks is not None:
        per_pool = {"lungs": {"lungs": len(data.images)}}
    return data, {name: choose_requests(data, "train", kinds, seed) for name, kinds in per_pool.items()}
