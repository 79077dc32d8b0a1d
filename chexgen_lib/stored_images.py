"""Images that stay on the disk until some of them are asked for, so that a training set may be larger than the memory.

What stands in for an array here is indexed as one; `np.asarray` reads it. Files are memory-mapped .npy files, as
`cohort.build` and the pools write them: any row in any order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chexgen_lib.images import from_uint8, reduced

BLOCK = 1024  # images that are read together where all are


@dataclass(frozen=True, eq=False)
class StoredImages(np.lib.mixins.NDArrayOperatorsMixin):
    """Images [N, size, size], rows of several arrays. To compute with them reads them.

    Attributes:
        parts: [n, H, W] each, memory-mapped or not, of one type; uint8 where `size` is not theirs.
        rows: int64 [N], of the parts one after the other.
        size: side in pixels that images are reduced to when they are read (`images.reduced`).
    """

    parts: tuple[np.ndarray, ...]
    rows: np.ndarray
    size: int

    @classmethod
    def of(cls, images: "np.ndarray | StoredImages | Path", size: int | None = None) -> "StoredImages":
        """An array [N, H, W], or the file of one, at `size` pixels (None: as they are)."""
        if isinstance(images, cls):
            return cls(images.parts, images.rows, size or images.size)
        if isinstance(images, Path):
            images = np.load(images, mmap_mode="r", allow_pickle=False)
        return cls((images,), np.arange(len(images)), size or images.shape[-1])

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.rows), self.size, self.size)

    @property
    def ndim(self) -> int:
        return 3

    @property
    def dtype(self) -> np.dtype:
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        return len(self.rows) * self.size**2 * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int | slice | Sequence[int] | np.ndarray | tuple) -> "np.ndarray | StoredImages":
        """Some images, not yet read: by a slice, row numbers or a bool mask; else what an array has there."""
        if isinstance(at, tuple):
            first, *rest = at
            if first is None or first is Ellipsis:
                return np.asarray(self)[at]
            some = np.asarray(self[first])
            return some[(*[slice(None)] * (some.ndim - 2), *rest)]
        chosen = self.rows[at]
        if np.ndim(chosen) == 1:
            return StoredImages(self.parts, chosen, self.size)
        return self._read(np.ravel(chosen)).reshape(*np.shape(chosen), self.size, self.size)

    def followed_by(self, other: "StoredImages") -> "StoredImages":
        """These images, then the other's. ValueError where their sizes differ."""
        if self.size != other.size:
            raise ValueError(f"images of {self.size} and of {other.size} px cannot be in one set: reduce them first")
        rows = np.concatenate([self.rows, other.rows + sum(map(len, self.parts))])
        return StoredImages((*self.parts, *other.parts), rows, self.size)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        read = self._read(self.rows)
        return read if dtype is None else read.astype(dtype, copy=False)

    def __array_ufunc__(self, function: np.ufunc, method: str, *values: Any, **options: Any) -> Any:
        read = (np.asarray(value) if isinstance(value, StoredImages) else value for value in values)
        return getattr(function, method)(*read, **options)

    def read_blocks(self) -> Iterator[np.ndarray]:
        """All images in order, `BLOCK` at a time."""
        for start in range(0, len(self), BLOCK):
            yield self._read(self.rows[start : start + BLOCK])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """[K, size, size]."""
        images, first = np.empty((len(rows), self.size, self.size), self.dtype), 0
        for part in self.parts:
            here = np.flatnonzero((rows >= first) & (rows < first + len(part)))
            for start in range(0, len(here), BLOCK):
                some = here[start : start + BLOCK]
                images[some] = reduced(part[rows[some] - first], self.size)
            first += len(part)
        return images


def float_blocks(images: "np.ndarray | StoredImages") -> Iterator[np.ndarray]:
    """All images, float32 [K, H, W] in [0, 1], `BLOCK` at a time: stored ones, or an array of such."""
    if isinstance(images, StoredImages):
        yield from map(from_uint8, images.read_blocks())
    else:
        yield from (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))


def unread(images: "np.ndarray | StoredImages") -> "np.ndarray | StoredImages":
    """Stored images as they are, anything else as an array."""
    return images if isinstance(images, StoredImages) else np.asarray(images)
