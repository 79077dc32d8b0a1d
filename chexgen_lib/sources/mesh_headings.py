"""The MeSH headings of Open-i, taken apart: finding, side, sites and severity."""

from functools import cache
from typing import NamedTuple

# Head of a heading, lower case -> finding. Heads that mean a finding only with some qualifier: _QUALIFIED.
HEADS = {
    "normal": "No Finding",
    "cardiomegaly": "Cardiomegaly",
    "opacity": "Lung Opacity",
    "airspace disease": "Lung Opacity",
    "infiltrate": "Lung Opacity",
    "nodule": "Lung Lesion",
    "mass": "Lung Lesion",
    "granuloma": "Lung Lesion",
    "calcified granuloma": "Lung Lesion",
    "pulmonary edema": "Edema",
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",
    "pulmonary atelectasis": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "hydropneumothorax": "Pneumothorax",
    "hemopneumothorax": "Pneumothorax",
    "pleural effusion": "Effusion",
    "hemothorax": "Effusion",
    "fractures, bone": "Fracture",
    "catheters, indwelling": "Support Devices",
    "implanted medical device": "Support Devices",
    "medical device": "Support Devices",
    "tube, inserted": "Support Devices",
    "stents": "Support Devices",
    "spinal fusion": "Support Devices",
}
_QUALIFIED = {
    ("cardiac shadow", "enlarged"): "Cardiomegaly",
    ("mediastinum", "enlarged"): "Enlarged Cardiomediastinum",
    ("mediastinum", "prominent"): "Enlarged Cardiomediastinum",
    ("density", "lung"): "Lung Opacity",
    ("thickening", "pleura"): "Pleural Other",
    ("calcinosis", "pleura"): "Pleural Other",
    ("cicatrix", "pleura"): "Pleural Other",
}
# A mass or opacity elsewhere is not one of the lung.
_ELSEWHERE = {
    "breast",
    "abdomen",
    "mediastinum",
    "humerus",
    "ribs",
    "clavicle",
    "shoulder",
    "sternum",
    "neck",
    "pleura",
}
_OF_LUNG = ("Lung Opacity", "Lung Lesion")
_SITES = {
    "upper lobe": "upper lobe",
    "middle lobe": "middle lobe",
    "lower lobe": "lower lobe",
    "lingula": "lingula",
    "base": "base",
    "apex": "apex",
    "hilum": "hilum",
    "retrocardiac": "retrocardiac region",
    "paratracheal": "paratracheal region",
    "costophrenic angle": "costophrenic angle",
    "cardiophrenic angle": "cardiophrenic angle",
    "mediastinum": "mediastinum",
    "ribs": "rib",
    "clavicle": "clavicle",
    "humerus": "humerus",
    "sternum": "sternum",
    "shoulder": "shoulder",
    "thoracic vertebrae": "thoracic spine",
    "lumbar vertebrae": "lumbar spine",
    "cervical vertebrae": "cervical spine",
    "spine": "spine",
    "breast": "breast",
    "abdomen": "upper abdomen",
    "neck": "neck",
    "aorta": "aorta",
    "aorta, thoracic": "aorta",
}
_SEVERITIES = {"mild": "mild", "small": "mild", "moderate": "moderate", "severe": "severe", "large": "severe"}
_SIDES = ("left", "right", "bilateral")
# Organs that a head implies, and parts that nobody would name.
_SILENT = ("lung", "pleura", "thorax", "borderline", "abnormal", "pulmonary alveoli")


class Heading(NamedTuple):
    """A MeSH heading taken apart; `qualifiers` are the words that are no side, site or severity."""

    head: str
    finding: str | None
    side: str | None
    sites: tuple[str, ...]
    severity: str | None
    qualifiers: tuple[str, ...]
    borderline: bool


@cache
def parse_heading(label: str) -> Heading:
    """`Opacity/lung/base/left/streaky` -> "opacity", Lung Opacity, left, ("base",), None, ("streaky",)."""
    head, *parts = [part.strip().lower() for part in label.split("/")]
    finding = HEADS.get(head) or next((_QUALIFIED[head, p] for p in parts if (head, p) in _QUALIFIED), None)
    if finding in _OF_LUNG and _ELSEWHERE.intersection(parts) and "lung" not in parts:
        finding = None
    sides = [part for part in parts if part in _SIDES]
    sites = tuple(dict.fromkeys(_SITES[part] for part in parts if part in _SITES))
    severity = next((_SEVERITIES[part] for part in parts if part in _SEVERITIES), None)
    placed = {*_SIDES, *_SITES, *_SEVERITIES, *_SILENT}
    qualifiers = tuple(dict.fromkeys(part for part in parts if part not in placed))
    side = "bilateral" if len(set(sides)) > 1 else next(iter(sides), None)
    return Heading(head, finding, side, sites, severity, qualifiers, "borderline" in parts)


def finding_of(label: str) -> str | None:
    """The CheXpert finding that a heading means, or None."""
    return parse_heading(label).finding
