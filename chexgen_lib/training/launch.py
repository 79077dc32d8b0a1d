"""A stage's training in several processes: `chexgen train` under a launcher.

The profile's `launch` is the command that starts the processes, such as `accelerate launch --config_file
conf/accelerate/ddp.yaml` or, within a job of Slurm, `srun python`; stages hand it down as the environment variable
LAUNCH, since it changes no result.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from time import sleep

import torch

from chexgen_lib.kept import held, is_held
from chexgen_lib.processes import LAUNCH, STAGE
from chexgen_lib.storage import remove, write_json
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import CacheError, LatentCache, shards
from chexgen_lib.training.run import Model, checkpoints

FOLDER = ".launched"  # in that of a training: what the processes read and write


def launch_training(model: Model, pairs: LatentCache, config: TrainingConfig, stage: Path, folder: Path) -> Path | None:
    """Train in the processes that the profile asks for; None where it asks for none.

    Called again after an interruption, the processes resume; once they are done, they train nothing. They end when this
    call does, however (`end_with_stage`).

    Args:
        model: untrained or continued.
        pairs: those of the cohort's cache of the stage's name, which the processes then read; where it has none, as for
            the adapter and the baseline, `pairs` are written for them, and removed with all else in `FOLDER`.
        stage: folder of the stage, beside that of the cohort; a checkpoint that `chexgen train` left there is gone on
            from.
        folder: of this training alone, in which `FOLDER` is made: other settings, data or code have another one, so
            that none resumes from what these left (`kept.kept`).

    Returns:
        the folder with the final checkpoint, for `trainer.train`.

    Raises:
        TrainingError: if the setting is no command, or the processes fail; they say why themselves.
    """
    command = os.environ.get(LAUNCH, "").strip()
    if not command:
        return None
    words, env = _words(command), os.environ | {STAGE: str(folder.absolute())}
    folder = folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):  # where an interrupted call left processes, until they have ended, too
        model.save_pretrained(folder / "untrained")
        write_json(asdict(config), folder / "settings.json")
        cache = stage.parent / "cohort" / f"{stage.name}_train"
        if not cache.is_dir():
            cache = folder / "pairs"
            _write(pairs, cache)
    options = ["--settings", folder / "settings.json", "--weights", folder / "untrained", "--out", folder]
    options += ["--continue-from", stage]
    try:
        subprocess.run([*words, "-m", "chexgen_lib.cli.main", "train", cache, *options], check=True, env=env)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TrainingError(
            f"the processes of {command!r} failed ({error}): see above for the cause, and run the stage again to "
            "resume; launch=null trains in one process"
        ) from error
    return folder if checkpoints(folder) else stage  # there `chexgen train` had left the last one


def _words(command: str) -> list[str]:
    """A command as a list of words, `python` being the one that runs."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise TrainingError(
            f"launch={command!r} is no command ({error}): quote a word that has spaces, as in "
            "launch=\"accelerate launch --config_file 'my files/ddp.yaml'\""
        ) from error
    return [sys.executable if word in ("python", "python3") else word for word in words]


def _write(pairs: LatentCache, folder: Path) -> None:
    """Write pairs for the processes, which may take long; what an interrupted call wrote whole stays."""
    try:
        shards(folder)
    except CacheError:
        remove(folder)
        pairs.save_in_shards(folder)


def end_with_stage(seconds: float = 1.0) -> None:
    """Let this process end when the stage that launched it has ended, however, or was interrupted.

    A launcher that is killed leaves processes. They would train on, unseen, beside those of the next run. A stage on
    another machine whose hold cannot be seen here is not minded.

    Args:
        seconds: between two looks.
    """
    folder = os.environ.get(STAGE)
    if folder is None or not is_held(folder):
        return

    def watch() -> None:
        while is_held(folder):
            sleep(seconds)
        print(f"the stage that makes {folder} has ended: so does its training", file=sys.stderr, flush=True)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def meet_through_slurm() -> None:
    """Tell torch what a launcher would, where `srun` started this process and others: how many, which, where to meet.

    They meet at the machine on which `srun` was called, the job's first, at a port that depends on the job. Each
    computes in as many threads as the job gives its tasks CPUs, one by default, as under torchrun: a sum's last bits
    depend on the number, and processes that share a machine would otherwise each take all of it.
    """
    env = os.environ
    if "RANK" in env or int(env.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    port = 20000 + int(env["SLURM_JOB_ID"]) % 20000
    env |= {"RANK": env["SLURM_PROCID"], "LOCAL_RANK": env["SLURM_LOCALID"], "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"]}
    env |= {"MASTER_ADDR": env["SLURM_LAUNCH_NODE_IPADDR"], "MASTER_PORT": str(port)}
    if "OMP_NUM_THREADS" not in env:
        torch.set_num_threads(int(env.get("SLURM_CPUS_PER_TASK", "1")))
