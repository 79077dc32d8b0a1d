"""Atomic writes of files and folders, tables in blocks, and digests of what all these are made from."""

import dataclasses
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

# What the system says of a disk that takes no more, and what libraries make of it without the word of the system.
REFUSED = re.compile(r"No space left on device|Disk quota exceeded|File too large|Read-only file system")
FULL = re.compile(
    rf"{REFUSED.pattern}|os error 28|disk is full|"
    r"\d+ requested and \d+ written|PytorchStreamWriter failed writing|unexpected pos"
)
ROWS = 25_000  # of a table that are in memory at a time
Table = TypeVar("Table", pl.DataFrame, pl.LazyFrame)
UNREAD = (".md", ".png", ".jpg", ".jpeg", ".pdf", ".gif")  # by programs, in the folder of a model
KEPT = "kept.json"  # in a folder that `kept.kept` filled: what it was made from


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder to; it replaces `path` when the block succeeds.

    Whatever interrupts the block, the next call finds what was there before. Several processes may write different
    paths. Where `path` is a link to a folder, what it leads to is replaced; a link to a file is replaced itself.

    Raises:
        OSError: naming `path`, where the disk is full or cannot be written to, whatever the writer says of it; or where
            another process writes it, too.
    """
    path = behind_link(Path(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    take_back(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    remove(partial)
    try:
        with naming_full_disk(path):
            yield partial
            move(partial, path)
    finally:
        remove(partial)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Whatever a writer says of a disk that is full or cannot be written to, within the block: an OSError says so."""
    try:
        yield
    except Exception as error:
        if "cannot be written" in str(error) or not FULL.search(str(error)):
            raise
        named = getattr(error, "filename", None)
        if isinstance(named, str) and not Path(named).absolute().is_relative_to(path.parent.absolute()):
            raise  # of another disk, as that of temporary files
        said = REFUSED.search(str(error))
        reason = said.group() if said else os.strerror(errno.ENOSPC)
        raise OSError(f"{path}: cannot be written ({reason}); make room, and start again") from error


def behind_link(path: Path) -> Path:
    """The folder that a link leads to, which somebody put on another disk, say; any other path as it is."""
    return path.resolve() if path.is_symlink() and path.is_dir() else path


def move(new: Path, path: Path) -> None:
    """Move a file or folder to `path` beside it. No reader finds half a folder.

    Raises:
        OSError: where another process has moved or removed `new`.
    """
    take_back(path)
    if not os.path.lexists(new):
        raise OSError(f"{path}: another process writes it, too; end one of the two, and start again")
    try:
        if path.is_dir():  # a folder can only be moved to where none is
            os.replace(path, put_aside(path))
        os.replace(new, path)
    finally:
        take_back(path)


def take_back(path: Path) -> None:
    """Move back what a `move` to `path` had put aside when it was interrupted, or remove it if that had succeeded."""
    old = put_aside(path)
    if old.exists() and not path.exists():
        os.replace(old, path)
    remove(old)


def put_aside(path: Path) -> Path:
    """Where the old file or folder lies while a `move` puts another in its place, or after one was interrupted."""
    return path.with_name(f".{path.name}.replaced")


def write_json(value: Any, path: str | Path) -> None:
    """Write `value` as indented JSON, atomically; equal values give equal bytes."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_csv(table: pl.DataFrame, path: str | Path) -> None:
    """Write a table as CSV, whole or not at all."""
    with replacing(path) as partial:
        table.write_csv(partial)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file by name, in memory, without executing code."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def blocks(table: pl.DataFrame | pl.LazyFrame, rows: int | None = None) -> Iterator[pl.DataFrame]:
    """A table in blocks of `rows` (None: `ROWS`), the last one shorter; of a lazy one a block at a time is in memory.

    An empty table is one empty block.
    Slices are read one by one: `LazyFrame.collect_batches` reads ahead, and soon holds all of a table.
    """
    table, rows = table.lazy(), rows or ROWS
    for first in range(0, max(height(table), 1), rows):
        yield table.slice(first, rows).collect().rechunk()


def mapped(frames: Iterable[pl.DataFrame], folder: Path | None = None) -> pl.DataFrame:
    """Frames of one schema below each other, in a file without a name whose pages the system may take back.

    It is written block by block and read where it lies, so that texts need not fit the memory; it goes with the frame.

    Args:
        folder: of that file; None takes the system's folder for such files, which may itself lie in memory.

    Raises:
        ValueError: for no frame, which has no columns (an empty one has).
        OSError: where the disk is full.
    """
    folder = Path(folder or tempfile.gettempdir())
    tables = (frame.to_arrow(compat_level=pl.CompatLevel.newest()) for frame in frames)
    if (first := next(tables, None)) is None:
        raise ValueError(f"{folder}: no frame to map")
    with naming_full_disk(folder / "temporary file"), tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_file(file, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
        file.flush()
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pl.from_arrow(pa.ipc.open_file(pa.py_buffer(pages)).read_all(), rechunk=False)


def taken(table: pl.DataFrame | pl.LazyFrame, rows: np.ndarray) -> pl.DataFrame:
    """Some rows [K] of a table, numbers in ascending order; of a lazy one a block at a time is in memory."""
    first, last = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    found = []
    for block in blocks(table.lazy().slice(first, last - first)):
        found.append(block[rows[(rows >= first) & (rows < first + len(block))] - first])
        first += len(block)
    return pl.concat(found)


def height(table: pl.DataFrame | pl.LazyFrame) -> int:
    """The number of a table's rows."""
    return table.lazy().select(pl.len()).collect().item()


def write_blocks(frames: Iterable[pl.DataFrame], path: str | Path) -> None:
    """Write frames of one schema below each other as one parquet file, atomically, one of them in memory at a time.

    Raises:
        ValueError: for no frame, which has no columns (an empty one has).
    """
    tables = (frame.to_arrow(compat_level=pl.CompatLevel.oldest()) for frame in frames)
    if (first := next(tables, None)) is None:
        raise ValueError(f"{path}: no frame to write")
    with replacing(path) as partial, pq.ParquetWriter(partial, first.schema, compression="zstd") as file:
        for table in chain([first], tables):
            file.write_table(table)


def files_below(folder: Path) -> list[Path]:
    """Files below a folder, also behind links to folders, which `rglob` passes by, sorted by their parts.

    A folder is read once, however many links lead to it or back to it: by its own path if it lies below, else by the
    first link to it.
    """
    return [folder / name for name in names_below(folder)]


def names_below(folder: Path, hidden: Callable[[str], bool] = lambda name: False) -> list[str]:
    """`files_below`, as paths relative to the folder, with slashes.

    hidden: whether a file or folder of that name is passed by.
    """
    names, todo, seen = [], deque([""]), set()
    while todo:
        prefix = todo.popleft()
        status = os.stat(folder / prefix)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder / prefix) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if hidden(entry.name):
                    continue
                if entry.is_dir():  # those behind links come last
                    (todo.append if entry.is_symlink() else todo.appendleft)(f"{prefix}{entry.name}/")
                elif entry.is_file():
                    names.append(prefix + entry.name)
    return sorted(names, key=lambda name: name.split("/"))


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def files_of_model(folder: Path) -> list[str]:
    """Paths in the folder of a model that programs read: not hidden ones, nor what only people read; sorted."""
    names = names_below(folder, lambda name: name.startswith("."))
    return sorted(name for name in names if not name.lower().endswith(UNREAD))


def digest(value: Any) -> str:
    """sha256 of a value: equal values give equal digests, in every process and on every machine.

    Args:
        value: JSON values, tuples, dataclasses (those fields that are compared), NumPy arrays and scalars, polars
            frames (lazy ones by what they give) and series, torch tensors and modules (class names and weights),
            `StoredImages`, and nested lists and dicts of these. A `Path` stands for the content of its file or folder;
            for a folder that `kept` filled, for the key of its inputs. Frames with nulls, which have no value to
            compare, are equal where they were made in one way, as when one file is read twice.

    Raises:
        TypeError: for any other value, since its identity would be a guess.
        FileNotFoundError: for a path where nothing is.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return _sha256(json.dumps(value))
    if isinstance(value, dict):
        return _sha256("dict", *(part for key in sorted(value, key=str) for part in (str(key), digest(value[key]))))
    if isinstance(value, list | tuple):
        return _sha256("list", *map(digest, value))
    if hasattr(value, "read_blocks"):  # `StoredImages`, which may be larger than the memory: as an array of theirs
        return _sha256(f"{value.dtype}{value.shape}", (value.nbytes, value.read_blocks()))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
        return _sha256(type(value).__qualname__, digest(fields))
    if isinstance(value, np.generic):
        return digest(value.item())
    if isinstance(value, np.ndarray):
        return _sha256(f"{value.dtype}{value.shape}", np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    if isinstance(value, pl.Series):
        return digest(value.to_frame())
    if isinstance(value, pl.LazyFrame):
        return _sha256("blocks", *map(digest, blocks(value)))
    if isinstance(value, pl.DataFrame):
        if len(value) > ROWS:
            return _sha256("frames", *map(digest, value.iter_slices(ROWS)))
        return _sha256("frame", value.write_ipc(None, compat_level=pl.CompatLevel.oldest()).getbuffer())
    if isinstance(value, Path):
        return _digest_of_path(value)
    return _digest_of_torch(value)


def _digest_of_path(path: Path) -> str:
    if path.is_dir():
        if (path / KEPT).is_file():
            return json.loads((path / KEPT).read_text())["key"]
        return _sha256(*(part for name in names_below(path) for part in (name, _digest_of_path(path / name))))
    about = path.stat()
    return _digest_of_file(path, about.st_size, about.st_mtime_ns)


@cache
def _digest_of_file(path: Path, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_torch(value: Any) -> str:
    """A tensor by its bytes; a module by the `repr` of its layers, its models' configurations and its state."""
    import torch  # a second, which most that use this module can spare

    if hasattr(value, "state_dict"):
        state = {name: tensor for name, tensor in value.state_dict().items() if hasattr(tensor, "untyped_storage")}
        return _sha256(repr(value), json.dumps(_configs_of(value), default=str, sort_keys=True), digest(state))
    if hasattr(value, "untyped_storage"):
        tensor = value.detach().cpu().contiguous()
        raw = tensor.reshape(-1).view(torch.uint8).numpy()
        return _sha256(f"{tensor.dtype}{tuple(tensor.shape)}", raw.data)
    raise TypeError(f"a {type(value).__name__} has no digest: give what it was made from")


def _configs_of(module: Any) -> list[dict[str, Any]]:
    """The configurations of diffusers' and transformers' models in a module, without where they were loaded from."""
    held = {id(config): config for part in module.modules() if (config := getattr(part, "config", None))}
    plain = (config.to_dict() if hasattr(config, "to_dict") else dict(config) for config in held.values())
    return [own_settings(config) for config in plain]


def own_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of diffusers or transformers without what they add: their version, where it was loaded from."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _sha256(*parts: Any) -> str:
    """sha256 of texts and bytes, or of a number of bytes and the blocks that they come in; their borders count."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        size, blocks = data if isinstance(data, tuple) else (memoryview(data).nbytes, [data])
        total.update(f"{size}:".encode())
        for block in blocks:
            total.update(block)
    return total.hexdigest()


def hash_key(text: str) -> str:
    """sha256 of a text in hexadecimal digits: sorting ids by it shuffles them, the same way on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()


def seed_of(text: str, bytes_: int = 8) -> int:
    """A seed of `bytes_` bytes for a random generator; it depends on `text` only."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:bytes_], "little")
