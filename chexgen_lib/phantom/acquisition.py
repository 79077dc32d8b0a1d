"""How the radiograph is taken: cone-beam geometry, line integrals, scatter, noise, processing.

Two acquisition sites differ in source distance, field, tone curve, edge enhancement, noise and collimation;
nothing else in a record depends on the site.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Rays of one exposure: lattice [D, R, C, 3] of points in mm, their depth (mm) and the central
    direction."""

    points: np.ndarray
    thickness: float
    along: np.ndarray


def aim(site: Site, view: str, patient: Patient, draw: np.random.Generator) -> Beam:
    """Cone-beam rays of a view through the patient; the field follows the patient's size."""
    column, row, along = (np.array(axis, float) for axis in AXES[view])
    distance = site.distance[view] * draw.uniform(0.95, 1.05)
    width = site.field * float(np.mean(patient.scale[[0, 2]])) * draw.uniform(0.96, 1.04)
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


def project(volume: torch.Tensor, canonical: np.ndarray, beam: Beam, size: int) -> torch.Tensor:
    """Line integrals [C, size, size] in mm along rays given by canonical points [D, R, C, 3] on the lattice.

    `volume` is [C, Z, Y, X] on the canonical grid with its axes reduced by whole factors. A ray crosses the
    volume's planes across the beam (coronal ones from the front, sagittal ones from the side) one after the
    other; where, and how long a piece of the ray each plane stands for, is found on the lattice. So the
    integral is a sum of 2-D samples.
    """
    axis = 3 - int(np.abs(beam.along).argmax())  # the volume's axis along the beam
    index = _index(canonical, volume.shape[1:])
    where, pieces = _crossings(index, 3 - axis, volume.shape[axis], beam.thickness / (len(index) - 1))
    shape = np.delete(volume.shape[1:], axis - 1)[::-1]  # width and height of a plane
    fields = np.concatenate([2 * where / (shape[:, None, None, None] - 1) - 1, pieces[None]],
    dtype=np.float32) fields = _spread(size, LATTICE[1]) @ torch.from_numpy(fields) @ _spread(size,
    LATTICE[2]).T  # [3, K, size, size] planes = volume.movedim(axis, 0)  # [K, C, height, width] values =
    F.grid_sample(planes, fields[:2].permute(1, 2, 3, 0), padding_mode="border", align_corners=True) return
    torch.einsum("kcrs,krs->crs", values, fields[2])


def _index(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Millimetres (x, y, z) -> voxel index (x, y, z) in a volume [Z, Y, X] whose axes may be reduced."""
    factor = np.array(GRID[::-1]) / np.array(shape[::-1])
    return (points / SPACING[::-1] + origin()[::-1] - (factor - 1) / 2) / factor


def _crossings(index: np.ndarray, axis: int, planes: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Where lattice rays cross the planes 0..K-1 of an axis: the other two indices [2, K, R, C], and the
    piece of the ray that belongs to each crossing [K, R, C] in mm, 0 where the ray ends before the
    plane."""
    along = index[..., axis]
    if along[0].mean() > along[-1].mean():
        index, along = index[::-1], along[::-1]
    plane = np.arange(planes)[:, None, None]
    before = np.clip((along[:, None] <= plane).sum(axis=0) - 1, 0, len(along) - 2)  # [K, R, C]
    low, high = np.take_along_axis(along, before, 0), np.take_along_axis(along, before + 1, 0)
    share = (plane - low) / (high - low)
    others = [np.ascontiguousarray(index[..., other]) for other in range(3) if other != axis]
    ends = [(np.take_along_axis(o, before, 0), np.take_along_axis(o, before + 1, 0)) for o in others]
    where = np.stack([first + share * (last - first) for first, last in ends])
    return where, np.where((share >= 0) & (share <= 1), step / (high - low), 0)


def slabs(mu: np.ndarray, beam: Beam) -> torch.Tensor:
    """Attenuation [1, Z, Y, X] with neighbouring planes across the beam averaged."""
    volume = torch.from_numpy(mu)
    axis = 2 - int(np.abs(beam.along).argmax())
    even = [slice(None)] * 3
    odd = list(even)
    even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
    return (0.5 * (volume[tuple(even)] + volume[tuple(odd)]))[None]


def _spread(fine: int, coarse: int) -> torch.Tensor:
    """Linear interpolation as a matrix [fine, coarse]; fine samples are the middles of `fine` equal cells."""
    place = (torch.arange(fine) + 0.5) / fine * (coarse - 1)
    low = place.floor().clamp(max=coarse - 2).long()
    share = (place - low)[:, None]
    return F.one_hot(low, coarse) * (1 - share) + F.one_hot(low + 1, coarse) * share


def expose(slabs: torch.Tensor, canonical: np.ndarray, beam: Beam, view: str) -> tuple[float, float, float]:
    """Automatic exposure: mean transmission, darkest and brightest log signal of the patient without finding.

    It is measured on 32 x 32 rays, so that a finding changes the image where it is and not the grey scale.
    """
    middle = WATER * project(slabs, canonical, beam, 32)[0].numpy()[5:27, 4:28]
    inside = middle[middle > 0.3]  # air beside the body is black whatever the exposure
    return float(np.exp(-inside).mean()), *np.percentile(inside, EXPOSED[view]).tolist()


def develop(
    lines: np.ndarray, exposure: tuple[float, float, float], site: Site, draw: np.random.Generator
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
    noise = draw.standard_normal((size, size), dtype=np.float32)
    grey = grey + site.grain * (0.5 + grey) * noise * (lines > 0.05)
    return np.clip(grey * _collimator(size, site, draw), 0, 1).astype(np.float32)


def _collimator(size: int, site: Site, draw: np.random.Generator) -> np.ndarray:
    """1 inside the field, 0 beyond the shutters [S, S]."""
    shown = draw.random() < site.shutter
    left, right, top, bottom = draw.uniform(0.0, 0.045, 4) * size * shown
    row = np.clip(np.arange(size) - top + 1, 0, 1) * np.clip(size - bottom - np.arange(size), 0, 1)
    column = np.clip(np.arange(size) - left + 1, 0, 1) * np.clip(size - right - np.arange(size), 0, 1)
    return row[:, None] * column[None]
