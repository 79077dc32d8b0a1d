"""Radiographs as their publishers' files: JPEG, PNG of 8 and 16 bits, DICOM with and without compression."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    generate_uid,
)

from chexgen_lib.images import resize, to_uint8

Syntax = Literal["plain", "jpeg", "jpeg2000"]
UIDS: dict[Syntax, UID] = {"plain": ExplicitVRLittleEndian, "jpeg": JPEGBaseline8Bit, "jpeg2000": JPEG2000Lossless}


def enlarged(image: np.ndarray, size: int, margin: int = 0) -> np.ndarray:
    """[S, S] in [0, 1] -> [size + 2 * margin, size]: taller than wide by black margins, as films often are."""
    return np.pad(resize(image, size), ((margin, margin), (0, 0)))


def png(path: Path, image: np.ndarray, bits: int = 8) -> None:
    """Grey PNG of 8 or 16 bits, over the whole range of the type."""
    grey = to_uint8(image) if bits == 8 else np.rint(image * 65535).astype(np.uint16)
    _folder(path)
    Image.fromarray(grey).save(path, format="PNG", compress_level=1)


def jpg(path: Path, image: np.ndarray) -> None:
    _folder(path)
    Image.fromarray(to_uint8(image)).save(path, format="JPEG", quality=90)


def dicom(path: Path, image: np.ndarray, syntax: Syntax = "plain", negative: bool = False, **header: str) -> None:
    """A DICOM file of 12 stored bits, or of 8 in a baseline JPEG; with `negative` MONOCHROME1, as white air is stored.

    Args:
        header: further elements, by keyword.
    """
    bits = 8 if syntax == "jpeg" else 12
    top = 2**bits - 1
    grey = np.rint((1 - image if negative else image) * top).astype(np.uint16 if bits > 8 else np.uint8)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        DigitalXRayImageStorageForPresentation,
        generate_uid(entropy_srcs=[path.name]),
    )
    meta.TransferSyntaxUID = UIDS[syntax if syntax != "jpeg2000" else "plain"]
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.Rows, data.Columns = "DX", *grey.shape
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME1" if negative else "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * grey.itemsize, bits, bits - 1
    data.WindowCenter, data.WindowWidth = (top + 1) // 2, top + 1
    for keyword, value in header.items():
        setattr(data, keyword, value)
    data.PixelData = encapsulate([_jpeg(grey)]) if syntax == "jpeg" else grey.tobytes()
    data["PixelData"].VR = "OB" if bits == 8 else "OW"
    data["PixelData"].is_undefined_length = syntax == "jpeg"
    if syntax == "jpeg2000":
        data.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    _folder(path)
    data.save_as(path, enforce_file_format=True)


def text(path: Path, content: str) -> None:
    _folder(path)
    path.write_text(content, encoding="utf-8")


def _jpeg(grey: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, format="JPEG", quality=90)
    return stream.getvalue()


def _folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
