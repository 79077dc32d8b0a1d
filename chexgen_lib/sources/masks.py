"""Masks as text: how a Record's `mask` is written, checked and rasterised; and what readers of annotations share.

A mask is `HxW; class=shape values; class=shape values; ...`: the frame's height and width in pixels, then one
part per annotated shape. Values are pixels from the top left corner, x to the right and y down:

    rle      offset run offset run ...  down the columns, left to right; an offset counts from the end of the
                                        previous run (SIIM-ACR, CANDID-PTX)
    runs     start run start run ...    the same pixels, each start counted from 1 at the first pixel
    polygon  x y x y x y ...            at least three corners; the outline belongs to it
    ellipse  x1 y1 x2 y2                the box around it
    box      x1 y1 x2 y2

For example `1024x1024; Pneumothorax=rle 557374 2 1015 8`. A class may have several parts: its mask is their union.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image
from skimage import draw

from chexgen_lib.pixels import upright_size
from chexgen_lib.records import SCHEMA, RecordError
from chexgen_lib.sources.files import read_text

SHAPES = ("rle", "runs", "polygon", "ellipse", "box")
MERGED = "merged with an earlier row of its image"
SEVERAL = "several images of its name, of which one gives the frame of its annotation"
OUTSIDE = "outside its"
ENOUGH = 50  # annotated images, one of which surely shows something beyond the first quarter
SPOILED = "another row of its image cannot be used"
# What a reader that works row by row gives to `separate`: a Record's columns and why it cannot be one.
ROWS = {"row": pl.String(), "broken": pl.Boolean(), "reason": pl.String()} | SCHEMA
_NAME = re.compile(r"[\w.-]+\.(png|jpe?g)", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"(?P<name>[^=;]+)=(?P<shape>[a-z]+) (?P<values>[^=;]+)")


class MaskError(ValueError):
    """An annotation is not a shape inside its image; the message says what is wrong with it."""


def write(frame: tuple[int, int], parts: Iterable[tuple[str, str, str]]) -> str | None:
    """The text of a mask, None without parts.

    Args:
        frame: height and width.
        parts: class, shape and values (numbers with spaces between) of each.

    Raises:
        MaskError: if a part cannot be drawn.
    """
    texts = []
    for name, shape, values in parts:
        _values(frame, shape, values)
        texts.append(f"{name}={shape} {values}")
    return "; ".join([f"{frame[0]}x{frame[1]}", *texts]) if texts else None


def read(text: str, *names: str) -> np.ndarray:
    """The mask bool [H, W] of the classes `names`, or of all.

    Raises:
        MaskError: if one of them is not in it, or cannot be drawn.
    """
    frame, parts = _parse(text)
    if missing := set(names) - {name for name, _, _ in parts}:
        raise MaskError(f"no part {sorted(missing)} in a mask of {list(classes(text))}")
    mask = np.zeros(frame, bool)
    for name, shape, values in parts:
        if not names or name in names:
            _fill(mask, shape, _values(frame, shape, values))
    return mask


def classes(text: str) -> tuple[str, ...]:
    """The classes of a mask, in the order of their first parts."""
    return tuple(dict.fromkeys(name for name, _, _ in _parse(text)[1]))


def frame(text: str) -> tuple[int, int]:
    """Height and width of the file in which a mask is drawn."""
    return _parse(text)[0]


def box_around(frame: tuple[int, int], shape: str, values: str) -> dict[str, float]:
    """x, y, w, h (top left corner and size, fractions of the frame) of the box around a polygon, ellipse or box."""
    low, high = (edge(_values(frame, shape, values).reshape(-1, 2), axis=0) for edge in (np.min, np.max))
    if (low == high).any():
        raise MaskError(f"{shape} without area")
    (x, y), (w, h) = low / frame[::-1], (high - low) / frame[::-1]
    return {"x": float(x), "y": float(y), "w": float(w), "h": float(h)}


def fault(frame: tuple[int, int], shape: str, values: str) -> str | None:
    """Why a shape cannot be drawn in its frame; None where it can."""
    try:
        _values(frame, shape, values)
    except MaskError as error:
        return str(error)
    return None


def frame_of(path: Path) -> tuple[int, int]:
    """Height and width of a PNG or JPEG, upright as it is read; MaskError where there is no such image."""
    try:
        return upright_size(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MaskError("no readable image, which alone gives the frame of its annotation") from error


def require_annotated_images(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """RecordError if annotations of more than a quarter of the images leave them, and of at least three.

    Those of a reduced image that do not leave it would be drawn in the wrong place.

    Args:
        rows: what a reader that works row by row makes of annotations in frames of `frame_of`.
    """
    reasons = [row.get("reason") for row in rows if row.get("reason") or row.get("mask")]
    outside = [reason for reason in reasons if reason and OUTSIDE in reason]
    if len(outside) >= 3 and 4 * len(outside) > len(reasons):
        raise RecordError(
            f"{folder}: annotations of {len(outside)} of {len(reasons)} images leave them (first: {outside[0]}), so "
            "these are not the images that were annotated, but perhaps reduced ones; fetch the publisher's"
        )


def require_whole_frames(place: Path, frame: tuple[int, int], early: pl.Series) -> None:
    """RecordError if annotations of many images all end within the first quarter of the frame.

    They are of images that were reduced to half or less; in the publisher's frame they would be of other places.

    Args:
        early: whether the annotation of each annotated image, or row, ends there.
    """
    if len(early) >= ENOUGH and early.all():
        raise RecordError(
            f"{place}: all {len(early)} annotations end within a quarter of {frame[1]} x {frame[0]} pixels, so they "
            "are of reduced images; give the publisher's table, which fits images of any size"
        )


def stem_of(name: Any) -> str:
    """The name of a PNG or JPEG without its suffix; MaskError where it is no such name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MaskError(f"not the name of an image: {ascii(name)[:60]}")
    return Path(name).stem


def numbers(points: Iterable[Iterable[float]]) -> str:
    """Points as the values of a shape; MaskError where they are not numbers."""
    try:
        return " ".join(f"{value:.7g}" for point in points for value in point)
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError("points that are not pairs of numbers") from error


def read_json(path: Path) -> Any:
    """The contents of a JSON file; RecordError where it is damaged or not text."""
    try:
        return json.loads(read_text(path))
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a readable JSON file ({error}); fetch it again") from error


def one_row_per_image(table: pl.DataFrame) -> pl.DataFrame:
    """Complete `reason` where an image has several rows: only the first keeps none, and only if all are usable.

    A union, or a vote, without one of its rows would be wrong.

    Args:
        table: image_id (null where not known), broken, reason.
    """
    known = pl.col("image_id").is_not_null()
    spoiled = pl.col("reason").is_not_null().any().over("image_id")
    further = ~pl.col("image_id").is_first_distinct()
    cause = pl.when(known & spoiled).then(pl.lit(SPOILED)).when(known & further).then(pl.lit(MERGED))
    return table.with_columns(reason=pl.coalesce("reason", cause))


def union_of_rle(table: pl.DataFrame, frame: tuple[int, int], place: Path) -> pl.DataFrame:
    """Add `mask`, the union of all rows of an image, and the `reason` why a row is not, or not alone, its Record.

    Args:
        table: image_id, broken, name (class), rle ("-1": nothing of that class).
        frame: height and width of every image.
        place: the table, or its folder.

    Raises:
        RecordError: if they are of reduced images.
    """
    faults = table["rle"].map_elements(
        lambda rle: None if rle == "-1" else fault(frame, "rle", rle), return_dtype=pl.String
    )
    empty, same = pl.col("rle") == "-1", ("image_id", "name")
    denied = (empty.any() & ~empty.all()).over(*same) & pl.col("image_id").is_not_null()
    table = table.with_columns(
        reason=pl.coalesce(faults, pl.when(denied).then(pl.lit("both a mask and none for one image"))),
        part=pl.when(~empty).then(pl.format("; {}=rle {}", "name", "rle")),
    )
    drawn = table.filter(pl.col("part").is_not_null(), pl.col("reason").is_null())["rle"]
    ends = drawn.str.split(" ").list.eval(pl.element().cast(pl.Int64, strict=False)).list.sum()
    require_whole_frames(place, frame, 4 * ends <= frame[0] * frame[1])
    parts = pl.col("part").str.join("", ignore_nulls=True).over("image_id")
    mask = pl.when(parts != "").then(pl.format(f"{frame[0]}x{frame[1]}{{}}", parts))
    return one_row_per_image(table.with_columns(mask=mask))


def _parse(text: str) -> tuple[tuple[int, int], list[tuple[str, str, str]]]:
    head, *parts = text.split("; ")
    size, found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", head), [_PART.fullmatch(part) for part in parts]
    if size is None or not found or None in found:
        raise MaskError(f"not 'HxW; class=shape values; ...': {text[:60]!r}")
    return (int(size[1]), int(size[2])), [match.group("name", "shape", "values") for match in found]


def _values(frame: tuple[int, int], shape: str, text: str) -> np.ndarray:
    """The values of a shape as numbers, `runs` turned into `rle`; MaskError unless they lie in the frame."""
    if shape not in SHAPES:
        raise MaskError(f"unknown shape {shape!r}: use one of {', '.join(SHAPES)}")
    lengths = shape in ("rle", "runs")
    try:
        values = np.array(text.split(), np.int64 if lengths else np.float64)
    except (ValueError, OverflowError) as error:
        raise MaskError(f"{shape} with values that are not {'whole ' * lengths}numbers") from error
    if values.size == 0 or values.size % 2:
        raise MaskError(f"{shape} with {values.size} values: needs pairs")
    return _runs(frame, shape, values) if lengths else _points(frame, shape, values)


def _runs(frame: tuple[int, int], shape: str, values: np.ndarray) -> np.ndarray:
    pixels = frame[0] * frame[1]
    if values.min() < 0 or values.max() > pixels:
        raise MaskError(f"{shape} with a value below 0 or above the {pixels} pixels of the frame")
    if shape == "runs":
        starts, lengths = values[::2] - 1, values[1::2]
        gaps = np.diff(starts, prepend=0) - np.concatenate([[0], lengths[:-1]])
        if gaps.min() < 0:
            raise MaskError("runs that overlap or are not in order")
        values = np.stack([gaps, lengths], axis=1).ravel()
    if not values[1::2].any():
        raise MaskError(f"{shape} that marks no pixel")
    if values.sum() > pixels:
        raise MaskError(f"{shape} that ends {values.sum() - pixels} pixels after the frame")
    return values


def _points(frame: tuple[int, int], shape: str, values: np.ndarray) -> np.ndarray:
    points, corners = values.reshape(-1, 2), values.size // 2
    if corners < 3 if shape == "polygon" else corners != 2:
        raise MaskError(f"{shape} with {corners} points: needs {'3 or more' if shape == 'polygon' else '2'}")
    if not ((points >= 0) & (points <= frame[::-1])).all():
        raise MaskError(f"{shape} {OUTSIDE} {frame[0]} x {frame[1]} frame")
    if shape != "polygon" and not (points[0] < points[1]).all():
        raise MaskError(f"{shape} whose second corner is not below and right of the first")
    return values


def _fill(mask: np.ndarray, shape: str, values: np.ndarray) -> None:
    """Set the pixels of a shape in `mask`, bool [H, W]."""
    height, width = mask.shape
    if shape in ("rle", "runs"):
        inside = np.repeat(np.arange(values.size) % 2 == 1, values)
        mask |= np.pad(inside, (0, mask.size - inside.size)).reshape(width, height).T  # columns -> [H, W]
    elif shape == "polygon":
        mask[draw.polygon(values[1::2], values[::2], mask.shape)] = True
    else:
        x1, y1, x2, y2 = values
        if shape == "ellipse":
            centre = ((y1 + y2 - 1) / 2, (x1 + x2 - 1) / 2)  # draw counts from the centre of the first pixel
            mask[draw.ellipse(*centre, (y2 - y1) / 2, (x2 - x1) / 2, mask.shape)] = True
        else:
            mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
