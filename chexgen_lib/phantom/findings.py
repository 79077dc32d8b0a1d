"""The findings: each changes the canonical chest in 3-D and marks the region that is its mask.

Lung findings work on the list of lung voxels (`Anatomy.lung`): a weight per voxel says how much of it turns
from air into the finding's density. `extent` in 0..1 grows with severity and is the only knob. Names and
meaning of the 14 findings are CheXpert's (paper, ED Table 6).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from chexgen_lib.phantom.anatomy import (
    ESOPHAGUS,
    HEART,
    LOWER_LEFT,
    LOWER_RIGHT,
    LUNGS,
    MIDDLE_RIGHT,
    RIBS,
    SPACING,
    STERNUM,
    STOMACH,
    SVC,
    TRACHEA,
    UPPER_LEFT,
    UPPER_RIGHT,
    Anatomy,
    centreline,
    origin,
    points,
    position,
    where,
)
from chexgen_lib.phantom.patient import Effects, rng, smooth

EXTENT = {"mild": 0.24, "moderate": 0.55, "severe": 0.9}
OPACITIES = (
    "Consolidation",
    "Pneumonia",
    "Edema",
    "Atelectasis",
    "Lung Lesion",
)  # each is a Lung Opacity too
DEVICES = {
    "endotracheal tube": ("endotracheal", "intubat", "ett"),
    "enteric tube": ("enteric", "nasogastric", "feeding", "ng tube"),
    "central line": ("central", "catheter", "picc", "line", "port"),
    "pacemaker": ("pacemaker", "pacer", "icd", "defibrillator", "lead"),
    "sternal wires": ("stern", "wire", "suture", "clip"),
    "chest drain": ("drain", "chest tube", "pleural tube"),
}


@dataclass
class Chest:
    """The patient's canonical chest while findings are put in; `flat` is its attenuation [Z*Y*X]."""

    anatomy: Anatomy
    flat: np.ndarray
    supine: bool
    effects: Effects = field(default_factory=Effects)
    regions: dict[str, list[np.ndarray]] = field(default_factory=dict)  # finding -> flat indices of its voxels
    severity: dict[str, float] = field(default_factory=dict)

    def fill(self, finding: str, weight: np.ndarray, density: float | np.ndarray, mark: float = 0.3) -> None:
        """Turn the share `weight` [L] of each lung voxel into `density`; above `mark` it is the finding's."""
        weight = weight.astype(np.float32, copy=False)
        some = np.flatnonzero(weight > 1e-3)
        voxels, share = self.anatomy.lung[some], weight[some]
        density = density[some] if isinstance(density, np.ndarray) else density
        air = self.flat[voxels]
        self.flat[voxels] = air + share * (density - air)
        self.note(finding, voxels[share > mark], float(share.sum()) / len(weight))

    def note(self, finding: str, voxels: np.ndarray, severity: float) -> None:
        self.regions.setdefault(finding, []).append(voxels)
        self.severity[finding] = float(min(1.0, self.severity.get(finding, 0.0) + severity))

    def side(self, side: str) -> np.ndarray:
        """Lung voxels of one side, bool [L]."""
        left = (self.anatomy.lobe == UPPER_LEFT) | (self.anatomy.lobe == LOWER_LEFT)
        return left if side == "left" else ~left


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _sites(anatomy: Anatomy, inside: np.ndarray, side: str, site: str | None, draw) -> np.ndarray:
    """Lung voxels of a named site, bool [L]; of a lobe drawn at random where no site of the lung is given."""
    lobe, z = anatomy.lobe, anatomy.xyz[2]
    upper, lower = (UPPER_LEFT, LOWER_LEFT) if side == "left" else (UPPER_RIGHT, LOWER_RIGHT)
    site = (site or "").lower()
    named = {
        "upper": lambda: lobe == upper,
        "mid": lambda: (lobe == MIDDLE_RIGHT) if side == "right" else (lobe == upper) & (z < 15),
        "lingul": lambda: (lobe == upper) & (z < 15),
        "lower": lambda: lobe == lower,
        "apex": lambda: (lobe == upper) & (z > 62),
        "apic": lambda: (lobe == upper) & (z > 62),
        "bas": lambda: (lobe == lower) & (z < 0),
        "costophrenic": lambda: (lobe == lower) & (z < 0),
        "hil": lambda: anatomy.hilum < 50,
        "retrocardiac": lambda: (lobe == lower) & (z < 10),
    }
    for word, voxels in named.items():
        if word in site:
            return voxels() & inside
    return (lobe == (upper, lower, lower)[draw.integers(3)]) & inside


def _noise(anatomy: Anatomy, cell: float | tuple[float, float, float], draw: np.random.Generator) -> np.ndarray:
    """Smooth noise [L] on the lung voxels: standard normal every `cell` mm (z, y, x), linear between."""
    half = np.array(anatomy.channels.shape[1:])
    lattice = draw.standard_normal(np.ceil(2 * half * SPACING / cell).astype(int) + 1, dtype=np.float32)
    for axis, fine in enumerate(half):  # one axis after the other, as a product with an interpolation matrix
        lattice = np.moveaxis(np.tensordot(_ramp(fine, lattice.shape[axis]), lattice, (1, axis)), 0, axis)
    return lattice.ravel()[anatomy.coarse[anatomy.lung]]


def _ramp(fine: int, coarse: int) -> np.ndarray:
    """Linear interpolation from `coarse` to `fine` points as a matrix."""
    place = np.linspace(0, coarse - 1, fine)[:, None]
    return np.clip(1 - np.abs(place - np.arange(coarse)), 0, 1).astype(np.float32)


def _distance(xyz: np.ndarray, centre: np.ndarray, axes: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Distance of points [3, N] from a centre in units of the half axes (mm)."""
    squares = [((p - c) / np.float32(a)) ** 2 for p, c, a in zip(xyz, centre, axes, strict=True)]
    return np.sqrt(sum(squares))


def _point(anatomy: Anatomy, allowed: np.ndarray, inside: np.ndarray, draw) -> np.ndarray:
    """A random lung point [3] (mm) among the allowed voxels, or among `inside` if none is allowed."""
    chosen = np.flatnonzero(allowed if allowed.any() else inside)
    return anatomy.xyz[:, chosen[draw.integers(len(chosen))]]


def effusion(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Fluid up to a level set by gravity, climbing the chest wall as a meniscus."""
    a, inside = chest.anatomy, chest.side(side)
    height = a.xyz[2] - a.xyz[2, inside].min()
    if chest.supine:
        height = height + 0.35 * a.xyz[1]  # half upright: the fluid runs to the back
    level = 14 + 110 * extent + (38 + 24 * extent) * np.exp(-a.wall / 15)
    weight = inside * _sigmoid((level - height) / 2.5)
    chest.fill("Effusion", weight, 1.02)
    chest.effects.shift += 9 * max(0, extent - 0.6) * (-1 if side == "left" else 1)


def pneumothorax(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Air between chest wall and a denser, smaller lung; a pleural line, no vessels beyond it."""
    a, inside = chest.anatomy, chest.side(side)
    thick = (10 + 50 * extent) * (0.45 + 0.55 * smooth((a.xyz[2] + 70) / 150))
    lung = a.lung
    free = inside & (a.wall < thick)
    line = inside & (np.abs(a.wall - thick) < 1.8)
    rest = inside & ~free
    chest.flat[lung[rest]] *= 1.5 + 1.5 * extent
    chest.fill("Pneumothorax", free.astype(np.float32), 0.0)
    chest.flat[lung[line]] = 0.8
    chest.effects.shift += 14 * max(0, extent - 0.5) * (-1 if side == "left" else 1)
    chest.effects.raised[side] -= 10 * extent


def consolidation(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """A lobe, or a part of it, filled homogeneously; it ends sharply at the fissure."""
    a = chest.anatomy
    lobe = _sites(a, chest.side(side), side, site, draw)
    start = _point(a, lobe & (a.wall < 12) & (np.abs(a.xyz[0]) > 60), lobe, draw)
    distance = _distance(a.xyz, start, (1, 1.7, 1))
    reach = np.quantile(distance[lobe], 0.35 + 0.65 * extent)
    weight = lobe * _sigmoid((reach - distance) / 2.0) * 0.92
    chest.fill("Consolidation", weight, 1.0)


def pneumonia(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Patchy airspace filling: several soft, uneven foci in a lobe; more lobes when severe."""
    a, inside = chest.anatomy, chest.side(side)
    region = _sites(a, inside, side, site, draw)
    if extent > 0.7:
        region = region | _sites(a, inside, side, None, draw)
    near, seen = np.flatnonzero(inside), region & (a.floor > 12) & (a.xyz[2] > -60)
    dense = np.zeros(len(near), np.float32)
    for _ in range(4 + int(6 * extent)):
        focus = _point(a, seen, region, draw)
        spread = draw.uniform(13, 18) + 7 * extent
        dense += np.exp(-0.5 * _distance(a.xyz[:, near], focus, (spread,) * 3) ** 2) * draw.uniform(0.7, 1.0)
    weight = np.zeros(len(a.lung), np.float32)
    weight[near] = dense
    uneven = np.clip(0.75 + 0.45 * _noise(a, 9, draw), 0.1, 1.3)
    weight = np.clip(weight * uneven, 0, 0.85) * (0.7 + 0.3 * region)
    chest.fill("Pneumonia", weight, 1.0, mark=0.2)


def opacity(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """A faint, ill-defined haze without further features."""
    a, inside = chest.anatomy, chest.side(side)
    region = _sites(a, inside, side, site, draw)
    focus = _point(a, region & (a.floor > 25) & (np.abs(a.xyz[0]) > 60) & (a.xyz[2] > -25), region, draw)
    spread = np.array([26, 50, 26]) * (0.85 + 0.6 * extent)
    weight = np.exp(-0.5 * _distance(a.xyz, focus, spread) ** 2) * (0.45 + 0.45 * extent)
    chest.fill("Lung Opacity", inside * weight, 1.0, mark=0.08)


def edema(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Perihilar haze like a bat's wings, with septal lines at the bases."""
    a, inside = chest.anatomy, chest.side(side)
    reach = 27 + 17 * extent
    wings = np.exp(-0.5 * (a.hilum / reach) ** 2) * (0.34 + 0.45 * extent)
    base = (0.02 + 0.06 * extent) * smooth((40 - a.xyz[2]) / 100)
    x, _, z = a.xyz
    lines = (_noise(a, (7, 30, 24), draw) > 0.9) & (a.wall < 24) & (z < 10) & (np.abs(x) > 70)
    uneven = np.clip(1 + 0.3 * _noise(a, 12, draw), 0.3, 1.8)
    weight = inside * np.clip((wings + base) * uneven + (0.12 + 0.2 * extent) * lines, 0, 0.85)
    chest.fill("Edema", weight, 1.0, mark=0.1)


def lesion(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """A round nodule, or a mass when severe, with a slightly lobulated edge."""
    a, inside = chest.anatomy, chest.side(side)
    radius = 8.5 + 19 * extent
    region = _sites(a, inside, side, site, draw) if site else inside
    seen = (a.floor > radius + 4) & (a.xyz[2] > -18) & (np.abs(a.xyz[0]) > 48)
    centre = _point(a, region & seen & (a.wall > 0.6 * radius) & (a.medial > 0.6 * radius), region & seen, draw)
    edge = radius * (1 + 0.10 * np.clip(_noise(a, 16, draw), -2, 2))
    weight = inside * _sigmoid(edge - _distance(a.xyz, centre))
    chest.fill("Lung Lesion", weight, 1.25)


def atelectasis(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Plates and a wedge of airless lung with loss of volume: raised diaphragm, shifted mediastinum."""
    a, inside = chest.anatomy, chest.side(side)
    x, _, z = a.xyz
    region = _sites(a, inside, side, site or "lower", draw)
    weight = np.zeros(len(a.lung), np.float32)
    for _ in range(1 + int(2.2 * extent)):
        seen = region & (a.floor > 14) & (a.floor < 60) & (np.abs(x) > 55) & (np.abs(x) < 95) & (z > -50)
        middle = _point(a, seen, region, draw)
        height = np.abs(z - middle[2] - draw.normal(0, 0.18) * (x - middle[0]))
        ends = np.abs(x - middle[0]) - (26 + 14 * extent)
        weight = np.maximum(weight, _sigmoid((3.2 + 2.8 * extent - height) / 1.2) * _sigmoid(-ends / 3))
    upper = region & (z > 20)
    top = upper.sum() > 0.5 * region.sum()
    slope = (z - 20) if top else (25 - z)
    wedge = _sigmoid(((0.12 + 0.38 * extent) * slope - a.medial) / 2) * (slope > 0) * (extent > 0.35)
    weight = inside * np.maximum(weight * (a.wall < 200), wedge * region)
    chest.fill("Atelectasis", 0.85 * weight, 1.0)
    toward = 1 if side == "left" else -1
    chest.effects.shift += toward * (3 + 17 * extent)
    chest.effects.raised[side] += (7 + 28 * extent) * (0.35 if top else 1)


def pleural(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Thickened pleura along the chest wall with calcified plaques."""
    a, inside = chest.anatomy, chest.side(side)
    x, y, z = a.xyz
    apical = any(word in (site or "").lower() for word in ("apex", "apic", "upper"))
    centre = 85 if apical else draw.uniform(-15, 25)
    half = (28 if apical else 38) + 38 * extent
    thick = (6 + 11 * extent) * np.clip(1 + 0.12 * _noise(a, 40, draw), 0.7, 1.3)
    thick = thick * smooth((half - np.abs(z - centre)) / 18) * smooth((95 - np.abs(y)) / 45)
    thick = thick if apical else thick * smooth((np.abs(x) - 55) / 35)
    band = inside & (a.wall < thick)
    chalk = _sigmoid((_noise(a, 16, draw) - 0.6) / 0.15) * (a.wall < 7)
    chest.fill("Pleural Other", band.astype(np.float32), 1.1 + (0.6 + 0.5 * extent) * chalk)


def fracture(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Displaced rib fractures: a gap, a step, callus, and a haematoma under the pleura."""
    ribs = RIBS[side]
    count = 1 + int(round(3.2 * extent))
    first = int(draw.integers(3, 8 - count // 2))
    aim = draw.uniform(0.5, 0.8)
    for number in range(first, first + count):
        bone, place = where(ribs[number]), points(ribs[number])
        behind = place[:, 1] < 10
        offset = np.abs(np.abs(place[:, 0]) - aim * np.abs(place[:, 0]).max()) + 100 * ~behind
        spot = place[offset.argmin()]
        spot = place[np.linalg.norm(place - spot, axis=1) < 8].mean(axis=0)
        _break(chest, bone, place, spot, extent)


def _break(chest: Chest, bone: np.ndarray, place: np.ndarray, spot: np.ndarray, extent: float) -> None:
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
    blood = _ball(a, spot, 8 + 4 * extent)
    blood = blood[np.isin(a.labels.ravel()[blood], LUNGS)]
    chest.flat[blood] = np.maximum(chest.flat[blood], 0.5)
    chest.note("Fracture", np.concatenate([callus, blood, moved[near[piece & ~gap] < 24]]), 0.12 + 0.1 * extent)


def _ball(anatomy: Anatomy, centre: np.ndarray, radius: float) -> np.ndarray:
    """Flat indices of the voxels within `radius` mm of a point (x, y, z in mm)."""
    index = centre[::-1] / SPACING + origin()
    low = np.maximum(np.floor(index - radius / SPACING).astype(int), 0)
    high = np.minimum(np.ceil(index + radius / SPACING).astype(int) + 1, anatomy.mu.shape)
    grid = np.meshgrid(*(np.arange(lo, hi) for lo, hi in zip(low, high, strict=True)), indexing="ij")
    zyx = np.stack([g.ravel() for g in grid], axis=-1)
    zyx = zyx[np.linalg.norm((zyx - index) * SPACING, axis=1) < radius]
    return np.ravel_multi_index(zyx.T, anatomy.mu.shape)


def cardiomegaly(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    chest.effects.heart *= 1.18 + 0.72 * extent
    chest.note("Cardiomegaly", where(HEART), extent)


def mediastinum(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Upper mediastinum widened to both sides by tissue and by stretching."""
    a = chest.anatomy
    z = a.xyz[2]
    profile = smooth((z - 22) / 30) * smooth((118 - z) / 25)
    wave = np.clip(1 + 0.1 * _noise(a, 30, draw), 0.7, 1.3)
    profile *= smooth((75 - np.abs(a.xyz[1] - 5)) / 50)
    weight = _sigmoid(((7 + 19 * extent) * profile * wave - a.medial) / 1.5) * (profile > 0.02)
    chest.fill("Enlarged Cardiomediastinum", weight, 1.03)
    chest.effects.mediastinum *= 1.08 + 0.3 * extent
    chest.severity["Enlarged Cardiomediastinum"] = extent
    chest.note("Enlarged Cardiomediastinum", _upper_mediastinum(), 0)


def _upper_mediastinum() -> np.ndarray:
    soft = (*range(52, 64), TRACHEA, ESOPHAGUS)
    x, _, z = points(*soft).T
    return where(*soft)[(z > 22) & (z < 105) & (np.abs(x) < 60)]


def devices(chest: Chest, side: str, site: str | None, extent: float, draw: np.random.Generator) -> None:
    """Tubes, lines, pacemaker, wires and drains; one when mild, up to four when severe, or those named."""
    named = [k for k, words in DEVICES.items() if any(w in (site or "").lower() for w in words)]
    odds = np.array([3, 2.5, 3, 1.2, 1, 1.2]) if chest.supine else np.array([0.2, 0.5, 2.5, 3, 2.5, 1])
    order = draw.choice(list(DEVICES), size=len(DEVICES), replace=False, p=odds / odds.sum())
    count = max(1, round(4 * extent))
    for name in named or order[:count]:
        PLACE[name](chest, side, draw)
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
    ball = _ball(chest.anatomy, np.asarray(centre, float), max(axes))
    away = (position(ball) - centre) / axes
    ball = ball[(np.abs(away) ** 3).sum(axis=1) < 1]
    chest.flat[ball] = mu
    chest.note("Support Devices", ball, 0.0)


def _endotracheal(chest: Chest, side: str, draw: np.random.Generator) -> None:
    line = centreline(TRACHEA)
    tip = draw.uniform(48, 72)
    line = line[line[:, 2] > tip]
    above = line[0] + np.array([[0, 0, 30], [0, 0, 0]])
    _curve(chest, np.concatenate([above, line[2:]]) + [1.5, 0, 0], 95)


def _enteric(chest: Chest, side: str, draw: np.random.Generator) -> None:
    line = centreline(ESOPHAGUS)[::3]
    stomach = points(STOMACH).mean(axis=0)
    end = stomach + [draw.uniform(-10, 25), 0, draw.uniform(-25, 10)]
    _curve(
        chest,
        np.concatenate([line[:1] + [[0, 0, 25]], line, (line[-1:] + end) / 2 + [[10, 0, 6]], [end]]),
        60,
    )


def _central(chest: Chest, side: str, draw: np.random.Generator) -> None:
    cava = centreline(SVC)
    tip = draw.uniform(-5, 30)
    low = [cava[-1, 0], cava[-1, 1], tip]
    if draw.random() < 0.5:  # jugular
        start = [[-48, 5, 170], [-40, 0, 130], [-30, 5, 100]]
    else:  # subclavian, or a line from the arm
        start = [[-150, -5, 95], [-105, 15, 112], [-60, 20, 104], [-30, 12, 92]]
    _curve(chest, np.concatenate([start, cava[2::4], [low]]), 52)


def _pacemaker(chest: Chest, side: str, draw: np.random.Generator) -> None:
    flip = -1 if side == "right" and draw.random() < 0.7 else 1
    can = np.array([flip * draw.uniform(86, 102), 62, draw.uniform(68, 84)])
    _solid(chest, can, (21, 6, 24), 5.0)
    cava = centreline(SVC)
    path = [
        can + [0, 0, 18],
        can + [-flip * 12, -20, 36],
        [flip * 45, 15, 108],
        [0 if flip > 0 else -25, 15, 88],
    ]
    _curve(chest, np.concatenate([path, cava[4::4], [[-22, 35, -25], [15, 50, -48], [58, 60, -44]]]), 55)
    if draw.random() < 0.7:
        _curve(chest, np.concatenate([path, cava[4::4], [[-24, 30, 5], [-18, 55, 12], [-28, 60, 22]]]), 50)


def _sternal(chest: Chest, side: str, draw: np.random.Generator) -> None:
    bone = points(STERNUM)
    for z in np.linspace(-10, 85, draw.integers(5, 7)):
        middle = bone[np.abs(bone[:, 2] - z) < 4].mean(axis=0)
        angle = np.linspace(0, 2 * np.pi, 13)
        ring = np.stack([13 * np.cos(angle), 8 * np.sin(angle), 5 * np.sin(angle + 0.5)], axis=-1)
        _curve(chest, middle + ring, 85)


def _drain(chest: Chest, side: str, draw: np.random.Generator) -> None:
    sign = 1 if side == "left" else -1
    top = draw.uniform(35, 80)
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
# In the order in which they are put in: what fills the lung, then air, then bone and foreign objects.
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
    """How a finding is rendered: its details as given, the rest drawn from the image's seed.

    Returns one dict(side, site, extent, draw) per place; a bilateral finding has two.
    """
    draw = rng("finding", finding, record["image_id"])
    side_drawn = ("left", "right")[draw.integers(2)]
    both, level, jitter = (
        draw.random() < PAIRED.get(finding, 0),
        draw.choice(3, p=(0.3, 0.45, 0.25)),
        draw.uniform(-1, 1),
    )
    given = [d for d in record.get("details") or () if d.get("finding") == finding] or [{}]
    places = []
    for number, detail in enumerate(given):
        severity = detail.get("severity") or ("mild", "moderate", "severe")[level]
        extent = EXTENT[severity] + 0.09 * float(jitter)
        side = detail.get("side") or ("bilateral" if both else side_drawn)
        sides = [side_drawn] if finding in (*MIDLINE, "Support Devices") and side == "bilateral" else [side]
        for one in ("left", "right") if sides == ["bilateral"] else sides:
            seed = rng("place", finding, record["image_id"], number, one)
            places.append(dict(side=one, site=detail.get("site"), extent=extent, draw=seed))
    return places if finding not in MIDLINE else places[:1]
