"""Sizes of the radiographs in which boxes are drawn: of their DICOM files, or as a table gives them.

A PNG or JPEG that was made of such a file may be smaller, so that its own size tells nothing. Mirrors that reduce
images publish the originals' sizes: `image_id`, `dim0`, `dim1` in a `train_meta.csv`, or width and height in the table
of boxes.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pydicom

from chexgen_lib.records import RecordError
from chexgen_lib.sources.columns import without_ending
from chexgen_lib.sources.files import Tree, read_text
from chexgen_lib.sources.table import read_table

TABLES = "*meta*.csv"
PAIRS = (("dim0", "dim1"), ("height", "width"), ("Height", "Width"), ("rows", "columns"), ("Rows", "Columns"))
UNKNOWN = "the original's size is not known"
DIFFERENT = f"tables give several sizes of its image, so that {UNKNOWN}"
REMEDY = f"put the DICOM files there, or a table {TABLES} of image_id, dim0 and dim1: the originals' heights and widths"
TOO_MANY = 0.1  # share of a table's images with a box beyond its size from which these are not the originals' sizes
SIZES = {"image": pl.String, "height": pl.Int64, "width": pl.Int64, "tabled": pl.Boolean}


def original_sizes(tree: Tree, images: pl.Series, tables: Iterable[Path]) -> pl.DataFrame:
    """The sizes in pixels of the images that have a DICOM file, or one in a table, see `agreed`."""
    found = tree.find(images).drop_nulls("file").filter(pl.col("rival").is_null()).select("image", "file").iter_rows()
    read = ((image, *_size(tree.folder / file), False) for image, file in found)
    of_files = pl.DataFrame([row for row in read if None not in row], schema=SIZES, orient="row")
    return agreed(of_files, of_tables(tree, images, tables))


def of_tables(tree: Tree, images: pl.Series, tables: Iterable[Path]) -> pl.DataFrame:
    """The sizes that tables give: those named `TABLES`, and others of the dataset that may hold some.

    Args:
        images: paths, as a dataset's tables name them.
    """
    images = images.drop_nulls().unique(maintain_order=True).to_frame("image")
    named = images.with_columns(name=without_ending(pl.col("image").str.extract(r"([^/]+)$")))
    paths = dict.fromkeys([*tables, *(tree.folder / name for name in tree.matches(TABLES))])
    found = [named.join(table, on="name", how="inner").select(SIZES.keys()) for p in paths for table in _tabled(p)]
    return pl.concat([pl.DataFrame(schema=SIZES), *found])


def agreed(of_files: pl.DataFrame, of_tables: pl.DataFrame) -> pl.DataFrame:
    """image, height, width, and whether only a table says so (`tabled`); null where tables give several sizes.

    A file's own size is right, whatever a table says.
    """
    tabled = of_tables.unique(maintain_order=True).join(of_files, on="image", how="anti", maintain_order="left")
    single = pl.when(~pl.col("image").is_duplicated())
    tabled = tabled.with_columns(single.then(side).alias(side) for side in ("height", "width"))
    return pl.concat([of_files, tabled.unique("image", maintain_order=True)])


def why_unknown() -> pl.Expr:
    """What to say of a box whose image's size is not known, of a table with the columns that `agreed` gives."""
    return pl.when(pl.col("tabled") & pl.col("width").is_null()).then(pl.lit(DIFFERENT)).otherwise(pl.lit(UNKNOWN))


def require_original_sizes(folder: Path, table: pl.DataFrame, leaves: pl.Expr) -> None:
    """RecordError if the sizes of a table are not the originals': boxes of many of its images leave them.

    Args:
        table: what `agreed` gives of each box's image, a row a box.
        leaves: whether a box leaves its image.
    """
    rows = table.filter(pl.col("tabled"), pl.col("width").is_not_null())
    all_images, outside = rows["image"].n_unique(), rows.filter(leaves)["image"].n_unique()
    if outside > TOO_MANY * all_images:
        raise RecordError(
            f"{folder}: {outside} of {all_images} images have boxes beyond the sizes that a table gives, so these are "
            f"of other images than the originals (or height and width are interchanged); {REMEDY}"
        )


def _tabled(path: Path) -> list[pl.DataFrame]:
    """name, height, width and `tabled` of every image of a table that holds sizes."""
    if b"image_id" not in read_text(path).partition(b"\n")[0]:
        return []
    table = read_table(path, ("image_id",), tuple(column for pair in PAIRS for column in pair))
    sizes = []
    for pair in (pair for pair in PAIRS if set(pair) <= set(table.columns)):
        numbers = (pl.col(side).cast(pl.Float64, strict=False).cast(pl.Int64, strict=False) for side in pair)
        height, width = (pl.when(number > 0).then(number) for number in numbers)
        sizes.append(table.select(name=without_ending(pl.col("image_id")), height=height, width=width, tabled=True))
    return [size.drop_nulls().unique(maintain_order=True) for size in sizes]


def _size(path: Path) -> tuple[int | None, int | None]:
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
        return int(data.Rows), int(data.Columns)
    except Exception:  # pydicom raises many types; all mean that the size is not known
        return None, None
