"""The findings: each changes the canonical chest in 3-D and marks the region that is its mask.

`extent` in 0..1 grows with severity and is the only knob. Names and meaning of the 14 findings are CheXpert's (paper,
ED Table 6).
"""

from collections.abc import Callable

from chexgen_lib.phantom.bones_and_heart import cardiomegaly, fracture, mediastinum
from chexgen_lib.phantom.devices import devices
from chexgen_lib.phantom.lungs import (
    atelectasis,
    consolidation,
    edema,
    effusion,
    lesion,
    opacity,
    pleural,
    pneumonia,
    pneumothorax,
)
from chexgen_lib.phantom.patient import rng

EXTENT = {"mild": 0.24, "moderate": 0.55, "severe": 0.9}
# In the order in which they are added: what fills the lung, then air, then bone and foreign objects.
RENDER: dict[str, Callable] = {
    "Enlarged Cardiomediastinum": mediastinum,
    "Cardiomegaly": cardiomegaly,
    "Edema": edema,
    "Lung Opacity": opacity,
    "Pneumonia": pneumonia,
    "Consolidation": consolidation,
    "Atelectasis": atelectasis,
    "Lung Lesion": lesion,
    "Pleural Other": pleural,
    "Effusion": effusion,
    "Pneumothorax": pneumothorax,
    "Fracture": fracture,
    "Support Devices": devices,
}
MIDLINE = ("Cardiomegaly", "Enlarged Cardiomediastinum")
PAIRED = {"Edema": 0.97, "Effusion": 0.3, "Pneumonia": 0.2, "Atelectasis": 0.25, "Pleural Other": 0.25}


def plan(record: dict, finding: str) -> list[dict]:
    """Where and how large a finding is rendered: its details as given, the rest from the image's seed.

    Returns:
        One dict(side, site, extent, random) per place, as the functions of `RENDER` take them; a bilateral finding has
        two.
    """
    random = rng("finding", finding, record["image_id"])
    random_side = ("left", "right")[random.integers(2)]
    both = random.random() < PAIRED.get(finding, 0)
    level = random.choice(3, p=(0.3, 0.45, 0.25))
    jitter = random.uniform(-1, 1)
    given = [d for d in record.get("details") or () if d.get("finding") == finding] or [{}]
    places = []
    for number, detail in enumerate(given):
        severity = detail.get("severity") or ("mild", "moderate", "severe")[level]
        extent = EXTENT[severity] + 0.09 * float(jitter)
        side = detail.get("side") or ("bilateral" if both else random_side)
        sides = [random_side] if finding in (*MIDLINE, "Support Devices") and side == "bilateral" else [side]
        for one in ("left", "right") if sides == ["bilateral"] else sides:
            own = rng("place", finding, record["image_id"], number, one)
            places.append(dict(side=one, site=detail.get("site"), extent=extent, random=own))
    return places if finding not in MIDLINE else places[:1]
