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

import torch

from chexgen_lib.storage import remove, write_json
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.run import Model

LAUNCH = "CHEXGEN_LAUNCH"
FOLDER = ".launched"  # in that of a training: what the processes read and write


def launch_training(model: Model, pairs: LatentCache, config: TrainingConfig, stage: Path, folder: Path) -> Path | None:
    """Train in the processes that the profile asks for; None where it asks for none.

    Called again after an interruption, the processes resume; once they are done, they train nothing.

    Args:
        model: untrained or continued.
        pairs: those of the cohort's cache of the stage's name, which the processes then read; where it has none, as for
            the adapter and the baseline, `pairs` are written for them, and removed with all else in `FOLDER`.
        stage: folder of the stage, beside that of the cohort.
        folder: of this training alone, in which `FOLDER` is made: other settings, data or code have another one, so
            that none resumes from what these left (`kept.kept`).

    Returns:
        the folder with the final checkpoint, for `trainer.train`.

    Raises:
        TrainingError: if the processes fail; they say why themselves.
    """
    if not (command := os.environ.get(LAUNCH)):
        return None
    folder = folder / FOLDER
    model.save_pretrained(folder / "untrained")
    write_json(asdict(config), folder / "settings.json")
    cache = stage.parent / "cohort" / f"{stage.name}_train"
    if not cache.is_dir():
        cache = folder / "pairs"
        remove(cache)  # of an interrupted run, perhaps with other settings
        pairs.save_in_shards(cache)
    options = ["--settings", folder / "settings.json", "--weights", folder / "untrained", "--out", folder]
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    try:
        subprocess.run([*words, "-m", "chexgen_lib.cli.main", "train", cache, *options], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TrainingError(
            f"the processes of {command!r} failed ({error}): see above for the cause, and run the stage again to "
            "resume; launch=null trains in one process"
        ) from error
    return folder


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
