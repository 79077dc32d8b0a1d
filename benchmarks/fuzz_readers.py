"""Strange and damaged inputs over all readers: each must be read or refused with a sentence, in 5 s and 2 GiB.

    python -m benchmarks.fuzz_readers [--inputs 20000] [--seed 0] [--only NAME ...]

Writes fuzz_readers.csv beside this file after each reader: reader, inputs, refused, slowest (s), seconds, fault (the
smallest input's error), version (the commit). Rows of readers that were left out stay, so that a run that was stopped
goes on with --only. Fails if there is a fault. The inputs are those of `tests/fuzzing.py`.
"""

import argparse
import resource
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import polars as pl
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzzing import READERS, Files, Reader, attempt

TABLE = Path(__file__).with_suffix(".csv")
LONGEST, MOST_MEMORY = 5, 2 * 1024**3  # seconds, bytes


class TooLongError(Exception):
    pass


def stop(*_) -> None:
    raise TooLongError(f"longer than {LONGEST} s")


def fuzz(name: str, reader: Reader, inputs: int, start: int) -> dict:
    """Counts, times and the first fault of one reader."""
    seen, times = Counter(), [0.0]

    def read(folder: Path) -> None:
        begun = perf_counter()
        signal.setitimer(signal.ITIMER_PROF, LONGEST)  # its own time, whatever else the machine does
        try:
            reader.read(folder)
        except reader.refuses:
            seen["refused"] += 1
            raise
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            times.append(perf_counter() - begun)

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @given(reader.inputs)
    def run(files: Files) -> None:
        seen["inputs"] += 1
        attempt(replace(reader, read=read), files)

    fault, begun = "", perf_counter()
    try:
        run()
    except Exception as error:  # whatever the reader let through
        fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(f"{name}: {fault}\n{getattr(error, '__notes__', '')}", file=sys.stderr)
    about = {"reader": name, "inputs": seen["inputs"], "refused": seen["refused"]}
    return about | {"slowest": max(times), "seconds": perf_counter() - begun, "fault": fault}


def version() -> str:
    """The commit that is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=TABLE.parent, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="readers whose name holds one of these")
    arguments = parser.parse_args()
    signal.signal(signal.SIGPROF, stop)
    only = arguments.only or [""]
    chosen = {name: reader for name, reader in READERS.items() if any(part in name for part in only)}
    shares = sum(reader.share for reader in READERS.values())
    table = pl.read_csv(TABLE).with_columns(pl.col("fault", "version").cast(pl.String).fill_null(""))
    rows = {row["reader"]: row for row in table.to_dicts() if row["reader"] in READERS}
    for name, reader in chosen.items():
        row = fuzz(name, reader, -(-arguments.inputs * reader.share // shares), arguments.seed)
        rows[name] = row | {"version": version()}
        print(rows[name], flush=True)
        table = pl.DataFrame([rows[name] for name in READERS if name in rows])
        table.write_csv(TABLE, float_precision=3)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{table['inputs'].sum():,} inputs, {(table['fault'] != '').sum()} faults, {peak / 1024**3:.2f} GiB")
    sys.exit((table["fault"] != "").any() or peak > MOST_MEMORY)


if __name__ == "__main__":
    main()
