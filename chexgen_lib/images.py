"""Radiographs from and to disk, and the one place where pixel ranges change.

Inside the library an image is float32 in [0, 1], [H, W] or [N, H, W], 0 = black (air), 1 = white (bone), as
in DICOM's MONOCHROME2. Every other range (uint8 files, [-1, 1] for the autoencoder, [-1024, 1024] for
torchxrayvision) is made here and nowhere else. An image that cannot be read raises `ImageError`; nothing is
put in its place.
"""

from pathlib import Path

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from chexgen_lib.storage import replacing


class ImageError(ValueError):
    """A file or array is not a usable radiograph; the message names it and the remedy."""


def read_image(path: str | Path) -> np.ndarray:
    """One radiograph as float32 [H, W] in [0, 1].

    PNG (1, 8 or 16 bit; grey, palette, RGB, RGBA) and JPEG are divided by the largest value of their type;
    colour becomes luma. DICOM goes through its modality (rescale) and VOI (window) tables, then its own
    minimum and maximum become 0 and 1; MONOCHROME1 is inverted.

    Raises:
        ImageError: for a missing, empty, truncated, transparent, constant or otherwise unusable file.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file; check the data root and the record's `image`")
    with path.open("rb") as file:
        head = file.read(132)
    if not head:
        raise ImageError(f"{path}: the file is empty (0 bytes); fetch it again")
    dicom = head[128:132] == b"DICM" or path.suffix.lower() in {".dcm", ".dicom"}
    x = _read_dicom(path) if dicom else _read_png_or_jpeg(path)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise ImageError(f"{path}: needs finite grey values [H, W], found shape {x.shape}; convert it first")
    if x.min() == x.max():
        raise ImageError(f"{path}: every pixel has the same value, so it shows nothing; fetch it again")
    return x


def _read_png_or_jpeg(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()
            if image.has_transparency_data:
                image = image.convert("RGBA")
                if image.getchannel("A").getextrema()[0] < 255:
                    raise ImageError(f"{path}: has transparent pixels; flatten the image, then read it again")
                image = image.convert("RGB")
            sixteen_bit = image.mode.startswith("I")
            x = np.asarray(image if sixteen_bit else image.convert("L"))
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a whole PNG or JPEG ({error}); fetch it again") from error
    return x.astype(np.float32) / (65535 if sixteen_bit else 255)


def _read_dicom(path: Path) -> np.ndarray:
    try:
        data = pydicom.dcmread(path)
        kind = data.PhotometricInterpretation
        if kind not in {"MONOCHROME1", "MONOCHROME2"}:
            raise ImageError(f"{path}: photometric interpretation {kind}; needs MONOCHROME1 or MONOCHROME2")
        x = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype(np.float64)
    except ImageError:
        raise
    except Exception as error:  # pydicom and its decoders raise many types; all mean: no usable pixels
        raise ImageError(f"{path}: not a readable DICOM ({error}); fetch it again or convert it") from error
    low, high = x.min(), x.max()
    x = (x - low) / (high - low if high != low else 1)  # the caller refuses constant and non-finite images
    return (1 - x if kind == "MONOCHROME1" else x).astype(np.float32)


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
        raise ImageError("the model's output holds NaN or infinite values; use float32 or retrain")
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
