"""How the radiograph is taken: cone-beam geometry, line integrals, scatter, noise, processing.

Two acquisition sites differ in source distance, field, tone curve, edge enhancement, noise and collimation;
nothing else in a record depends on the site.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from chexgen_lib.phantom.anatomy import GRID, SPACING, origin
from chexgen_lib.phantom.patient import Patient

WATER = 0.0195  # attenuation of water per mm at about 70 keV
LATTICE = (13, 33, 33)  # depths, rows, columns on which the deformation is evaluated; linear between them


@dataclass(frozen=True)
class Site:
    """distance: source to middle of the chest for PA, AP and lateral (mm); the rest are unit-free."""

    distance: dict[str, float]
    field: float  # mm across the image at the middle of an average chest
    scatter: float  # share of the mean exposure
    gamma: float
    edges: float  # weight of the unsharp mask
    equalise: float  # share of the slow variation that is taken out
    grain: float  # standard deviation of the noise at mid grey
    shutter: float  # probability that the collimator shows


SITES = {
    "A": Site(dict(PA=1650, AP=1050, LATERAL=1600), 292, 0.10, 1.00, 0.35, 0.30, 0.003, 0.0),
    "B": Site(dict(PA=1350, AP=850, LATERAL=1350), 302, 0.22, 0.86, 0.15, 0.18, 0.005, 0.45),
}
# image column, image row (up) and ray direction of each view, in x (left), y (front), z (head)
AXES = {
    "PA": ((1, 0, 0), (0, 0, 1), (0, 1, 0)),
    "AP": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "LATERAL": ((0, -1, 0), (0, 0, 1), (1, 0, 0)),  # left lateral: the front is at the image's left
}
AIM = np.array([0.0, 0.0, 3.0])  # mm, where the central ray meets the chest
# percentiles of the log signal that are shown dark and bright
EXPOSED = {"PA": (4, 96), "AP": (4, 96), "LATERAL": (4, 84)}


@dataclass(frozen=True)
class Beam:
    """Rays of one exposure: lattice points [D, R, C, 3] in mm, their depth in mm, the central direction [3]."""

    points: np.ndarray
    thickness: float
    along: np.ndarray


def aim(site: Site, view: str, patient: Patient, random: np.random.Generator) -> Beam:
    """Cone-beam rays of a view through the patient; the field follows the patient's size."""
    column, row, along = (np.array(axis, float) for axis in AXES[view])
    distance = site.distance[view] * random.uniform(0.95, 1.05)
    width = site.field * float(np.mean(patient.scale[[0, 2]])) * random.uniform(0.96, 1.04)
    begin, end = _depths(patient, view)
    t = np.linspace(begin, end, LATTICE[0])[:, None, None, None]
    v = np.linspace(0.5, -0.5, LATTICE[1])[None, :, None, None] * width
    u = np.linspace(-0.5, 0.5, LATTICE[2])[None, None, :, None] * width
    points = (1 + t / distance) * (u * column + v * row) + t * along + AIM
    return Beam(points, end - begin, along)


def _depths(patient: Patient, view: str) -> tuple[float, float]:
    """Where along the rays the body begins and ends, mm from its middle."""
    across, deep = patient.scale[0], patient.scale[1]
    if view == "LATERAL":
        half = 1.04 * across * (148 + 34 * patient.fat)
        return -half, half
    back, front = 112 * deep + 6, deep * max(114, 84 + 66 * patient.breast) + 4
    return (-back, front) if view == "PA" else (-front, back)


@dataclass(frozen=True)
class Rays:
    """Where lattice rays cross the K planes of the halved grid that lie across the beam (coronal or sagittal).

    Attributes:
        where: [2, K, R, C], the other two coordinates in mm.
        pieces: [K, R, C], mm of the ray that each crossing stands for, 0 where the ray does not reach the plane.
        axis: the beam's coordinate, 0 x or 1 y.
    """

    where: np.ndarray
    pieces: np.ndarray
    axis: int


def trace(canonical: np.ndarray, beam: Beam) -> Rays:
    """Cross the planes with rays that are given by canonical points [D, R, C, 3] (mm), linear between them."""
    axis = int(np.abs(beam.along).argmax())
    if canonical[0, ..., axis].mean() > canonical[-1, ..., axis].mean():
        canonical = canonical[::-1]
    depth, *others = np.moveaxis(canonical, -1, 0)[[axis, *(a for a in range(3) if a != axis)]].astype(np.float32)
    planes = (np.arange(GRID[2 - axis] // 2) * 2 + 0.5 - origin()[2 - axis]) * SPACING[2 - axis]
    plane = planes.astype(np.float32)[:, None, None]
    before = np.clip((depth[:, None] <= plane).sum(axis=0) - 1, 0, len(depth) - 2)  # [K, R, C]
    cell = before, *np.ogrid[: depth.shape[1], : depth.shape[2]]
    after = before + 1, *cell[1:]
    low, high = depth[cell], depth[after]
    share = (plane - low) / (high - low)
    where = np.stack([other[cell] + share * (other[after] - other[cell]) for other in others])
    length = np.float32(beam.thickness / (len(depth) - 1) * 2 * SPACING[2 - axis]) / (high - low)
    return Rays(where, np.where((share >= 0) & (share <= 1), length, np.float32(0)), axis)


def project(volume: torch.Tensor, rays: Rays, size: int) -> torch.Tensor:
    """Line integrals [C, size, size] in mm of a volume [C, Z, Y, X], halved along the beam (other axes may be, too).

    Each plane is sampled where the rays cross it and weighted by its piece of the ray: an integral by 2-D samples.
    """
    planes = volume.movedim(3 - rays.axis, 0)  # [K, C, height, width]
    shape = np.array(planes.shape[:1:-1])  # width, height
    kept = [a for a in range(3) if a != rays.axis]
    full, step, zero = (np.array(v)[::-1][kept] for v in (GRID, SPACING, origin()))
    factor = full / shape
    slope = 2 / (step * factor * (shape - 1))  # mm -> grid_sample's -1..1
    start = 2 * (zero - (factor - 1) / 2) / (factor * (shape - 1)) - 1
    places = [w * np.float32(a) + np.float32(b) for w, a, b in zip(rays.where, slope, start, strict=True)]
    fields = np.stack([*places, rays.pieces])
    rows, columns = (_spread(size, n) for n in fields.shape[2:])
    fields = rows @ torch.from_numpy(fields) @ columns.T  # [3, K, size, size]
    grid = fields[:2].permute(1, 2, 3, 0)  # [K, size, size, 2]
    values = F.grid_sample(planes, grid, padding_mode="border", align_corners=True)
    return (values * fields[2, :, None]).sum(dim=0)


def slabs(mu: np.ndarray, beam: Beam) -> torch.Tensor:
    """Attenuation [1, Z, Y, X] with pairs of planes across the beam averaged."""
    across = 2 if abs(beam.along[0]) > 0 else 1
    pairs = torch.from_numpy(mu).unflatten(across, (-1, 2))
    return (pairs.select(across + 1, 0) + pairs.select(across + 1, 1)).mul_(0.5)[None]


@lru_cache
def _spread(fine: int, coarse: int) -> torch.Tensor:
    """Linear interpolation as a matrix [fine, coarse]; fine samples are the middles of `fine` equal cells."""
    place = (torch.arange(fine) + 0.5) / fine * (coarse - 1)
    low = place.floor().clamp(max=coarse - 2).long()
    share = (place - low)[:, None]
    return F.one_hot(low, coarse) * (1 - share) + F.one_hot(low + 1, coarse) * share


def expose(mu: torch.Tensor, rays: Rays, view: str) -> tuple[float, float, float]:
    """Automatic exposure: mean transmission, darkest and brightest log signal of the patient without finding.

    It is measured on 32 x 32 rays, so that a finding changes the image where it is and not the grey scale.
    """
    few = Rays(rays.where[:, :, ::2, ::2], rays.pieces[:, ::2, ::2], rays.axis)
    middle = WATER * project(mu, few, 32)[0].numpy()[5:27, 4:28]
    inside = middle[middle > 0.3]  # air beside the body is black whatever the exposure
    return float(np.exp(-inside).mean()), *np.percentile(inside, EXPOSED[view]).tolist()


def develop(
    lines: np.ndarray, exposure: tuple[float, float, float], site: Site, random: np.random.Generator
) -> np.ndarray:
    """Line integrals [S, S] (optical depths) -> image [S, S] float32 in 0..1, 1 = bone."""
    size = len(lines)
    mean, dark, bright = exposure
    scatter = site.scatter * mean

    def log_signal(depth):
        return -np.log(np.exp(-depth) + scatter)

    low, high = log_signal(dark), log_signal(bright)
    grey = (log_signal(lines) - low) / (high - low)
    grey = ndimage.gaussian_filter(grey, 0.45 * size / 128, mode="nearest")
    slow = ndimage.gaussian_filter(np.clip(grey, -0.5, 1.3), 0.11 * size, mode="nearest")
    fine = ndimage.gaussian_filter(grey, 0.012 * size, mode="nearest")
    grey = grey - site.equalise * (slow - 0.5) + site.edges * (grey - fine)
    grey = np.clip(0.13 + 0.67 * grey, 0, None) ** site.gamma * np.clip(lines / 0.35, 0, 1)
    grey = np.where(grey > 0.8, 0.8 + 0.2 * np.tanh((grey - 0.8) / 0.2), grey)  # the film's shoulder
    noise = random.standard_normal((size, size), dtype=np.float32)
    grey = grey + site.grain * (0.5 + grey) * noise * (lines > 0.05)
    return np.clip(grey * _collimator(size, site, random), 0, 1).astype(np.float32)


def _collimator(size: int, site: Site, random: np.random.Generator) -> np.ndarray:
    """1 inside the field, 0 beyond the shutters [S, S]."""
    shown = random.random() < site.shutter
    left, right, top, bottom = random.uniform(0.0, 0.045, 4) * size * shown
    row = np.clip(np.arange(size) - top + 1, 0, 1) * np.clip(size - bottom - np.arange(size), 0, 1)
    column = np.clip(np.arange(size) - left + 1, 0, 1) * np.clip(size - right - np.arange(size), 0, 1)
    return row[:, None] * column[None]
