"""The run's images and their ground truth, as later stages read them.

Whether rendered or real, a cohort is a folder with one layout, written by `build`:

    cohort.parquet        Records in the order of all arrays, with the columns `prompt` and `FLAGS`
    images_R.npy          uint8 [N, R, R] at each resolution R
    masks.npz             bit-packed truth of the embedded cohort: `anatomy` [N, 3, R, R], `findings` [M, R, R] with
                          `finding_row` [M] and `finding_index` [M]; without arrays for real radiographs
    rejects.csv           source, image_id and reason of the records without an image
    remarks.csv           source, image_id and remark of real radiographs that look like a negative, flat or odd, or
                          of whose file something was left out
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import read_arrays, taken
from chexgen_lib.stored_images import StoredImages

ANATOMY = ("lungs", "heart", "ribs")
# Purposes of an image, besides its split; it may serve several. "annotated": datasets with masks, boxes or scores;
# "few_shot": those that a classifier sees few images of.
FLAGS = ("stage1", "stage2", "external", "few_shot", "annotated")


class CohortError(ValueError):
    """Records or a folder from which no cohort can be made or read."""


def load(folder: Path, columns: Sequence[str | pl.Expr] | None = None, rows: np.ndarray | None = None) -> pl.DataFrame:
    """The cohort's table, or some of its columns, or what expressions make of them.

    rows: those that are wanted, numbers in ascending order; of the others a block at a time is in memory.

    Raises:
        CohortError: if there is none, it is damaged, or another's; it names the stage that makes it.
    """
    path = Path(folder) / "cohort.parquet"
    if not path.is_file():
        raise CohortError(f"{path} does not exist: run the stage 02_cohort first")
    try:
        table = pl.scan_parquet(path, glob=False)
        known = table.collect_schema()
        table = table.with_columns(pl.lit(False).alias(flag) for flag in FLAGS if flag not in known)
        table = table if columns is None else table.select(columns)
        return table.collect() if rows is None else taken(table, rows)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())
        raise CohortError(f"{path} is cut off or damaged ({reason}): copy it again, or run 02_cohort") from error


def purposes(cohort: pl.DataFrame) -> list[str]:
    """Those of `FLAGS` that some image of a cohort serves."""
    return [flag for flag in FLAGS if cohort[flag].any()]


def rows(cohort: pl.DataFrame, flag: str | None = None, split: str | None = None) -> np.ndarray:
    """Row numbers [K] of the images of a purpose (one of `FLAGS`; None: any) and a split (None: any), in order."""
    keep = pl.lit(True) if flag is None else pl.col(flag)
    keep = keep if split is None else keep & (pl.col("split") == split)
    return cohort.with_row_index("__row").filter(keep)["__row"].to_numpy().astype(np.int64)


def resolutions(folder: Path) -> list[int]:
    """The sizes in pixels that the cohort has images of, the smallest first. Raises CohortError if there is none."""
    found = (re.fullmatch(r"images_([0-9]+)", path.stem) for path in Path(folder).glob("images_*.npy"))
    sizes = sorted(int(size[1]) for size in found if size)
    if not sizes:
        raise CohortError(f"{folder}: holds no images_*.npy: give the folder that 02_cohort wrote, or run it first")
    return sizes


def load_images(folder: Path, resolution: int, rows: Iterable[int] | None = None) -> np.ndarray:
    """uint8 images [N, R, R] in the order of the table, or those of `rows`."""
    images = stored_images(folder, resolution)
    return np.asarray(images if rows is None else images[np.asarray(list(rows), dtype=np.int64)])


def stored_images(folder: Path, resolution: int, size: int | None = None) -> StoredImages:
    """All images [N, size, size], in the order of the table, on the disk: those of `resolution`, resized.

    Where the cohort has images of `size` pixels and these are fewer, they are read: `build` reduces in the same way.

    Raises:
        CohortError: if they are missing, cut off, or not those of the table.
    """
    path, smaller = (Path(folder) / f"images_{pixels}.npy" for pixels in (resolution, size))
    if not path.is_file():
        raise CohortError(f"{path} does not exist: 02_cohort has not made {resolution} px images")
    path = smaller if size is not None and size < resolution and smaller.is_file() else path
    try:
        images = StoredImages.of(path, size)
    except (ValueError, EOFError) as error:
        raise CohortError(f"{path} is cut off or damaged ({error}): copy it again, or run 02_cohort") from error
    n = load(folder, [pl.len()]).item()
    if len(images) != n or images.dtype != np.uint8 or images.parts[0].ndim != 3:
        held = f"{images.dtype} {list(images.parts[0].shape)}"
        raise CohortError(f"{path} holds {held} for {n} records, not a uint8 image of each: run 02_cohort again")
    return images


def has_masks(folder: Path) -> bool:
    """Whether the cohort has its truth as masks; real radiographs have none."""
    with np.load(Path(folder) / "masks.npz", allow_pickle=False) as stored:
        return "anatomy" in stored


def load_anatomy_masks(folder: Path, rows: Sequence[int]) -> np.ndarray:
    """Bool [K, 3, R, R]: lungs, heart and ribs (`ANATOMY`) of these rows of the embedded cohort."""
    with np.load(Path(folder) / "masks.npz", allow_pickle=False) as stored:
        packed = stored["anatomy"]
    return np.unpackbits(packed[np.asarray(rows)], axis=-1).astype(bool)


def load_finding_masks(folder: Path, rows: Sequence[int]) -> np.ndarray:
    """Bool [K, 14, R, R]: where each finding (`FINDINGS`) is in these rows of the embedded cohort; empty if absent."""
    stored = read_arrays(Path(folder) / "masks.npz")
    masks = np.unpackbits(stored["findings"], axis=-1).astype(bool)  # [M, R, R]
    place = {row: k for k, row in enumerate(rows)}
    out = np.zeros((len(place), len(FINDINGS), *masks.shape[1:]), bool)
    for mask, row, finding in zip(masks, stored["finding_row"].tolist(), stored["finding_index"], strict=True):
        if row in place:
            out[place[row], finding] = mask
    return out


def varied_rows(cohort: pl.DataFrame, n: int, seed: int = 0) -> list[int]:
    """`n` rows for a figure, with different findings as far as possible."""
    order = np.random.default_rng(seed).permutation(len(cohort))
    chosen: list[int] = []
    for finding in (*FINDINGS[1:], FINDINGS[0]):
        positive = [int(i) for i in order if cohort[int(i), finding] == 1 and int(i) not in chosen]
        chosen += positive[:1]
    return chosen[:n] + [int(i) for i in order if int(i) not in chosen][: max(0, n - len(chosen))]


def count_images(cohort: pl.DataFrame) -> pl.DataFrame:
    """By split: the number of images, of those that serve each purpose, and of patients."""
    served = pl.col(purposes(cohort)).sum()
    patients = pl.col("patient_id").n_unique().alias("patients")
    return cohort.group_by("split").agg(pl.len().alias("images"), served, patients).sort("split")


def count_findings(cohort: pl.DataFrame, splits: Sequence[str] = ("train", "test")) -> pl.DataFrame:
    """How many images of each split show each finding."""
    present = {split: cohort[rows(cohort, split=split)].select(pl.col(FINDINGS) == 1).sum().row(0) for split in splits}
    return pl.DataFrame({"finding": FINDINGS, **{split: list(counts) for split, counts in present.items()}})
