"""Options of `chexgen sample` that give other images of the same prompts."""

import copy

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cli import main as cli
from chexgen_lib.diffusion.schedulers import flow_euler_scheduler
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.cli.commands import command, content, saved


def test_guidance_can_be_left_out_of_noisy_steps(prompts, weights, tmp_path, capsys):
    for name, more in (("whole", []), ("part", ["--guidance-interval", "0,0.5"])):
        assert cli.main(command(prompts, weights, tmp_path / name, *more)) == 0
    assert content(tmp_path / "whole")["case0_0.png"] != content(tmp_path / "part")["case0_0.png"]
    assert set(pl.read_csv(tmp_path / "part/manifest.csv")["guidance_interval"]) == {"[0.0, 0.5]"}
    assert cli.main(command(prompts, weights, tmp_path / "bad", "--guidance-interval", "0.9,0.1")) == 2
    assert "guidance_interval must be two fractions in order, not (0.9, 0.1)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(command(prompts, weights, tmp_path / "bad", "--guidance-interval", "half"))


def test_the_sampler_can_be_chosen(prompts, weights, tmp_path):
    for sampler in ("ddim", "dpm-solver++"):
        assert cli.main(command(prompts, weights, tmp_path / sampler, "--sampler", sampler)) == 0
    manifests = [pl.read_csv(tmp_path / sampler / "manifest.csv") for sampler in ("ddim", "dpm-solver++")]
    assert [m["sampler"][0] for m in manifests] == ["SpacedDDIMScheduler", "DPMSolverMultistepScheduler"]
    assert content(tmp_path / "ddim")["case0_0.png"] != content(tmp_path / "dpm-solver++")["case0_0.png"]


def test_int8_weights_are_another_job(prompts, weights, tmp_path):
    assert cli.main(command(prompts, weights, tmp_path / "out")) == 0
    exact = {name: np.asarray(Image.open(tmp_path / "out" / name), float) for name in ("case0_0.png", "case5_0.png")}
    assert cli.main(command(prompts, weights, tmp_path / "out", "--int8")) == 0  # not taken for finished
    assert set(pl.read_csv(tmp_path / "out/manifest.csv")["weights"]) == {"int8"}
    for name, image in exact.items():
        error = np.abs(np.asarray(Image.open(tmp_path / "out" / name)) - image)
        assert 0 < error.max() and error.mean() < 3


def test_compiled_blocks_are_another_job_of_nearly_the_same_images(prompts, weights, tmp_path, monkeypatch):
    compiled, compile_blocks = [], ChexGenTransformer.compile_repeated_blocks
    monkeypatch.setattr(
        ChexGenTransformer, "compile_repeated_blocks", lambda model: compiled.append(model) or compile_blocks(model)
    )
    for name, more in (("plain", []), ("compiled", ["--compile"]), ("both", ["--compile", "--int8"])):
        assert cli.main(command(prompts, weights, tmp_path / name, *more)) == 0
    assert len(compiled) == 2
    assert pl.read_csv(tmp_path / "compiled/manifest.csv")["compiled"].all()
    assert "compiled" not in pl.read_csv(tmp_path / "plain/manifest.csv").columns
    plain, *others = (
        np.asarray(Image.open(tmp_path / name / "case0_0.png"), float) for name in ("plain", "compiled", "both")
    )
    assert all(np.abs(other - plain).mean() < 3 for other in others)


def test_without_a_compiler_it_says_so_before_it_starts(prompts, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cli.main(command(prompts, weights, tmp_path / "out", "--compile")) == 2
    assert "there is no no-such-compiler" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_flow_has_its_own_samplers(pipeline, prompts, weights, tmp_path, tmp_path_factory, capsys, monkeypatch):
    transformer = copy.deepcopy(pipeline.transformer)
    transformer.register_to_config(objective="rectified_flow")
    parts = {**pipeline.components, "transformer": transformer, "scheduler": flow_euler_scheduler(shift=2.0)}
    flow = saved(ChexGenPipeline(**parts), tmp_path_factory)
    shifts, call = [], ChexGenPipeline.__call__

    def spy(self, *args, **kwargs):
        shifts.append(self.scheduler.config.shift)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(ChexGenPipeline, "__call__", spy)
    for more in ((), ("--sampler", "flow-heun")):
        assert cli.main(command(prompts, flow, tmp_path / "_".join(("out", *more)), *more)) == 0
    manifests = [pl.read_csv(path)["sampler"][0] for path in sorted(tmp_path.glob("out*/manifest.csv"))]
    assert manifests == ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"]
    assert set(shifts) == {2.0}  # the pipeline's own
    for folder, sampler, remedy in ((flow, "ddim", "dpm-solver++, flow-euler"), (weights, "flow-euler", "ddim, dpm-")):
        assert cli.main(command(prompts, folder, tmp_path / "never", "--sampler", sampler)) == 2
        message = capsys.readouterr().err
        assert f"sampler '{sampler}' cannot sample these weights" in message and f"use {remedy}" in message
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    "given", [("--sampler", "ddim"), ("--sampler", "dpm-solver++"), ("--guidance-interval", "0,0.5")]
)
def test_a_distilled_model_says_what_to_leave_out(pipeline, prompts, tmp_path, tmp_path_factory, capsys, given):
    transformer = copy.deepcopy(pipeline.transformer)
    transformer.register_to_config(objective="rectified_flow", distilled_steps=4)
    parts = {**pipeline.components, "transformer": transformer, "scheduler": flow_euler_scheduler()}
    distilled = saved(ChexGenPipeline(**parts), tmp_path_factory)
    assert cli.main(["sample", str(prompts), "--weights", str(distilled), "--out", str(tmp_path / "out"), *given]) == 2
    option = given[0] if "interval" in given[0] else " ".join(given)
    assert (
        f"distilled to 4 steps of Euler's method, with guidance learned: leave out {option}\n"
        in capsys.readouterr().err
    )


def test_settings_of_the_sampler_are_another_job(pipeline, prompts, weights, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["sample", str(prompts), "--weights", str(weights), "--out", str(out), "--steps", "1"]) == 0
    assert '"timestep_spacing": "trailing"' in pl.read_csv(out / "manifest.csv")["sampler_settings"][0]
