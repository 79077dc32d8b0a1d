"""Processes that Slurm starts find each other; a process that is alone, or that another launcher started, stays so."""

import pytest

from chexgen_lib.training import launch

STEP = {"SLURM_STEP_NUM_TASKS": "32", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "40007"}
STEP |= {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}
BATCH = {"SLURM_NTASKS": "32", "SLURM_PROCID": "0", "SLURM_JOB_ID": "40007"}  # what calls srun


def told(monkeypatch, given: dict[str, str]) -> dict[str, str]:
    env = dict(given)
    monkeypatch.setattr(launch.torch, "set_num_threads", lambda n: env.update(threads=n))
    monkeypatch.setattr(launch.os, "environ", env)
    launch.meet_through_slurm()
    return {name: value for name, value in env.items() if given.get(name) != value}


def test_the_processes_of_a_step_are_told_where_they_are(monkeypatch):
    found = told(monkeypatch, STEP)
    assert found == {
        "RANK": "9",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "32",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "20007",
        "threads": 1,
    }


def test_they_compute_in_as_many_threads_as_they_have_cpus(monkeypatch):
    assert told(monkeypatch, STEP | {"SLURM_CPUS_PER_TASK": "4"})["threads"] == 4
    assert "threads" not in told(monkeypatch, STEP | {"OMP_NUM_THREADS": "2"})


@pytest.mark.parametrize("given", [{}, BATCH, STEP | {"SLURM_STEP_NUM_TASKS": "1"}, STEP | {"RANK": "3"}])
def test_others_are_left_alone(monkeypatch, given):
    assert told(monkeypatch, given) == {}
