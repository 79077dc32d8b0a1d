"""Findings of ribs, heart and mediastinum; the functions take what those of `lungs` take."""

import numpy as np

from chexgen_lib.phantom.anatomy import ESOPHAGUS, HEART, LUNGS, RIBS, SPACING, TRACHEA, points, where
from chexgen_lib.phantom.chest import Chest, noise, sigmoid, voxels_within
from chexgen_lib.phantom.patient import smooth


def fracture(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Displaced rib fractures: a gap, a step, callus, and a haematoma under the pleura."""
    ribs = RIBS[side]
    count = 1 + int(round(3.2 * extent))
    first = int(random.integers(3, 8 - count // 2))
    aim = random.uniform(0.5, 0.8)
    for number in range(first, first + count):
        bone, place = where(ribs[number]), points(ribs[number])
        behind = place[:, 1] < 10
        offset = np.abs(np.abs(place[:, 0]) - aim * np.abs(place[:, 0]).max()) + 100 * ~behind
        spot = place[offset.argmin()]
        spot = place[np.linalg.norm(place - spot, axis=1) < 8].mean(axis=0)
        _break(chest, bone, place, spot, extent)


def _break(chest: Chest, bone: np.ndarray, place: np.ndarray, spot: np.ndarray, extent: float) -> None:
    """Break a rib at `spot` [3] (mm); bone [N], place [N, 3]: its voxels, flat and in mm."""
    a = chest.anatomy
    outer = (np.abs(place[:, 0]) > abs(spot[0])) & (place[:, 1] < 60) | (place[:, 1] > spot[1] + 4)
    near = np.linalg.norm(place - spot, axis=1)
    piece = outer & (near < 46)
    step = int(round((8 + 10 * extent) / SPACING[0]))
    _, height, width = a.mu.shape
    extra = np.clip(chest.flat[bone] - 1, 0, None)
    gap = near < 3.5 + 1.5 * extent
    chest.flat[bone[piece | gap]] -= extra[piece | gap]
    moved = bone[piece & ~gap] - step * height * width
    chest.flat[moved] += 2.0 * extra[piece & ~gap]
    callus = np.concatenate([bone[(near < 15) & ~gap & ~piece], moved[near[piece & ~gap] < 15]])
    chest.flat[callus] += 1.0 + 0.7 * extent
    blood = voxels_within(a, spot, 8 + 4 * extent)
    blood = blood[np.isin(a.labels.ravel()[blood], LUNGS)]
    chest.flat[blood] = np.maximum(chest.flat[blood], 0.5)
    chest.note("Fracture", np.concatenate([callus, blood, moved[near[piece & ~gap] < 24]]), 0.12 + 0.1 * extent)


def cardiomegaly(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """A larger heart."""
    chest.effects.heart *= 1.18 + 0.72 * extent
    chest.note("Cardiomegaly", where(HEART), extent)


def mediastinum(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Upper mediastinum widened to both sides by tissue and by stretching."""
    a = chest.anatomy
    z = a.xyz[2]
    profile = smooth((z - 22) / 30) * smooth((118 - z) / 25)
    wave = np.clip(1 + 0.1 * noise(a, 30, random), 0.7, 1.3)
    profile *= smooth((75 - np.abs(a.xyz[1] - 5)) / 50)
    weight = sigmoid(((7 + 19 * extent) * profile * wave - a.medial) / 1.5) * (profile > 0.02)
    chest.fill("Enlarged Cardiomediastinum", weight, 1.03)
    chest.effects.mediastinum *= 1.08 + 0.3 * extent
    chest.severity["Enlarged Cardiomediastinum"] = extent
    chest.note("Enlarged Cardiomediastinum", _upper_mediastinum(), 0)


def _upper_mediastinum() -> np.ndarray:
    soft = (*range(52, 64), TRACHEA, ESOPHAGUS)
    x, _, z = points(*soft).T
    return where(*soft)[(z > 22) & (z < 105) & (np.abs(x) < 60)]
