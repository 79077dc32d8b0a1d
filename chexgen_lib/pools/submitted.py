"""Images that somebody hands in for given prompts: what fits is read, the rest is counted and listed."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np
import polars as pl
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools.folder import open_samples, read_pool
from chexgen_lib.sources.given import named_file, unlisted
from chexgen_lib.sources.table import read_given
from chexgen_lib.storage import digest

EXCLUDED = {"image_id": pl.String, "copy": pl.Int64, "reason": pl.String}
UNKNOWN = "no prompt of this judging is of this record"
ABSENT = "there is no image of this record"
FEW, MANY = "fewer images of this record than are judged", "more images of this record than are judged"


@dataclass(frozen=True)
class Submitted:
    """Images of the records of `image_ids`.

    Attributes:
        images: uint8 [N, S, R, R], S images of each record.
        excluded: what was left out: image_id, copy, reason.
        remarks: what a reader of the results should know of the images, in words.
    """

    image_ids: list[str]
    images: np.ndarray
    excluded: pl.DataFrame
    remarks: list[str]


def read_submitted(folder: str | Path, wanted: list[str], size: int, copies: int) -> Submitted:
    """Read a folder (`folder.read_pool`) for the records `wanted`, in their order.

    S is the smaller of `copies` and the median of what records have. Images of other records, and those of a record
    beyond S, are excluded; so is a record with fewer than S, or with none, and a
    picture that `labels.csv` does not name. Another size, colour or depth, and equal
    images, are remarked upon.

    Raises:
        CohortError: if the folder or its table cannot be read, or no image is of a wanted record.
        ImageError: naming the image that is missing or cannot be read.
    """
    table, images = read_pool(folder, size)
    table = table.select("record", "copy").with_row_index("row")
    known = table.filter(pl.col("record").is_in(wanted))
    if known.is_empty():
        raise CohortError(
            f"{folder}: none of its {table['record'].n_unique()} records is prompted for, first "
            f"{table['record'][0]!r}: generate from prompts.csv, whose image_id goes into labels.csv"
        )
    held = known.group_by("record").len()
    s = min(copies, median_low(held["len"].to_list()))
    enough = held.filter(pl.col("len") >= s)["record"].to_list()
    used = known.filter(pl.col("record").is_in(enough) & (pl.col("copy") < s))
    reason = (
        pl.when(~pl.col("record").is_in(wanted))
        .then(pl.lit(UNKNOWN))
        .when(~pl.col("record").is_in(enough))
        .then(pl.lit(FEW))
        .otherwise(pl.lit(MANY))
    )
    excluded = table.filter(~pl.col("row").is_in(used["row"].to_list()))
    excluded = excluded.select(pl.col("record").alias("image_id"), "copy", reason.alias("reason")).cast(EXCLUDED)
    absent = pl.DataFrame({"image_id": [record for record in wanted if record not in set(held["record"])]})
    absent = absent.select(pl.col("image_id").cast(pl.String), copy=None, reason=pl.lit(ABSENT)).cast(EXCLUDED)
    excluded = pl.concat([excluded, absent, _not_listed(Path(folder))])
    ids = [record for record in wanted if record in set(enough)]
    place = {(record, copy): row for record, copy, row in used.select("record", "copy", "row").iter_rows()}
    rows = np.array([[place[record, k] for k in range(s)] for record in ids])  # [N, S]
    chosen = images[rows]
    return Submitted(ids, chosen, excluded, [*stored(Path(folder), size), *_repeated(chosen)])


def stored(folder: Path, size: int) -> list[str]:
    """How files that differ from 8-bit grey squares of `size` pixels are stored, each kind with its number."""
    if not (folder / "labels.csv").is_file():
        side = open_samples(folder).shape[-1]
        return [] if side == size else [f"all images have {side} px: judged at {size}"]
    kinds: Counter[str] = Counter()
    for name in read_given(folder / "labels.csv", "image")["image"].drop_nulls():
        try:
            with Image.open(named_file(folder, name)) as image:
                width, height, mode = *image.size, image.mode
        except OSError:  # not a picture that Pillow knows, such as DICOM: `read_image` has read it
            kinds["in another format than PNG or JPEG"] += 1
            continue
        if (width, height) != (size, size):
            cut = "" if width == height else ", the largest square in the middle"
            kinds[f"of {width} x {height} px: judged at {size} px{cut}"] += 1
        if mode.startswith(("I", "F")):
            kinds["in 16 bits: divided by 65535"] += 1
        elif mode == "1":
            kinds["in black and white alone, without greys"] += 1
        elif mode not in ("L", "LA"):
            kinds[f"in colour ({mode}): judged by their luma"] += 1
    return [f"{number} images {kind}" for kind, number in kinds.most_common()]


def _not_listed(folder: Path) -> pl.DataFrame:
    """The pictures of a folder that its `labels.csv` does not name, in rows of `EXCLUDED`."""
    rows = [(None, None, f"{name} is not in labels.csv") for name in unnamed(folder)]
    return pl.DataFrame(rows, EXCLUDED, orient="row")


def unnamed(folder: Path) -> list[str]:
    """The pictures of a folder that its `labels.csv`, if there is one, does not name."""
    labels = folder / "labels.csv"
    return unlisted(folder, read_given(labels, "image")["image"].drop_nulls()) if labels.is_file() else []


def _repeated(images: np.ndarray) -> list[str]:
    """How many images [N, S, R, R] are pixel by pixel equal to another one."""
    seen = Counter(digest(image) for sample in images for image in sample)
    equal = sum(number for number in seen.values() if number > 1)
    return [f"{equal} images are equal to another one, {len(seen)} of {seen.total()} differ: all count"] * (equal > 0)
