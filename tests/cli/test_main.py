"""The command line samples what the pipeline samples, goes on where it was, and explains what is wrong."""

import argparse
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib.cli import data
from chexgen_lib.cli import main as cli
from chexgen_lib.models.autoencoder import SHIPPED
from chexgen_lib.models.loading import weights_sha256
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import digest
from tests.builders import shipped_foundation
from tests.cli.commands import command, content


def test_samples_what_the_pipeline_samples(prompts, weights, tmp_path):
    assert cli.main(command(prompts, weights, tmp_path / "out", "--batch-size", "4", "--images-per-prompt", "2")) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    assert manifest["file"].to_list()[:3] == ["case0_0.png", "case0_1.png", "case1_0.png"] and len(manifest) == 12
    assert set(manifest["weights_sha256"]) == {weights_sha256(weights)} and manifest["seed"].n_unique() == 12
    pipe = ChexGenPipeline.from_pretrained(weights)
    row = manifest.row(3, named=True)
    generator = [torch.Generator().manual_seed(row["seed"])]
    expected = pipe(row["prompt"], num_inference_steps=3, generator=generator).images[0]
    found = Image.open(tmp_path / "out" / row["file"])
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1  # another batch rounds differently


@pytest.mark.parametrize("given", [[], ["--autoencoder", "shipped"]])
def test_samples_of_a_model_alone_say_which_autoencoder_decoded_them(prompts, pipeline, tmp_path, given):
    """It is the shipped one, which `make autoencoder` makes anew."""
    pipeline.transformer.save_pretrained(tmp_path / "model")
    assert cli.main(command(prompts, tmp_path / "model", tmp_path / "out", *given)) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    assert set(manifest["autoencoder_sha256"]) == {digest(SHIPPED / "diffusion_pytorch_model.safetensors")}


def test_what_the_package_ships_is_sampled_by_default(prompts, tmp_path, monkeypatch, capsys):
    folder, _ = shipped_foundation(tmp_path / "foundation", monkeypatch)
    assert cli.main(["sample", str(prompts), "--out", str(tmp_path / "out"), "--int8"]) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    recipe = json.loads((folder / "recipe.json").read_text())
    assert set(manifest["weights_sha256"]) == {recipe["sha256"]}
    assert set(manifest["autoencoder_sha256"]) == {digest(SHIPPED / "diffusion_pytorch_model.safetensors")}
    assert (set(manifest["sampler"]), set(manifest["steps"])) == ({"DPMSolverMultistepScheduler"}, {20})
    before = content(tmp_path / "out")
    monkeypatch.setattr(ChexGenPipeline, "__call__", lambda *a, **k: pytest.fail("sampled again"))
    assert cli.main(command(prompts, "shipped", tmp_path / "out", "--int8", "--steps", "20")) == 0
    assert content(tmp_path / "out") == before
    assert cli.main(command(prompts, "shipped", tmp_path / "out", "--sampler", "ddim")) == 2
    assert "'ddim' cannot sample these weights (rectified_flow): use dpm-solver++" in capsys.readouterr().err
    assert cli.main(command(prompts, "shipped", tmp_path / "out", "--compat", "paper")) == 2
    assert "shipped is a whole pipeline: --compat is for a released .pth" in capsys.readouterr().err
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    assert cli.main(command(prompts, "shipped", tmp_path / "out")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_killed_and_started_again_gives_the_same_bytes(prompts, weights, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.main(command(prompts, weights, whole, "--batch-size", "2")) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "chexgen_lib.cli.main", *command(prompts, weights, cut, "--batch-size", "2")]
    )
    while process.poll() is None and not (cut / "case0_0.png").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (cut / "case1_0.png").write_bytes(b"half a file")
    before = {p.name: p.stat().st_mtime_ns for p in cut.glob("case0_0.png")}
    assert cli.main(command(prompts, weights, cut, "--batch-size", "2")) == 0
    assert content(cut) == content(whole) and before


def test_finished_images_are_not_sampled_again(prompts, weights, tmp_path, monkeypatch):
    assert cli.main(command(prompts, weights, tmp_path / "out")) == 0
    monkeypatch.setattr(ChexGenPipeline, "__call__", lambda *a, **k: pytest.fail("sampled again"))
    assert cli.main(command(prompts, weights, tmp_path / "out")) == 0
    with pytest.raises(pytest.fail.Exception):
        cli.main(command(prompts, weights, tmp_path / "out", "--guidance", "2"))


def test_files_that_are_read_and_others_pictures_are_never_replaced(prompts, weights, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    Image.new("L", (8, 8)).save(out / "case0_0.png")
    for words in ("case0_0.png is no image of this command's", "manifest.csv is read here, and would be replaced"):
        before = content(out)
        assert cli.main(command(prompts, weights, out)) == 2
        assert words in capsys.readouterr().err and content(out) == before
        prompts = prompts.rename(out / "manifest.csv")


def test_a_manifest_that_somebody_else_wrote_is_never_replaced(prompts, weights, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.csv").write_text("file,radiologist\na.png,1\n")
    assert cli.main(command(prompts, weights, tmp_path / "out")) == 2
    assert "manifest.csv is no table of this command's" in capsys.readouterr().err
    assert content(tmp_path / "out") == {"manifest.csv": b"file,radiologist\na.png,1\n"}


def test_interrupted_and_out_of_memory_are_one_line(monkeypatch, capsys):
    for error, status, words in (
        (KeyboardInterrupt(), 130, "interrupted; give the same command again"),
        (MemoryError(), 2, "the memory is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "(--batch-size, --workers)"),
    ):

        def stop(options, error=error):
            raise error

        monkeypatch.setattr(data, "list_sources", stop)
        assert cli.main(["data", "list"]) == status
        assert words in (said := capsys.readouterr().err) and said.count("\n") == 1
    monkeypatch.setattr(data, "list_sources", lambda options: [].pop())
    with pytest.raises(IndexError):
        cli.main(["data", "list"])


def test_an_interrupt_that_comes_twice_is_one_line(monkeypatch, capsys):
    """polars raises one, and Python's own for the same key comes when the first is handled."""
    said = cli._interrupted
    again = iter([True, False])
    monkeypatch.setattr(cli, "_interrupted", lambda: _raise(KeyboardInterrupt()) if next(again) else said())
    monkeypatch.setattr(data, "list_sources", lambda options: _raise(KeyboardInterrupt()))
    assert cli.main(["data", "list"]) == 130 and capsys.readouterr().err.count("\n") == 1


def _raise(error: BaseException):
    raise error


def test_errors_are_one_line_and_write_nothing(prompts, weights, tmp_path, capsys):
    def fails(message, *arguments):
        assert cli.main(list(arguments)) == 2
        error = capsys.readouterr().err
        assert message in error and not (tmp_path / "out").exists()

    out = tmp_path / "out"
    fails("does not exist", *command(tmp_path / "none.csv", weights, out))
    fails("does not exist", *command(prompts, tmp_path / "none.pth", out))
    fails("holds no pipeline: write one with", *command(prompts, weights / "vae", out))
    fails("--compat is for a released .pth", *command(prompts, weights, out, "--compat", "released"))
    prompts.write_text("name,impression,boxes\na,Clear.,Effusion 0 0 1 1\n")
    fails("row 1 (a) has a mask or boxes: load weights with a control adapter, such", *command(prompts, weights, out))
    prompts.write_text("name,impression\na,Clear.\nb," + "effusion " * 3000 + "\n")
    fails("1 prompts have more than 120 tokens, shorten them: row 2", *command(prompts, weights, out))
    (tmp_path / "there").mkdir()
    fails("exists: name a new folder", "convert", str(prompts), str(tmp_path / "there"))
    (tmp_path / "empty.pth").write_bytes(b"")
    fails("empty.pth is truncated or no PyTorch", "convert", str(tmp_path / "empty.pth"), str(out / "converted"))


def test_warnings_are_ours_alone(monkeypatch, capsys):
    """What a library tells those who write code with it is nothing that a user could mend."""

    def list_sources(options):
        warnings.warn("`torch.jit.script` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("films.csv: not used: note", stacklevel=1)
        return 0

    monkeypatch.setattr(data, "list_sources", list_sources)
    assert cli.main(["data", "list"]) == 0
    assert capsys.readouterr().err == "chexgen: films.csv: not used: note\n"


def test_a_weights_file_has_the_digest_that_others_compute(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert weights_sha256(tmp_path / "w.pth") == hashlib.sha256(b"weights").hexdigest()


def test_converts_a_released_checkpoint(pipeline, weights, tmp_path):
    state = pipeline.transformer.state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "epoch_1_step_1.pth")
    parts = ["--autoencoder", str(weights / "vae"), "--text-encoder", "minilm"]
    assert cli.main(["convert", str(tmp_path / "epoch_1_step_1.pth"), str(tmp_path / "converted"), *parts]) == 0
    converted = ChexGenPipeline.from_pretrained(tmp_path / "converted")
    for name, value in converted.transformer.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert converted.config.clean_captions and converted.config.compat == "paper"


@pytest.mark.parametrize("form", [{}, {"safe_serialization": False}, {"variant": "fp16"}], ids=str)
def test_all_that_changes_an_image_is_in_the_digest(pipeline, tmp_path, form):
    pipeline.save_pretrained(tmp_path, **form)
    seen = {weights_sha256(tmp_path)}
    weights = next(path for path in (tmp_path / "transformer").iterdir() if path.suffix in (".bin", ".safetensors"))
    for path in (weights, tmp_path / "scheduler/scheduler_config.json", tmp_path / "vae/config.json"):
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(weights_sha256(tmp_path))
    (tmp_path / "README.md").write_text("what people read changes no image")
    assert len(seen) == 4 and weights_sha256(tmp_path) in seen


def test_a_folder_of_the_variant_fp16_is_sampled_and_a_damaged_one_named(pipeline, prompts, tmp_path, capsys):
    folder = tmp_path / "weights"
    pipeline.save_pretrained(folder, variant="fp16")
    command = ["sample", str(prompts), "--weights", str(folder), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert cli.main(command) == 0
    path = next((folder / "transformer").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:1000])
    assert cli.main([*command[:-3], str(tmp_path / "other"), "--steps", "1"]) == 2
    assert f"{folder} holds no whole pipeline, write or download it again" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_sampler_or_a_place_that_cannot_be_used_is_named_by_its_option(prompts, weights, tmp_path, capsys):
    sample = command(prompts, weights, tmp_path / "out")
    edit = ["edit", str(tmp_path / "films.csv"), "--out"]
    for arguments, message in (
        ([*sample, "--sampler", "euler"], "is none of ddim, dpm-solver++, ancestral, flow-euler, flow-heun"),
        (command(prompts, weights, prompts), f"--out {prompts} is a file: name a folder"),
        ([*edit, str(prompts)], f"--out {prompts} is a file: name a folder"),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_commands_of_the_pages_can_be_typed_as_they_stand():
    root = Path(__file__).parents[2]
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("chexgen ")]
        parsed = [cli._parser().parse_args(words) for words in commands]  # exits where an option is unknown
        new = [str(options.out) for words, options in zip(commands, parsed, strict=True) if words[0] == "share"]
        assert len(new) == len(set(new)), f"{page.name}: `chexgen share` writes a new folder, and {new} repeats one"


def options_of(parser: argparse.ArgumentParser):
    """Every option of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)
        elif action.option_strings:
            yield action


def test_help_states_every_default():
    unsaid = [
        action.option_strings[0]
        for action in options_of(cli._parser())
        if action.default not in (None, argparse.SUPPRESS) and action.default is not False
        if "default" not in action.help
    ]
    assert unsaid == []
