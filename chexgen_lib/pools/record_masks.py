"""The masks and boxes of Records on the square images of a cohort: drawn when they are read, never stored.

A Record's `mask` is text (`sources.masks`), in the frame of the file; a cohort's images are the largest centred square
of it (`images.resize`), and so are its masks and boxes here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import resize_mask
from chexgen_lib.sources import masks
from chexgen_lib.sources.vindr_ribcxr import RIBS

PART_OF = dict.fromkeys(RIBS, "ribs")  # classes that a Record keeps apart


@dataclass(frozen=True)
class RecordMasks:
    """Masks of N Records, indexed as bool [N, C, size, size] by rows, or by a row and a channel.

    Attributes:
        texts: `mask` of each Record; None: nothing is marked.
        classes: of the channels.
        size: side in pixels.
    """

    texts: tuple[str | None, ...]
    classes: tuple[str, ...]
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.texts), len(self.classes), self.size, self.size)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(bool)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, at: int | np.ndarray | tuple[int, int]) -> np.ndarray:
        if isinstance(at, tuple):
            row, channel = at
            return self._drawn(self.texts[row], self.classes[channel])
        if np.ndim(at):
            return np.stack([self[int(row)] for row in at])
        return np.stack([self._drawn(self.texts[at], name) for name in self.classes])

    def take(self, rows: np.ndarray, axis: int = 0) -> "RecordMasks":
        """The masks of some Records, as `np.ndarray.take` along the first axis gives an array's; still not drawn."""
        return RecordMasks(tuple(self.texts[int(row)] for row in rows), self.classes, self.size)

    def _drawn(self, text: str | None, name: str) -> np.ndarray:
        parts = [part for part in ([] if text is None else masks.classes(text)) if PART_OF.get(part, part) == name]
        if not parts:
            return np.zeros((self.size, self.size), bool)
        return resize_mask(masks.read(text, *parts), self.size)


def classes_of(texts: Iterable[str | None], boxes: Iterable[list[dict]]) -> set[str]:
    """The classes that some Records' masks and boxes have."""
    marked = {PART_OF.get(name, name) for text in texts if text is not None for name in masks.classes(text)}
    return marked | {box["finding"] for own in boxes for box in own}


def boxes_of(table: pl.DataFrame) -> tuple[list[dict], ...]:
    """The boxes of Records on the square images: class, x, y, w, h, cut off at the edge; those outside are left out.

    Args:
        table: image_id, mask (which gives the frame of the file) and boxes.

    Raises:
        CohortError: for boxes without a mask.
    """
    return tuple(_squared(*row) for row in table.select("image_id", "mask", "boxes").iter_rows())


def _squared(image_id: str, mask: str | None, boxes: list[dict]) -> list[dict]:
    if boxes and mask is None:
        raise CohortError(f"{image_id}: boxes without a mask, which alone gives the frame of its image")
    squared = []
    for box in boxes:
        sides = np.array(masks.frame(mask)[::-1])  # width, height
        low = np.array([box["x"], box["y"]]) * sides
        high = low + np.array([box["w"], box["h"]]) * sides
        corner, side = (sides - sides.min()) // 2, sides.min()
        low, high = (np.clip((edge - corner) / side, 0, 1) for edge in (low, high))
        if (high > low).all():
            place = dict(zip("xywh", (*low.tolist(), *(high - low).tolist()), strict=True))
            squared.append({"class": box["finding"], **place})
    return squared
