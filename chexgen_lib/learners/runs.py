"""Many small trainings: side by side, each kept when it is done, none done twice."""

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from chexgen_lib.code_digest import needed
from chexgen_lib.storage import replacing

Arrays = dict[str, np.ndarray]


def run_all(
    function: Callable[..., Arrays],
    data: Arrays,
    jobs: dict[str, dict[str, Any]],
    folder: str | Path,
    workers: int = 2,
) -> dict[str, Arrays]:
    """``{name: function(**data, **jobs[name])}``; finished ones are read from `folder`.

    A small network does not keep two cores busy, so each of `workers` processes trains one on a single thread; the
    results do not depend on how many there are. A run that was stopped goes on with what is missing. What has other
    data, settings or code (the function's module and all that it imports of this library) than a finished one is done
    anew, and the finished one that no job wants any more is removed.

    Args:
        function: importable by name; returns arrays. One that takes `folder` gets a folder of its own, for what must
            outlive a stop; it is there again when the run goes on, and removed when its result is kept.
        data: what all jobs share.
        jobs: name -> settings of its own, as JSON has them, and arrays.
        workers: processes; 0: one job after the other in this process, with all its threads (a GPU's case).

    Raises:
        ValueError: if a result holds a value that is not finite; the job is named and its result not kept.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shared = _digest([_code(function), function.__qualname__, data])
    paths = {name: folder / f"{_digest([shared, settings])[:16]}.npz" for name, settings in jobs.items()}
    for path in set(folder.glob("*.npz")) - set(paths.values()):
        path.unlink()
    for path in set(folder.glob("*.unfinished")) - {path.with_suffix(".unfinished") for path in paths.values()}:
        shutil.rmtree(path)
    todo = [name for name, path in paths.items() if not path.exists()]
    calls = [(function, data, jobs[name], paths[name], name) for name in todo]
    if workers:
        os.environ["TQDM_DISABLE"] = "1"  # read by the processes when they start: one bar is enough
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", mmap_mode="r")
        done = parallel(delayed(_run_on_one_thread)(*call) for call in calls)
    else:
        done = (_run(*call) for call in calls)
    for _ in tqdm(done, desc=function.__name__, initial=len(jobs) - len(todo), total=len(jobs), unit="run"):
        pass
    return {name: dict(np.load(path, allow_pickle=False)) for name, path in paths.items()}


def _run_on_one_thread(*call) -> None:
    torch.set_num_threads(1)
    _run(*call)


def _run(function: Callable[..., Arrays], data: Arrays, settings: dict, path: Path, name: str) -> None:
    own = path.with_suffix(".unfinished")
    if "folder" in inspect.signature(function).parameters:
        settings = settings | {"folder": own}
    result = function(**data, **settings)
    for key, values in result.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ValueError(f"run {name!r}: {key} holds values that are not finite; lower the learning rate")
    with replacing(path) as partial:
        np.savez(partial, **result)
    if own.exists():
        shutil.rmtree(own)


def _code(function: Callable) -> str:
    """The function's module and every file of the library that it imports."""
    own = Path(inspect.getfile(function)).read_text()
    return _digest([own, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in needed(own))])


def _digest(value: Any) -> str:
    """sha256 of nested lists and dicts of arrays and JSON values."""
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).reshape(-1).data)
        return digest.hexdigest()
    if isinstance(value, dict):
        value = [[key, _digest(value[key])] for key in sorted(value)]
    elif isinstance(value, list | tuple):
        value = [_digest(item) for item in value]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
