"""Pixel values of image files as they are stored: nothing is scaled, inverted or given a meaning here."""

import re
import struct
import sys
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
MOST = 2**26  # pixels; a radiograph has at most about half as many, and an archive bomb more
# First bytes of what is no picture that is read here -> what it is, and what to do.
STRANGE = {
    b"II*\0": "a TIFF file; save it as PNG",
    b"MM\0*": "a TIFF file; save it as PNG",
    b"II+\0": "a BigTIFF file; save it as PNG",
    b"MM\0+": "a BigTIFF file; save it as PNG",
    b"BM": "a BMP file; save it as PNG",
    b"GIF8": "a GIF file; save it as PNG",
    b"RIFF": "a WebP file; save it as PNG",
    b"\0\0\0\x0cjP": "a JPEG 2000 file; save it as PNG",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file; save it as PNG",
    b"8BPS": "a Photoshop file; save it as PNG",
    b"%PDF": "a PDF; save the picture in it as PNG",
    b"\x93NUMPY": "a NumPy array; save it as PNG",
    b"\x89HDF": "an HDF5 file; save the picture in it as PNG",
    b"MATLAB": "a file of MATLAB; save the picture in it as PNG",
    b"NRRD": "a volume (NRRD); save its slice as PNG",
    b"ObjectType": "a volume (MetaImage); save its slice as PNG",
    b"\x5c\x01\0\0": "a volume (NIfTI); save its slice as PNG",
    b"\0\0\x01\x5c": "a volume (NIfTI); save its slice as PNG",
    b"\x1f\x8b": "packed with gzip; unpack it, or save the slice of a packed volume (.nii.gz) as PNG",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; run git lfs pull",
    b"/annex/objects/": "a pointer of git-annex in place of the file; run git annex get (datalad get)",
    b"<": "a web page or another text; log in at the publisher's and fetch the file again",
    b"{": "JSON, outlines (draw them as PNG) or what a server said in place of the file (fetch it again)",
}
DICOM = b"DICM"  # at byte 128
NOTES = (b"Raw profile type", b"XML:com.adobe.xmp")  # the texts of a PNG that may note its orientation, as eXIf may
BITS = 258  # tag of a TIFF: bits of a value, of each channel
SIDEWAYS = (5, 6, 7, 8)  # orientations (EXIF) that interchange height and width


def kind_of(head: bytes) -> str | None:
    """What a file is that is no picture, and what to do, by its first 132 bytes; None where they do not tell."""
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((kind for mark, kind in STRANGE.items() if start.startswith(mark)), None)


class ImageError(ValueError):
    """A file or array is not a usable radiograph or mask; the message names it and the remedy."""


class _UnreadableError(ValueError):
    """A whole file whose pixels have no meaning here; the message says why, and what to do."""


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
        raise ImageError(f"{path}: no such file; check its name, and the folder that it is relative to")
    try:
        raw = path.read_bytes()
        if not raw:
            raise ImageError(f"{path}: the file is empty (0 bytes); fetch it again")
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(raw), formats=formats) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(f"{path}: holds {image.n_frames} pictures; save the one that is meant as a file")
            if image.width * image.height > MOST:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are more than {MOST}; reduce it first")
            deep = DEEP.get(raw[24:26]) if raw.startswith(PNG) else None
            if image.format == "TIFF" and max(image.tag_v2.get(BITS, (0,))) == 16 and not image.mode.startswith("I"):
                deep = _deep_tiff
            return deep(raw) if deep else _decoded(_upright(image), image.format == "JPEG")
    except ImageError:
        raise
    except _UnreadableError as error:
        raise ImageError(f"{path}: {error}") from None
    except UnidentifiedImageError as error:
        kind = "a DICOM file; save it as PNG" if raw[128:132] == DICOM else kind_of(raw[:132])
        wanted = " or ".join(formats)
        said = f"this is {kind}" if kind else f"not a whole {wanted} by its first bytes; fetch it again or convert it"
        raise ImageError(f"{path}: {said}") from error
    except Exception as error:  # Pillow's readers raise many types on damaged files; all mean: no usable pixels
        raise ImageError(f"{path}: not a whole {' or '.join(formats)} ({error}); fetch it again") from error


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of a PNG or JPEG as `read_pixels` gives it, mostly from its header alone.

    Raises:
        OSError, SyntaxError, ValueError, DecompressionBombError: Pillow's, for a file that is none.
    """
    with warnings.catch_warnings(action="ignore"), Image.open(path, formats=("PNG", "JPEG")) as image:
        if image.format == "PNG" and not _has_notes(path):
            return image.height, image.width  # to look for notes behind the pixels Pillow decodes them all
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        except Exception:  # as in `_upright`
            turned = False
        return (image.width, image.height) if turned else (image.height, image.width)


def _has_notes(path: Path) -> bool:
    """Whether a chunk of a PNG may note its orientation; only their headers are read, pixels are skipped."""
    with path.open("rb", buffering=0) as file:
        end = len(PNG)
        while file.seek(end) and len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf" or name in (b"tEXt", b"zTXt", b"iTXt") and file.read(20).startswith(NOTES):
                return True
            end += 8 + length + 4  # head, contents and checksum
    return False


def _upright(image: Image.Image) -> Image.Image:
    """A picture as its note about orientation (EXIF) says; Pillow has turned a TIFF already."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged notes about a picture whose pixels are whole
        return image


def _deep_grey(raw: bytes) -> Pixels:
    """Grey and alpha in 16 bits, of which Pillow keeps 8: the same bytes under a header that says RGBA in 8."""
    header = raw[12:24] + b"\x08\x06" + raw[26:29]  # its name, width, height, depth, colour type and three flags
    with Image.open(BytesIO(raw[:12] + header + struct.pack(">I", zlib.crc32(header)) + raw[33:])) as image:
        both = np.asarray(_upright(image))
    return Pixels(both[..., 0].astype(np.uint16) * 256 + both[..., 1], 65535, _not_opaque(both[..., 2]))


def _deep_colour(raw: bytes) -> Pixels:
    """Colours in 16 bits, of which Pillow keeps the upper 8: read again with the order of bytes reversed."""
    halves = []
    for order in ("B", "L"):
        with Image.open(BytesIO(raw), formats=("PNG",)) as image:
            image.tile = [image.tile[0]._replace(args=f"{image.mode};16{order}")]
            halves.append(np.asarray(_upright(image)))
    return _joined(*halves)


def _deep_tiff(raw: bytes) -> Pixels:
    """As `_deep_colour`, of a TIFF."""
    halves = []
    for orders in ({}, {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}):
        with Image.open(BytesIO(raw), formats=("TIFF",)) as image:
            modes = [tile.args[0] for tile in image.tile]
            if not all(re.fullmatch("RGB[AX]?;16[LBN]", mode) for mode in modes):
                raise _UnreadableError("colours in 16 bits, in planes or another form; save it as PNG")
            image.tile = [
                tile._replace(args=(mode[:-1] + orders.get(mode[-1], mode[-1]), *tile.args[1:]))
                for tile, mode in zip(image.tile, modes, strict=True)
            ]
            halves.append(np.asarray(_upright(image)))
    return _joined(*halves)


def _joined(upper: np.ndarray, lower: np.ndarray) -> Pixels:
    """Colours, perhaps with opacity, of which both bytes were read alone."""
    alpha = _not_opaque(upper[..., 3]) if upper.shape[2] == 4 else None
    return Pixels(upper[..., :3].astype(np.uint16) * 256 + lower[..., :3], 65535, alpha)


DEEP = {b"\x10\x02": _deep_colour, b"\x10\x04": _deep_grey, b"\x10\x06": _deep_colour}  # depth and type of colour


def _decoded(image: Image.Image, lossy: bool) -> Pixels:
    if image.mode.startswith(("I", "F")):
        values, clear = np.asarray(image), image.info.get("transparency")
        if not np.isfinite(values).all() or (values != np.rint(values)).any():
            raise _UnreadableError("values that are not whole numbers; save it as PNG, in 8 or 16 bits")
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
