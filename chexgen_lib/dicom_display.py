"""Stored values of a radiograph as a viewer shows them, by the display elements of its DICOM header.

The header is a DICOM file's, or lies as JSON beside a PNG that holds stored values (BIMCV).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset, Sequence
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from chexgen_lib.pixels import ImageError

ELEMENTS = (
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
Note = Callable[[str], None]


class DicomError(ValueError):
    """An element without which a header's pixels mean nothing; the message names it and the remedy."""


def name(keyword: str) -> str:
    """How messages call an element: "Window Width (0028,1051)"."""
    tag = Tag(tag_for_keyword(keyword))
    return f"{dictionary_description(tag)} ({tag.group:04X},{tag.element:04X})"


def element(data: Dataset, keyword: str) -> Any:
    """The value of an element; None where it is absent, empty or damaged."""
    try:
        value = data.get(keyword)
    except Exception:  # pydicom converts at this moment, and raises many types
        return None
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def numbers(data: Dataset, keyword: str) -> list[float]:
    """The finite values of an element; others are NaN."""
    value = element(data, keyword)
    values = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    found = []
    for each in values:
        try:
            found.append(float(each))
        except (TypeError, ValueError, OverflowError):
            found.append(np.nan)
    return [each if np.isfinite(each) else np.nan for each in found]


def number(data: Dataset, keyword: str) -> float | None:
    """The first value of an element; None where it is no finite number."""
    first = numbers(data, keyword)[0]
    return None if np.isnan(first) else first


def displayed(stored: np.ndarray, header: Dataset, note: Note) -> np.ndarray:
    """Stored values [H, W] of MONOCHROME1 or MONOCHROME2 as float32 from 0 to 1, 0 = black.

    After the tables or window the image's own minimum and maximum become 0 and 1. Padding is black and does not count.

    Args:
        note: called with each element that was left out, and why.

    Raises:
        DicomError: where the window or table leaves a single grey value.
    """
    padding = _padding(stored, header)
    x = _rescaled(stored, header, note)
    before, x = x, _windowed(x, header, note)
    image = x if padding is None else x[~padding]
    low, high = image.min(), image.max()
    if low == high and before.min() < before.max():
        element_ = "VOILUTSequence" if _table(header, "VOILUTSequence", before) else "WindowCenter"
        raise DicomError(
            f"{name(element_)} leaves one grey value of pixels that are {before.min():g} to {before.max():g}, so it "
            "shows nothing; fetch it again or correct the element"
        )
    x = ((x - low) / (high - low if high != low else 1)).clip(0, 1)  # the caller refuses constant images
    x = 1 - x if header.PhotometricInterpretation == "MONOCHROME1" else x
    return (x if padding is None else np.where(padding, 0, x)).astype(np.float32)


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Which pixels are no part of the image, [H, W]; None where none are."""
    value = number(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(header, "PixelPaddingRangeLimit")
    ends = np.array([value, value if limit is None else limit])
    if np.issubdtype(stored.dtype, np.signedinteger) and stored.dtype.itemsize == 2:
        ends = np.where(ends > 32767, ends - 65536, ends)
    padding = (stored >= ends.min()) & (stored <= ends.max())
    return padding if padding.any() and not padding.all() else None


def _rescaled(stored: np.ndarray, header: Dataset, note: Note) -> np.ndarray:
    """Stored values through the modality table, or slope and intercept."""
    if table := _table(header, "ModalityLUTSequence", stored):
        return _looked_up(stored, *table)
    if element(header, "ModalityLUTSequence") is not None:
        note(f"left out {name('ModalityLUTSequence')}, which holds no table")
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if slope == 0 or (slope is None and "RescaleSlope" in header):
        note(f"left out {name('RescaleSlope')}, which is empty, 0 or no number")
    return stored.astype(np.float64) * (slope or 1) + (intercept or 0)


def _windowed(x: np.ndarray, header: Dataset, note: Note) -> np.ndarray:
    """Values through the VOI table, or the first window that is one; as they are where there is neither."""
    if table := _table(header, "VOILUTSequence", x):
        return _looked_up(x, *table)
    if element(header, "VOILUTSequence") is not None:
        note(f"left out {name('VOILUTSequence')}, which holds no table")
    function = str(element(header, "VOILUTFunction") or "LINEAR").strip().upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        note(f"left out {name('VOILUTFunction')}, which is {function!r}")
        function = "LINEAR"
    least = 1 if function == "LINEAR" else np.finfo(float).tiny
    windows = zip(numbers(header, "WindowCenter"), numbers(header, "WindowWidth"), strict=False)
    center, width = next(((c, w) for c, w in windows if not np.isnan(c) and w >= least), (None, None))
    if center is None:
        if "WindowWidth" in header or "WindowCenter" in header:
            note(f"left out {name('WindowCenter')} and {name('WindowWidth')}, which are no window")
        return x
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    if function == "LINEAR":  # DICOM PS3.3 C.11.2.1.2: half a value off, and one narrower
        center, width = center - 0.5, width - 1
    return (x > center).astype(float) if width == 0 else ((x - center) / width + 0.5).clip(0, 1)


def _table(header: Dataset, keyword: str, x: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The first lookup table and the value that its first entry stands for; None where the sequence holds none."""
    sequence = element(header, keyword)
    items = sequence if isinstance(sequence, Sequence) else []
    order = "<" if getattr(header, "original_encoding", (True, True))[1] is not False else ">"
    return next((table for item in items if (table := _table_of(item, order, x)) is not None), None)


def _table_of(item: Dataset, order: str, x: np.ndarray) -> tuple[np.ndarray, int] | None:
    """The table of an item, its 16-bit entries in the `order` of bytes "<" or ">"; None where it holds none."""
    descriptor, data = numbers(item, "LUTDescriptor"), element(item, "LUTData")
    if len(descriptor) != 3 or np.isnan(descriptor).any() or data is None:
        return None
    entries, first = int(descriptor[0]) or 65536, int(descriptor[1])
    if isinstance(data, bytes):
        kind = np.uint8 if len(data) < 2 * entries else np.dtype(f"{order}u2")
        data = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    values = np.asarray(data, np.int64) & 0xFFFF
    if len(values) < entries:
        return None
    return values[:entries], first - 65536 if first > 32767 and x.min() < 0 else first


def _looked_up(x: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    return table[np.clip(np.rint(x) - first, 0, len(table) - 1).astype(np.int64)].astype(np.float64)


def header_beside(path: Path) -> Dataset | None:
    """The display elements in `NAME.json` beside an image, by tag (DICOM JSON) or keyword.

    None where there is no such file, or it says neither photometric interpretation nor stored bits.

    Raises:
        ImageError: if the file is damaged, or an element in it.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        content = json.loads(beside.read_bytes())  # in UTF-8, 16 or 32
        content = content[0] if isinstance(content, list) and len(content) == 1 else content  # as DICOMweb gives one
        header = Dataset()
        for keyword in ELEMENTS if isinstance(content, dict) else ():
            tag = Tag(tag_for_keyword(keyword))
            value = content.get(f"{tag:08X}", content.get(f"{tag:08x}", content.get(keyword)))
            if isinstance(value, dict):
                kind = dictionary_VR(tag).partition(" ")[0]  # "US or SS": the values are decimal numbers here
                header.add(DataElement.from_json(Dataset, tag, kind, value.get("Value"), "Value"))
            elif value is not None:
                setattr(header, keyword, value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ImageError(f"{beside}: not a readable header of {path.name} ({error}); fetch it again") from error
    if "PhotometricInterpretation" not in header and "BitsStored" not in header:
        return None
    header.PhotometricInterpretation = str(element(header, "PhotometricInterpretation") or "").strip().upper()
    return header
