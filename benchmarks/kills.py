"""Commands that are killed at random moments, or whose disk is full: what they leave, and whether they end the same.

    python -m benchmarks.kills [--kills 20] [--only "data build"] [--seed 0]

Each command runs once undisturbed. Then it is started again and again into another folder and killed (SIGKILL, with its
processes) at moments that are uniform over the time it took, until it has been killed "--kills" times; then it may
finish. A second time its folder is a tmpfs of half the size that the result needs (needs root): the command must say so
in one line, and finish once there is room. Writes kills.csv beside this file: command, trial, kills, starts, equal
(every file has the bytes of the undisturbed run, and there is no other), says. Fails if a result is not equal.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl

PROMPTS = ["Clear lungs.", "Small left pleural effusion.", "Cardiomegaly.", "Right upper lobe consolidation."]
COMMANDS = {
    "sample": ["sample", "PROMPTS", "--steps", "4", "--images-per-prompt", "3", "--batch-size", "2", "--out"],
    "data build": ["data", "build", "openi", "--out"],
}


def start(command: list[str], out: Path) -> subprocess.Popen:
    """The command as a session of its own, so that its processes are killed with it."""
    full = [sys.executable, "-m", "chexgen_lib.cli", *command, str(out)]
    return subprocess.Popen(full, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(command: list[str], out: Path) -> tuple[int, str]:
    process = start(command, out)
    _, said = process.communicate()
    return process.returncode, said


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def kill_often(command: list[str], out: Path, seconds: float, kills: int, rng: np.random.Generator) -> int:
    """Start the command until it has been killed so often; a run that ends by itself is no kill. The starts needed."""
    killed = starts = 0
    while killed < kills and starts < 3 * kills:
        process, starts = start(command, out), starts + 1
        try:
            process.communicate(timeout=rng.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
    return starts


def trial(name: str, command: list[str], kills: int, rng: np.random.Generator) -> list[dict]:
    """One row for the kills, and one for the full disk."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "prompts.txt").write_text("\n".join(PROMPTS))
        command = [str(root / "prompts.txt") if word == "PROMPTS" else word for word in command]
        begun = perf_counter()
        status, said = finish(command, root / "whole")
        seconds, whole = perf_counter() - begun, contents(root / "whole")
        assert status == 0, said
        starts = kill_often(command, root / "killed", seconds, kills, rng)
        status, said = finish(command, root / "killed")
        equal = status == 0 and contents(root / "killed") == whole
        rows.append(dict(command=name, trial="SIGKILL", kills=kills, starts=starts + 1, equal=equal, says=""))
        size = sum(path.stat().st_size for path in (root / "whole").rglob("*"))
        return rows + full_disk(name, command, root / "small", size // 2, whole)


def full_disk(name: str, command: list[str], mount: Path, size: int, whole: dict[str, str]) -> list[dict]:
    """The row of a disk of `size` bytes that grows when the command has failed; none where nothing can be mounted."""
    mount.mkdir()
    pages = max(size // 4096, 2) * 4
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={pages}k", "tmpfs", mount], capture_output=True).returncode:
        print("no tmpfs can be mounted: the full disk is left out", file=sys.stderr)
        return []
    try:
        status, said = finish(command, mount / "out")
        failed = status == 2 and "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
        again, _ = finish(command, mount / "out")
        equal = failed and again == 0 and contents(mount / "out") == whole
        line = (said.strip().splitlines() or [""])[-1].replace(str(mount), "OUT")
        return [dict(command=name, trial="full disk", kills=0, starts=2, equal=equal, says=line[:200])]
    finally:
        subprocess.run(["umount", mount], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=COMMANDS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rows = np.random.default_rng(arguments.seed), []
    for name, command in COMMANDS.items():
        if arguments.only in (None, name):
            rows += trial(name, command, arguments.kills, rng)
            print(rows[-2:], flush=True)
    table = pl.DataFrame(rows)
    table.write_csv(Path(__file__).with_suffix(".csv"))
    sys.exit(not table["equal"].all())


if __name__ == "__main__":
    main()
