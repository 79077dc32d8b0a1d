"""Samples as image files that carry what they were made from: their recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image, PngImagePlugin

from chexgen_lib.export.dicom import recipe_of, write_dicom
from chexgen_lib.storage import replacing

SUFFIXES = {"png": ".png", "dicom": ".dcm"}
CHUNK = "chexgen"  # text chunk of a PNG


def save(
    path: str | Path,
    image: np.ndarray | Image.Image,
    recipe: Mapping[str, Any],
    requested: Mapping[str, Any] | None = None,
) -> Path:
    """Write a sample, atomically, as DICOM (.dcm, `write_dicom`) or as PNG with the recipe in a text chunk.

    Arguments and errors are those of `write_dicom`; a PNG keeps what was requested in its recipe alone.
    """
    path = Path(path)
    if path.suffix == SUFFIXES["dicom"]:
        return write_dicom(path, image, recipe, requested)
    note = PngImagePlugin.PngInfo()
    note.add_text(CHUNK, json.dumps(recipe, sort_keys=True))
    with replacing(path) as partial:
        Image.fromarray(np.asarray(image)).save(partial, format="PNG", pnginfo=note)
    return path


def read_recipe(path: str | Path) -> dict[str, Any] | None:
    """The recipe of a sample that `save` wrote; None where there is no such file, or not a whole one."""
    try:
        if Path(path).suffix == SUFFIXES["dicom"]:
            data = pydicom.dcmread(path)
            return recipe_of(data) if data.pixel_array.size else None
        with Image.open(path) as image:
            image.load()
            return json.loads(image.text[CHUNK])
    except Exception:  # readers raise many types on half a file; all mean: sample it again
        return None


def is_of_another(path: str | Path) -> bool:
    """Whether an image is there that `save` did not write: its header, which is all that is read, has no recipe."""
    try:
        if Path(path).suffix == SUFFIXES["dicom"]:
            return recipe_of(pydicom.dcmread(path, stop_before_pixels=True)) is None
        with Image.open(path) as image:
            return CHUNK not in image.info
    except Exception:  # as in `read_recipe`: no image, or less than its header
        return False
