"""Support devices: tubes, lines, a pacemaker, sternal wires and chest drains."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from chexgen_lib.phantom.anatomy import (
    ESOPHAGUS,
    SPACING,
    STERNUM,
    STOMACH,
    SVC,
    TRACHEA,
    centreline,
    origin,
    points,
    position,
)
from chexgen_lib.phantom.chest import Chest, voxels_within

# Device -> parts of words that name it in a record's site.
WORDS = {
    "endotracheal tube": ("endotracheal", "intubat", "ett"),
    "enteric tube": ("enteric", "nasogastric", "feeding", "ng tube"),
    "central line": ("central", "catheter", "picc", "line", "port"),
    "pacemaker": ("pacemaker", "pacer", "icd", "defibrillator", "lead"),
    "sternal wires": ("stern", "wire", "suture", "clip"),
    "chest drain": ("drain", "chest tube", "pleural tube"),
}


def devices(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Tubes, lines, pacemaker, wires and drains; one when mild, up to four when severe, or those named."""
    named = [k for k, words in WORDS.items() if any(w in (site or "").lower() for w in words)]
    odds = np.array([3, 2.5, 3, 1.2, 1, 1.2]) if chest.supine else np.array([0.2, 0.5, 2.5, 3, 2.5, 1])
    order = random.choice(list(WORDS), size=len(WORDS), replace=False, p=odds / odds.sum())
    count = max(1, round(4 * extent))
    for name in named or order[:count]:
        PLACE[name](chest, side, random)
        chest.severity["Support Devices"] = min(1.0, chest.severity["Support Devices"] + 0.25)


def _curve(chest: Chest, knots: np.ndarray, mass: float) -> None:
    """Put a wire of `mass` (mm2 of water) along smooth knots [K, 3] in mm."""
    knots = np.asarray(knots, float)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    steps = np.linspace(0, length[-1], int(length[-1]) + 2)
    line = np.stack([np.interp(steps, length, k) for k in knots.T], axis=-1)
    line = ndimage.gaussian_filter1d(line, 4, axis=0, mode="nearest")
    index = line[:, ::-1] / SPACING + origin()
    index = index[((index > 0) & (index < np.array(chest.anatomy.mu.shape) - 1)).all(axis=1)]
    low = np.floor(index).astype(int)
    share = index - low
    voxels = []
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1) * 1.5 * mass / np.prod(SPACING)
        flat = np.ravel_multi_index((low + corner).T, chest.anatomy.mu.shape)
        np.add.at(chest.flat, flat, weight.astype(np.float32))
        voxels.append(flat)
    chest.note("Support Devices", np.concatenate(voxels), 0.0)


def _solid(chest: Chest, centre: np.ndarray, axes: tuple[float, float, float], mu: float) -> None:
    """Put a rounded box of half axes `axes` (mm) and attenuation `mu` at a point."""
    inside = voxels_within(chest.anatomy, np.asarray(centre, float), max(axes))
    away = (position(inside) - centre) / axes
    inside = inside[(np.abs(away) ** 3).sum(axis=1) < 1]
    chest.flat[inside] = mu
    chest.note("Support Devices", inside, 0.0)


def _endotracheal(chest: Chest, side: str, random: np.random.Generator) -> None:
    line = centreline(TRACHEA)
    tip = random.uniform(48, 72)
    line = line[line[:, 2] > tip]
    above = line[0] + np.array([[0, 0, 30], [0, 0, 0]])
    _curve(chest, np.concatenate([above, line[2:]]) + [1.5, 0, 0], 95)


def _enteric(chest: Chest, side: str, random: np.random.Generator) -> None:
    line = centreline(ESOPHAGUS)[::3]
    stomach = points(STOMACH).mean(axis=0)
    end = stomach + [random.uniform(-10, 25), 0, random.uniform(-25, 10)]
    knots = [line[:1] + [[0, 0, 25]], line, (line[-1:] + end) / 2 + [[10, 0, 6]], [end]]
    _curve(chest, np.concatenate(knots), 60)


def _central(chest: Chest, side: str, random: np.random.Generator) -> None:
    cava = centreline(SVC)
    tip = random.uniform(-5, 30)
    low = [cava[-1, 0], cava[-1, 1], tip]
    if random.random() < 0.5:  # jugular
        start = [[-48, 5, 170], [-40, 0, 130], [-30, 5, 100]]
    else:  # subclavian, or a line from the arm
        start = [[-150, -5, 95], [-105, 15, 112], [-60, 20, 104], [-30, 12, 92]]
    _curve(chest, np.concatenate([start, cava[2::4], [low]]), 52)


def _pacemaker(chest: Chest, side: str, random: np.random.Generator) -> None:
    flip = -1 if side == "right" and random.random() < 0.7 else 1
    can = np.array([flip * random.uniform(86, 102), 62, random.uniform(68, 84)])
    _solid(chest, can, (21, 6, 24), 5.0)
    cava = centreline(SVC)
    path = [
        can + [0, 0, 18],
        can + [-flip * 12, -20, 36],
        [flip * 45, 15, 108],
        [0 if flip > 0 else -25, 15, 88],
    ]
    _curve(chest, np.concatenate([path, cava[4::4], [[-22, 35, -25], [15, 50, -48], [58, 60, -44]]]), 55)
    if random.random() < 0.7:
        _curve(chest, np.concatenate([path, cava[4::4], [[-24, 30, 5], [-18, 55, 12], [-28, 60, 22]]]), 50)


def _sternal(chest: Chest, side: str, random: np.random.Generator) -> None:
    bone = points(STERNUM)
    for z in np.linspace(-10, 85, random.integers(5, 7)):
        middle = bone[np.abs(bone[:, 2] - z) < 4].mean(axis=0)
        angle = np.linspace(0, 2 * np.pi, 13)
        ring = np.stack([13 * np.cos(angle), 8 * np.sin(angle), 5 * np.sin(angle + 0.5)], axis=-1)
        _curve(chest, middle + ring, 85)


def _drain(chest: Chest, side: str, random: np.random.Generator) -> None:
    sign = 1 if side == "left" else -1
    top = random.uniform(35, 80)
    path = [[150, 10, -75], [128, 0, -50], [105, -20, -20], [88, -35, 25], [68, -35, top]]
    _curve(chest, np.array(path) * [sign, 1, 1], 65)


PLACE: dict[str, Callable] = {
    "endotracheal tube": _endotracheal,
    "enteric tube": _enteric,
    "central line": _central,
    "pacemaker": _pacemaker,
    "sternal wires": _sternal,
    "chest drain": _drain,
}
