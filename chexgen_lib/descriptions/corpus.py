"""A curated corpus of any size: read, describe, check, split and write it in parts, in bounded memory.

    chexgen data build --out FOLDER nih chexpert=CheXpert-v1.0-small [--shard 0/4]

The sources are read one after the other, each once. Memory holds one source's table, the parts being written, and 8
bytes per image id read so far: it grows with the largest source, not with the corpus. Parts are written atomically by
`workers` processes and listed in a manifest with their digests. An interrupted run resumes: it reads the sources again,
but does not redo a part whose input, settings and bytes match the manifest.
"""

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path

import polars as pl

from chexgen_lib import __version__, records
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.records import RecordError
from chexgen_lib.sources.table import REJECTS
from chexgen_lib.storage import replacing

ROWS_PER_FILE = 25_000
Table = tuple[pl.DataFrame, pl.DataFrame]  # records and rejects, as `registry.load` returns them


def build(
    tables: Iterable[Table],
    folder: str | Path,
    shard: tuple[int, int] = (0, 1),
    rows_per_file: int = ROWS_PER_FILE,
    workers: int | None = None,
    seed: int = 0,
) -> dict:
    """Write Records, described, checked and split, as parquet parts.

    Args:
        tables: for example `map(registry.load, registry.ALWAYS)`; consumed one at a time. An image id that occurs in an
            earlier table is rejected as a duplicate, whatever the shard.
        folder: of the parts; all shards may share it.
        shard: (i, n) writes the i-th of n shares of the patients, 0 <= i < n.
        rows_per_file: rows of each part.
        workers: processes, by default one per core; 0 runs in this process.
        seed: of the splits, see `records.assign_splits`.

    Returns:
        The manifest: `parts` (file, rows, sha256, input), `rejects` (the same of the shard's rejects), `rows`,
            `complete`.

    Raises:
        RecordError: if a table is not valid.
    """
    share, shares = shard
    if not 0 <= share < shares:
        raise RecordError(f"shard {share}/{shares}: give i/n with 0 <= i < n")
    others = [p.name for p in Path(folder).glob("manifest-*.json") if not p.stem.endswith(f"-of-{shares:03d}")]
    if others:
        raise RecordError(f"{folder} holds shards of another number ({min(others)}): give another folder, or delete it")
    settings = {"library": __version__, "description": grammar.ORIGIN, "seed": seed}
    manifest = Manifest(Path(folder), f"{share:03d}-of-{shares:03d}", json.dumps(settings))
    rejects: list[pl.DataFrame] = []
    curate = partial(_curate, seed=seed)
    workers = os.cpu_count() if workers is None else workers
    pending: deque[tuple[dict, Future]] = deque()
    with _processes(workers) as pool:
        for chunk in _chunks(tables, shard, rows_per_file, rejects):
            part = manifest.next_part(chunk)
            if not manifest.has(part):
                pending.append((part, pool.submit(curate, chunk, manifest.folder / part["file"])))
            if len(pending) > workers:  # in memory: the chunks being processed, and one more
                manifest.add(*pending.popleft())
        while pending:
            manifest.add(*pending.popleft())
    return manifest.close(pl.concat(rejects) if rejects else pl.DataFrame(schema=REJECTS))


def stream(folder: str | Path) -> pl.LazyFrame:
    """All Records of a finished corpus, lazily, in the order of shards and parts: filter, select, `collect_batches`.

    Raises:
        RecordError: if a shard or a part is missing, or a part is not as long as the manifest says.
    """
    folder = Path(folder)
    manifests = [json.loads(path.read_text()) for path in sorted(folder.glob("manifest-*.json"))]
    wanted = {m["shard"].split("-of-")[1] for m in manifests}
    if len(wanted) != 1 or len(manifests) != int(*wanted) or not all(m["complete"] for m in manifests):
        have = [m["shard"] for m in manifests if m["complete"]]
        raise RecordError(f"{folder}: not a finished corpus, complete are {have or 'no shards'}; run the others")
    parts = [part for manifest in manifests for part in manifest["parts"]]
    for part in parts:
        path = folder / part["file"]
        if not path.is_file() or path.stat().st_size != part["bytes"]:
            raise RecordError(f"{path}: missing or cut off; build the corpus again, which redoes only this part")
    if not parts:
        return pl.LazyFrame(schema=records.SCHEMA)
    return pl.scan_parquet([folder / part["file"] for part in parts])


class Manifest:
    """The parts of one shard, on disk in `manifest-<shard>.json` after each part."""

    def __init__(self, folder: Path, shard: str, settings: str):
        self.folder, self.shard, self.settings = folder, shard, settings
        self.path = folder / f"manifest-{shard}.json"
        self.count, self.done = 0, []
        self.known = {p["file"]: p for p in json.loads(self.path.read_text())["parts"]} if self.path.is_file() else {}
        self._save(complete=False, parts=self.known)

    def next_part(self, chunk: pl.DataFrame) -> dict:
        """Name of the next part, and the digest of what it is made from."""
        digest = hashlib.sha256(self.settings.encode())
        digest.update(chunk.write_ipc(None, compat_level=pl.CompatLevel.oldest()).getbuffer())
        self.count += 1
        return {"file": f"part-{self.shard}-{self.count - 1:05d}.parquet", "input": digest.hexdigest()}

    def has(self, part: dict) -> bool:
        """Reuse a part of an earlier run if its input and its bytes are unchanged."""
        path, known = self.folder / part["file"], self.known.get(part["file"])
        if known is None or known["input"] != part["input"] or not path.is_file() or _sha256(path) != known["sha256"]:
            return False
        self.done.append(known["file"])
        return True

    def add(self, part: dict, rows: Future) -> None:
        """List a part as soon as it is written."""
        self.known[part["file"]] = part | {"rows": rows.result()} | self._size_and_digest(part["file"])
        self.done.append(part["file"])
        self._save(complete=False, parts=self.known)

    def close(self, rejects: pl.DataFrame) -> dict:
        """Write the rejects and mark the shard as complete."""
        name = f"rejects-{self.shard}.parquet"
        with replacing(self.folder / name) as partial_path:
            rejects.write_parquet(partial_path)
        rejected = {"file": name, "rows": rejects.height} | self._size_and_digest(name)
        return self._save(complete=True, parts=self.done, rejects=rejected)

    def _size_and_digest(self, name: str) -> dict:
        path = self.folder / name
        return {"bytes": path.stat().st_size, "sha256": _sha256(path)}

    def _save(self, complete: bool, parts: Iterable[str], **more) -> dict:
        listed = [self.known[file] for file in sorted(parts)]
        content = {"shard": self.shard, "complete": complete, "settings": json.loads(self.settings)}
        content |= {"rows": sum(part["rows"] for part in listed), "parts": listed, **more}
        with replacing(self.path) as partial_path:
            partial_path.write_text(json.dumps(content, indent=1))
        return content


def _chunks(tables: Iterable[Table], shard: tuple[int, int], rows: int, rejects: list) -> Iterator[pl.DataFrame]:
    """The shard's Records in pieces of `rows`; its share of the rejects is appended to `rejects`."""
    seen = pl.Series(dtype=pl.UInt64)  # a false hit needs two of n ids to share 64 bits: n^2 / 2^65, 7e-7 at 5 million
    for table, lost in tables:
        hashes = table["image_id"].hash()
        repeated = ~hashes.is_first_distinct() | hashes.is_in(seen.implode())
        seen = seen.append(hashes.filter(~repeated))
        again = table.filter(repeated).select(
            "source", "image_id", row=pl.lit(None, pl.String), reason=pl.lit("duplicate image id, in an earlier table")
        )
        lost = pl.concat([lost, again.select(REJECTS.keys())])
        rejects.append(lost.gather_every(shard[1], shard[0]))
        yield from _share(table.filter(~repeated), shard).iter_slices(rows)


def _share(table: pl.DataFrame, shard: tuple[int, int]) -> pl.DataFrame:
    """The rows of the patients that belong to shard (i, n)."""
    if shard[1] == 1:
        return table
    patients = table.select(pl.col("patient_id").unique(maintain_order=True))
    share = (records.positions(patients["patient_id"], "shard") * shard[1]).floor() == shard[0]
    return table.join(patients.filter(share), on="patient_id", how="semi", maintain_order="left")


def _curate(chunk: pl.DataFrame, path: Path, seed: int) -> int:
    """Describe, check, split and write one part; returns its number of rows."""
    table = grammar.describe(records.assign_splits(chunk, seed=seed))
    records.write(check(table), path)
    return table.height


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _processes(workers: int) -> Executor:
    # forking a process that runs polars' threads can deadlock, so processes are spawned
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) if workers else _Here()


class _Here(Executor):
    """Runs each call immediately, in this process."""

    def submit(self, function, /, *args, **kwargs) -> Future:
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future
