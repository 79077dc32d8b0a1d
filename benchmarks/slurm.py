"""Jobs on a Slurm of two nodes, preempted or killed in the middle and requeued: do they end with the same bytes?

    apt-get install slurm-wlm     # Debian's; needs root
    python -m benchmarks.slurm [--folder FOLDER]

Starts munge, a controller and two nodes of one CPU on this machine, in a folder of their own, and ends them afterwards.
A training is what `launch='srun python'` makes of stage 03's: a process on each node, which share every step
(`training.launch`). It runs undisturbed; preempted, by a job of a partition of higher priority; and with one of its
processes killed (SIGKILL), after which it is requeued by hand. Each disturbance comes when there is a checkpoint. The
same training also runs in two processes of torchrun. A rehearsal is that of profile `paper` up to stage 03, within a
job: undisturbed, preempted while it makes the cohort, and with a process of its training killed.

Writes slurm.csv beside this file: job, trial, starts (of the job), disturbed (what was there when it was disturbed),
sha256 (of the trained weights), equal (to those of the same job undisturbed). Fails if weights differ.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import sleep

import polars as pl
import torch

from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.processes import LAUNCH
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.launch import FOLDER, launch_training

CONFIG = TrainingConfig(
    steps=60, batch_size=4, gradient_accumulation=2, learning_rate=1e-3, checkpoint_every=10, log_every=10
)
PAIRS, SIDE, WIDTH, TOKENS = 64, 8, 16, 8
CONF = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17001 CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17002 CPUs=1
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=2 State=UP
"""
NODES, ENDED = ("n1", "n2"), ("COMPLETED", "FAILED", "CANCELLED")


# The cluster


@contextmanager
def cluster(folder: Path):
    """A Slurm of two nodes, whose commands find it through the environment; nothing of it is left."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        raise SystemExit(f"{', '.join(missing)} not found: apt-get install slurm-wlm")
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(folder=folder, host=os.uname().nodename.split(".")[0]))
    os.environ["SLURM_CONF"] = str(conf)
    places = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
    places |= {"seed-file": "munge.seed"}
    starts = [["munged", "--force", *(f"--{name}={folder / place}" for name, place in places.items())]]
    starts += [["slurmctld", "-c"], *(["slurmd", "-N", node] for node in NODES)]
    try:
        for command in starts:
            subprocess.run(command, check=True)
        wait(lambda: said("sinfo", "-h", "-p", "low", "-o", "%t %D") == "idle 2", "two idle nodes")
        yield
    finally:
        for place in sorted(folder.glob("*.pid"), reverse=True):  # slurmds, slurmctld, munged
            os.kill(int(place.read_text()), signal.SIGTERM)
            sleep(1)


def said(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def wait(condition, what: str, seconds: float = 1800, every: float = 0.2) -> None:
    for _ in range(int(seconds / every)):
        if condition():
            return
        sleep(every)
    raise SystemExit(f"waited {seconds:.0f} s for {what} in vain")


def state(job: str) -> str:
    found = said("scontrol", "show", "job", job)
    return found.partition("JobState=")[2].split()[0]


def starts(job: str) -> int:
    return int(said("scontrol", "show", "job", job).partition("Restarts=")[2].split()[0]) + 1


# The job


def write_inputs(root: Path) -> None:
    """Random pairs as stage 02 leaves them, in two shards."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, TOKENS + 1, (PAIRS,), generator=generator)
    mean = torch.randn(PAIRS, 4, SIDE, SIDE, generator=generator).half()
    states = torch.randn(int(lengths.sum()), WIDTH, generator=generator).half()
    pairs = LatentCache(mean, mean.abs() / 9, states, torch.tensor([0, *lengths]).cumsum(0))
    for shard, rows in enumerate(torch.arange(PAIRS).chunk(2)):
        pairs.take(rows).save(root / "cohort/pretraining_train", shard, 2)


def train(root: Path) -> None:
    """What stage 03 does to train in the processes of `LAUNCH`."""
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=SIDE, text_dim=WIDTH, text_tokens=TOKENS)
    (root / "pretraining").mkdir(exist_ok=True)
    pairs = LatentCache.load(root / "cohort/pretraining_train")
    launch_training(model, pairs, CONFIG, root / "pretraining", root / "pretraining")


@dataclass(frozen=True)
class Work:
    """What a job does in a folder of its own.

    Attributes:
        words: the command's, after that of Python, of the folder.
        weights: below the folder, what it trains: a pattern of one file.
        begun: a pattern of what is there when a job may be preempted.
        training: a pattern of what is there when a process of its training may be killed.
    """

    words: Callable[[Path], list[str]]
    weights: str
    begun: str
    training: str


WEIGHTS = "diffusion_pytorch_model.safetensors"
SRUN = "srun --kill-on-bad-exit=1 python"
TRAINING = Work(
    lambda root: ["-m", "benchmarks.slurm", "--train", str(root)],
    weights=f"pretraining/{FOLDER}/transformer/{WEIGHTS}",
    begun=f"pretraining/{FOLDER}/checkpoint-*",
    training=f"pretraining/{FOLDER}/checkpoint-*",
)
REHEARSAL = Work(
    lambda root: (
        ["-m", "chexgen_lib.rehearsal", "paper", "--stages", "03_pretraining", "--folder", str(root / "paper")]
        + ["--set", f"launch='{SRUN}'"]
    ),
    weights=f"paper/runs/paper/pretraining/transformer/{WEIGHTS}",
    begun="paper/runs/paper/**/chunks/*.npz",
    training=f"paper/runs/paper/pretraining/**/{FOLDER}/settings.json",
)


def submit(work: Work, root: Path, name: str) -> str:
    """Queue the work; the number of the job."""
    script = root / "job.sh"
    script.write_text(f"#!/bin/bash\nexec {shlex.join([sys.executable, *work.words(root)])}\n")
    options = ["--nodes=2", "--ntasks-per-node=1", "--requeue", "--open-mode=append", f"--export=ALL,{LAUNCH}={SRUN}"]
    options += [f"--job-name={name}", f"--output={root / 'job.log'}", f"--chdir={Path.cwd()}"]
    return said("sbatch", "--parsable", *options, str(script))


def preempt(job: str) -> None:
    """A job of higher priority takes both nodes for a moment."""
    options = [
        "--partition=high",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--output=/dev/null",
        f"--chdir={tempfile.gettempdir()}",
    ]
    said("sbatch", "--parsable", *options, "--wrap=sleep 3")
    wait(lambda: starts(job) > 1, "the preempted job in the queue")


def kill_process(job: str) -> None:
    """One process of the training dies at once; the job, which fails, is requeued."""

    def tasks() -> list[int]:
        return [int(place.parent.name) for place in Path("/proc").glob("[0-9]*/environ") if is_task(place, job)]

    wait(tasks, "a process of the training")
    os.kill(tasks()[0], signal.SIGKILL)
    wait(lambda: state(job) in ("FAILED", "COMPLETING"), "the failed job")
    wait(lambda: state(job) == "FAILED", "the failed job")
    said("scontrol", "requeue", job)


def is_task(environ: Path, job: str) -> bool:
    """Whether a process is the second of a job's step."""
    try:
        found = environ.read_bytes().split(b"\0")
        command = (environ.parent / "cmdline").read_bytes()
    except OSError:
        return False
    return f"SLURM_JOB_ID={job}".encode() in found and b"SLURM_PROCID=1" in found and b"chexgen_lib.cli" in command


def trial(work: Work, root: Path, name: str, disturb: Callable[[str], None] | None = None) -> dict:
    """A row of the table, of one job."""
    root.mkdir(parents=True)
    write_inputs(root)
    job, found = submit(work, root, name), ""
    if disturb:
        pattern = work.begun if disturb is preempt else work.training
        wait(lambda: any(root.glob(pattern)) or state(job) in ENDED, pattern)
        disturb(job)
        found = max((path.relative_to(root).as_posix() for path in root.glob(pattern)), default="")
    wait(lambda: state(job) in ENDED, "the end of the job")
    if state(job) != "COMPLETED":
        raise SystemExit(f"{name}: {state(job)}\n{(root / 'job.log').read_text()[-4000:]}")
    print(said("scontrol", "show", "job", job, "-o")[:200], flush=True)
    return {"trial": name, "starts": starts(job), "disturbed": found, "sha256": weights(work, root)}


def by_torchrun(root: Path) -> dict:
    """The training without Slurm."""
    root.mkdir()
    write_inputs(root)
    launcher = "python -m torch.distributed.run --nproc-per-node=2 --master-port=29611"
    command = [sys.executable, *TRAINING.words(root)]
    subprocess.run(command, check=True, env={**os.environ, LAUNCH: launcher})
    return {"trial": "torchrun", "starts": 1, "disturbed": "", "sha256": weights(TRAINING, root)}


def weights(work: Work, root: Path) -> str:
    (found,) = root.glob(work.weights)
    return sha256(found.read_bytes()).hexdigest()


def trials(work: Work, root: Path) -> list[dict]:
    """The rows of a work: undisturbed, preempted, and with a process killed."""
    rows = [trial(work, root / "whole", "undisturbed")]
    rows.append(trial(work, root / "preempted", "preempted", preempt))
    return [*rows, trial(work, root / "killed", "process killed", kill_process)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "slurm"))
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    root = arguments.folder
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    with cluster(root / "cluster"):
        rows = [{"job": "training"} | row for row in trials(TRAINING, root / "training")]
        rows += [{"job": "rehearsal"} | row for row in trials(REHEARSAL, root / "rehearsal")]
    rows.append({"job": "training"} | by_torchrun(root / "torchrun"))
    table = pl.DataFrame(rows).with_columns(equal=pl.col("sha256") == pl.col("sha256").first().over("job"))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)
    shutil.rmtree(root)
    sys.exit(not table["equal"].all())


if __name__ == "__main__":
    main()
