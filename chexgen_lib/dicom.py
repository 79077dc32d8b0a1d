"""Radiographs from DICOM files: what a viewer shows, by the elements of the file's header.

Stored values go through the modality table or rescale, then the VOI table or window, and MONOCHROME1 is inverted. An
element that is absent, empty or senseless and only concerns display is left out, as viewers do; one without which the
pixels mean nothing is named in the refusal.
"""

import struct
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.encaps import encapsulate, generate_frames, parse_fragments
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from chexgen_lib.dicom_display import DicomError, displayed, element, name, number, numbers
from chexgen_lib.pixels import MOST, ImageError

REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelData")
PLAIN = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
# What compressed pixels begin with, where the Transfer Syntax UID is missing or belongs to others.
JPEG_KINDS = {0xC0: "1.2.840.10008.1.2.4.50", 0xC1: "1.2.840.10008.1.2.4.51", 0xC3: "1.2.840.10008.1.2.4.57"}
JPEG_KINDS |= {0xC2: "1.2.840.10008.1.2.4.51", 0xF7: "1.2.840.10008.1.2.4.81"}  # 0xC2 has no decoder of its own
PROGRESSIVE, LOSSY = 0xC2, (0xC0, 0xC1, 0xC2)  # of colours a lossy one holds luma and chroma, others RGB
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SCAN, END = b"\xff\xda", b"\xff\xd9"  # markers of a JPEG; its compressed values never hold them
MORE = bytes(range(1, 128))  # values that follow no JPEG
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000, alone or within a JP2
ITEM = b"\xfe\xff\x00\xe0"
DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"  # after the last item of compressed pixels
JP2 = b"\0\0\0\x0cjP  "
JPEG_2000 = "1.2.840.10008.1.2.4.91"
OVERLAID = 0.1  # share of pixels that an overlay in unused bits marks at most
LUMA = (0.299, 0.587, 0.114)
GROUPED = {  # where an enhanced image keeps what others have in their data set
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
SPACINGS = ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing")  # down, and to the right


def read_dicom(path: Path, note: Callable[[str], None]) -> np.ndarray:
    """The radiograph of a DICOM file, its first frame if there are several, float32 [H, W] from 0 to 1.

    With or without preamble and Transfer Syntax UID; compressed or not.

    Args:
        note: called with each element that was left out, and why.

    Raises:
        ImageError: naming the element because of which the file cannot be shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of elements that do not keep to the standard: `note` gets what matters
        try:
            data = _read(path)
            _ungroup(data)
            _complete(data, note)
            stored = _stored(data, note)
            if stored.ndim == 3:
                return (stored @ np.array(LUMA)).astype(np.float32)
            return displayed(stored, data, note)
        except DicomError as error:
            raise ImageError(f"{path}: {error}") from error
        except Exception as error:  # pydicom and its decoders raise many types; all mean: no usable pixels
            raise ImageError(f"{path}: not a readable DICOM ({error}); fetch it again or convert it") from error


def _read(path: Path) -> pydicom.Dataset:
    """The elements of a file; one that ends where the delimiter after compressed pixels should be is whole, too."""
    data = pydicom.dcmread(path, force=True)
    if not len(data):
        data = pydicom.dcmread(BytesIO(path.read_bytes() + DELIMITER), force=True)
        _check_items(data)
    return data


def _check_items(data: pydicom.Dataset) -> None:
    """Raise DicomError unless the file was compressed pixels up to the end of their last item."""
    pixels = element(data, "PixelData")
    if pixels is None:
        raise DicomError("no element can be read: it is no DICOM, or ends within an element; fetch it again")
    _, starts = parse_fragments(pixels)
    length = int.from_bytes(pixels[starts[-1] + 4 : starts[-1] + 8], "little")
    if starts[-1] + 8 + length > len(pixels):
        raise DicomError(f"{name('PixelData')} ends within its last item; fetch it again")


def _ungroup(data: pydicom.Dataset) -> None:
    """Bring the first frame's display elements of an enhanced image to where others have them."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for keyword, wanted in GROUPED.items():
            items = [element(group, keyword) for group in (element(data, groups) or [])[:1]]
            for item in (items[0] or [])[:1] if items else []:
                data.update({tag.tag: tag for tag in item if tag.keyword in wanted})


def _complete(data: pydicom.Dataset, note: Callable[[str], None]) -> None:
    """Put into `data` what its elements leave out and the standard, or the pixels, tell."""
    for keyword in REQUIRED:
        value = element(data, keyword) if keyword in REQUIRED[3:] else number(data, keyword)
        if value in (None, "", b"", 0):
            raise DicomError(f"{name(keyword)} is missing or empty, so it holds no image; fetch it again")
    if data.Rows * data.Columns > MOST:
        raise DicomError(f"{data.Columns} x {data.Rows} pixels are more than {MOST}; reduce it first")
    data.PhotometricInterpretation = str(data.PhotometricInterpretation).strip().upper()
    allocated, bits = int(data.BitsAllocated), number(data, "BitsStored")
    if bits is None or not 0 < bits <= allocated:
        note(f"{name('BitsStored')} is not 1 to {allocated}: took all {allocated} bits")
        data.BitsStored = bits = allocated
    defaults = {"SamplesPerPixel": 1, "PixelRepresentation": 0, "HighBit": int(bits) - 1, "PlanarConfiguration": 0}
    for keyword, default in defaults.items():
        if number(data, keyword) is None:
            setattr(data, keyword, default)
    frames = number(data, "NumberOfFrames") or 1
    if frames > 1:
        note(f"{name('NumberOfFrames')} is {frames:g}: took the first")
    data.NumberOfFrames = max(int(frames), 1)
    _remark_display(data, note)
    if not hasattr(data, "file_meta"):
        data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = _syntax(data)
    _follow_jpeg(data, note)
    if data.SamplesPerPixel == 3 and data.PhotometricInterpretation == "MONOCHROME2":
        note(f"{name('PhotometricInterpretation')} is MONOCHROME2, of three channels: took them for RGB")
        data.PhotometricInterpretation = "RGB"


def _remark_display(data: pydicom.Dataset, note: Callable[[str], None]) -> None:
    """Note what a viewer would see to, and is not done here, since such elements are often wrong."""
    for keyword in SPACINGS:
        spacing = numbers(data, keyword)
        if len(spacing) == 2 and spacing[0] != spacing[1] and not np.isnan(spacing).any():
            note(f"{name(keyword)} is {spacing[0]:g} and {spacing[1]:g}: took its pixels for squares")
    if str(element(data, "PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
        note(f"{name('PresentationIntentType')} is FOR PROCESSING: the detector's raw values, not a film to be read")
    toward = element(data, "PatientOrientation")
    toward = [str(each).upper() for each in toward] if isinstance(toward, list | MultiValue) else []
    if len(toward) == 2 and (toward[0].startswith("R") or toward[1].startswith("H")):
        note(f"{name('PatientOrientation')} is {' and '.join(toward)}: mirrored or upside down, took it as it is")


def _syntax(data: pydicom.Dataset) -> UID:
    syntax = UID(str(element(data.file_meta, "TransferSyntaxUID") or ""))
    framed = data["PixelData"].is_undefined_length or data.PixelData[:4] == ITEM
    told = _told(_frame(data)) if framed else None
    if syntax.is_valid and syntax.is_transfer_syntax and not syntax.is_private:
        alike = JPEG2000TransferSyntaxes if told == JPEG_2000 else (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes)
        if (framed == syntax.is_compressed and (told is None or syntax in alike)) or syntax.is_deflated:
            return syntax
    if not framed:
        return PLAIN[data.original_encoding]
    if told is None:
        raise DicomError(
            f"{name('TransferSyntaxUID')} is missing and the compressed pixels do not tell it; fetch it again"
        )
    return UID(told)


def _told(frame: bytes) -> str | None:
    """The transfer syntax that a compressed frame tells; None where it does not."""
    if frame.startswith((CODESTREAM, JP2)):
        return JPEG_2000
    header = _jpeg_header(frame)
    return header and JPEG_KINDS[header.kind]


def _frame(data: pydicom.Dataset) -> bytes:
    """The first frame as it was compressed."""
    return next(generate_frames(data.PixelData, number_of_frames=data.NumberOfFrames))


class Header(NamedTuple):
    """What a JPEG says of itself, and where; kind: a key of `JPEG_KINDS`, 0 of JPEG 2000; bits: of a value."""

    start: int
    kind: int
    bits: int
    rows: int
    columns: int
    channels: int


def _jpeg_header(frame: bytes) -> Header | None:
    """Of a JPEG or JPEG 2000; None of another frame."""
    start = frame.find(CODESTREAM) if frame.startswith((CODESTREAM, JP2)) else -1
    if start >= 0 and start + 43 <= len(frame):
        right, low, left, top = struct.unpack(">4I", frame[start + 8 : start + 24])
        channels, bits = struct.unpack(">HB", frame[start + 40 : start + 43])
        return Header(start, 0, bits % 128 + 1, low - top, right - left, channels)
    start = 2
    while frame[:2] == b"\xff\xd8" and start + 10 <= len(frame) and frame[start] == 0xFF:
        if frame[start + 1] in JPEG_KINDS:
            return Header(start, frame[start + 1], *struct.unpack(">BHHB", frame[start + 4 : start + 10]))
        start += 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
    return None


def _follow_jpeg(data: pydicom.Dataset, note: Callable[[str], None]) -> None:
    """Give `data` the size, depth and channels of its JPEG, where the elements, which are not needed, differ."""
    frame = _frame(data) if data.file_meta.TransferSyntaxUID.is_compressed else b""
    header = _jpeg_header(frame)
    if header is None or min(header.rows, header.columns) < 1 or header.bits > 16:
        return
    _, kind, bits, rows, columns, channels = header
    if rows * columns > MOST:
        raise DicomError(f"{name('PixelData')}: {columns} x {rows} pixels are more than {MOST}; reduce it first")
    allocated = 8 if bits <= 8 else 16
    grey = data.PhotometricInterpretation not in COLOURS
    said = data.BitsAllocated, data.Rows, data.Columns, data.SamplesPerPixel
    if said == (allocated, rows, columns, channels) and grey == (channels == 1):
        return
    note(
        f"{name('PixelData')} is a JPEG of {channels} channels of {bits} bits, {columns} x {rows}, not as the elements "
        "say: followed it"
    )
    if allocated != data.BitsAllocated:
        data.BitsAllocated, data.BitsStored, data.HighBit = allocated, bits, bits - 1
    data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, channels
    if channels == 3 and (grey or said[3] != 3):
        data.PhotometricInterpretation = "YBR_FULL_422" if kind in LOSSY else "RGB"
        data.PlanarConfiguration = 0
    elif channels == 1 and not grey:
        data.PhotometricInterpretation = "MONOCHROME2"


def _close(data: pydicom.Dataset, note: Callable[[str], None]) -> None:
    """Give the first frame of `data`, if it is a JPEG, the end marker where only that is missing.

    Raises:
        DicomError: where values are missing, too. Decoders make those up, so other values in their place change the
            image; after those of all rows they change nothing.
    """
    frame = _frame(data)
    header = _jpeg_header(frame)
    if header is None or not header.kind:
        return
    scan = frame.find(SCAN, header.start)
    if scan >= 0 and frame.find(END, scan) >= 0:
        return
    frame = frame.rstrip(b"\0")
    frame += b"\0" * frame.endswith(b"\xff")  # so half a marker is a value
    images, data.NumberOfFrames = [], 1
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # of the frames as they were
        data.pop(keyword, None)
    try:
        for values in (frame + MORE, frame):
            data.PixelData = encapsulate([values + END])
            images.append(pixel_array(data, index=0))
        whole = np.array_equal(*images)
    except Exception:  # decoders raise many types; of values that they cannot read, after those of all rows none
        whole = False
    # Of several scans the last may be missing altogether.
    if not whole or header.kind == PROGRESSIVE or frame[scan + 4] != header.channels:
        raise DicomError(f"{name('PixelData')} ends within its JPEG; fetch it again")
    note(f"{name('PixelData')} is a JPEG without its end marker, of which all rows are there: took it")


def _stored(data: pydicom.Dataset, note: Callable[[str], None]) -> np.ndarray:
    """The first frame: stored values [H, W], or colours [H, W, 3] as fractions of their largest value."""
    kind, syntax = data.PhotometricInterpretation, data.file_meta.TransferSyntaxUID
    grey = kind in ("MONOCHROME1", "MONOCHROME2")
    if data.SamplesPerPixel != (1 if grey or kind == "PALETTE COLOR" else 3 if kind in COLOURS else 0):
        raise DicomError(
            f"{name('PhotometricInterpretation')} {kind} with {name('SamplesPerPixel')} {data.SamplesPerPixel} is no "
            "image; it needs MONOCHROME1 or MONOCHROME2 with 1, or RGB with 3: fetch it again or convert it"
        )
    if syntax.is_compressed:
        _check_decoder(syntax)
        _close(data, note)
    try:
        stored = _first_frame(data, note)
    except Exception as error:
        said = " ".join(str(error).split())  # in one line
        raise DicomError(f"{name('PixelData')} ({syntax.name}) cannot be decoded: {said}; fetch it again") from error
    if grey:
        return stored
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
        return stored[..., :3] / np.iinfo(stored.dtype).max
    return stored / (2**data.BitsStored - 1)


def _check_decoder(syntax: UID) -> None:
    try:
        usable = get_decoder(syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        raise DicomError(
            f"{name('TransferSyntaxUID')} {syntax.name}: no decoder of it is installed; convert the file, for example "
            "with `gdcmconv --raw`"
        )


def _first_frame(data: pydicom.Dataset, note: Callable[[str], None]) -> np.ndarray:
    """The first frame without bits that are not stored ones.

    `pydicom` takes stored bits to be the lowest. Where High Bit says otherwise, and the values bear it out, they are
    cut out here.
    """
    allocated, stored, high = int(data.BitsAllocated), int(data.BitsStored), int(data.HighBit)
    if data.file_meta.TransferSyntaxUID.is_compressed:
        return pixel_array(data, index=0)
    data.NumberOfFrames = 1  # there may be fewer than it says, and the first is all that is read
    first = pixel_array(data, index=0)
    if allocated == stored or first.ndim == 3:
        return first
    data.BitsStored = allocated
    whole = pixel_array(data, index=0)
    data.BitsStored = stored
    above = whole.astype(np.int64) >> stored
    above = (above != 0) & (above != -1)
    if stored - 1 < high < allocated and above.any():
        return (whole << (allocated - 1 - high)) >> (allocated - stored)
    if above.mean() > OVERLAID:
        note(f"{name('BitsStored')} is {stored}, and {above.mean():.0%} of the values have more: left out those bits")
    return first
