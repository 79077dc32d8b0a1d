"""Processes share a run, sharded or not, and it stays the run: on CPUs, through gloo.

accelerate applies FSDP on GPUs alone; `distributed_worker.Sharded` turns its FSDP2 on here. What GPUs add (nccl, the
launcher's environment) is not tested.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

WORKER = Path(__file__).with_name("distributed_worker.py")
RUNS = {
    "ddp": ("plain", "accumulated", "control"),
    "fsdp": ("plain", "accumulated", "control", "checkpointed", "bf16", "metadata"),
}
EACH = [(kind, run) for kind in RUNS for run in RUNS[kind]]


def in_this_process(folder: Path, *runs: str) -> None:
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    AcceleratorState._reset_state(reset_partial_state=True)
    for run in runs:
        worker.train(run, folder)


def in_processes(n: int, folder: Path, jobs: list[tuple[str, str]]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.run(
        [sys.executable, str(WORKER), str(n), str(port), str(folder), *map(":".join, jobs)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-6000:]


def result(folder: Path, run: str, rank: int = 0) -> dict:
    return torch.load(folder / f"{run}-{rank}.pt")


def agree(one: dict, other: dict, tolerance: float) -> None:
    close = dict(rtol=0, atol=tolerance)
    torch.testing.assert_close(one["weights"], other["weights"], **close)
    for a, b in zip(one["history"], other["history"], strict=True):
        for name in ("loss", "grad_norm", "learning_rate"):
            torch.testing.assert_close(a[name], b[name], **close)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Folders of all runs of one process, of two, and of two that share the parameters, too."""
    folder = tmp_path_factory.mktemp("runs")
    folders = {kind: folder / kind for kind in ("single", "ddp", "fsdp")}
    for kind in folders:
        folders[kind].mkdir()
    in_this_process(folders["single"], *RUNS["fsdp"], "stopped")
    shutil.copytree(folders["single"] / "kept", folders["fsdp"] / "continued")
    in_processes(2, folder, [*EACH, ("fsdp", "stopped"), ("fsdp", "continued")])
    return folders


@pytest.mark.parametrize("kind, run", EACH)
def test_processes_together_train_as_one(runs, kind, run):
    tolerance = 1e-2 if run == "bf16" else 1e-5  # 8 bits: what rounds otherwise once, does from there on
    agree(result(runs[kind], run), result(runs["single"], run), tolerance)


def test_every_process_ends_with_the_same_weights(runs):
    for kind, run in EACH:
        agree(result(runs[kind], run, 0), result(runs[kind], run, 1), 0)


def test_checkpointing_activations_changes_no_bit(runs):
    agree(result(runs["single"], "checkpointed"), result(runs["single"], "plain"), 0)


@pytest.mark.parametrize("kind", ["single", "fsdp"])
def test_stopped_and_started_again_it_ends_with_the_same_bits(runs, kind):
    assert [path.name for path in (runs[kind] / "kept").glob("checkpoint-*")] == ["checkpoint-00000002"]
    assert not list((runs[kind] / "stopped").glob("checkpoint-*"))
    agree(result(runs[kind], "stopped"), result(runs[kind], "plain"), 0)


def test_four_processes_stopped_and_started_again_end_with_the_same_bits(tmp_path):
    """DDP packs gradients anew after its first step; the sum of four numbers depends on where they are."""
    (tmp_path / "ddp").mkdir()
    in_processes(4, tmp_path, [("ddp", "accumulated"), ("ddp", "accumulated stopped")])
    agree(result(tmp_path / "ddp", "accumulated stopped"), result(tmp_path / "ddp", "accumulated"), 0)


def test_one_process_goes_on_from_two_and_two_from_one(runs, tmp_path):
    shutil.copytree(runs["fsdp"] / "kept", tmp_path / "continued")
    in_this_process(tmp_path, "continued")
    agree(result(tmp_path, "continued"), result(runs["single"], "plain"), 1e-5)
    agree(result(runs["fsdp"], "continued"), result(runs["single"], "plain"), 1e-5)
