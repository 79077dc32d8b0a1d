"""Pixel values of image files as they are stored: nothing is scaled, inverted or given a meaning here."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
MOST = 2**26  # pixels; a radiograph has at most about half as many, and an archive bomb more


class ImageError(ValueError):
    """A file or array is not a usable radiograph or mask; the message names it and the remedy."""


@dataclass(frozen=True)
class Pixels:
    """A decoded file.

    Attributes:
        values: whole numbers, [H, W] or [H, W, 3]; colours of a palette are looked up.
        top: largest value that the file's type holds: 1, 255 or 65535.
        alpha: opacity [H, W], 0 to 255; None where every pixel is opaque.
        indices: [H, W] in the palette, if there is one.
        lossy: whether values are near what was saved, not equal.
    """

    values: np.ndarray
    top: int
    alpha: np.ndarray | None = None
    indices: np.ndarray | None = None
    lossy: bool = False


def read_pixels(path: Path, formats: tuple[str, ...]) -> Pixels:
    """The pixels of a file in one of Pillow's `formats`.

    Raises:
        ImageError: for a missing, empty or damaged file, one of another format, or one with several pictures.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file; check the data root and the record's `image`")
    try:
        raw = path.read_bytes()
        if not raw:
            raise ImageError(f"{path}: the file is empty (0 bytes); fetch it again")
        deep = raw[:8] == PNG and raw[24:26] == b"\x10\x04"
        with Image.open(BytesIO(_split_bytes(raw) if deep else raw), formats=formats) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{path}: holds {image.n_frames} pictures; save the one that is meant as a file")
            if image.width * image.height > MOST:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are more than {MOST}; reduce it first")
            image.load()
            return _joined(np.asarray(image)) if deep else _decoded(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise many types on damaged files; all mean: no usable pixels
        raise ImageError(f"{path}: not a whole {' or '.join(formats)} ({error}); fetch it again") from error


def _split_bytes(raw: bytes) -> bytes:
    """A PNG of grey and alpha in 16 bits with a header that says RGBA in 8: the same bytes, which Pillow keeps."""
    header = raw[12:24] + b"\x08\x06" + raw[26:29]  # its name, width, height, depth, colour type and three flags
    return raw[:12] + header + struct.pack(">I", zlib.crc32(header)) + raw[33:]


def _joined(high_and_low: np.ndarray) -> Pixels:
    grey = high_and_low[..., 0].astype(np.uint16) * 256 + high_and_low[..., 1]
    return Pixels(grey, 65535, _not_opaque(high_and_low[..., 2]))


def _decoded(image: Image.Image) -> Pixels:
    lossy = image.format == "JPEG"
    if image.mode.startswith(("I", "F")):
        values, clear = np.asarray(image), image.info.get("transparency")
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise ValueError("values that are not whole numbers")
        hidden = np.zeros(values.shape, bool) if clear is None else values == clear
        return Pixels(values.astype(np.int64), 65535, _not_opaque(np.where(hidden, 0, 255)))
    if image.mode == "1":
        return Pixels(np.asarray(image).astype(np.uint8), 1)
    indices = np.asarray(image) if image.mode == "P" else None
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return Pixels(rgba[..., :3], 255, _not_opaque(rgba[..., 3]), indices, lossy)
    return Pixels(np.asarray(image if image.mode == "L" else image.convert("RGB")), 255, None, indices, lossy)


def _not_opaque(alpha: np.ndarray) -> np.ndarray | None:
    return alpha if alpha.min() < 255 else None
