"""Radiographs from and to disk, and the one place where pixel ranges change.

Inside the library an image is float32 in [0, 1], [H, W] or [N, H, W], 0 = black (air), 1 = white (bone), as
in DICOM's MONOCHROME2. Every other range (uint8 files, [-1, 1] for the autoencoder, [-1024, 1024] for
torchxrayvision) is made here and nowhere else. An image that cannot be read raises `ImageError`; nothing is
put in its place.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image

from chexgen_lib.dicom import LUMA, read_dicom
from chexgen_lib.dicom_display import DicomError, displayed, header_beside, name, number
from chexgen_lib.pixels import DICOM, JPEG, PNG, ImageError, Pixels, kind_of, read_pixels
from chexgen_lib.storage import replacing

FRONTAL_MEDIASTINUM = (slice(20, 52), slice(27, 37))  # rows and columns of 64: brighter than the lungs beside it
BLANK = 0.1  # share of rows; below 1,032 films of NIH and of others with lung masks at most 0.08 are blank
COLOURED = 0.02  # share of pixels; an annotation in colour has fewer
FRONTAL_LUNGS = ((slice(16, 40), slice(12, 24)), (slice(16, 40), slice(40, 52)))


def read_image(path: str | Path, note: Callable[[str], None] = lambda _: None, need_header: bool = False) -> np.ndarray:
    """One radiograph as float32 [H, W] in [0, 1].

    PNG (1, 8 or 16 bit; grey, palette, RGB, RGBA) and JPEG are turned upright by their EXIF note and divided by the
    largest value of their type; colour becomes luma. A PNG of stored DICOM values needs its header beside it as
    `NAME.json`, and is then read like a DICOM file: see `chexgen_lib.dicom` and `chexgen_lib.dicom_display`.

    Args:
        note: called with what a reader of the image should know and is no reason to refuse it.
        need_header: refuse a PNG or JPEG without the header: its publisher stores values as they are, so that nothing
            else tells a negative (MONOCHROME1) from a positive.

    Raises:
        ImageError: for a missing, empty, truncated, transparent, constant or otherwise unusable file.
    """
    path = Path(path)
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(132)
    x = read_dicom(path, note) if _is_dicom(path, head) else _read_png_or_jpeg(path, note, need_header)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ImageError(f"{path}: needs finite grey values [H, W], found shape {x.shape}; convert it first")
    if x.min() == x.max():
        raise ImageError(f"{path}: every pixel has the same value, so it shows nothing; fetch it again")
    return x


def _is_dicom(path: Path, head: bytes) -> bool:
    """By its first bytes, as names mislead: with the preamble, or a first group of 2 or 8 where it is left out."""
    if head[128:132] == DICOM:
        return True
    if head.startswith((PNG, JPEG)) or kind_of(head) or not head:
        return False
    named = path.suffix.lower() in {".dcm", ".dicom"}
    bare = head[:2] in (b"\2\0", b"\x08\0") and head[3:4] == b"\0" and (head[4:6].isupper() or head[6:8] == b"\0\0")
    return named or bare


def _read_png_or_jpeg(path: Path, note: Callable[[str], None], need_header: bool) -> np.ndarray:
    pixels = read_pixels(path, ("PNG", "JPEG"))
    if pixels.alpha is not None:
        raise ImageError(f"{path}: has transparent pixels; flatten the image, then read it again")
    grey = pixels.values
    if (coloured := _coloured(pixels)) > COLOURED:
        note(f"{coloured:.0%} of it in colour, of which only the brightness is kept: a heat map, or drawn upon?")
    if grey.ndim == 3 and pixels.top == 65535:
        grey = np.rint(grey @ np.array(LUMA)).astype(np.int64)
    elif grey.ndim == 3:
        grey = np.asarray(Image.fromarray(grey).convert("L"))
    header, peak = header_beside(path), int(grey.max())
    beside = f"put the header of its DICOM file beside it as {path.stem}.json, or convert that file again"
    if header is None:
        if need_header:
            raise ImageError(f"{path}: stored values, and nothing tells whether they are a negative; {beside}")
        if pixels.top == 65535 and grey.min() < peak < 32768:
            raise ImageError(
                f"{path}: 16-bit values of only {grey.min()} to {peak} are stored DICOM values, whose window and "
                f"polarity are in their header alone; {beside}"
            )
        return grey.astype(np.float32) / pixels.top
    return _by_header(path, grey, pixels.top, header, note)


def _coloured(pixels: Pixels) -> float:
    """The share of pixels in colour."""
    if pixels.values.ndim == 2:
        return 0.0
    spread = pixels.values.max(axis=2).astype(np.int64) - pixels.values.min(axis=2)
    return float((8 * spread > pixels.top).mean())


def _by_header(
    path: Path, grey: np.ndarray, top: int, header: pydicom.Dataset, note: Callable[[str], None]
) -> np.ndarray:
    """A PNG or JPEG whose DICOM header is known: stored values, unless they cannot be those of the header."""
    kind, peak = header.PhotometricInterpretation, int(grey.max())
    bits = int(number(header, "BitsStored") or max(peak.bit_length(), 8 if top == 255 else 1))
    stored = peak < 2**bits and (top == 65535 or bits <= 8)
    signed = number(header, "PixelRepresentation") == 1 and peak >= 2 ** (bits - 1)
    if kind == "MONOCHROME2" and not stored:
        note(f"values 0 to {peak} of {bits} stored bits have been converted: took them as they are")
        return grey.astype(np.float32) / top
    if kind not in ("MONOCHROME1", "MONOCHROME2") or not stored or signed:
        raise ImageError(
            f"{path}: values {grey.min()} to {peak} cannot be told with {name('PhotometricInterpretation')} "
            f"{kind or 'missing'}, {bits} stored bits{' and a sign' if signed else ''} in {path.stem}.json; convert "
            "its DICOM file again"
        )
    try:
        return displayed(grey, header, note)
    except DicomError as error:
        raise ImageError(f"{path}: {path.stem}.json: {error}") from error


def unusual(x: np.ndarray, frontal: bool) -> str | None:
    """What is unusual about the greys of a radiograph [H, W], in a few words; None if nothing is.

    Args:
        frontal: whether it is known to be a frontal view, whose lungs are darker than what lies between them.
    """
    small = resize(x, 64)
    mean, spread = float(small.mean()), float(small.std())
    if spread < 0.05:
        return f"nearly flat: standard deviation {spread:.3f}"
    if not 0.1 <= mean <= 0.9:
        return f"outside the usual greys: mean {mean:.2f}"
    lungs = np.mean([small[place].mean() for place in FRONTAL_LUNGS])
    if frontal and small[FRONTAL_MEDIASTINUM].mean() < lungs - 0.05:
        return "looks like a negative: lungs brighter than the mediastinum"
    return None


def cut_off(x: np.ndarray) -> str | None:
    """Whether a radiograph [H, W] ends in rows of one value, as a file that was cut off and padded; else None.

    Collimation does the same to whole films, so that it is no reason to refuse one.
    """
    rows = np.flatnonzero((np.abs(x - x[-1, -1]) > 1e-6).any(axis=1))
    share = 1 - (rows[-1] + 1) / len(x) if len(rows) else 1.0
    return f"its last {share:.0%} hold one value: cut off, or collimated" if share > BLANK else None


def write_png(path: str | Path, x: np.ndarray) -> Path:
    """Write [H, W] in [0, 1] as 8-bit grey PNG, atomically (a reader never sees half a file)."""
    path = Path(path)
    if np.ndim(x) != 2:
        raise ImageError(f"{path}: needs one image [H, W], got shape {np.shape(x)}")
    with replacing(path) as partial:
        Image.fromarray(to_uint8(x)).save(partial, format="PNG")
    return path


def check(x: np.ndarray, name: str = "images") -> np.ndarray:
    """`x` as float32.

    Raises:
        ImageError: unless it is [H, W] or [N, H, W], floating, finite and within [0, 1].
    """
    x = np.asarray(x)
    if x.ndim not in (2, 3) or x.size == 0:
        raise ImageError(f"{name}: needs [H, W] or [N, H, W] with at least one pixel, got shape {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        raise ImageError(f"{name}: needs floats in [0, 1], got {x.dtype}; convert with images.from_uint8")
    low, high = float(x.min()), float(x.max())  # either is NaN when any pixel is
    if not (low >= 0 and high <= 1):
        raise ImageError(f"{name}: needs finite values in [0, 1], found {low:.4g} to {high:.4g}; rescale")
    return x.astype(np.float32, copy=False)


def resize(x: np.ndarray, size: int) -> np.ndarray:
    """[H, W] or [N, H, W] -> [..., size, size]: the largest centred square, antialiased.

    The aspect ratio is kept and the borders of the longer side are lost, as in ADM (Dhariwal, Nichol 2021).
    The triangle filter cannot overshoot, so the result stays within [0, 1].
    """
    x = check(x)
    if size < 1:
        raise ImageError(f"size must be at least 1 pixel, got {size}")
    height, width = x.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = x[..., top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(x)
    flat = torch.from_numpy(np.ascontiguousarray(x)).reshape(-1, 1, side, side)
    flat = torch.nn.functional.interpolate(flat, size=(size, size), mode="bilinear", antialias=True)
    return flat.clamp(0, 1).reshape(*x.shape[:-2], size, size).numpy()


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask bool [H, W] -> bool [size, size], as `resize`: a pixel is marked of which more than half is.

    Where no pixel is, those with the largest share are, so that a small mark does not vanish.
    """
    share = resize(mask.astype(np.float32), size)
    marked = share > 0.5
    return marked if marked.any() else (share == share.max()) & (share > 0)


def to_uint8(x: np.ndarray) -> np.ndarray:
    """[0, 1] float -> [0, 255] uint8, rounded to nearest."""
    return np.rint(check(x) * 255).astype(np.uint8)


def from_uint8(x: np.ndarray) -> np.ndarray:
    """[0, 255] uint8 -> [0, 1] float32."""
    x = np.asarray(x)
    if x.dtype != np.uint8:
        raise ImageError(f"needs uint8, got {x.dtype}")
    return x.astype(np.float32) / 255


def to_model(x: np.ndarray) -> torch.Tensor:
    """[N, H, W] or [H, W] in [0, 1] -> [N, 3, H, W] in [-1, 1], grey repeated, for the autoencoder."""
    x = torch.from_numpy(check(x)) * 2 - 1
    return x.reshape(-1, 1, *x.shape[-2:]).repeat(1, 3, 1, 1)


def from_model(x: torch.Tensor) -> np.ndarray:
    """[N, 3, H, W] (or 1 channel) in about [-1, 1] -> [N, H, W]: channel mean, cut off at 0 and 1."""
    if x.ndim != 4:
        raise ImageError(f"needs [N, C, H, W], got shape {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ImageError("the model's output holds NaN or infinite values: lower guidance, use float32, or retrain")
    return ((x.detach().float().mean(1) + 1) / 2).clamp(0, 1).cpu().numpy()


def to_xrv(x: np.ndarray) -> torch.Tensor:
    """[N, H, W] or [H, W] in [0, 1] -> [N, 1, H, W] in [-1024, 1024], torchxrayvision's range."""
    x = (torch.from_numpy(check(x)) * 2 - 1) * 1024
    return x.reshape(-1, 1, *x.shape[-2:])


def reduced(images: np.ndarray, size: int, block: int = 1024) -> np.ndarray:
    """uint8 [N, H, W] -> uint8 [N, size, size] by `resize`; a block of images at a time is in float."""
    if images.shape[1:] == (size, size):
        return images
    out = np.empty((len(images), size, size), np.uint8)
    for start in range(0, len(images), block):
        out[start : start + block] = to_uint8(resize(from_uint8(images[start : start + block]), size))
    return out
