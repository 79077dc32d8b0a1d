"""The chest to which findings are added, and the shapes that they are made of.

Lung findings work on the list of lung voxels (`Anatomy.lung`): a weight per voxel says how much of it turns from air
into the finding's density.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import ThreadpoolController

from chexgen_lib.phantom.anatomy import (
    LOWER_LEFT,
    LOWER_RIGHT,
    MIDDLE_RIGHT,
    SPACING,
    UPPER_LEFT,
    UPPER_RIGHT,
    Anatomy,
    origin,
)
from chexgen_lib.phantom.patient import Effects


@dataclass
class Chest:
    """The patient's canonical chest while findings are added; `flat` is its attenuation [Z*Y*X]."""

    anatomy: Anatomy
    flat: np.ndarray
    supine: bool
    effects: Effects = field(default_factory=Effects)
    regions: dict[str, list[np.ndarray]] = field(default_factory=dict)  # finding -> flat indices of its voxels
    severity: dict[str, float] = field(default_factory=dict)

    def fill(self, finding: str, weight: np.ndarray, density: float | np.ndarray, mark: float = 0.3) -> None:
        """Turn the share `weight` [L] of each lung voxel into `density`; voxels above `mark` count as the finding's."""
        weight = weight.astype(np.float32, copy=False)
        some = np.flatnonzero(weight > 1e-3)
        voxels, share = self.anatomy.lung[some], weight[some]
        density = density[some] if isinstance(density, np.ndarray) else density
        air = self.flat[voxels]
        self.flat[voxels] = air + share * (density - air)
        self.note(finding, voxels[share > mark], float(share.sum()) / len(weight))

    def note(self, finding: str, voxels: np.ndarray, severity: float) -> None:
        """Mark voxels as a finding's, and add to its severity."""
        self.regions.setdefault(finding, []).append(voxels)
        self.severity[finding] = float(min(1.0, self.severity.get(finding, 0.0) + severity))

    def side(self, side: str) -> np.ndarray:
        """Lung voxels of one side, bool [L]."""
        left = (self.anatomy.lobe == UPPER_LEFT) | (self.anatomy.lobe == LOWER_LEFT)
        return left if side == "left" else ~left


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def at_site(
    anatomy: Anatomy, inside: np.ndarray, side: str, site: str | None, random: np.random.Generator
) -> np.ndarray:
    """Lung voxels of a named site, bool [L]; of a random lobe where no site of the lung is given."""
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
    return (lobe == (upper, lower, lower)[random.integers(3)]) & inside


@ThreadpoolController().wrap(limits=1, user_api="blas")  # on some processors more threads change the last bit
def noise(anatomy: Anatomy, cell: float | tuple[float, float, float], random: np.random.Generator) -> np.ndarray:
    """Smooth noise [L] on the lung voxels: standard normal every `cell` mm (z, y, x), linear between."""
    half = np.array(anatomy.channels.shape[1:])
    lattice = random.standard_normal(np.ceil(2 * half * SPACING / cell).astype(int) + 1, dtype=np.float32)
    for axis, fine in enumerate(half):  # one axis after the other, as a product with an interpolation matrix
        lattice = np.moveaxis(np.tensordot(_ramp(fine, lattice.shape[axis]), lattice, (1, axis)), 0, axis)
    return lattice.ravel()[anatomy.coarse[anatomy.lung]]


def _ramp(fine: int, coarse: int) -> np.ndarray:
    """Linear interpolation from `coarse` to `fine` points as a matrix."""
    place = np.linspace(0, coarse - 1, fine)[:, None]
    return np.clip(1 - np.abs(place - np.arange(coarse)), 0, 1).astype(np.float32)


def distance_from(xyz: np.ndarray, centre: np.ndarray, axes: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Distance of points [3, N] from a centre in units of the half axes (mm)."""
    squares = [((p - c) / np.float32(a)) ** 2 for p, c, a in zip(xyz, centre, axes, strict=True)]
    return np.sqrt(sum(squares))


def point_in(anatomy: Anatomy, allowed: np.ndarray, inside: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random lung point [3] (mm) among the allowed voxels, or among `inside` if none is allowed."""
    chosen = np.flatnonzero(allowed if allowed.any() else inside)
    return anatomy.xyz[:, chosen[random.integers(len(chosen))]]


def voxels_within(anatomy: Anatomy, centre: np.ndarray, radius: float) -> np.ndarray:
    """Flat indices of the voxels within `radius` mm of a point (x, y, z in mm)."""
    index = centre[::-1] / SPACING + origin()
    low = np.maximum(np.floor(index - radius / SPACING).astype(int), 0)
    high = np.minimum(np.ceil(index + radius / SPACING).astype(int) + 1, anatomy.mu.shape)
    grid = np.meshgrid(*(np.arange(lo, hi) for lo, hi in zip(low, high, strict=True)), indexing="ij")
    zyx = np.stack([g.ravel() for g in grid], axis=-1)
    zyx = zyx[np.linalg.norm((zyx - index) * SPACING, axis=1) < radius]
    return np.ravel_multi_index(zyx.T, anatomy.mu.shape)
