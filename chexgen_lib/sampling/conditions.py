"""Masks and boxes drawn as one class-coloured image, the condition of the control adapter (paper, ED Figs 11 to 14).

A mask fills its pixels with its class's colour; a box is an outline in it. Where classes overlap the later in `LEGEND`
lies on top. The mean of a colour's channels is different for every class, so that a grey autoencoder can distinguish
them.
"""

import ast
import colorsys
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chexgen_lib.images import ImageError, resize_mask
from chexgen_lib.masks import read_mask
from chexgen_lib.records import FINDINGS

# Keys of a box in lower case, without what stands between words: xMin and x_min are xmin.
CLASS_KEYS = ("class", "finding", "label", "category", "categoryname", "classname", "name")
SIDES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height"), ("xywh",), ("bbox",))
CENTRES = (("cx", "cy", "w", "h"), ("xcenter", "ycenter", "width", "height"), ("cxcywh",))
CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("xyxy",),
)
# What a box may say of its `bbox`, in lower case without what stands between words; numbers are detectron2's BoxMode.
FORMAT_KEYS = ("format", "bboxformat", "boxformat", "bboxmode", "boxmode")
FORMATS = {
    "xywh": ("xywh", "coco", "xywhabs", "xywhrel", "1", "3"),
    "xyxy": ("xyxy", "pascalvoc", "voc", "corners", "xyxyabs", "xyxyrel", "0", "2"),
    "cxcywh": ("cxcywh", "yolo"),
}
NUMBER = r"[^\s,;()\[\]]+"  # in a text such as "[0.1, 0.2, 0.3, 0.4]", as a table holds it
BOX = "{class, x, y, w, h}: top left corner, width and height as fractions of the image"
CLASSES = ("lungs", "heart", "ribs", *(f for f in FINDINGS if f != "No Finding"))
ORGANS = ("lungs", "heart")  # a mask of these is of one whole organ; of all others it may be lines, or several
FURTHER = ("Emphysema", "Fibrosis", "Calcification")  # of ChestX-Det; their colours stand between those of CLASSES


class ConditionError(ValueError):
    """A mask or box that cannot be drawn; the message names it and the remedy."""


def _legend() -> dict[str, tuple[int, int, int]]:
    """Hues as far apart as possible, with the means of the channels evenly spaced from 50 to 230."""
    legend, step = {}, 180 / (len(CLASSES) - 1)
    means = [50 + 180 * i / (len(CLASSES) - 1) for i in range(len(CLASSES))]
    means += [means[0] + step * (i + 0.5) for i in range(len(FURTHER))]
    for i, (name, mean) in enumerate(zip((*CLASSES, *FURTHER), means, strict=True)):
        colour = np.array(colorsys.hsv_to_rgb(i * 0.618 % 1, 0.55, 1.0))
        colour = colour / colour.mean() * mean
        for _ in range(8):  # what exceeds a full channel goes to the others
            colour = np.minimum(colour, 255)
            colour = np.minimum(colour + (mean - colour.mean()), 255)
        legend[name] = tuple(int(round(c)) for c in colour)
    return legend


def _plain_key(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


LEGEND = _legend()
KNOWN = {_plain_key(name): name for name in LEGEND}  # lung_lesion is Lung Lesion


def draw(size: int, masks: Mapping[str, np.ndarray] | None = None, boxes: Sequence[dict] | None = None) -> np.ndarray:
    """The condition image uint8 [size, size, 3] of masks (class -> [H, W]) and boxes.

    Args:
        masks: two-valued (0 and 1, 0 and 255, or bool), square; another size is resized to `size`
            (`images.resize_mask`), and none vanishes.
        boxes: dicts of `class`, x, y, w, h (top left corner and size as fractions of the image), or what `read_box`
            takes beside them.

    Raises:
        ConditionError: nothing to draw, an unknown class, a mask that is empty, not square or not two-valued, a box
            that is inverted or leaves the image.
    """
    masks, boxes = dict(masks or {}), read_boxes(boxes)
    if not masks and not boxes:
        raise ConditionError("there is neither a mask nor a box: sample without control instead")
    for name in (*masks, *(box["class"] for box in boxes)):
        if name not in LEGEND:
            raise ConditionError(f"unknown class {name!r}: use one of {', '.join(LEGEND)}")
    image = np.zeros((size, size, 3), np.uint8)
    for name in (name for name in LEGEND if name in masks):
        image[resize_mask(_two_valued(name, masks[name]), size)] = LEGEND[name]
    for name in LEGEND:
        for box in (box for box in boxes if box["class"] == name):
            _outline(image, box)
    return image


def read_masks(paths: Mapping[str, str | Path]) -> dict[str, np.ndarray]:
    """Masks bool [H, W] of classes, read from image files. Raises ConditionError naming the file that is no mask."""
    masks = {}
    for name, path in paths.items():
        try:
            masks[name] = read_mask(path, whole_organ=name in ORGANS)
        except ImageError as error:
            raise ConditionError(f"mask {name!r}: {error}") from error
    return masks


def check_drawing(image: np.ndarray, size: int) -> np.ndarray:
    """A ready condition image uint8 [H, H, 3], at `size`. Raises ConditionError if it is something else."""
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1] or image.dtype != np.uint8:
        raise ConditionError(
            f"a condition image is square uint8 [H, H, 3] in the legend's colours, not {image.dtype} {image.shape}: "
            "draw it with `conditions.draw`, or give a two-valued `mask` with its class"
        )
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


def read_boxes(value: Any) -> list[dict]:
    """Boxes as dicts of class, x, y, w and h, in fractions of the image.

    Args:
        value: "Lung Lesion 0.6 0.3 0.1 0.1; ..." (class, x, y, w, h), one box or a list of them as `read_box` takes
            them, the same in JSON text, or a mapping of classes to `[x, y, w, h]`; None or empty for no box.

    Raises:
        ConditionError: for a box that cannot be understood, or that is not inside the image.
    """
    if isinstance(value, str):
        value = _of_text(value)
    if value is None or isinstance(value, Mapping | Sequence) and not value:
        return []
    if isinstance(value, Mapping):
        value = _of_classes(value) if set(value) <= set(LEGEND) else [value]
    elif not isinstance(value, Sequence):
        raise ConditionError(f"boxes {_shown(value)} are not understood: write a list of {BOX}")
    elif isinstance(value[0], str):  # one in the order of the text form
        value = [value]
    return [read_box(box) for box in value]


def _of_classes(boxes: Mapping) -> list[Any]:
    """Boxes of a mapping of classes, of one or of several each, with their class."""
    of_class = [(name, box) for name, given in boxes.items() for box in (given if _several(given) else [given])]
    return [{"class": name, **box} if isinstance(box, Mapping) else (name, box) for name, box in of_class]


def _several(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(box, list | tuple | Mapping) for box in given)


def _of_text(text: str) -> Any:
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return value_of(text)
        except ValueError as error:
            raise ConditionError(f"boxes {_shown(text)} are no JSON ({error}): write a list of {BOX}") from error
    parts = [re.sub(r"[,()\[\]]", " ", part).rsplit(maxsplit=4) for part in re.split(r"[;|\n]", text) if part.strip()]
    if any(len(part) != 5 for part in parts):
        raise ConditionError(f"boxes {_shown(text)} are not written as 'class x y w h; class x y w h'")
    return [(part[0].rstrip(": "), *part[1:]) for part in parts]


def value_of(text: str) -> Any:
    """The value of a text in JSON, or as Python writes it into tables (single quotes, tuples); ValueError if none."""
    try:
        return json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError(str(error)) from error


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The dict of these pairs; ValueError where a name comes twice, of which a dict keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice: give it once")
    return found


def class_of(name: str) -> str:
    """A class as `LEGEND` spells it, or as it is given: lung_lesion is Lung Lesion."""
    return KNOWN.get(_plain_key(name), name.strip())


def read_box(box: Any) -> dict:
    """One box as a dict of class, x, y, w and h, in fractions of the image.

    Args:
        box: a list `[class, x, y, w, h]`, or a dict of its class (or finding, label, category, name) and of x, y, w, h,
            of a centre (cx, cy, w, h), of corners (x1, y1, x2, y2 or xmin, ... or left, top, right, bottom, or Pascal
            VOC's bndbox), of `xywh`, of `xyxy`, or of `bbox`: COCO's [x, y, w, h], or as a `format` beside it says; in
            pixels with `image_width` and `image_height` (beside corners or a bbox also `width` and `height`). Case and
            `_` do not matter.

    Raises:
        ConditionError: for another form, or a box that is not inside the image.
    """
    if isinstance(box, list | tuple) and len(box) == 2 and isinstance(box[1], list | tuple):
        box = (box[0], *box[1])
    if isinstance(box, list | tuple) and len(box) == 5:
        box = dict(zip(("class", *"xywh"), box, strict=True))
    if not isinstance(box, Mapping):
        raise ConditionError(f"box {_shown(box)} is not understood: write {BOX}")
    given = _plain(box)
    name = next((given[key] for key in CLASS_KEYS if key in given), None)
    if not isinstance(name, str):
        number = "" if name is None else f", the number {name!r} names none"
        raise ConditionError(f"box {_shown(box)} has no class{number}: give one of {', '.join(LEGEND)}")
    try:
        forms = _forms(given)
        x, y, w, h = forms[0]
        if max(forms[0]) > 1:
            width, height = _image_size(given)
            x, y, w, h = x / width, y / height, w / width, h / height
    except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ConditionError(f"box {_shown(box)}: needs numbers x, y, w and h ({BOX})") from error
    if any(np.abs(np.subtract(forms[0], form)).max() > 1e-6 for form in forms[1:]):
        raise ConditionError(f"box {_shown(box)} says two places: give {BOX}, or its corners, not both")
    _check_inside(given, (x, y, w, h))
    return {"class": class_of(name), "x": x, "y": y, "w": w, "h": h}


def _plain(box: Mapping) -> dict[str, Any]:
    """A dict with plain keys and those values that are there (of a table, the others are null)."""
    given = {str(key): value for key, value in box.items() if value is not None}
    given = given | dict(given["bndbox"]) if isinstance(given.get("bndbox"), Mapping) else given
    plain = {_plain_key(key): value for key, value in given.items()}
    if len(plain) < len(given):
        raise ConditionError(f"box {_shown(box)} says something twice: give {BOX}")
    if "bbox" in plain and (said := [plain[key] for key in FORMAT_KEYS if key in plain]):
        kind = next((kind for kind, names in FORMATS.items() if _plain_key(str(said[0])) in names), None)
        if kind is None or len(said) > 1:
            raise ConditionError(f"box {_shown(box)}: its format is not known: give {BOX}")
        plain[kind] = plain.pop("bbox")
    return plain


def _shown(box: Any) -> str:
    return textwrap.shorten(str(box), 200, placeholder=" ...")


def _forms(box: Mapping) -> list[list[float]]:
    """x, y, w and h by each of the forms that a dict has."""
    sides, centres, corners = (
        [_four(box, keys) for keys in forms if all(key in box for key in keys)] for forms in (SIDES, CENTRES, CORNERS)
    )
    return [
        *sides,
        *([cx - w / 2, cy - h / 2, w, h] for cx, cy, w, h in centres),
        *([x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners),
    ]


def _four(box: Mapping, keys: tuple[str, ...]) -> list[float]:
    """The numbers of four keys, or of one that holds them all."""
    values = box[keys[0]] if len(keys) == 1 else [box[key] for key in keys]
    values = [float(value) for value in (re.findall(NUMBER, values) if isinstance(values, str) else values)]
    if len(values) != 4:
        raise ValueError("a box has four numbers")
    return values


def _image_size(box: Mapping) -> tuple[float, float]:
    """Width and height of the image that a box in pixels names, or 1 and 1; without x and y, `width` may be it."""
    named = [("imagewidth", "imageheight")] + [("width", "height")] * (not {"x", "left", "xcenter"} & set(box))
    sizes = [(float(box[w]), float(box[h])) for w, h in named if w in box and h in box]
    return sizes[0] if sizes else (1.0, 1.0)


def _check_inside(box: Mapping, place: tuple[float, float, float, float]) -> None:
    x, y, w, h = place
    if 0 <= x and 0 <= y and w > 0 and h > 0 and x + w <= 1 + 1e-6 and y + h <= 1 + 1e-6:
        return
    if max(place) > 1:
        how = "is in pixels: divide by the image's width and height, or add image_width and image_height"
    else:
        how = "w and h must be positive and the box inside the image (fractions 0 to 1); corners are x1, y1, x2, y2"
    raise ConditionError(f"box {_shown(dict(box))}: {how}")


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


def _outline(image: np.ndarray, box: dict) -> None:
    x, y, w, h = (box[key] for key in "xywh")
    size = len(image)
    left, top = (min(round(a * size), size - 1) for a in (x, y))  # a box shows at least one pixel
    right, bottom = (max(round((a + b) * size), c + 1) for a, b, c in ((x, w, left), (y, h, top)))
    line = max(1, size // 64)
    frame = np.ones((bottom - top, right - left), bool)
    frame[line:-line, line:-line] = False
    image[top:bottom, left:right][frame] = LEGEND[box["class"]]
