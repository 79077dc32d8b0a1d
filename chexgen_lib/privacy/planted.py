"""Copies that are planted to see whether an audit finds them: training images, altered as a copier might."""

import numpy as np
from scipy import ndimage

from chexgen_lib.images import from_uint8, to_uint8

SHIFT = 8 / 128  # of the side, the largest in each direction
NOISE = 0.05  # standard deviation, of the range of greys
EXACT, NOISY, SHIFTED, CONTRAST, MIRRORED, ALL = "exact", "noise", "shift", "contrast", "mirrored", "all of these"
TURNED = "turned and zoomed"  # by up to 3 degrees and 5 %: beyond what likeness registers
KINDS = (EXACT, NOISY, SHIFTED, CONTRAST, MIRRORED, ALL)


def copies(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Copies of images uint8 [N, S, S], one of `KINDS` or `TURNED`, each altered on its own."""
    alter = {
        EXACT: lambda x: x,
        NOISY: lambda x: _noisy(x, rng),
        SHIFTED: lambda x: _shifted(x, rng),
        CONTRAST: lambda x: _contrasted(x, rng),
        MIRRORED: lambda x: x[:, ::-1],
        ALL: lambda x: _noisy(_contrasted(_shifted(x[:, :: rng.choice([-1, 1])], rng), rng), rng),
        TURNED: lambda x: _turned(x, rng),
    }[kind]
    return to_uint8(np.stack([np.clip(alter(x), 0, 1) for x in from_uint8(pixels)]))


def _noisy(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(x + rng.normal(0, NOISE, x.shape).astype(np.float32), 0, 1)


def _shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by whole pixels; the border is repeated."""
    size, most = len(x), round(SHIFT * len(x))
    down, across = rng.integers(0, 2 * most + 1, 2)
    return np.pad(x, most, mode="edge")[down : down + size, across : across + size]


def _contrasted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another gamma (0.7 to 1.4), contrast (0.7 to 1.3 times) and brightness (up to 0.1)."""
    gamma, gain, offset = rng.uniform((0.7, 0.7, -0.1), (1.4, 1.3, 0.1))
    return np.clip((x**gamma - 0.5) * gain + 0.5 + offset, 0, 1).astype(np.float32)


def _turned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    angle, zoom = np.deg2rad(rng.uniform(-3, 3)), rng.uniform(0.95, 1.05)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = np.full(2, (len(x) - 1) / 2)
    return ndimage.affine_transform(x, turn, middle - turn @ middle, order=1, mode="nearest")
