"""Interrupted and resumed equals uninterrupted."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chexgen_lib import code_digest
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.storage import digest
from chexgen_lib.training import run as training_run
from chexgen_lib.training import trainer
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.latent_cache import joined
from chexgen_lib.training.run import fingerprint_of
from chexgen_lib.training.trainer import train
from tests.training.runs import CONFIG, flow, interrupt, model, run, unet, weights, with_conditions


@pytest.mark.parametrize("build, accumulation", [(b, n) for b in (model, flow, unet) for n in (1, 2)])
def test_resumed_equals_uninterrupted(cache, tmp_path, monkeypatch, build, accumulation):
    changes = dict(build=build, gradient_accumulation=accumulation, schedule="cosine", warmup_steps=2)
    expected, history = run(cache, tmp_path / "whole", **changes)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path / "cut", **changes)
    assert [p.name for p in tmp_path.glob("cut/checkpoint-*")] == ["checkpoint-00000004"]
    resumed, resumed_history = run(cache, tmp_path / "cut", **changes)
    assert torch.equal(resumed, expected)
    assert resumed_history == history
    logs = [(tmp_path / name / "log/plots/metrics/loss.tsv").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert not list(tmp_path.glob("cut/checkpoint*"))


@pytest.mark.parametrize("build", [model, flow])
def test_resumed_with_muon_equals_uninterrupted(cache, tmp_path, monkeypatch, build):
    changes = dict(build=build, muon_learning_rate=5e-3, schedule="cosine", warmup_steps=2)
    expected, history = run(cache, tmp_path / "whole", **changes)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path / "cut", **changes)
    resumed, resumed_history = run(cache, tmp_path / "cut", **changes)
    assert torch.equal(resumed, expected) and resumed_history == history
    assert not torch.equal(expected, run(cache, tmp_path / "adamw", build=build, schedule="cosine", warmup_steps=2)[0])


def test_the_clock_adds_up_over_interruptions(cache, tmp_path, monkeypatch):
    times = iter(range(0, 1000, 10))
    monkeypatch.setattr(trainer, "perf_counter", lambda: float(next(times)))
    assert trainer.read_seconds(tmp_path) == 0
    with monkeypatch.context() as m:
        interrupt(m, at=3)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path)
    assert trainer.read_seconds(tmp_path) == 10
    train(model(), cache, CONFIG, tmp_path, keep_last=True)
    assert trainer.read_seconds(tmp_path) == 10 + 20
    train(model(), cache, CONFIG, tmp_path / "taken over", keep_last=True, continued_from=tmp_path)
    assert trainer.read_seconds(tmp_path / "taken over") == 30


def test_a_finished_training_can_be_kept_until_its_result_is_safe(cache, tmp_path, monkeypatch):
    m = model()
    history = train(m, cache, CONFIG, tmp_path, keep_last=True)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == [f"checkpoint-{CONFIG.steps:08d}"]
    monkeypatch.setattr(trainer.Run, "optimise", None)  # not one step more
    again = model()
    assert train(again, cache, CONFIG, tmp_path, keep_last=True) == history
    assert torch.equal(weights(again), weights(m))


def test_checkpoint_of_another_run_is_refused(cache, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        interrupt(m, at=3)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path)
    with pytest.raises(TrainingError, match="of another run"):
        run(cache, tmp_path, learning_rate=0.5)
    with pytest.raises(TrainingError, match="of another run"):
        run(cache, tmp_path, flow)
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(TrainingError, match="not a whole checkpoint"):
        run(cache, tmp_path)


def test_a_checkpoint_is_on_the_disk_before_the_old_one_goes(cache, tmp_path, monkeypatch):
    """A machine that loses its power leaves empty files of what it was still to write."""
    done = []

    def flush(file, original=os.fsync):
        done.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)
        return original(file)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(training_run, "remove", lambda path: done.append(path.name))
    train(model(), cache, replace(CONFIG, checkpoint_every=3), tmp_path, keep_last=True)
    files = {"model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"}
    assert set(done[:4]) == set(done[4:8]) == files and done[8:] == ["checkpoint-00000003"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"{}", b""])
def test_a_damaged_state_is_named(cache, tmp_path, content):
    train(model(), cache, CONFIG, tmp_path, keep_last=True)
    (tmp_path / "checkpoint-00000006/state.json").write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint-00000006 is not a whole checkpoint"):
        train(model(), cache, CONFIG, tmp_path)


def test_all_that_a_cache_holds_tells_runs_apart(cache):
    held = with_conditions(cache)
    held = replace(held, paths=held.mean[:, None].repeat(1, 3, 1, 1, 1))
    others = [replace(held, **{name: -getattr(held, name)}) for name in ("mean", "std", "states", "condition", "paths")]
    found = [fingerprint_of(model(), pairs, CONFIG) for pairs in (held, *others, cache)]
    assert len(set(found)) == len(found) and found[0] == fingerprint_of(model(), held, CONFIG)
    assert found[0] == fingerprint_of(model(), joined([held]), CONFIG), "whether it lies in memory or on the disk"


@pytest.mark.parametrize("build", [model, flow])
def test_an_interrupted_adapter_goes_on(cache, tmp_path, monkeypatch, build, fresh_accelerate):
    def adapter():
        return ControlledTransformer.on(build().eval(), 1)

    conditions, config = with_conditions(cache), replace(CONFIG, objective=build().objective)
    whole, cut = adapter(), adapter()
    train(whole, conditions, config, tmp_path / "whole")
    interrupt(monkeypatch, at=3)
    with pytest.raises(KeyboardInterrupt):
        train(cut, conditions, config, tmp_path / "cut")
    monkeypatch.undo()
    fresh_accelerate()
    cut = adapter()
    train(cut, conditions, config, tmp_path / "cut")
    assert torch.equal(weights(whole), weights(cut))


def test_trained_adapters_of_one_base_are_told_apart(cache):
    adapters = [ControlledTransformer.on(model().eval(), 1) for _ in range(2)]
    adapters[1].load_state_dict(adapters[0].state_dict())
    pairs = with_conditions(cache)
    found = [fingerprint_of(adapter, pairs, CONFIG) for adapter in adapters]
    torch.nn.init.normal_(adapters[1].controlnet[0].after_proj.weight)
    assert found[0] == found[1] != fingerprint_of(adapters[1], pairs, CONFIG)


def test_a_run_may_go_on_with_other_checkpoints(cache, tmp_path, monkeypatch):
    expected, history = run(cache, tmp_path / "whole")
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path / "cut")
    resumed, resumed_history = run(cache, tmp_path / "cut", checkpoint_every=1)
    assert torch.equal(resumed, expected) and resumed_history == history
    assert digest(CONFIG) == digest(replace(CONFIG, checkpoint_every=1, gradient_checkpointing=True))  # a stage too


def test_a_copy_of_a_checkpoint_is_left_alone_and_a_half_one_goes(cache, tmp_path, monkeypatch):
    copy, half = tmp_path / "checkpoint-00000002-best", tmp_path / ".checkpoint-00000009.partial"
    for path in (copy, half):
        path.mkdir()
        (path / "model.safetensors").touch()
    run(cache, tmp_path)
    assert copy.is_dir() and not half.exists()


def test_a_checkpoint_of_other_code_is_named(cache, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        interrupt(m, at=3)
        with pytest.raises(KeyboardInterrupt):
            run(cache, tmp_path)
    monkeypatch.setattr(code_digest, "of", lambda file: "mended")
    with pytest.warns(UserWarning, match="checkpoint-00000002 was written by another version of the code"):
        run(cache, tmp_path)
