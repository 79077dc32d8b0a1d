"""Curation from 100,000 to 5 million rows: seconds, rows per second and peak memory, beside a row-by-row loop.

    python -m benchmarks.curation_scale [--rows 100000 959206 5000000] [--loop-rows 1000]

The rows are those of the shipped NIH, CheXpert and PadChest tables, in their proportions, repeated with fresh image,
study and patient ids; each repetition is read from its CSV again. A run reads, describes, checks, splits and writes
(`corpus.build`) in a process of its own, with one worker per core. The loop is that of curation_speed.py over rows
spread evenly over the tables; its cost per row does not depend on their number. Its records, descriptions and verdicts
must be those of the corpus, or the benchmark stops; its time leaves out reading, splitting and writing. `peak_gib` adds
the peak of the reading process and, for each worker, that of the largest: an upper bound. Writes curation_scale.csv
beside this file.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import curation_speed
from chexgen_lib.descriptions import corpus
from chexgen_lib.sources import registry
from chexgen_lib.sources.table import read_table, shipped

TOTAL = {"nih": 112_120, "chexpert": 223_414, "padchest": 160_861}  # rows of the shipped tables
SIZES = (100_000, 959_206, 5_000_000)


def main() -> None:
    """Measure each size in a child process, then the loop, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="sizes of the corpus")
    parser.add_argument("--loop-rows", type=int, default=1000, help="rows of each source for the loop")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured(arguments.rows[0], arguments.child)))
        return
    looped = {source: curation_speed.by_loop(source, arguments.loop_rows) for source in TOTAL}
    loop_s = sum(TOTAL[source] * per_row for source, (per_row, _) in looped.items()) / sum(TOTAL.values())
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.curation_scale", "--rows", str(rows), "--child", folder]
            result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            if rows >= sum(TOTAL.values()):  # a smaller corpus has not all the rows of the loop
                compare(pl.concat(df for _, df in looped.values()), Path(folder) / "corpus")
        result |= {"loop_rows_per_s": round(1 / loop_s), "speedup": round(result["rows_per_s"] * loop_s, 1)}
        results.append(result | {"cores": os.cpu_count()})
        print(result, flush=True)
    pl.DataFrame(results).write_csv(Path(__file__).with_suffix(".csv"))


def measured(rows: int, folder: Path) -> dict:
    """Build a corpus of `rows` source rows and say what it took."""
    plan = repetitions(rows, folder)
    cpu_s, started = cpu_seconds(), time.perf_counter()
    manifest = corpus.build(fresh(plan), folder / "corpus")
    seconds = time.perf_counter() - started
    if (accounted := manifest["rows"] + manifest["rejects"]["rows"]) != rows:
        raise SystemExit(f"{accounted} of {rows} rows are accounted for")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += os.cpu_count() * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    result = {"rows": rows, "records": manifest["rows"], "seconds": round(seconds, 1)}
    cpu_s = cpu_seconds() - cpu_s
    return result | {"rows_per_s": round(rows / seconds), "cpu_s": round(cpu_s, 1), "peak_gib": round(peak / 2**20, 2)}


def repetitions(rows: int, folder: Path) -> list[tuple[str, Path | None]]:
    """(source, table) to read for a corpus of `rows`: whole shipped tables, then one part of each."""
    whole, left = divmod(rows, sum(TOTAL.values()))
    share = {source: left * n // sum(TOTAL.values()) for source, n in TOTAL.items()}
    share["chexpert"] += left - sum(share.values())
    return [(source, None) for _ in range(whole) for source in TOTAL] + [
        (source, part(source, n, folder)) for source, n in share.items() if n
    ]


def part(source: str, n: int, folder: Path) -> Path:
    """`n` rows of a shipped table, spread evenly over it, as a table of the same format."""
    module = registry.reader(source)
    table = read_table(shipped(module.TABLE), module.COLUMNS).select(module.COLUMNS)
    path = folder / f"{source}.csv.gz"
    path.write_bytes(gzip.compress(table[np.linspace(0, table.height - 1, n).astype(int)].write_csv().encode()))
    return path


def fresh(plan: list[tuple[str, Path | None]]) -> Iterator[corpus.Table]:
    """The tables of the plan; from the second time a source is read its ids get the repetition's number."""
    for i, (source, path) in enumerate(plan):
        table, rejects = registry.load(source, path)
        if repetition := i // len(TOTAL):
            ids = pl.col("image_id", "study_id", "patient_id")
            table = table.with_columns(ids + f"-{repetition}")
        yield table, rejects


def compare(looped: pl.DataFrame, folder: Path) -> None:
    """Stop unless the corpus holds every record of the loop, the same in all that both make."""
    ours = corpus.stream(folder).select(curation_speed.COMPARED)
    ours = ours.join(looped.lazy().select("image_id"), on="image_id", how="semi").collect()
    if not ours.sort("image_id").equals(looped.sort("image_id")):
        raise SystemExit("the loop and the library differ; a speed is not comparable")


def cpu_seconds() -> float:
    """Processor time of this process and of its workers that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
