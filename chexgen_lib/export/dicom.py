"""Samples as DICOM files that no system takes for a patient's radiograph.

The class is Secondary Capture. A Digital X-Ray image has to state its detector and pixel spacing, which would be made
up here; Secondary Capture has the term SYN, a synthetic image, for how its pixels came to be. The modality is OT,
because worklists and detection software select radiographs by DX and CR.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.utils import pack_bits
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

import chexgen_lib
from chexgen_lib.pixels import ImageError
from chexgen_lib.sampling.prompts import check_metadata
from chexgen_lib.storage import digest, replacing

SYNTHETIC = "SYNTHETIC"
MODEL = "ChexGen"
# View Position, and the directions in which columns and rows go on: to the patient's left or back, and to the feet.
ORIENTATIONS = {
    "PA": ("PA", ["L", "F"]),
    "AP": ("AP", ["L", "F"]),
    "AP SUPINE": ("AP", ["L", "F"]),
    "FRONTAL": (None, ["L", "F"]),
    "LATERAL": ("LL", ["P", "F"]),
}
# How descriptions state the view of which they are one (`descriptions.grammar`).
STATED = re.compile(
    r"\b(?:(?P<supine>supine)\s+)?(?P<view>PA|posteroanterior|AP|anteroposterior|frontal|lateral)\s+chest radiograph"
    r"|\bchest radiograph in (?P<other>frontal|lateral) view",
    re.IGNORECASE,
)
SHORT = {"posteroanterior": "PA", "anteroposterior": "AP"}
RECIPE = (0x4347, "chexgen_lib", 0x01)  # private element: group, creator, element
SHORT_TEXT, LONG_STRING = 1024, 64  # most characters of the value representations ST and LO


def write_dicom(
    path: str | Path,
    image: np.ndarray | Image.Image,
    recipe: Mapping[str, Any],
    requested: Mapping[str, Any] | None = None,
) -> Path:
    """Write a sample as a DICOM file, atomically; the same image and recipe give the same bytes and UIDs.

    The pixels are stored as they are. "SYNTHETIC" is an overlay plane, which viewers draw and can hide.

    Args:
        image: uint8 [H, W], 0 = black, or a grey PIL image.
        recipe: what the image was sampled from, as JSON values: at best `prompt`, `seed`, `weights_sha256`, `sampler`,
            `steps`, `guidance`, and `generator`, the name of one that is not ours. All of it is kept (`read_recipe`).
        requested: `sex` (Male or Female, or M or F), `age` (years) and `view` (of `records.VIEWS`), where known; the
            view may be in the prompt, too (`view_in`). Without a view, orientation and view position stay empty.

    Raises:
        ImageError: if the image is not grey with 8 bits.
        ValueError: for a sex, age or view that is none.
    """
    path, pixels = Path(path), np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ImageError(f"{path}: needs uint8 [H, W] to be written as DICOM, got {pixels.dtype} {pixels.shape}")
    text = json.dumps(recipe, sort_keys=True)
    data = Dataset()
    _identify(data, digest([text, pixels]), _model(recipe))
    _describe_patient(data, {"view": view_in(recipe.get("prompt") or "")} | dict(requested or {}))
    _describe_origin(data, recipe)
    _set_pixels(data, pixels)
    _add_overlay(data, pixels.shape)
    group, creator, element = RECIPE
    data.private_block(group, creator, create=True).add_new(element, "UT", text)
    with replacing(path) as partial:
        data.save_as(partial, enforce_file_format=True)
    return path


def view_in(prompt: str) -> str | None:
    """The view (of `records.VIEWS`) that a description states: "AP chest radiograph of ..."; None if it states none."""
    if not (found := STATED.search(prompt)):
        return None
    view = (found["view"] or found["other"]).lower()
    return "AP SUPINE" if found["supine"] else SHORT.get(view, view.upper())


def recipe_of(data: Dataset) -> dict[str, Any] | None:
    """The recipe in a dataset that `write_dicom` wrote; None in any other."""
    group, creator, element = RECIPE
    try:
        return json.loads(data.private_block(group, creator)[element].value)
    except (KeyError, ValueError):
        return None


def _model(recipe: Mapping[str, Any]) -> str:
    """The name of the generator, without the marks that separate values and parts of names."""
    return re.sub(r"[\\^=]", " ", str(recipe.get("generator", MODEL)))[: LONG_STRING - len(SYNTHETIC) - 1]


def _identify(data: Dataset, key: str, model: str) -> None:
    """Ids of instance, series, study and patient, all of this one image: two samples show two persons."""
    uid = {level: UID(f"2.25.{uuid5(NAMESPACE_OID, f'{key}:{level}').int}") for level in ("study", "series", "image")}
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, uid["image"]
    data.StudyInstanceUID, data.SeriesInstanceUID = uid["study"], uid["series"]
    data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.StudyDescription = data.SeriesDescription = f"{SYNTHETIC} chest radiograph, no patient"
    data.SeriesNumber = data.InstanceNumber = 1
    data.PatientName = f"{SYNTHETIC}^{model}"
    data.PatientID = f"{SYNTHETIC}-{key[:16].upper()}"
    data.PatientComments = "Not a patient: sex and age are what was requested of the model."


def _describe_patient(data: Dataset, requested: Mapping[str, Any]) -> None:
    """What was requested of the person and the view; empty where nothing was."""
    requested = check_metadata({key: requested.get(key) for key in ("sex", "age", "view")})
    position, orientation = ORIENTATIONS.get(requested.get("view"), (None, None))
    age = requested.get("age")
    data.PatientBirthDate = ""
    data.PatientSex = requested.get("sex", "")[:1]
    data.PatientAge = "" if age is None else f"{int(age):03d}Y"
    data.BodyPartExamined = "CHEST"
    data.ViewPosition, data.PatientOrientation = position, orientation


def _describe_origin(data: Dataset, recipe: Mapping[str, Any]) -> None:
    """That the image is synthetic, coded and in words, and which software and settings made it."""
    data.Modality, data.ConversionType = "OT", "SYN"
    data.ImageType, data.SyntheticData = ["DERIVED", "SECONDARY"], "YES"
    data.Manufacturer, data.ManufacturerModelName = "chexgen_lib", _model(recipe)
    data.SoftwareVersions = f"chexgen_lib {recipe.get('chexgen_lib', chexgen_lib.__version__)}"
    words = f"{SYNTHETIC} chest radiograph, sampled from a generative model; it shows no patient."
    data.DerivationDescription = f"{words} Prompt: {recipe.get('prompt') or 'none'}"[:SHORT_TEXT]
    item, purpose = Dataset(), Dataset()
    code = codes.DCM.SynthesizingEquipment
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = "unknown", data.ManufacturerModelName
    if "generator" not in recipe:
        item.Manufacturer, item.SoftwareVersions = data.Manufacturer, data.SoftwareVersions
    if "weights_sha256" in recipe:
        item.DeviceSerialNumber = recipe["weights_sha256"][:LONG_STRING]
    settings = (f"{name} {recipe[name]}" for name in ("seed", "sampler", "steps", "guidance") if name in recipe)
    item.ContributionDescription = ", ".join(settings)[:SHORT_TEXT]
    data.ContributingEquipmentSequence = [item]


def _set_pixels(data: Dataset, pixels: np.ndarray) -> None:
    """uint8 [H, W] with a window that shows every value as it is."""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.WindowCenter, data.WindowWidth, data.PresentationLUTShape = 128, 256, "IDENTITY"
    data.BurnedInAnnotation = data.RecognizableVisualFeatures = "NO"  # "SYNTHETIC" lies in the overlay
    data.LossyImageCompression = "00"
    content = pixels.tobytes()
    data.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))


def _add_overlay(data: Dataset, shape: tuple[int, int]) -> None:
    """An overlay plane with the word SYNTHETIC along the lower edge, in letters of a 16th of the width."""
    height, width = shape
    drawing = Image.new("1", (width, height))
    font = ImageFont.load_default(max(width // 16, 9))
    ImageDraw.Draw(drawing).text((width / 2, height - 2), SYNTHETIC, fill=1, font=font, anchor="md")
    elements = {
        "Rows": (0x10, "US", height),
        "Columns": (0x11, "US", width),
        "Description": (0x22, "LO", "This image is synthetic"),
        "Type": (0x40, "CS", "G"),
        "Origin": (0x50, "SS", [1, 1]),
        "Bits Allocated": (0x100, "US", 1),
        "Bit Position": (0x102, "US", 0),
        "Label": (0x1500, "LO", SYNTHETIC),
        "Data": (0x3000, "OW", pack_bits(np.asarray(drawing).astype(np.uint8).ravel())),
    }
    for element, representation, value in elements.values():
        data.add_new((0x6000, element), representation, value)
