"""A stage's training is kept: it survives interruptions, and later failures or new figures do not repeat it."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import polars as pl
import pytest
import torch

from chexgen_lib import kept as kept_module
from chexgen_lib.cli import main as cli
from chexgen_lib.cohort.layout import FLAGS
from chexgen_lib.kept import held, kept
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.records import conform
from chexgen_lib.training import launch, stages, trainer
from chexgen_lib.training.cohort_cache import add_metadata, load_splits
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import CacheError, LatentCache
from chexgen_lib.training.stages import read_training, train_model
from chexgen_lib.training.trainer import CLOCK, noise_error, read_seconds

CONFIG = TrainingConfig(
    steps=6, batch_size=4, learning_rate=1e-2, precision="fp32", checkpoint_every=2, log_every=1, ema_decay=0.5
)


def pairs(seed=0) -> LatentCache:
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(10, 4, 4, 4, generator=g).half()
    states = torch.randn(20, 16, generator=g).half()
    return LatentCache(mean, torch.full_like(mean, 0.1), states, torch.arange(0, 21, 2))


def keep(folder, config=CONFIG, launched=None, stage="pretraining"):
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8)
    data = {"pairs": pairs(), "held_out": pairs(1)}
    if stage == "baseline":
        model = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=16)
    elif stage == "annotation_to_image":
        model = ControlledTransformer.on(model, 1)
        data = {name: replace(cache, condition=-cache.mean) for name, cache in data.items()}
    return kept(train_model, folder, {"launched": launched}, model=model, **data, config=config)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_weights_history_and_errors_are_those_of_the_training(tmp_path):
    folder = keep(tmp_path / "stage")
    history, error = read_training(folder)
    assert history["step"].to_list() == list(range(6)) and (folder / "log").is_dir()
    assert not list(folder.glob("checkpoint-*"))
    assert read_seconds(tmp_path) > 0 and not (folder / ".clock.json").exists()
    trained = ChexGenTransformer.from_pretrained(folder)
    assert noise_error(trained, pairs(1)) == error["after"] != error["before"]


def test_it_is_trained_once_and_again_only_for_other_settings(tmp_path, monkeypatch):
    first = contents(keep(tmp_path / "stage"))
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Run, "optimise", None)  # not one step more
        assert contents(keep(tmp_path / "stage")) == first
    other = keep(tmp_path / "stage", TrainingConfig(**{**vars(CONFIG), "learning_rate": 1e-3}))
    assert contents(other)["history.parquet"] != first["history.parquet"]


@pytest.mark.parametrize("at", [0, 3, None])
def test_interrupted_anywhere_it_ends_with_the_same_bytes(tmp_path, monkeypatch, at):
    expected, steps = contents(keep(tmp_path / "whole")), []

    def until(self, cache, step, original=trainer.Run.optimise):
        if step == at:
            raise KeyboardInterrupt
        steps.append(step)
        return original(self, cache, step)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Run, "optimise", until)
        if at is None:  # when all is trained, and the weights are being written
            patched.setattr(ChexGenTransformer, "save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()
    assert contents(keep(tmp_path / "stage")) == expected


def test_nothing_is_trained_again_when_tidying_up_is_interrupted(tmp_path, monkeypatch):
    expected, rename = contents(keep(tmp_path / "whole")), os.replace

    def stop(source, target):
        if Path(source).name == CLOCK:  # when the checkpoints are gone
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(stages.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path / "stage")
    monkeypatch.setattr(trainer.Run, "optimise", None)
    assert contents(keep(tmp_path / "stage")) == expected


def test_pairs_of_a_stage_are_read_or_the_missing_file_is_named(tmp_path):
    pairs().save(tmp_path / "alignment_train")
    with pytest.raises(CacheError, match="alignment_val does not exist: run the stage 02_cohort"):
        load_splits(tmp_path, "alignment")
    pairs(1).save(tmp_path / "alignment_val")
    train, val = load_splits(tmp_path, "alignment")
    assert torch.equal(train.mean[:], pairs().mean) and torch.equal(val.mean[:], pairs(1).mean)
    assert train.metadata is None


def test_pairs_have_the_metadata_of_their_own_records(tmp_path, monkeypatch):
    n = len(pairs())
    rows = [
        dict.fromkeys(("image_id", "patient_id", "study_id"), f"{split}{age}{k}")
        | {"source": "nih", "age": age + k, "split": split, "stage2": flag}
        for split, age, flag in (("train", 20, True), ("train", 50, False), ("val", 80, True))
        for k in range(n)
    ]
    table = conform(pl.DataFrame([{key: row[key] for key in row if key != "stage2"} for row in rows]))
    flags = {flag: pl.Series([flag == "stage2" and row["stage2"] for row in rows]) for flag in FLAGS}
    table.with_columns(**flags).sample(fraction=1, shuffle=True, seed=0).write_parquet(tmp_path / "cohort.parquet")
    for split in ("train", "val"):
        pairs().save(tmp_path / f"alignment_{split}")
    ages = [codes.metadata[:, 0].tolist() for codes in load_splits(tmp_path, "alignment", ["nih"])]
    order = pl.read_parquet(tmp_path / "cohort.parquet").filter("stage2")
    assert ages == [order.filter(split=split)["age"].to_list() for split in ("train", "val")]
    assert sorted(ages[0])[0] == 20 and sorted(ages[1])[0] == 80
    monkeypatch.chdir(tmp_path / "alignment_val")
    assert add_metadata(pairs(), Path("."), ["nih"]).metadata[:, 0].tolist() == ages[1]


@pytest.mark.parametrize("kind", ["pretraining", "annotation_to_image", "baseline"])
def test_the_processes_of_the_profile_train_and_the_stage_takes_over(tmp_path, monkeypatch, kind):
    """The processes are one here, which trains in place of them; the stage itself must not take a step.

    The adapter's and the baseline's pairs are in no cache of the cohort: the stage hands them on.
    """
    pairs().save(tmp_path / "cohort/pretraining_train")
    alone, stage, commands = contents(keep(tmp_path / "alone/model", stage=kind)), tmp_path / kind, []
    (tmp_path / "alone/.clock.json").unlink()

    def run(command, check, env):
        commands.append([str(word) for word in command])
        assert cli.main(commands[-1][commands[-1].index("train") :]) == 0
        monkeypatch.setattr(trainer.Run, "optimise", None)

    monkeypatch.setattr(launch.subprocess, "run", run)
    monkeypatch.setenv(launch.LAUNCH, "accelerate launch --num_processes 2")
    found = contents(keep(stage / "model", launched=stage, stage=kind))
    assert commands[0][:4] == ["accelerate", "launch", "--num_processes", "2"]
    assert {name: found[name] for name in alone if name != "kept.json"} == {
        k: v for k, v in alone.items() if k != "kept.json"
    }
    assert not list(stage.rglob(launch.FOLDER))


def test_processes_resume_from_nothing_that_others_left(tmp_path, monkeypatch):
    """They stop half-way; then a setting changes, and with it what is trained."""
    pairs().save(tmp_path / "cohort/pretraining_train")
    stage, other = tmp_path / "pretraining", replace(CONFIG, learning_rate=1e-3)
    alone, optimise = contents(keep(tmp_path / "alone/model", other)), trainer.Run.optimise

    def stop(self, cache, step):
        if step == 3:
            raise KeyboardInterrupt
        return optimise(self, cache, step)

    def run(command, check, env):
        status = cli.main([str(word) for word in command][command.index("train") :])
        if status == 130:
            raise KeyboardInterrupt
        assert status == 0

    monkeypatch.setattr(launch.subprocess, "run", run)
    monkeypatch.setenv(launch.LAUNCH, "accelerate launch")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Run, "optimise", stop)
        keep(stage / "model", launched=stage)
    assert list(stage.rglob("checkpoint-00000002"))
    found = contents(keep(stage / "model", other, launched=stage))
    assert {name: found[name] for name in alone} == alone


def in_this_process(monkeypatch, command="accelerate launch"):
    """The processes that a stage launches are one, this one."""

    def run(command, check, env):
        status = cli.main([str(word) for word in command][command.index("train") :])
        if status == 130:
            raise KeyboardInterrupt
        assert status == 0

    monkeypatch.setattr(launch.subprocess, "run", run)
    monkeypatch.setenv(launch.LAUNCH, command)


def test_processes_go_on_from_a_training_by_hand(tmp_path, monkeypatch):
    stage = tmp_path / "pretraining"
    pairs().save(tmp_path / "cohort/pretraining_train")
    alone = contents(keep(tmp_path / "alone/model"))
    settings = {"model": "ci", "text_tokens": 8, "training": asdict(replace(CONFIG, seed=0))}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    command = ["train", tmp_path / "cohort/pretraining_train", "--settings", tmp_path / "settings.json", "--out", stage]
    assert cli.main([str(word) for word in command]) == 0
    in_this_process(monkeypatch)
    monkeypatch.setattr(trainer.Run, "optimise", None)  # not one step more
    found = contents(keep(stage / "model", launched=stage))
    assert {name: found[name] for name in alone} == alone


def test_pairs_are_written_for_processes_once(tmp_path, monkeypatch):
    stage, calls, optimise = tmp_path / "baseline", [], trainer.Run.optimise

    def stop(self, cache, step):
        if step == 3:
            raise KeyboardInterrupt
        return optimise(self, cache, step)

    def write(self, *arguments, original=LatentCache.save_in_shards):
        calls.append(arguments)
        original(self, *arguments)

    in_this_process(monkeypatch)
    monkeypatch.setattr(LatentCache, "save_in_shards", write)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Run, "optimise", stop)
        keep(stage / "model", launched=stage, stage="baseline")
    keep(stage / "model", launched=stage, stage="baseline")
    assert len(calls) == 1


@pytest.mark.parametrize("how", ["ends", "is there no more"])
def test_a_process_ends_with_the_stage_that_launched_it(tmp_path, monkeypatch, how):
    ended, folder = Event(), tmp_path / "held"
    folder.mkdir()
    monkeypatch.setattr(launch.os, "_exit", lambda status: ended.set())
    monkeypatch.setenv(launch.STAGE, str(folder))
    launch.end_with_stage(0.01)  # nobody holds it here, so that nothing can be told
    assert not ended.wait(0.1)
    with held(folder):
        launch.end_with_stage(0.01)
        assert not ended.wait(0.1)
        if how == "is there no more":
            folder.rmdir()
            assert ended.wait(10)
    assert ended.wait(10)


def test_two_trainings_do_not_write_one_folder(tmp_path, monkeypatch, capsys):
    pairs().save(tmp_path / "pairs")
    (tmp_path / "settings.json").write_text(json.dumps({"model": "ci", "text_tokens": 8, "training": asdict(CONFIG)}))
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(kept_module, "PATIENCE", 0.01)
    words = ["train", tmp_path / "pairs", "--settings", tmp_path / "settings.json", "--out", tmp_path / "out"]
    with held(tmp_path / "out"):
        assert cli.main([str(word) for word in words]) == 2
        assert f"{tmp_path / 'out'}: another process trains here; let it end first" in capsys.readouterr().err
        monkeypatch.setenv("RANK", "1")  # another process of one that holds it
        monkeypatch.setattr(trainer, "accelerator_for", lambda config: pytest.fail("it trains"))
        with pytest.raises(pytest.fail.Exception, match="it trains"):
            cli.main([str(word) for word in words])


def test_a_launcher_that_is_no_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(launch.LAUNCH, "accelerate launch --config_file 'my files/ddp.yaml")
    with pytest.raises(TrainingError, match="launch=.* is no command .No closing quotation.: quote a word"):
        keep(tmp_path / "pretraining/transformer", launched=tmp_path / "pretraining")
    monkeypatch.setenv(launch.LAUNCH, " ")
    assert keep(tmp_path / "pretraining/transformer", launched=tmp_path / "pretraining").is_dir()


def test_processes_that_fail_lose_nothing_and_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv(launch.LAUNCH, "no-such-launcher")
    with pytest.raises(TrainingError, match="the processes of 'no-such-launcher' failed"):
        keep(tmp_path / "pretraining/transformer", launched=tmp_path / "pretraining")
