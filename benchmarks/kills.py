"""Commands that are killed at random moments, or whose disk is full: what they leave, and whether they end the same.

    python -m benchmarks.kills [--kills 20] [--only "data build"] [--seed 0]

Each command runs once undisturbed. Then it is started again and again in another folder and killed (SIGKILL, with its
processes) at moments that are uniform over the time that it took. After every fourth kill, and after the last, it may
finish; whenever it has ended, its results are compared and the folder is emptied. Then its folder is a tmpfs with half
the room that the results need (needs root): the command must say so in one line, and finish once there is room. Writes
kills.csv beside this file at every end, so that it may be interrupted: command, trial, kills, at_work (kills that found
results begun), ends (results that were compared), equal (all of them have the bytes of the undisturbed run, and there
is no other file), says, version (the commit). Rows of commands that were left out stay. Fails if a result is not equal.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch

from benchmarks import scale
from chexgen_lib.storage import replacing
from chexgen_lib.training.latent_cache import LatentCache

REPOSITORY = Path(__file__).parents[1]
TABLE = Path(__file__).with_suffix(".csv")
PROMPTS = ["Clear lungs.", "Small left pleural effusion.", "Cardiomegaly.", "Right upper lobe consolidation."]
TIMES = (".clock.json",)  # what is measured by the clock
KILLS_BEFORE_AN_END = 4  # of one folder
CLI = [sys.executable, "-m", "chexgen_lib.cli"]


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        words: what is run, with the folder of inputs and the one of results in place of INPUTS and OUT.
        inputs: called with a folder, writes what the command reads.
        prepare: called with the folder of results before the first start.
        results: below that folder, a pattern of the files that must be equal.
    """

    words: list[str]
    inputs: Callable[[Path], None] = lambda folder: None
    prepare: Callable[[Path], None] = lambda folder: None
    results: tuple[str, ...] = ("**/*",)


def write_prompts(folder: Path) -> None:
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))


def write_pairs(folder: Path) -> None:
    """A latent cache of random pairs, and the settings of a training that saves itself every 50 of 1000 steps."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(64, 4, 8, 8, generator=generator).half()
    states = torch.randn(128, 16, generator=generator).half()
    LatentCache(mean, torch.full_like(mean, 0.1), states, torch.arange(0, 129, 2)).save(folder / "pairs")
    training = dict(steps=1000, batch_size=8, precision="fp32", checkpoint_every=50)
    (folder / "settings.json").write_text(json.dumps({"model": "ci", "text_tokens": 8, "training": training}))


def select_records(folder: Path) -> None:
    """What `scale.cohort` reads: 20,000 records, the selected ones of them, and their images."""
    scale.prepare(folder, 2, 20_000)
    scale.selection(folder, 2)


def clone(folder: Path) -> None:
    """The commit at the start with the environment that runs the benchmark; what is not committed is not tested."""
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-tags", REPOSITORY, folder], check=True)
    subprocess.run(["git", "checkout", "--quiet", version()], cwd=folder, check=True)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / ".venv").symlink_to(sys.prefix)


COMMANDS = {
    "sample": Command(
        [*CLI, "sample", "INPUTS/prompts.txt", "--steps", "4", "--images-per-prompt", "3", "--batch-size", "2"]
        + ["--out", "OUT"],
        write_prompts,
    ),
    "train": Command(
        [*CLI, "train", "INPUTS/pairs", "--settings", "INPUTS/settings.json", "--out", "OUT"], write_pairs
    ),
    "images and latents": Command(
        [sys.executable, "-m", "benchmarks.scale", "--cohort-of", "INPUTS", "--folder", "OUT"], select_records
    ),
    "data build": Command([*CLI, "data", "build", "openi", "--out", "OUT"]),
    "make repro": Command(
        ["make", "-C", "OUT", "-o", ".venv/.complete", "repro", "PROFILE=ci", "STAGE=01_curation"],
        prepare=clone,
        results=("runs/ci/curation/**/*", "runs/ci/figures/**/*", "runs/stripped/*", "params.yaml", "dvc.lock"),
    ),
}


def start(command: Command, inputs: Path, out: Path) -> subprocess.Popen:
    """The command as a session of its own, so that its processes are killed with it."""
    words = [word.replace("INPUTS", str(inputs)).replace("OUT", str(out)) for word in command.words]
    path = str(out if command.prepare is clone else REPOSITORY)
    options = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    return subprocess.Popen(words, cwd=inputs, env=os.environ | {"PYTHONPATH": path}, **options)


def finish(command: Command, inputs: Path, out: Path) -> tuple[int, str]:
    process = start(command, inputs, out)
    _, said = process.communicate()
    return process.returncode, said


def contents(command: Command, out: Path) -> dict[str, str]:
    """Digest of every file of the results; of those that hold how long it took only that they are there."""
    files = sorted({path for pattern in command.results for path in out.glob(pattern) if path.is_file()})
    return {
        path.relative_to(out).as_posix(): "" if path.name in TIMES else sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def kill_often(
    command: Command, inputs: Path, out: Path, seconds: float, kills: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, dict[str, str] | None]]:
    """At every end: kills and those that found results begun, both so far, and the results, None of a failed start."""
    killed = at_work = 0
    while True:
        if not out.exists():
            command.prepare(out)
            untouched, since = contents(command, out), killed
        rest = killed == kills or killed - since == KILLS_BEFORE_AN_END
        process = start(command, inputs, out)
        try:
            _, said = process.communicate(timeout=None if rest else rng.uniform(0, seconds))
            print(said if process.returncode else "", end="", file=sys.stderr)
            yield killed, at_work, contents(command, out) if process.returncode == 0 else None
            if killed == kills:
                return
            shutil.rmtree(out, ignore_errors=True)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
            at_work += contents(command, out) != untouched
            print(f"{killed} of {kills} kills, {at_work} at work", end="\r", file=sys.stderr)


def trial(name: str, command: Command, kills: int, rng: np.random.Generator) -> Iterator[list[dict]]:
    """The rows so far, at every end: one for the kills, and last one for the full disk."""
    with tempfile.TemporaryDirectory() as place:
        inputs, out = Path(place, "inputs"), Path(place, "whole")
        inputs.mkdir()
        command.inputs(inputs)
        command.prepare(out)
        empty, begun = _size(out), perf_counter()
        status, said = finish(command, inputs, out)
        seconds, whole, room = perf_counter() - begun, contents(command, out), _size(out) - empty
        assert status == 0, said
        assert whole
        row = dict(command=name, trial="SIGKILL", kills=0, at_work=0, ends=0, equal=True, says="")
        for killed, at_work, end in kill_often(command, inputs, Path(place, "killed"), seconds, kills, rng):
            other = [name for name in {*whole, *(end or {})} if end is None or whole.get(name) != end.get(name)]
            print(f"{name}: differ: {sorted(other)[:10]}\n" if other else "", end="", file=sys.stderr)
            row |= dict(kills=killed, at_work=at_work, ends=row["ends"] + 1, equal=row["equal"] and not other)
            yield [row]
        yield [row, *full_disk(name, command, inputs, Path(place, "small"), empty + room // 2, whole)]


def _size(folder: Path) -> int:
    """Bytes that a folder's files take on a disk of pages."""
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*")) if folder.exists() else 0


def full_disk(name: str, command: Command, inputs: Path, mount: Path, size: int, whole: dict[str, str]) -> list[dict]:
    """The row of a disk of `size` bytes that grows when the command has failed; none where nothing can be mounted."""
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount], capture_output=True).returncode:
        print("no tmpfs can be mounted: the full disk is left out", file=sys.stderr)
        return []
    try:
        command.prepare(mount / "out")
        status, said = finish(command, inputs, mount / "out")
        failed = status == 2 and "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=4g", mount], check=True)
        again, _ = finish(command, inputs, mount / "out")
        equal = failed and again == 0 and contents(command, mount / "out") == whole
        lines = [line for line in said.splitlines() if "cannot be written" in line] or said.strip().splitlines()
        says = (lines or [""])[-1].replace(str(mount / "out"), "OUT")[:200]
        return [dict(command=name, trial="full disk", kills=0, at_work=0, ends=1, equal=equal, says=says)]
    finally:
        subprocess.run(["umount", mount], check=True)


@cache
def version() -> str:
    """The commit that is measured: the one at the start, whatever is committed meanwhile."""
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return said.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"measured is {version()}", file=sys.stderr)
    rows = pl.read_csv(TABLE).with_columns(pl.col("says").fill_null("")).to_dicts() if TABLE.exists() else []
    for name, command in COMMANDS.items():
        if arguments.only in (None, name):
            rng = np.random.default_rng(arguments.seed)
            for new in trial(name, command, arguments.kills, rng):
                rows = [row for row in rows if row["command"] != name] + [row | {"version": version()} for row in new]
                with replacing(TABLE) as partial:
                    pl.DataFrame(rows).write_csv(partial)
    sys.exit(not all(row["equal"] for row in rows))


if __name__ == "__main__":
    main()
