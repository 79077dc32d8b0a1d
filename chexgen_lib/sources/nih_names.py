"""Which images of other datasets are NIH ChestX-ray14's, where somebody published it: so a patient is known as one.

ChestX-Det's authors give a `mapping.json` (in issue 2 of the dataset's repository; 35 of its images are not in it). Of
SIIM-ACR and RANZCR CLiP none is published by their makers; one in the same form is read just so. Object-CXR's images
are of other hospitals.
"""

import re
from typing import Any

import polars as pl

from chexgen_lib.records import RecordError
from chexgen_lib.sources.files import Tree, located
from chexgen_lib.sources.masks import read_json

MAPPING = "*mapping*.json"
_NIH = re.compile(r"(?:^|/)(\d{8})_\d{3}(?:\.\w+)?$")
_FORM = "needs pairs of an image's name and NIH's, such as {'36199.png': '00000001_000.png'}"


def with_patients(records: pl.DataFrame, tree: Tree) -> pl.DataFrame:
    """The records with NIH's number as `patient_id` (`<source>:<8 digits>`) where the mapping in the folder has it.

    Raises:
        RecordError: if the mapping cannot be read, gives one image two patients, or knows none of the images.
    """
    path = located(tree, MAPPING) if tree.names else None
    if path is None or records.is_empty():
        return records
    content = read_json(path)
    patients: dict[str, str] = {}
    for image, number in filter(None, map(_pair, _pairs(content))):
        if patients.setdefault(image, number) != number:
            raise RecordError(f"{path}: image {image!r} is of two of NIH's patients; correct it")
    if not patients:
        raise RecordError(f"{path}: {_FORM}")
    name = pl.col("image_id").str.extract(r"([^:/]+)$")
    known = name.replace_strict(patients, default=None, return_dtype=pl.String)
    if records.select(known.count()).item() == 0:
        raise RecordError(f"{path}: knows none of the images of {tree.folder}; move it away, or give the right one")
    return records.with_columns(pl.coalesce(pl.format("{}:{}", "source", known), "patient_id").alias("patient_id"))


def _pairs(content: Any) -> list[tuple[Any, ...]]:
    """The pairs of a mapping that is an object, a list of pairs, or a list of objects."""
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        return [pair for value in lists for pair in _pairs(value)] or list(content.items())
    if not isinstance(content, list):
        return []
    return [tuple(item.values()) if isinstance(item, dict) else tuple(item) for item in content if _is_group(item)]


def _is_group(item: Any) -> bool:
    return isinstance(item, list | dict) and len(item) >= 2


def _pair(values: tuple[Any, ...]) -> tuple[str, str] | None:
    """The name without ending, and NIH's number, of values of which exactly one is a name of NIH's, in any order."""
    texts = [str(value) for value in values]
    of_nih = [match[1] for text in texts if (match := _NIH.search(text))]
    others = [text for text in texts if not _NIH.search(text)]
    return (re.sub(r"\.\w+$", "", others[0].rpartition("/")[2]), of_nih[0]) if len(of_nih) == 1 and others else None
