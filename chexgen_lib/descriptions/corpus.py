"""A curated corpus of any size: read, describe, check, split and write it in parts, in bounded memory.

    chexgen data build --out FOLDER nih chexpert=CheXpert-v1.0-small [--shard 0/4]

The sources are read one after the other, each once, into a hidden folder beside the parts: who is tested on anywhere is
known only when all are read. Memory holds one source's table, the parts being written, a row for each person, and 8
bytes per image id: it grows with the largest source and the people, not with the records. Parts are written atomically
by `workers` processes and listed in a manifest with their digests. An interrupted run resumes: it reads the sources
again, but does not redo a part whose input, code, settings and bytes match the manifest.
"""

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

import polars as pl

from chexgen_lib import __version__, code_digest, records
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.records import RecordError
from chexgen_lib.sources.table import REJECTS
from chexgen_lib.storage import naming_full_disk, remove, replacing

ROWS_PER_FILE = 25_000
OLDEST = pl.CompatLevel.oldest()  # of the bytes that digests are of
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
        shard: (i, n) writes the i-th of n shares of the people, 0 <= i < n; give every shard the same tables.
        rows_per_file: rows of each part.
        workers: processes, by default one per core; 0 runs in this process.
        seed: of the splits, see `records.assign_splits`.

    Returns:
        The manifest: `parts` (file, rows, sha256, input), `rejects` (the same of the shard's rejects), `rows`,
            `complete`.

    Raises:
        RecordError: if a table is not valid, or a person is in several splits.
    """
    share, shares = shard
    if not 0 <= share < shares:
        raise RecordError(f"shard {share}/{shares}: give i/n with 0 <= i < n")
    others = [p.name for p in Path(folder).glob("manifest-*.json") if not p.stem.endswith(f"-of-{shares:03d}")]
    if others:
        raise RecordError(f"{folder} holds shards of another number ({min(others)}): give another folder, or delete it")
    code = code_digest.of(__file__)  # what describes and checks; a reader's change shows in what it reads
    settings = {"library": __version__, "code": code, "description": grammar.ORIGIN, "seed": seed}
    manifest = Manifest(Path(folder), f"{share:03d}-of-{shares:03d}", json.dumps(settings))
    scratch = manifest.folder / f".tables-{manifest.shard}"
    try:
        with naming_full_disk(manifest.folder):
            splits, rejects = _read(tables, scratch, shard, seed)
            _write_parts(manifest, _chunks(scratch, splits, rows_per_file), workers)
    finally:
        remove(scratch)
    everybody = splits.sort("person").write_ipc(None, compat_level=OLDEST).getbuffer()
    return manifest.close(rejects, hashlib.sha256(everybody).hexdigest())


def stream(folder: str | Path) -> pl.LazyFrame:
    """All Records of a finished corpus, lazily, in the order of shards and parts: filter, select, `collect_batches`.

    Raises:
        RecordError: if a shard or a part is missing, shards are of different code, settings or datasets, or a part is
            not as long as the manifest says.
    """
    folder = Path(folder)
    manifests = [json.loads(path.read_text()) for path in sorted(folder.glob("manifest-*.json"))]
    wanted = {m["shard"].split("-of-")[1] for m in manifests}
    if len(wanted) != 1 or len(manifests) != int(*wanted) or not all(m["complete"] for m in manifests):
        have = [m["shard"] for m in manifests if m["complete"]]
        raise RecordError(f"{folder}: not a finished corpus, complete are {have or 'no shards'}; run the others")
    other = [m["shard"] for m in manifests if m["settings"] != manifests[0]["settings"]]
    if other:
        raise RecordError(f"{folder}: shard {other[0]} was made by other code or settings; run all shards again")
    if other := [m["shard"] for m in manifests if m.get("people") != manifests[0].get("people")]:
        raise RecordError(f"{folder}: shard {other[0]} was made from other datasets; run all shards with the same ones")
    parts = [part for manifest in manifests for part in manifest["parts"]]
    for part in parts:
        path = folder / part["file"]
        if not path.is_file() or path.stat().st_size != part["bytes"]:
            raise RecordError(f"{path}: missing or cut off; build the corpus again, which redoes only this part")
    if not parts:
        return pl.LazyFrame(schema=records.SCHEMA)
    return pl.scan_parquet([folder / part["file"] for part in parts], glob=False)


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
        digest.update(chunk.write_ipc(None, compat_level=OLDEST).getbuffer())
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

    def close(self, rejects: pl.DataFrame, people: str) -> dict:
        """Write the rejects and mark the shard as complete, if nobody is in several splits.

        people: a digest of everybody in the tables, also of those in other shards.
        """
        parts = [pl.read_parquet(self.folder / file, columns=["patient_id", "split"], glob=False) for file in self.done]
        if torn := records.in_several_splits(pl.concat(parts)) if parts else []:
            raise RecordError(
                f"{self.folder}: {len(torn)} people are in several splits, first {torn[0]!r}; delete it and build again"
            )
        name = f"rejects-{self.shard}.parquet"
        with replacing(self.folder / name) as partial_path:
            rejects.write_parquet(partial_path)
        # Of a build of more records, or begun and killed.
        others = (path for dot in ("", ".") for path in self.folder.glob(f"{dot}part-{self.shard}-*.parquet"))
        for path in (path for path in others if path.name not in self.done):
            remove(path)
        rejected = {"file": name, "rows": rejects.height} | self._size_and_digest(name)
        return self._save(complete=True, parts=self.done, rejects=rejected, people=people)

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


def _read(
    tables: Iterable[Table], scratch: Path, shard: tuple[int, int], seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write the shard's Records to `scratch`, a file a table; person and split of everybody, the shard's rejects."""
    remove(scratch)  # of a run that was killed
    scratch.mkdir(parents=True)
    seen = pl.Series(dtype=pl.UInt64)  # a false hit needs two of n ids to share 64 bits: n^2 / 2^65, 7e-7 at 5 million
    people = [pl.DataFrame(schema={name: records.SCHEMA[name] for name in ("patient_id", "split", "sets")})]
    rejects = [pl.DataFrame(schema=REJECTS)]
    for i, (table, lost) in enumerate(tables):
        hashes = table["image_id"].hash()
        repeated = ~hashes.is_first_distinct() | hashes.is_in(seen.implode())
        seen = seen.append(hashes.filter(~repeated))
        again = table.filter(repeated).select(
            "source", "image_id", row=pl.lit(None, pl.String), reason=pl.lit("duplicate image id, in an earlier table")
        )
        lost = pl.concat([lost, again.select(REJECTS.keys())])
        rejects.append(lost.gather_every(shard[1], shard[0]))
        table = records.conform(table.filter(~repeated))
        sets = pl.col("sets").explode().drop_nulls()
        people.append(table.group_by("patient_id", "split", maintain_order=True).agg(sets))
        _share(table, shard).write_parquet(scratch / f"{i:05d}.parquet")
    everybody = records.assign_splits(pl.concat(people), seed=seed)
    return everybody.select("split", person=records.person()).unique("person"), pl.concat(rejects)


def _share(table: pl.DataFrame, shard: tuple[int, int]) -> pl.DataFrame:
    """The rows of the people who belong to shard (i, n)."""
    if shard[1] == 1:
        return table
    table = table.with_columns(person=records.person())
    people = table.select(pl.col("person").unique(maintain_order=True))
    share = (records.positions(people["person"], "shard") * shard[1]).floor() == shard[0]
    return table.join(people.filter(share), on="person", how="semi", maintain_order="left").drop("person")


def _chunks(scratch: Path, splits: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    """The Records in `scratch` with the split of their person, in pieces of `rows`."""
    for path in sorted(scratch.iterdir()):
        table = pl.read_parquet(path, glob=False).rechunk().drop("split").with_columns(person=records.person())
        table = table.join(splits, on="person", how="left", maintain_order="left")
        yield from table.select(records.SCHEMA.keys()).iter_slices(rows)


def _write_parts(manifest: Manifest, chunks: Iterable[pl.DataFrame], workers: int | None) -> None:
    """Write the parts that the manifest does not have yet, in `workers` processes."""
    workers = os.cpu_count() if workers is None else workers
    pending: deque[tuple[dict, Future]] = deque()
    with _processes(workers) as pool:
        for chunk in chunks:
            part = manifest.next_part(chunk)
            if not manifest.has(part):
                pending.append((part, pool.submit(_curate, chunk, manifest.folder / part["file"])))
            if len(pending) > workers:  # in memory: the chunks being processed, and one more
                manifest.add(*pending.popleft())
        while pending:
            manifest.add(*pending.popleft())


def _curate(chunk: pl.DataFrame, path: Path) -> int:
    """Describe, check and write one part; returns its number of rows."""
    table = grammar.describe(chunk)
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
