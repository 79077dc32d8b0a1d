"""Folders of images that a user gives, with a table that names them."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from chexgen_lib.pixels import DICOM, JPEG, PNG
from chexgen_lib.records import RecordError
from chexgen_lib.storage import files_below

SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom"}
UNREAD = {".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k", ".npy"}  # `images.read_image` says what to do


def named_file(folder: Path, name: str) -> Path:
    """The file that a table names, relative to its folder; where there is none of that name, without spaces around it
    and with backslashes as Windows writes paths."""
    path, other = folder / name, folder / name.strip().replace("\\", "/")
    return other if other.is_file() and not path.is_file() else path


def listed(table: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a table that name an image, and their numbers from 1; empty ones, as of spreadsheets, are left out.

    Raises:
        RecordError: for a row without an image; it names the table at `path`.
    """
    filled = ~table.select(pl.all_horizontal(pl.all().is_null())).to_series()
    numbers = (filled.arg_true() + 1).to_list()
    for number, name in zip(numbers, table.filter(filled)["image"], strict=True):
        if not name:
            raise RecordError(f"{path}, row {number}: no image is named")
    return table.filter(filled), numbers


def columns_of(path: Path) -> set[str]:
    """The columns of a CSV, which may be anybody's; none of a file that is missing or has no line."""
    try:
        return set(pl.read_csv(path, n_rows=0, infer_schema=False, encoding="utf8-lossy", glob=False).columns)
    except (FileNotFoundError, pl.exceptions.NoDataError):
        return set()


def pictures(folder: Path) -> list[str]:
    """Paths of the pictures below a folder, relative to it, sorted; links are followed, hidden files are none."""
    found = (path for path in files_below(folder) if not path.name.startswith(".") and _is_picture(path))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def unlisted(folder: Path, names: Iterable[str]) -> list[str]:
    """The `pictures` of a folder that its table, which has these `names`, does not name."""
    listed = {named_file(folder, name).resolve() for name in names}
    return [name for name in pictures(folder) if (folder / name).resolve() not in listed]


def _is_picture(path: Path) -> bool:
    """By its name, or as scanners and archives leave the suffix out (IM000001) by its first bytes."""
    if path.suffix.lower() in SUFFIXES | UNREAD:
        return True
    with path.open("rb") as file:
        head = file.read(132)
    return head.startswith((PNG, JPEG)) or head[128:] == DICOM
