"""Masks and boxes drawn as one class-coloured image, the condition of the control adapter (paper, ED Figs 11 to 14).

A mask fills its pixels with its class's colour; a box is an outline in it. Where classes overlap the later in `LEGEND`
lies on top. The mean of a colour's channels is different for every class, so that a grey autoencoder can distinguish
them.
"""

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from chexgen_lib.records import FINDINGS

CLASSES = ("lungs", "heart", "ribs", *(f for f in FINDINGS if f != "No Finding"))


class ConditionError(ValueError):
    """A mask or box that cannot be drawn; the message names it and the remedy."""


def _legend() -> dict[str, tuple[int, int, int]]:
    """Hues as far apart as possible, with the means of the channels evenly spaced from 50 to 230."""
    legend = {}
    for i, name in enumerate(CLASSES):
        colour = np.array(colorsys.hsv_to_rgb(i * 0.618 % 1, 0.55, 1.0))
        mean = 50 + 180 * i / (len(CLASSES) - 1)
        colour = colour / colour.mean() * mean
        for _ in range(8):  # what exceeds a full channel goes to the others
            colour = np.minimum(colour, 255)
            colour = np.minimum(colour + (mean - colour.mean()), 255)
        legend[name] = tuple(int(round(c)) for c in colour)
    return legend


LEGEND = _legend()


def draw(size: int, masks: Mapping[str, np.ndarray] | None = None, boxes: Sequence[dict] | None = None) -> np.ndarray:
    """The condition image uint8 [size, size, 3] of masks (class -> [H, W]) and boxes.

    Args:
        masks: two-valued (0 and 1, 0 and 255, or bool), square; another size is resized to `size`.
        boxes: dicts of `class` (or `finding`), x, y, w, h: top left corner and size as fractions of the image.

    Raises:
        ConditionError: nothing to draw, an unknown class, a mask that is empty, not square or not two-valued, a box
            that is inverted or leaves the image.
    """
    masks, boxes = dict(masks or {}), list(boxes or [])
    if not masks and not boxes:
        raise ConditionError("there is neither a mask nor a box: sample without control instead")
    for name in (*masks, *(_class_of(box) for box in boxes)):
        if name not in LEGEND:
            raise ConditionError(f"unknown class {name!r}: use one of {', '.join(LEGEND)}")
    image = np.zeros((size, size, 3), np.uint8)
    for name in (name for name in LEGEND if name in masks):
        image[_resized(_two_valued(name, masks[name]), size)] = LEGEND[name]
    for name in LEGEND:
        for box in (box for box in boxes if _class_of(box) == name):
            _outline(image, name, box)
    return image


def read_masks(paths: Mapping[str, str | Path]) -> dict[str, np.ndarray]:
    """Masks [H, W] of classes, read from image files. Raises ConditionError naming the file that cannot be read."""
    masks = {}
    for name, path in paths.items():
        try:
            with Image.open(path) as image:
                masks[name] = np.asarray(image)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConditionError(f"mask {path} of {name!r} is no readable image: {error}") from error
    return masks


def check_drawing(image: np.ndarray, size: int) -> np.ndarray:
    """A ready condition image uint8 [H, H, 3], at `size`. Raises ConditionError if it is something else."""
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1] or image.dtype != np.uint8:
        raise ConditionError(
            f"a condition image is square uint8 [H, H, 3] in the legend's colours, not {image.dtype} {image.shape}: "
            "draw it with `conditions.draw`, or give a two-valued `mask` with its class"
        )
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


def _class_of(box: dict) -> str:
    name = box.get("class", box.get("finding"))
    if name is None:
        raise ConditionError(f"box {box} has no class")
    return name


def _two_valued(name: str, mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.shape[0] != mask.shape[1] or not mask.size:
        raise ConditionError(f"mask {name!r} has shape {mask.shape}: give one square channel [H, H]")
    values = np.unique(mask)
    if not (np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all()):
        raise ConditionError(f"mask {name!r} has values {values[:5].tolist()}: use 0 and 1, or 0 and 255")
    if values[-1] == 0:
        raise ConditionError(f"mask {name!r} is empty: leave the class out")
    return mask > 0


def _resized(mask: np.ndarray, size: int) -> np.ndarray:
    """Nearest neighbour: a resized mask stays two-valued."""
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def _outline(image: np.ndarray, name: str, box: dict) -> None:
    try:
        x, y, w, h = (float(box[key]) for key in ("x", "y", "w", "h"))
    except (KeyError, TypeError, ValueError) as error:
        raise ConditionError(f"box {box}: needs numbers x, y, w and h") from error
    if not (0 <= x and 0 <= y and w > 0 and h > 0 and x + w <= 1 + 1e-6 and y + h <= 1 + 1e-6):
        raise ConditionError(f"box {box}: w and h must be positive and the box inside the image (fractions 0 to 1)")
    size = len(image)
    left, top = (min(round(a * size), size - 1) for a in (x, y))  # a box shows at least one pixel
    right, bottom = (max(round((a + b) * size), c + 1) for a, b, c in ((x, w, left), (y, h, top)))
    line = max(1, size // 64)
    frame = np.ones((bottom - top, right - left), bool)
    frame[line:-line, line:-line] = False
    image[top:bottom, left:right][frame] = LEGEND[name]
