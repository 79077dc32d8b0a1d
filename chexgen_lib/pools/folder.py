"""Reading a pool's folder: what `sample_pool` wrote, or images of any other generator with a `labels.csv`.

`labels.csv` has the columns `image` (a file below the folder) and `image_id` (the record of the cohort that it was
sampled for), and `kind` (a key of `annotations.KINDS`) where masks or boxes were requested. Images of one record, or of
one record and kind, are its copies, in the order of the table. Labels, masks and boxes are the cohort's own, so that
generators are compared on the same requests.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError, read_image, resize, to_uint8
from chexgen_lib.records import RecordError
from chexgen_lib.sources.columns import cell
from chexgen_lib.sources.given import named_file
from chexgen_lib.sources.table import read_given
from chexgen_lib.stored_images import StoredImages

REDO = "redo stage 06_pools, or take them out of labels.csv"


def is_folder_of_images(source: str | Path) -> bool:
    """Whether images lie there, and no model."""
    return any((Path(source) / name).is_file() for name in ("labels.csv", "samples.npy"))


def read_pool(folder: str | Path, size: int, by: Sequence[str] = ("record",)) -> tuple[pl.DataFrame, StoredImages]:
    """Images of a pool at `size` pixels, and what was requested of each.

    Args:
        by: what distinguishes requests: "record", or "record" and "kind" where masks or boxes were requested, for which
            images have to be square.

    Returns:
        One row per image: record (the cohort's image_id), image_id (of the request), copy (0, 1, ... of its request),
        and with kinds `kind` and `condition_hash` (null in a folder of another generator); and uint8 [N, size, size],
        on the disk where they need not be reduced. All first copies come before all second ones, except in other
        generators' folders.

    Raises:
        CohortError: if a file or column is missing, or table and images do not fit.
        ImageError: naming the file that is missing, cannot be read or is not square. No image is left out or replaced.
    """
    folder = Path(folder)
    if (folder / "labels.csv").is_file():
        return _read_images(folder, size, by)
    samples = open_samples(folder)
    manifest = _read(folder / "manifest.parquet", lambda path: pl.read_parquet(path, glob=False))
    if "record" not in manifest.columns:
        manifest = manifest.with_columns(record="image_id")
    columns = ["image_id", *by, *(["condition_hash"] if "kind" in by else [])]
    if absent := [column for column in columns if column not in manifest.columns]:
        raise CohortError(f"{folder}: the manifest lacks {absent}; redo stage 06_pools")
    if samples.ndim != 4 or len(samples) != len(manifest):
        raise CohortError(
            f"{folder}: {len(manifest)} requests and samples {samples.shape} do not fit; redo stage 06_pools"
        )
    requests, copies = samples.shape[:2]
    first = _count(by) * copies
    table = pl.concat(manifest.select(*columns, (first + k).alias("copy")) for k in range(copies))
    flat = samples.reshape(-1, *samples.shape[2:])
    order = np.arange(len(flat)).reshape(requests, copies).T.ravel()
    images = StoredImages((flat,), order, size)
    if flat.shape[1:] != (size, size):  # else every batch of a training would reduce its own anew
        images = StoredImages.of(np.asarray(images))
    return table, images


def open_samples(folder: Path) -> np.ndarray:
    """The samples [P, K, H, W] of a pool's folder, on the disk.

    Raises:
        CohortError: naming the file that is missing or damaged.
    """
    return _read(folder / "samples.npy", lambda path: np.load(path, mmap_mode="r", allow_pickle=False))


def _read(path: Path, load: Callable[[Path], Any]) -> Any:
    """What `load` makes of a file that `sample_pool` wrote."""
    if not path.is_file():
        raise CohortError(f"{path} does not exist: run the stage 06_pools first, or give a folder with labels.csv")
    try:
        return load(path)
    except (ValueError, EOFError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())
        raise CohortError(f"{path} is cut off or damaged: redo stage 06_pools, or copy it again ({reason})") from error


def check_even(table: pl.DataFrame, by: Sequence[str] = ("record",)) -> None:
    """Check that there are equally many images of each request: arms would weigh them unequally.

    Raises:
        CohortError: naming two requests with different numbers.
    """
    held = table.group_by(by, maintain_order=True).len().sort("len", maintain_order=True)
    (*few, least), (*many, most) = held.row(0), held.row(-1)
    if least < most:
        raise CohortError(
            f"the pool holds {least} images of {':'.join(few)!r} but {most} of {':'.join(many)!r}: make as many of "
            "each in stage 06_pools, or leave the others out of labels.csv"
        )


def _count(by: Sequence[str]) -> pl.Expr:
    """0, 1, 2, ... within the rows of one request."""
    return pl.int_range(pl.len(), dtype=pl.Int64).over(by)


def _read_images(folder: Path, size: int, by: Sequence[str]) -> tuple[pl.DataFrame, StoredImages]:
    """The images that a `labels.csv` names."""
    table = _read_labels(folder, ("image", "image_id", *(["kind"] if "kind" in by else [])))
    names = table["image"]
    table = table.drop("image").rename({"image_id": "record"})
    table = table.with_columns(_count(by).alias("copy"), pl.concat_str(by, separator=":").alias("image_id"))
    if "kind" in by:
        table = table.with_columns(condition_hash=pl.lit(None, pl.String))
    images = np.stack([_read_listed(named_file(folder, name), size, square="kind" in by) for name in names])
    return table, StoredImages.of(images)


def _read_labels(folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    """`folder/labels.csv` as text: exactly `columns`, nothing missing, no image named twice.

    The labels of an image are those of its record in the cohort. Any other column is refused, because it would be
    ignored.

    Raises:
        CohortError: naming the columns, or the row (the first below the header is 1).
    """
    path = folder / "labels.csv"
    remedy = f"save it as UTF-8 with the columns {', '.join(columns)}, separated by commas"
    try:
        table = read_given(path, "image")
    except RecordError as error:
        raise CohortError(f"{error}; {remedy}") from error
    if absent := [c for c in columns if c not in table.columns]:
        raise CohortError(f"{path}: columns {absent} are missing, it has {table.columns}: {remedy}")
    if unknown := [c for c in table.columns if c not in columns]:
        raise CohortError(
            f"{path}: columns {unknown} would be ignored, leave them out: labels, masks and boxes are those that the "
            f"cohort has of the record image_id; the columns are {', '.join(columns)}"
        )
    table = table.with_columns(cell(pl.col("image_id")).replace("", None)).with_row_index("row", offset=1)
    table = table.filter(~pl.all_horizontal(pl.col(columns).is_null()))  # spreadsheets save empty rows, too
    if table.is_empty():
        raise CohortError(f"{path} names no image")
    problems = {
        "a value is missing": pl.any_horizontal(pl.col(columns).is_null()),
        "the image is named twice": ~pl.col("image").is_first_distinct(),
    }
    for problem, wrong in problems.items():
        if rows := table.filter(wrong).rows():
            row, *values = rows[0]
            raise CohortError(f"{path}, row {row} {tuple(values)}: {problem}")
    return table.drop("row")


def _read_listed(path: Path, size: int, square: bool) -> np.ndarray:
    """An image that a `labels.csv` names, uint8 [size, size]."""
    if not path.is_file():
        raise ImageError(f"{path}: no such file, though labels.csv names it; paths in it begin at its own folder")
    image = read_image(path)
    if square and image.shape[0] != image.shape[1]:
        raise ImageError(
            f"{path}: {image.shape[1]} x {image.shape[0]} px; the mask or box that was requested is of a square"
        )
    return to_uint8(resize(image, size))
