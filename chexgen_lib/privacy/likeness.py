"""How alike two radiographs are: the correlation of their local structure once one is mirrored and shifted onto the
other.

Local structure is what a band of widths holds, divided by its local strength: finer is noise, coarser is common to all
chests, and a change of contrast or brightness cancels. A copy keeps it through noise, shift, contrast, mirroring and a
generator's autoencoder; another chest does not have it (`benchmarks/privacy_audit.csv` compares it with others).

Every image is compared with every reference image on 16 x 16 cells, at 25 shifts and mirrored; the `SHORTLIST` most
alike are then registered at full size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from chexgen_lib.images import from_uint8

GRID = 16  # cells a side
BAND = (1.5, 5.0)  # widths of the two Gaussians between which structure counts, pixels of 128
SHIFTS = (-8, -4, 0, 4, 8)  # pixels of 128, of the search on cells
REACH = 12  # pixels of 128: the largest shift that registration finds
RIM = 4  # pixels of 128 along the border that do not count: shutters, padding
SHORTLIST = 8
BLOCK = 512  # images that are in float at a time


@dataclass(frozen=True)
class Matches:
    """The reference images most alike to each of N images, the most alike first; at most K = `SHORTLIST`.

    Attributes:
        index: int [N, K], rows of the reference; -1 beyond the last match.
        r: [N, K], correlation after registration, -1 to 1 (1: the same structure); -1 beyond the last match.
        mirrored: bool [N, K], whether the image was mirrored for it.
    """

    index: np.ndarray
    r: np.ndarray
    mirrored: np.ndarray


class Reference:
    """Images that others are compared with, uint8 [M, S, S]; S is a multiple of 16."""

    def __init__(self, pixels: np.ndarray):
        self.size = pixels.shape[-1]
        self._cells = _cells(pixels)
        blocks = (_structure(pixels[i : i + BLOCK]).astype(np.float16) for i in range(0, len(pixels), BLOCK))
        self._structure = np.concatenate(list(blocks))

    def __len__(self) -> int:
        return len(self._structure)

    def coarse(self, pixels: np.ndarray) -> np.ndarray:
        """Likeness on cells of images uint8 [N, S, S] with each reference image, at the best shift: [N, M]."""
        return self._coarse(pixels).max(0)

    def search(self, pixels: np.ndarray, apart: np.ndarray | None = None) -> Matches:
        """The reference images most alike to each of uint8 [N, S, S].

        Args:
            apart: bool [N, M], pairs that are not compared (an image with itself, or with its own patient).
        """
        coarse = self._coarse(pixels)  # [2, N, M]
        if apart is not None:
            coarse[:, apart] = -np.inf
        matches = Matches(*(np.full((len(pixels), SHORTLIST), nothing) for nothing in (-1, -1.0, False)))
        for row, (image, alike) in enumerate(zip(pixels, coarse.swapaxes(0, 1), strict=True)):
            best = np.argsort(-alike, axis=None, kind="stable")[:SHORTLIST]
            best = best[np.isfinite(alike.reshape(-1)[best])]
            found = self._registered(image, best % len(self), best >= len(self))
            for whole, part in zip((matches.index, matches.r, matches.mirrored), found, strict=True):
                whole[row, : len(part)] = part
        return matches

    def compare(self, pixels: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Likeness [N] of uint8 images [N, S, S] with one reference image each, `index` [N]."""
        both = np.array([False, True])
        pairs = zip(pixels, index, strict=True)
        return np.array([self._registered(image, np.repeat(i, 2), both)[1][0] for image, i in pairs])

    def _coarse(self, pixels: np.ndarray) -> np.ndarray:
        """Likeness on cells at the best shift, as they are and mirrored: [2, N, M]."""
        views = (pixels, pixels[:, :, ::-1])
        return np.stack([np.max([cells @ self._cells.T for cells in _shifted_cells(x)], axis=0) for x in views])

    def _registered(self, image: np.ndarray, index: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Index, r and mirrored of the candidates, the most alike first, each reference image once."""
        structure = _structure(image[None])[0]
        r = np.empty(len(index))
        for way, own in ((False, structure), (True, structure[:, ::-1])):
            r[mirrored == way] = _registered_correlation(own, self._structure[index[mirrored == way]])
        order = np.argsort(-r, kind="stable")
        order = order[np.sort(np.unique(index[order], return_index=True)[1])]
        return index[order], r[order], mirrored[order]


def _scaled(size: int, lengths: tuple[float, ...]) -> list[float]:
    """Lengths in pixels of 128 at another size."""
    return [length * size / 128 for length in lengths]


def _structure(pixels: np.ndarray) -> np.ndarray:
    """Local structure float32 [N, S, S] of uint8 images: a band of widths over its local root mean square."""
    fine, coarse = _scaled(pixels.shape[-1], BAND)
    x = from_uint8(pixels)
    band = _blurred(x, fine) - _blurred(x, coarse)
    return band / (np.sqrt(_blurred(band * band, coarse)) + 0.01)


def _blurred(x: np.ndarray, width: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, width, width)) if width else x


def _cells(pixels: np.ndarray) -> np.ndarray:
    """Structure of uint8 images on the inner cells, [N, 196] with mean 0 and norm 1: products are correlations."""
    n, size = len(pixels), pixels.shape[-1] // GRID
    means = pixels.reshape(n, GRID, size, GRID, size).mean((2, 4), dtype=np.float32) / 255  # [N, 16, 16]
    band = means - _blurred(means, 2.5)
    cells = (band / (np.sqrt(_blurred(band * band, 2.5)) + 0.01))[:, 1:-1, 1:-1].reshape(n, -1)
    cells -= cells.mean(1, keepdims=True)
    return cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-9)


def _shifted_cells(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """`_cells` of the images at each of `SHIFTS` down and across, borders repeated."""
    size = pixels.shape[-1]
    steps = [round(step) for step in _scaled(size, SHIFTS)]
    edge = max(steps)
    wide = np.pad(pixels, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    for down in steps:
        for across in steps:
            yield _cells(wide[:, edge - down : edge - down + size, edge - across : edge - across + size])


def _registered_correlation(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation [K] of a structure [S, S] with others [K, S, S], each at the shift where they agree most."""
    if not len(others):
        return np.empty(0)
    size = len(own)
    reach, rim = round(REACH * size / 128), round(RIM * size / 128)
    others = others.astype(np.float32)
    window = np.minimum(np.minimum(np.arange(size) + 0.5, np.arange(size)[::-1] + 0.5) * 128 / size / 10, 1)
    window = np.outer(window, window).astype(np.float32)
    product = fft.rfft2(own * window).conj() * fft.rfft2(others * window)
    agreement = fft.irfft2(product, s=(size, size))  # [K, S, S], by cyclic shift
    near = np.r_[-reach : reach + 1]
    best = agreement[:, near][:, :, near].reshape(len(others), -1).argmax(1)
    shifts = np.stack(np.divmod(best, len(near)), 1) - reach
    return np.array(
        [_overlap_correlation(own, other, *shift, rim) for other, shift in zip(others, shifts, strict=True)]
    )


def _overlap_correlation(own: np.ndarray, other: np.ndarray, down: int, across: int, rim: int) -> float:
    """Pearson r of where two structures overlap once `own` is moved down and across; the rim of either is left out."""
    size = len(own)

    def overlap(step: int) -> tuple[slice, slice]:
        low, high = rim + max(step, 0), size - rim + min(step, 0)
        return slice(low - step, high - step), slice(low, high)

    (own_rows, rows), (own_columns, columns) = overlap(down), overlap(across)
    a, b = own[own_rows, own_columns], other[rows, columns]
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12))
