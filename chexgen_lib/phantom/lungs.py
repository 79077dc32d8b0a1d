"""Findings of lung and pleura: each fills lung voxels, or the space around them, on one side of the chest.

Every function takes the chest, the side, the site within it (free text or None), the extent in 0..1, which grows with
severity, and a random generator of its own.
"""

import numpy as np

from chexgen_lib.phantom.chest import Chest, at_site, distance_from, noise, point_in, sigmoid
from chexgen_lib.phantom.patient import smooth


def effusion(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Fluid up to a level set by gravity, climbing the chest wall as a meniscus."""
    a, inside = chest.anatomy, chest.side(side)
    height = a.xyz[2] - a.xyz[2, inside].min()
    if chest.supine:
        height = height + 0.35 * a.xyz[1]  # half upright: the fluid runs to the back
    level = 14 + 110 * extent + (38 + 24 * extent) * np.exp(-a.wall / 15)
    weight = inside * sigmoid((level - height) / 2.5)
    chest.fill("Effusion", weight, 1.02)
    chest.effects.shift += 9 * max(0, extent - 0.6) * (-1 if side == "left" else 1)


def pneumothorax(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
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


def consolidation(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """A lobe, or a part of it, filled homogeneously; it ends sharply at the fissure."""
    a = chest.anatomy
    lobe = at_site(a, chest.side(side), side, site, random)
    start = point_in(a, lobe & (a.wall < 12) & (np.abs(a.xyz[0]) > 60), lobe, random)
    distance = distance_from(a.xyz, start, (1, 1.7, 1))
    reach = np.quantile(distance[lobe], 0.35 + 0.65 * extent)
    weight = lobe * sigmoid((reach - distance) / 2.0) * 0.92
    chest.fill("Consolidation", weight, 1.0)


def pneumonia(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Patchy airspace filling: several soft, uneven foci in a lobe; more lobes when severe."""
    a, inside = chest.anatomy, chest.side(side)
    region = at_site(a, inside, side, site, random)
    if extent > 0.7:
        region = region | at_site(a, inside, side, None, random)
    near, seen = np.flatnonzero(inside), region & (a.floor > 12) & (a.xyz[2] > -60)
    dense = np.zeros(len(near), np.float32)
    for _ in range(4 + int(6 * extent)):
        focus = point_in(a, seen, region, random)
        spread = random.uniform(13, 18) + 7 * extent
        dense += np.exp(-0.5 * distance_from(a.xyz[:, near], focus, (spread,) * 3) ** 2) * random.uniform(0.7, 1.0)
    weight = np.zeros(len(a.lung), np.float32)
    weight[near] = dense
    uneven = np.clip(0.75 + 0.45 * noise(a, 9, random), 0.1, 1.3)
    weight = np.clip(weight * uneven, 0, 0.85) * (0.7 + 0.3 * region)
    chest.fill("Pneumonia", weight, 1.0, mark=0.2)


def opacity(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """A faint, ill-defined haze without further features."""
    a, inside = chest.anatomy, chest.side(side)
    region = at_site(a, inside, side, site, random)
    focus = point_in(a, region & (a.floor > 25) & (np.abs(a.xyz[0]) > 60) & (a.xyz[2] > -25), region, random)
    spread = np.array([26, 50, 26]) * (0.85 + 0.6 * extent)
    weight = np.exp(-0.5 * distance_from(a.xyz, focus, spread) ** 2) * (0.45 + 0.45 * extent)
    chest.fill("Lung Opacity", inside * weight, 1.0, mark=0.08)


def edema(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Perihilar haze like a bat's wings, with septal lines at the bases."""
    a, inside = chest.anatomy, chest.side(side)
    reach = 27 + 17 * extent
    wings = np.exp(-0.5 * (a.hilum / reach) ** 2) * (0.34 + 0.45 * extent)
    base = (0.02 + 0.06 * extent) * smooth((40 - a.xyz[2]) / 100)
    x, _, z = a.xyz
    lines = (noise(a, (7, 30, 24), random) > 0.9) & (a.wall < 24) & (z < 10) & (np.abs(x) > 70)
    uneven = np.clip(1 + 0.3 * noise(a, 12, random), 0.3, 1.8)
    weight = inside * np.clip((wings + base) * uneven + (0.12 + 0.2 * extent) * lines, 0, 0.85)
    chest.fill("Edema", weight, 1.0, mark=0.1)


def lesion(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """A round nodule, or a mass when severe, with a slightly lobulated edge."""
    a, inside = chest.anatomy, chest.side(side)
    radius = 8.5 + 19 * extent
    region = at_site(a, inside, side, site, random) if site else inside
    seen = (a.floor > radius + 4) & (a.xyz[2] > -18) & (np.abs(a.xyz[0]) > 48)
    centre = point_in(a, region & seen & (a.wall > 0.6 * radius) & (a.medial > 0.6 * radius), region & seen, random)
    edge = radius * (1 + 0.10 * np.clip(noise(a, 16, random), -2, 2))
    weight = inside * sigmoid(edge - distance_from(a.xyz, centre))
    chest.fill("Lung Lesion", weight, 1.25)


def atelectasis(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Plates and a wedge of airless lung with loss of volume: raised diaphragm, shifted mediastinum."""
    a, inside = chest.anatomy, chest.side(side)
    x, _, z = a.xyz
    region = at_site(a, inside, side, site or "lower", random)
    weight = np.zeros(len(a.lung), np.float32)
    for _ in range(1 + int(2.2 * extent)):
        seen = region & (a.floor > 14) & (a.floor < 60) & (np.abs(x) > 55) & (np.abs(x) < 95) & (z > -50)
        middle = point_in(a, seen, region, random)
        height = np.abs(z - middle[2] - random.normal(0, 0.18) * (x - middle[0]))
        ends = np.abs(x - middle[0]) - (26 + 14 * extent)
        weight = np.maximum(weight, sigmoid((3.2 + 2.8 * extent - height) / 1.2) * sigmoid(-ends / 3))
    upper = region & (z > 20)
    top = upper.sum() > 0.5 * region.sum()
    slope = (z - 20) if top else (25 - z)
    wedge = sigmoid(((0.12 + 0.38 * extent) * slope - a.medial) / 2) * (slope > 0) * (extent > 0.35)
    weight = inside * np.maximum(weight * (a.wall < 200), wedge * region)
    chest.fill("Atelectasis", 0.85 * weight, 1.0)
    toward = 1 if side == "left" else -1
    chest.effects.shift += toward * (3 + 17 * extent)
    chest.effects.raised[side] += (7 + 28 * extent) * (0.35 if top else 1)


def pleural(chest: Chest, side: str, site: str | None, extent: float, random: np.random.Generator) -> None:
    """Thickened pleura along the chest wall with calcified plaques."""
    a, inside = chest.anatomy, chest.side(side)
    x, y, z = a.xyz
    apical = any(word in (site or "").lower() for word in ("apex", "apic", "upper"))
    centre = 85 if apical else random.uniform(-15, 25)
    half = (28 if apical else 38) + 38 * extent
    thick = (6 + 11 * extent) * np.clip(1 + 0.12 * noise(a, 40, random), 0.7, 1.3)
    thick = thick * smooth((half - np.abs(z - centre)) / 18) * smooth((95 - np.abs(y)) / 45)
    thick = thick if apical else thick * smooth((np.abs(x) - 55) / 35)
    band = inside & (a.wall < thick)
    chalk = sigmoid((noise(a, 16, random) - 0.6) / 0.15) * (a.wall < 7)
    chest.fill("Pleural Other", band.astype(np.float32), 1.1 + (0.6 + 0.5 * extent) * chalk)
