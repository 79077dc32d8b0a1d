"""A rehearsed profile differs from the profile in sizes, and in nothing else."""

import pytest
import torch

from chexgen_lib.rehearsal.sizes import SIZES, SMALL, launcher, reduced
from chexgen_lib.workflow import dag


def flat(values, above=""):
    for key, value in values.items():
        yield from flat(value, f"{above}{key}.") if isinstance(value, dict) else [(f"{above}{key}", value)]


@pytest.mark.parametrize("profile", ["paper", "gpu"])
def test_sizes_shrink_and_nothing_else_changes(profile):
    own, small = dag.plain(profile), dag.plain(SMALL)
    before, after = dict(flat(own)), dict(flat(reduced(own, small)))
    changed = {key for key in before if after.get(key) != before[key]}
    assert changed and not {key for key in changed if SIZES.isdisjoint(_ends(key))}
    numbers = {key for key in changed if isinstance(before[key], int | float) and isinstance(after[key], int | float)}
    assert all(after[key] < before[key] for key in numbers)
    for kept in ("cohort.stage1_sources", "cohort.autoencoder", "curation.data_root", "alignment.training.objective",
                 "quality.embedders", "pools.fairness.attributes", "alignment.training.learning_rate"):  # fmt: skip
        assert after[kept] == before[kept]


def test_a_size_that_the_profile_has_smaller_stays():
    assert reduced({"a": {"steps": 2, "rate": 1.0}}, {"a": {"steps": 9, "rate": 2.0}}) == {"a": {"steps": 2, "rate": 1}}


@pytest.mark.parametrize(("gpus", "processes"), [(0, 2), (1, 1), (8, 2)])
def test_two_processes_train_unless_they_would_share_a_gpu(gpus, processes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert launcher().endswith(f"--nproc_per_node {processes}")


@pytest.mark.parametrize("launch", ["srun python", "accelerate launch"])
def test_what_slurm_starts_is_the_jobs_own(launch):
    found = reduced({"launch": launch}, {"launch": None})["launch"]
    assert found == (launch if launch.startswith("srun") else launcher())


def test_every_size_is_a_setting_of_some_profile():
    known = {name for profile in dag.profiles() for key, _ in flat(dag.plain(profile)) for name in _ends(key)}
    assert SIZES - known == {"epochs"} - known


def _ends(key):
    parts = key.split(".")
    return {parts[-1], key, *parts[:-1]}
