"""`chexgen train` trains what the notebooks train, goes on where it was, and explains what is wrong."""

import errno
import hashlib
import json
import os
from dataclasses import asdict, replace

import polars as pl
import pytest
import torch

from chexgen_lib.cli import main as cli
from chexgen_lib.cohort.layout import FLAGS
from chexgen_lib.kept import kept
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.records import conform
from chexgen_lib.training import trainer
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.stages import train_model

CONFIG = TrainingConfig(steps=4, batch_size=4, learning_rate=1e-2, precision="fp32", checkpoint_every=2, seed=3)


def pairs(side: int) -> LatentCache:
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(10, 4, side, side, generator=g).half()
    states = torch.randn(20, 16, generator=g).half()
    return LatentCache(mean, torch.full_like(mean, 0.1), states, torch.arange(0, 21, 2))


@pytest.fixture
def folder(tmp_path):
    """A folder with caches, and settings as in params.yaml: the seed outside of the section."""
    pairs(4).save(tmp_path / "low")
    pairs(8).save(tmp_path / "high")
    training = {key: value for key, value in asdict(CONFIG).items() if key != "seed"}
    section = {"model": "ci", "training": training, "text_tokens": 8, "preview_steps": 50}
    (tmp_path / "params.yaml").write_text(json.dumps({"seed": 3, "stage": section}))
    return tmp_path


def chexgen_train(folder, *more: str, cache: str = "low", settings: str = "params.yaml:stage", out: str = "out") -> int:
    options = ["--settings", str(folder / settings), "--out", str(folder / out), *map(str, more)]
    return cli.main(["train", str(folder / cache), *options])


def test_more_processes_than_gpus_are_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert chexgen_train(folder, "--size", "ci") == 2
    said = capsys.readouterr().err
    assert "8 processes were started on this machine, which has 4 GPUs" in said and "--num_processes 4" in said
    assert not (folder / "out").exists()


@pytest.mark.parametrize(("gpus", "expected"), [(1, "0"), (2, "1"), (8, "5"), (0, "5")])
def test_a_process_counts_the_gpus_that_it_sees(folder, monkeypatch, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)  # by Slurm: of `--gpus-per-task`
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert chexgen_train(folder, cache="none") == 2  # before anything is trained
    assert os.environ["LOCAL_RANK"] == expected


def fingerprints(folder) -> dict[str, str]:
    weights = [p for p in (folder / "transformer").iterdir() if p.name == "config.json" or p.suffix == ".safetensors"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in weights}


def last_checkpoint(folder) -> dict[str, bytes]:
    (checkpoint,) = folder.glob("checkpoint-*")
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


def as_the_notebook(folder, cache, transformer):
    data = dict(pairs=pairs(cache), held_out=pairs(cache))
    kept(train_model, folder / "transformer", {"launched": folder}, model=transformer, config=CONFIG, **data)
    return fingerprints(folder)


def test_it_trains_as_the_notebooks_do(folder):
    assert chexgen_train(folder) == 0
    torch.manual_seed(3)
    fresh = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8)
    assert as_the_notebook(folder / "notebook", 4, fresh) == fingerprints(folder / "out")
    stage1 = folder / "out/transformer"
    assert chexgen_train(folder, "--weights", stage1, cache="high", out="stage2") == 0
    larger = ChexGenTransformer.from_pretrained(stage1).enlarged()
    assert as_the_notebook(folder / "notebook2", 8, larger) == fingerprints(folder / "stage2")


def test_the_notebook_goes_on_from_it_without_training(folder, monkeypatch):
    assert chexgen_train(folder) == 0
    monkeypatch.setattr(trainer.Run, "optimise", None)
    torch.manual_seed(3)
    transformer = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8)
    expected = fingerprints(folder / "out")
    (folder / "out/transformer").rename(folder / "removed")  # as `dvc repro` removes what a stage will write
    assert as_the_notebook(folder / "out", 4, transformer) == expected


def test_a_disk_that_the_log_fills_is_named(folder, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(trainer, "_log", full)
    assert chexgen_train(folder) == 2
    assert f"{folder / 'out'}: cannot be written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize("at", [3, None])
def test_stopped_anywhere_and_started_again_it_ends_with_the_same_bytes(folder, monkeypatch, at):
    assert chexgen_train(folder, out="whole") == 0
    with monkeypatch.context() as patched:
        optimise = trainer.Run.optimise

        def until(self, cache, step):
            if step == at:
                raise KeyboardInterrupt
            return optimise(self, cache, step)

        def stop(*_, **__):
            raise KeyboardInterrupt

        patched.setattr(trainer.Run, "optimise", until)
        if at is None:  # when all is trained, and the model is being written
            patched.setattr(ChexGenTransformer, "save_pretrained", stop)
        assert chexgen_train(folder) == 130
    assert not (folder / "out/transformer").exists()
    assert chexgen_train(folder) == 0
    assert fingerprints(folder / "out") == fingerprints(folder / "whole")
    assert last_checkpoint(folder / "out") == last_checkpoint(folder / "whole")


@pytest.mark.parametrize(
    "options, complaint",
    [
        (dict(more=["--size", "huge"]), "unknown model size 'huge'; choose one of ci, "),
        (dict(cache="missing"), "missing does not exist: run the stage 02_cohort first"),
        (dict(settings="params.yaml:other"), "has no section 'other'"),
        (dict(settings="none.yaml"), "none.yaml cannot be read: No such file"),
        (dict(settings="params.yaml:seed"), "has no section 'seed'"),
        (dict(setting=("warmup_steps", "many")), "params.yaml:stage: warmup_steps is 'many'; its default is 0"),
        (dict(setting=("gradient_checkpointing", "no")), "gradient_checkpointing is 'no'; its default is False"),
        (dict(more=["--weights", "x", "--metadata-sources", "a,b"]), "leave out --metadata-sources"),
        (dict(setting=("batch_sise", 4)), "params.yaml:stage: unknown setting batch_sise; known are steps, batch_size"),
        (dict(setting=("learning_rate", "fast")), "params.yaml:stage: "),
        (dict(setting=("steps", 0)), "steps must be a positive integer, not 0"),
        (dict(setting=("gradient_accumulation", 3)), "a step of 4 x 3 images is larger than the 10 pairs in "),
        (dict(setting=("model", None)), "unknown model size None"),
        (dict(setting=("training", 5)), "params.yaml:stage: training is 5, not a mapping"),
    ],
)
def test_what_is_wrong_is_one_line(folder, capsys, options, complaint):
    setting = options.pop("setting", None)
    if setting:
        params = json.loads((folder / "params.yaml").read_text())
        (params["stage"] if setting[0] in params["stage"] else params["stage"]["training"])[setting[0]] = setting[1]
        (folder / "params.yaml").write_text(json.dumps(params))
    assert chexgen_train(folder, *options.pop("more", []), **options) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1 and not (folder / "out").exists()


@pytest.mark.parametrize("content", [b"\x82\xff", "steps: 1".encode("utf-16"), b"a: [", b"- a\nb: 1", b"a: 2026-13-45"])
def test_files_that_hold_no_settings_are_one_line(folder, capsys, content):
    (folder / "bad.yaml").write_bytes(content)
    assert chexgen_train(folder, settings="bad.yaml") == 2
    error = capsys.readouterr().err
    assert "bad.yaml is neither YAML nor JSON" in error and error.count("\n") == 1 and not (folder / "out").exists()


def test_a_folder_without_a_cache_is_named(folder, capsys):
    (folder / "hollow").mkdir()
    assert chexgen_train(folder, cache="hollow") == 2
    assert "hollow holds no latent cache: run the stage 02_cohort first" in capsys.readouterr().err


def test_a_model_of_metadata_takes_them_from_the_cohort_around_the_cache(folder, capsys):
    n = len(pairs(4))
    assert chexgen_train(folder, "--metadata-sources", "nih") == 2
    assert "no cohort around it has its records" in capsys.readouterr().err
    rows = [{**dict.fromkeys(("image_id", "patient_id", "study_id"), str(k)), "source": "nih"} for k in range(n)]
    table = conform(pl.DataFrame(rows)).with_columns(age=pl.Series(range(20, 20 + n)), split=pl.lit("train"))
    flags = {flag: pl.lit(flag == "stage1") for flag in FLAGS}
    table.with_columns(**flags).write_parquet(folder / "cohort.parquet")
    pairs(4).save(folder / "pretraining_train")
    assert chexgen_train(folder, "--metadata-sources", "nih, nhi", cache="pretraining_train") == 2
    assert "is of 'nhi', which --metadata-sources names" in capsys.readouterr().err
    assert chexgen_train(folder, "--metadata-sources", "nih", cache="pretraining_train") == 0
    found = ChexGenTransformer.from_pretrained(folder / "out/transformer")
    assert found.metadata_sources == ["nih"]
    torch.manual_seed(CONFIG.seed)
    fresh = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8, metadata_sources=["nih"])
    assert not torch.equal(found.metadata_embedder.age.weight, fresh.metadata_embedder.age.weight)


def test_weights_of_another_size_or_none_are_one_line(folder, capsys):
    ChexGenTransformer.of_size("laptop-s", sample_size=4, text_dim=16, text_tokens=8).save_pretrained(folder / "s")
    assert chexgen_train(folder, "--weights", folder / "s") == 2
    assert "is not of size 'ci', it has {'depth': 6, 'hidden_size': 128" in capsys.readouterr().err
    assert chexgen_train(folder, "--weights", folder / "nothing") == 2
    assert "holds no transformer" in capsys.readouterr().err
    settings = {key: value for key, value in asdict(replace(CONFIG, seed=1)).items()}
    (folder / "flat.json").write_text(json.dumps(settings))
    assert chexgen_train(folder, settings="flat.json") == 2
    assert "no size: give --size, one of ci, laptop-s" in capsys.readouterr().err
    assert chexgen_train(folder, "--weights", folder / "s", cache="high", settings="flat.json") == 0  # enlarged
