"""The patient: a body sampled from patient_id, age and sex, and the deformation of the chest that produces it.

A patient is the canonical chest seen through a smooth map. Rays are traced in the patient's space and mapped
back to the canonical space (`to_canonical`), where attenuation and labels are looked up: projecting and
deforming are one step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from chexgen_lib.phantom.anatomy import AORTA, CARTILAGE, Anatomy, points, where
from chexgen_lib.storage import seed_of

HEART_CENTRE = np.array([26.0, 28.0, -10.0])  # mm, of the label map's heart
RIB_CAGE = np.array([148.0, 108.0])  # mm, half axes in x and y


def rng(*key: object) -> np.random.Generator:
    """A generator that depends on nothing but `key`; equal keys give equal numbers on every machine."""
    return np.random.default_rng(seed_of("\x1f".join(map(str, key)), 16))


@dataclass(frozen=True)
class Patient:
    """Lengths in mm, angles in radians, the rest are factors of the canonical chest."""

    scale: np.ndarray  # [3] x, y, z
    fat: float  # thickness of the soft tissue outside the ribs
    inflation: float  # mm by which the diaphragm is lower than in the CT
    heart: float
    aging: float  # 0 young .. 1 old
    breast: float  # 0 none
    scoliosis: float  # mm
    kyphosis: float  # mm
    vessels: float  # contrast of the lung's vessels
    pose: np.ndarray  # [3] rotation about x (tilt), y (roll), z
    shift: np.ndarray  # [3]
    waves: np.ndarray  # [3, 4, 4, 4] small smooth individual shape


@dataclass
class Effects:
    """What findings do to the whole chest; lengths in mm, x to the patient's left."""

    heart: float = 1.0
    mediastinum: float = 1.0
    shift: float = 0.0
    raised: dict[str, float] = field(default_factory=lambda: {"left": 0.0, "right": 0.0})


def sample(record: dict, frontal_supine: bool) -> Patient:
    """The body of a record: build from patient_id, age and sex; posture and breath from image_id."""
    body = rng("patient", record["patient_id"])
    shot = rng("posture", record["image_id"])
    normal = body.standard_normal
    age = 55.0 if record.get("age") is None or record["age"] != record["age"] else float(record["age"])
    female = body.random() < 0.5 if record.get("sex") is None else record["sex"] == "F"
    breast = body.uniform(0.55, 1.0)
    aging = float(np.clip((age - 35 + 6 * normal()) / 50, 0, 1))
    grown = 0.62 + 0.38 * min(age, 17) / 17
    habitus = float(np.clip(normal(), -1.8, 2.2))
    scale = grown * np.array([1, 1, 1 - 0.03 * female]) * np.exp([0.05, 0.06, 0.05] * normal(3))
    labels = set(record.get("labels") or ())
    inflation = 6 * normal() + 4 * shot.standard_normal() - 6 * max(habitus, 0)
    inflation += 24 * bool({"Emphysema", "Hyperinflation", "COPD signs"} & labels) - 13 * frontal_supine
    return Patient(
        scale=scale,
        fat=1.06 + 0.42 * (habitus > 0) * habitus + 0.10 * min(habitus, 0),
        inflation=float(np.clip(inflation, -34, 30)),
        heart=float(np.clip(1 + 0.08 * normal() + 0.06 * frontal_supine + 0.04 * aging, 0.82, 1.25)),
        aging=aging,
        breast=breast * bool(female) * float(np.clip((age - 11) / 6, 0, 1)) * (0.8 + 0.2 * max(habitus, -1)),
        scoliosis=(2 + 6 * aging) * normal(),
        kyphosis=(2 + 10 * aging) * abs(normal()),
        vessels=float(np.clip(1 + 0.15 * normal(), 0.7, 1.4)),
        pose=shot.normal(0, [0.05, 0.02, 0.045 + 0.025 * frontal_supine]),
        shift=shot.normal(0, [5, 3, 5]),
        waves=7 * normal((3, 4, 4, 4)),  # wide enough that a mask says more of a body than its prompt does
    )


def tissue(anatomy: Anatomy, patient: Patient, record: dict) -> np.ndarray:
    """Attenuation [Z, Y, X] of the patient in canonical space: breasts, age of the bones, calcifications."""
    mu = anatomy.mu.copy()
    flat = mu.ravel()
    air = flat[anatomy.lung]
    base = 0.155
    flat[anatomy.lung] = base + (air - base) * patient.vessels
    if "Emphysema" in (record.get("labels") or ()):
        flat[anatomy.lung] *= 0.8
    flat[anatomy.bone] = 1 + (flat[anatomy.bone] - 1) * (1.1 - 0.35 * patient.aging)
    if patient.aging > 0.2:
        _calcify(flat, patient, rng("calcium", record["patient_id"]))
    if patient.breast > 0:
        _add_breasts(flat, anatomy, patient)
    return mu


def _calcify(flat: np.ndarray, patient: Patient, random: np.random.Generator) -> None:
    cartilage = where(CARTILAGE)
    flat[cartilage] += 0.7 * patient.aging * random.random() * random.random(len(cartilage), dtype=np.float32)
    place = points(AORTA)
    arch = (place[:, 2] > 45) & (np.abs(np.linalg.norm(place - [14, -5, 58], axis=1) - 30) < 3)
    flat[where(AORTA)[arch]] += 1.2 * patient.aging * random.random()


def _add_breasts(flat: np.ndarray, anatomy: Anatomy, patient: Patient) -> None:
    x, y, z = anatomy.front_xyz
    size = patient.breast
    axes = 62 * size**0.5, 66 * size, 60 * size**0.5
    inside = ((np.abs(x) - 68) / axes[0]) ** 2 + ((y - 78) / axes[1]) ** 2 + ((z + 22) / axes[2]) ** 2 < 1
    flat[anatomy.front[inside]] = 0.94


def to_canonical(points: np.ndarray, patient: Patient) -> Callable[[Effects], np.ndarray]:
    """Map points [..., 3] (x, y, z in mm) of the patient's space to the canonical chest.

    The map is smooth and does not fold. The effects of findings come last, so the part before them is computed once.
    """
    p = (points - patient.shift) @ _rotation(patient.pose)
    p = p / patient.scale
    p[..., 0] -= patient.scoliosis * np.sin(p[..., 2] / 65)
    p[..., 1] += patient.kyphosis * (p[..., 2] / 150) ** 2
    radius = np.linalg.norm(p[..., :2] / RIB_CAGE, axis=-1)
    fatless = np.where(radius > 1, (1 + (radius - 1) / patient.fat) / np.maximum(radius, 1), 1)
    p[..., :2] *= fatless[..., None]
    p += _waves(p, patient.waves)
    return lambda effects: _inner(p.copy(), radius, patient, effects)


def _inner(p: np.ndarray, radius: np.ndarray, patient: Patient, effects: Effects) -> np.ndarray:
    """Displacements inside the rib cage: diaphragm, mediastinum, heart."""
    x, z = p[..., 0], p[..., 2]
    inside = smooth((1.05 - radius) / 0.3)
    low = smooth((105 - z) / 125)
    left = smooth((x + 30) / 60)
    raised = left * effects.raised["left"] + (1 - left) * effects.raised["right"]
    p[..., 2] = z + inside * low * (patient.inflation - raised)
    p[..., 0] = x - effects.shift * np.exp(-((x / 75) ** 2)) * inside
    upper = np.exp(-0.5 * (((p - [4, 10, 62]) / [50, 70, 42]) ** 2).sum(axis=-1))
    p[..., 0] -= (p[..., 0] - 4) * (1 - 1 / effects.mediastinum) * upper
    away = p - HEART_CENTRE
    near = np.exp(-0.5 * ((away / [88, 75, 60]) ** 2).sum(axis=-1)) * smooth((p[..., 1] + 70) / 50)
    near *= smooth((0.97 - radius) / 0.27)  # the chest wall stays
    growth = 1 - 1 / (patient.heart * effects.heart)
    return p - away * np.array([1, 0.8, 0.45]) * (growth * near)[..., None]


def _waves(p: np.ndarray, waves: np.ndarray) -> np.ndarray:
    where = np.moveaxis(p, -1, 0)[::-1] / 130 + 1.5  # [z, y, x] in cells of the 4 x 4 x 4 lattice
    return np.stack([ndimage.map_coordinates(w, where, order=2, mode="nearest") for w in waves], axis=-1)


def smooth(t: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, a smooth step between."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
