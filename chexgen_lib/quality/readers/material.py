"""What a reader study shows: real radiographs of a cohort and samples of the same records, all of one size."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from chexgen_lib.cohort import layout
from chexgen_lib.images import read_image, reduced
from chexgen_lib.pools.folder import open_samples, read_pool
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources.given import named_file
from chexgen_lib.sources.table import read_given

REAL = "real"  # the arm of the cohort's own radiographs
ALONE = "alone"  # the condition of assisted reading without a sample


class StudyError(ValueError):
    """A study that cannot be made; the message names the folder, arm or setting and the remedy."""


@dataclass(frozen=True)
class Material:
    """Records of which there are a real image and a sample of every arm.

    Attributes:
        records: image_id, patient_id, prompt (the text that the samples were requested with) and `FINDINGS`.
        images: arm -> uint8 [N, S, S] in the order of `records`; the first arm is `REAL`.
    """

    records: pl.DataFrame
    images: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """S, pixels."""
        return self.images[REAL].shape[-1]


def load(cohort: Path, arms: Mapping[str, Path], size: int | None = None) -> Material:
    """Real images of a cohort's folder and the first sample of the same records in each arm's.

    Args:
        arms: name -> folder: `synthesis` or a pool of a run, or images with a `labels.csv` (`pools.folder`).
        size: pixels of all images; None: the largest that every arm has.

    Raises:
        StudyError: for an unusable name or size, or if no record is in all arms.
        CohortError, ImageError: naming the folder or image that cannot be read.
    """
    if not arms or {REAL, ALONE, ""} & set(arms):
        raise StudyError(f"give at least one arm as NAME=FOLDER, named neither {REAL!r} nor {ALONE!r}")
    table = layout.load(cohort)
    stored = layout.resolutions(cohort)
    largest = {REAL: stored[-1], **{name: _native_size(Path(folder)) for name, folder in arms.items()}}
    size = size or min(largest.values())
    if small := [name for name, pixels in largest.items() if pixels < size]:
        raise StudyError(
            f"{small[0]}: images of {largest[small[0]]} px, fewer than size {size}: enlarged, they would be "
            f"recognised by their blur; use --size {min(largest.values())} or smaller"
        )
    rows = {name: _first_copies(Path(folder), size) for name, folder in arms.items()}
    cohort_ids = set(table["image_id"])
    for name, (known, _) in rows.items():
        if strangers := [record for record in known if record not in cohort_ids]:
            about = f"{len(strangers)} of {len(known)} records are not in {cohort}, first {strangers[0]!r}"
            warnings.warn(f"{name}: {about}: their samples are not shown", stacklevel=2)
    shared = table.with_row_index("row").filter(
        pl.all_horizontal(pl.col("image_id").is_in(list(known)) for known, _ in rows.values())
    )
    if shared.is_empty():
        raise StudyError(
            f"no record of {cohort} has a sample in every arm ({', '.join(arms)}): sample the same records"
        )
    for folder in arms.values():
        _check_texts(Path(folder), shared)
    ids = shared["image_id"].to_list()
    real = layout.load_images(cohort, next(pixels for pixels in stored if pixels >= size), shared["row"])
    images = {name: samples[[known[i] for i in ids]] for name, (known, samples) in rows.items()}
    records = shared.select("image_id", "patient_id", "prompt", *FINDINGS)
    return Material(records, {REAL: reduced(real, size), **images})


def _first_copies(folder: Path, size: int) -> tuple[dict[str, int], np.ndarray]:
    """record -> row of its first sample, and the samples, uint8 [N, size, size]."""
    table, images = read_pool(folder, size)
    first = table.with_row_index("row").unique("record", keep="first", maintain_order=True)
    return dict(first.select("record", "row").iter_rows()), np.asarray(images)


def _check_texts(folder: Path, records: pl.DataFrame) -> None:
    """Readers compare images with the records' prompts: a run's samples must have been requested with them."""
    path = folder / "manifest.parquet"
    if (folder / "labels.csv").is_file():
        return
    manifest = pl.read_parquet(path, glob=False)
    if "prompt" not in manifest.columns:
        return
    record = "record" if "record" in manifest.columns else "image_id"
    asked = manifest.select(pl.col(record).alias("image_id"), asked="prompt").unique("image_id", keep="first")
    other = records.join(asked, on="image_id", maintain_order="left").filter(pl.col("asked") != pl.col("prompt"))
    if other.height:
        raise StudyError(
            f"{folder}: the sample of {other['image_id'][0]!r} was requested with another text than the cohort's "
            f"prompt ({other.height} such): give samples of stage 06_synthesis, or of the cohort's prompts"
        )


def _native_size(folder: Path) -> int:
    """The shorter side in pixels of a folder's smallest image, as it is stored."""
    labels = folder / "labels.csv"
    if labels.is_file():
        table = read_given(labels, "image")
        names = table["image"].drop_nulls() if "image" in table.columns else []
        sides = (_shorter_side(named_file(folder, name)) for name in names)
        return min(sides, default=1)  # `read_pool` names what is wrong
    return int(min(open_samples(folder).shape[-2:])) if (folder / "samples.npy").is_file() else 1


def _shorter_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, Image.DecompressionBombError):
        # Not a picture that Pillow knows, such as DICOM, too large a one, or none at all: `read_image` says which.
        return min(read_image(path).shape)
