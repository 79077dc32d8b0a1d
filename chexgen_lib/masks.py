"""Masks from image files, whatever their convention: a mask is never empty, half or inverted because of it.

The background is 0 (black). What is not may be 1 or 255 or 65535, a label for each structure (0, 1, 2 or 0, 127, 254),
a colour, an index in a palette of any order, or opacity. Edges may be antialiased. Of one organ, two labels beside each
other are a right and a left part; others may be organs of which one is meant. Where values do not tell what is marked,
the file is refused and they are named; no convention is guessed.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage

from chexgen_lib.pixels import ImageError, Pixels, read_pixels

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF")
LABELS = 32  # values below are numbers of structures: an antialiased edge between two grey levels needs more
APART = 16  # a level this many times as low as the highest may be a label beside an "ignore", or an edge
RARE = 0.2  # of two labels' pixels: lungs are more alike; in masks of V7 Labs 255 is lung and 127 an arrow or a device
SOFT = 0.25  # share of pixels on no level; a mask's edges are less
EDGE = 2  # pixels from a mark to the end of its antialiased edge
GREYS = 5  # values of a mask with antialiased edges, at least; fewer may be labels
LINE = 16  # pixels that alone are of one level make a line; an antialiased line has many levels
HOLLOW = 4  # times an outline's pixels; the gaps between crossing ribs are less
STRAY = 0.05  # share of a JPEG's marked pixels that are of other colours, at the edges of its blocks
BORDER = 0.75  # share of the image's border; a mask of a structure inside the chest marks less


def read_mask(path: str | Path, whole_organ: bool = False) -> np.ndarray:
    """What a mask's file marks, as bool [H, W].

    Marks are united; edges count from half of their mark on.

    Args:
        whole_organ: whether one filled organ is expected, such as the heart or both lungs: then outlines are refused,
            and several structures, of which some may not be meant. Ribs are several, and a lead may form a loop.

    Raises:
        ImageError: for a file that cannot be read, marks nothing, everything or the border, or whose values do not tell
            what is marked.
    """
    path = Path(path)
    pixels = read_pixels(path, FORMATS)
    levels, fault = _levels(pixels)
    if fault is None:
        cut, fault = _cut(np.where(levels < LABELS, 0, levels) if pixels.lossy else levels, pixels.lossy)
    if fault is None:
        mask = levels >= cut
        fault = _inverted(mask)
        if whole_organ:
            fault = fault or _outlined(mask) or _several(_codes(pixels, levels), mask, _enlarged(levels), pixels.lossy)
        if fault is None:
            return mask
    raise ImageError(f"{path}: {fault} (values {_list(levels)}); save it as 0 outside and 255 inside the structure")


def _levels(pixels: Pixels) -> tuple[np.ndarray, str | None]:
    """How bright each pixel is in its brightest channel, [H, W]; or the file's values, and why they say nothing of what
    is marked."""
    values = pixels.values
    if pixels.indices is not None and pixels.alpha is None:
        used, first = np.unique(pixels.indices, return_index=True)
        colours = len(np.unique(values.reshape(-1, 3)[first], axis=0))
        if colours == 1:  # a palette that nobody filled
            return pixels.indices, None
        if colours < len(used):
            return pixels.indices, "a palette whose entries share a colour"
    levels = (values if values.ndim == 2 else values.max(axis=2)).astype(np.int64)
    if pixels.alpha is None:
        return levels if values.ndim == 2 else _labels(values, levels), None
    if (values == values[0, 0]).all():
        return pixels.alpha.astype(np.int64), None
    if (pixels.alpha == 0).any() and ((pixels.alpha > 0) & (levels == 0)).any():
        given = values if pixels.indices is None else pixels.indices
        return given, "both clear and black pixels, of which either may be the outside or a structure"
    return levels * pixels.alpha // 255, None


def _labels(colours: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Labels 0, 1 and 2 where a picture [H, W, 3] is black and two colours, perhaps equally bright; else `levels`."""
    packed = colours.astype(np.int64) @ np.array([2**32, 2**16, 1])
    found, labels = np.unique(packed, return_inverse=True)
    grey = (colours == colours[..., :1]).all()
    return labels.reshape(levels.shape) if len(found) == 3 and found[0] == 0 and not grey else levels


def _cut(levels: np.ndarray, lossy: bool) -> tuple[float, str | None]:
    """The lowest level that is marked, or why there is none."""
    values = np.unique(levels)
    top = values[-1]
    if len(values) == 1:
        return 0, "every pixel has the same value, so it marks nothing or everything"
    if values[0] != 0:
        return 0, "no pixel is 0, the background"
    if lossy:
        between = ((levels >= 64) & (levels < 192)).mean()
        return 128, "grey levels that a JPEG does not keep apart" if top < 192 or between > 0.05 else None
    marks = values[1:]
    if top >= LABELS and len(marks) > 1:
        times = _enlarged(levels)
        marks = np.union1d(levels[_even(levels, times) & (levels > 0)], [top])
        marks = np.union1d(marks, _thin(levels, marks, times))
        if (~np.isin(levels, [0, *marks])).mean() > SOFT or len(marks) > 64:
            return 0, "a picture in many greys"
    low = marks[0]
    if top >= LABELS and low * APART < top:
        return 0, f"a level of {low} beside one of {top}, an edge, a structure or to be ignored"
    few, many = sorted((levels == mark).sum() for mark in (low, top))
    if len(marks) == 2 and few < RARE * many:
        return 0, f"levels {low} and {top}, one on {few / many:.0%} as many pixels as the other: perhaps something else"
    return (1 if len(marks) == len(values) - 1 else low / 2), None


def _enlarged(levels: np.ndarray) -> int:
    """How many times a mask with antialiased edges was enlarged by repeating pixels: the side of its smallest block."""
    values = np.unique(levels)
    if values[-1] < LABELS or len(values) < GREYS:
        return 1
    gaps = []
    for lines in (levels, levels.T):
        line, change = np.diff(lines, axis=1).nonzero()
        gaps.append(np.diff(change)[np.diff(line) == 0])
    return int(np.concatenate(gaps).min(initial=min(levels.shape)))


def _even(values: np.ndarray, times: int) -> np.ndarray:
    """Where all 3 x 3 pixels are equal, before they were enlarged some `times`; those of an edge are not."""
    side = 2 * times + 1
    return ndimage.maximum_filter(values, side) == ndimage.minimum_filter(values, side)


def _thin(levels: np.ndarray, marks: np.ndarray, times: int) -> np.ndarray:
    """The level of a structure too thin for an even pixel, such as a catheter, or none: an edge lies beside a mark."""
    beside = ndimage.maximum_filter(np.isin(levels, marks), 2 * EDGE * times + 1)
    found, counts = np.unique(levels[(levels > 0) & ~beside], return_counts=True)
    return found[(counts >= LINE * times**2) & (2 * counts > counts.sum())]


def _inverted(mask: np.ndarray) -> str | None:
    """Why what is marked seems to be the outside: of the image, or of a film that was padded with black."""
    if (border := _border(mask)) > BORDER:
        return f"{border:.0%} of the image's border is marked, so it seems inverted"
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    film = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if 2 * film.size > mask.size and not film.all() and (border := _border(film)) > BORDER:
        return f"{border:.0%} of the border of a padded film is marked, so it seems inverted"
    return None


def _outlined(mask: np.ndarray) -> str | None:
    """Why what is marked seems to be the outline of a structure that was not filled."""
    filled = ndimage.binary_fill_holes(mask).sum()
    return (
        f"outlines around {filled / mask.sum():.0f} times their pixels; fill them"
        if filled > HOLLOW * mask.sum()
        else None
    )


def _codes(pixels: Pixels, levels: np.ndarray) -> np.ndarray:
    """A number [H, W] for each label or colour; of a JPEG, whose colours vary, for the channels that are bright."""
    if pixels.values.ndim == 2:
        return levels
    if pixels.lossy:
        return (2 * pixels.values.astype(np.int64) >= levels[..., None]) @ np.array([4, 2, 1])
    _, colours = np.unique(pixels.values.astype(np.int64) @ np.array([2**32, 2**16, 1]), return_inverse=True)
    return levels * (colours.max() + 1) + colours.reshape(levels.shape)


def _several(codes: np.ndarray, mask: np.ndarray, times: int, lossy: bool) -> str | None:
    """Why it cannot be told which of several structures is meant; two beside each other are right and left."""
    found, counts = np.unique(codes[mask & _even(codes, times)], return_counts=True)  # not the edges between them
    found = found[counts > lossy * STRAY * counts.sum()]
    if len(found) > 2:
        return f"{len(found)} structures, of which some may not be meant"
    spans = [np.percentile((mask & (codes == code)).nonzero()[1], (5, 95)) for code in found]
    if len(spans) < 2:
        return None
    (left, right), (other_left, other_right) = spans
    common = min(right, other_right) - max(left, other_left)
    beside = 2 * common <= min(right - left, other_right - other_left)
    return None if beside else "two structures that do not lie beside each other, of which one may not be meant"


def _border(mask: np.ndarray) -> float:
    return np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()


def _list(values: np.ndarray) -> str:
    found = np.unique(values).tolist()
    return (
        ", ".join(map(str, found))
        if len(found) <= 8
        else f"{found[0]}, {found[1]} ... {found[-1]}, {len(found)} in all"
    )
