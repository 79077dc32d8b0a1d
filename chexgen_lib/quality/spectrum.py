"""How sharp radiographs are: their energy by spatial frequency."""

import numpy as np
import polars as pl

BANDS = ((1, 8), (8, 16), (16, 32), (32, 48), (48, 64))  # cycles an image: from, below; at 128 px up to the finest


def bands_of(side: int) -> tuple[tuple[int, int], ...]:
    """Those of `BANDS` that images of `side` pixels have."""
    return tuple((low, high) for low, high in BANDS if low < side // 2)


def band_energy(images: np.ndarray, bands: tuple[tuple[int, int], ...] = BANDS) -> np.ndarray:
    """Energy float64 [N, bands] of images [N, S, S], mean removed and faded out towards the edges (Hann window)."""
    side = images.shape[-1]
    window = np.hanning(side)[:, None] * np.hanning(side)
    centred = images.astype(np.float64) - images.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(centred * window)) ** 2
    cycles = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(cycles[:, None], cycles)
    return np.stack([power[:, (radius >= low) & (radius < high)].sum(axis=1) for low, high in bands], axis=1)


def kept_energy(originals: np.ndarray, others: np.ndarray) -> pl.DataFrame:
    """What share of the energy of `originals` [N, S, S] their counterparts `others` [N, S, S] have, by band.

    Columns: band (cycles an image); share, of the energy of all; median, of the images' own shares. The energy of a
    fine band is in few images for the most part, those with lines, and the first can be low where the second is not.

    Raises:
        ValueError: if their shapes differ.
    """
    if originals.shape != others.shape:
        raise ValueError(f"images {originals.shape} and {others.shape} cannot be compared: give pairs of one size")
    bands = bands_of(originals.shape[-1])
    before, after = (band_energy(images, bands) for images in (originals, others))
    return pl.DataFrame(
        {
            "band": [f"{low}-{high}" for low, high in bands],
            "share": after.mean(axis=0) / before.mean(axis=0),
            "median": np.median(after / before, axis=0),
        }
    )
