"""Processes that train the same small models together: python distributed_worker.py N PORT FOLDER KIND:RUN...

KIND is "ddp" or "fsdp"; a RUN is a name in RUNS, and FOLDER/KIND/RUN-RANK.pt gets its weights and history. They are the
same run but for a setting or the model; "stopped" and "accumulated stopped" are stopped before step 3, with
FOLDER/KIND/kept a copy of what they had written, and started again; "continued" goes on from what it finds in
FOLDER/KIND/continued.
"""

import multiprocessing
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState
from torch.distributed.tensor import DTensor

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training import trainer
from chexgen_lib.training.latent_cache import LatentCache

# A high dropout, so that the null caption learns; a low norm, so that the gradient is clipped
CONFIG = trainer.TrainingConfig(
    steps=5,
    batch_size=3,
    gradient_accumulation=2,
    learning_rate=1e-2,
    clip_norm=0.05,
    ema_decay=0.9,
    caption_dropout=0.5,
    schedule="cosine",
    warmup_steps=1,
    precision="fp32",
    checkpoint_every=2,
    log_every=1,
)
RUNS = {
    "plain": {},
    "stopped": {},
    "continued": {},
    "accumulated": dict(gradient_accumulation=4),
    "accumulated stopped": dict(gradient_accumulation=4),
    "checkpointed": dict(gradient_checkpointing=True),
    "bf16": dict(precision="bf16"),
    "metadata": dict(objective="rectified_flow"),
    "control": {},
}


def pairs(run: str) -> LatentCache:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (10,), generator=g)
    cache = LatentCache(
        mean=torch.randn(10, 4, 4, 4, generator=g).half(),
        std=torch.full((10, 4, 4, 4), 0.1).half(),
        states=torch.randn(int(lengths.sum()), 16, generator=g).half(),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths]).cumsum(0),
    )
    if run == "control":
        return replace(cache, condition=torch.randn(cache.mean.shape, generator=g).half())
    if run == "metadata":
        people = [{"age": 7.0 * i, "sex": "FM"[i % 2], "Edema": i % 2, "source": "nih"} for i in range(10)]
        return replace(cache, metadata=encode_metadata(people, ["nih"]))
    return cache


def model(run: str):
    torch.manual_seed(0)
    config = dict(objective="rectified_flow", metadata_sources=["nih"]) if run == "metadata" else {}
    made = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8, **config)
    torch.nn.init.normal_(made.final_layer.linear.weight, std=0.1)  # else the first step's gradients are mostly zero
    return ControlledTransformer.on(made, 1) if run == "control" else made


class Sharded(Accelerator):
    """accelerate shards on GPUs alone: from the environment of `accelerate launch`. This is its FSDP2 on CPUs."""

    def __init__(self, **settings):
        super().__init__(**settings)
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
        self.state.fsdp_plugin, self.state.distributed_type = plugin, DistributedType.FSDP


class Stopped(Exception):
    pass


def train(run: str, folder: Path) -> None:
    if run.endswith("stopped"):
        with stopping(before=3):
            once(run, folder)
        if rank() == 0:
            shutil.copytree(folder / run, folder / "kept")
    trained, history = once(run, folder)
    assert not any(isinstance(parameter, DTensor) for parameter in trained.parameters())
    torch.save({"weights": trained.state_dict(), "history": history}, folder / f"{run}-{rank()}.pt")


def once(run: str, folder: Path) -> tuple:
    AcceleratorState._reset_state()
    GradientState._reset_state()
    trained = model(run)
    return trained, trainer.train(trained, pairs(run), replace(CONFIG, **RUNS[run]), folder / run)


@contextmanager
def stopping(before: int):
    optimise = trainer.Run.optimise

    def until(self, cache, step):
        if step == before:
            raise Stopped
        return optimise(self, cache, step)

    trainer.Run.optimise = until
    try:
        yield
    except Stopped:
        pass
    finally:
        trainer.Run.optimise = optimise


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def train_all(rank: int, processes: str, port: str, folder: Path, jobs: list[tuple[str, str]]) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes}
    os.environ.update(address | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    for kind, run in jobs:
        trainer.Accelerator = Sharded if kind == "fsdp" else Accelerator
        train(run, folder / kind)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    processes, port, folder, *names = sys.argv[1:]
    jobs = [tuple(name.split(":")) for name in names]
    fork = multiprocessing.get_context("fork")  # after the imports, which take longer than the runs
    of = (processes, port, Path(folder), jobs)
    ranks = [fork.Process(target=train_all, args=(rank, *of)) for rank in range(int(processes))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(any(process.exitcode for process in ranks))
