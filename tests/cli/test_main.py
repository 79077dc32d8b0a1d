"""The command line samples what the pipeline samples, goes on where it was, and explains what is wrong."""

import copy
import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib.cli import main as cli
from chexgen_lib.cli import sample as files
from chexgen_lib.diffusion.schedulers import flow_euler_scheduler
from chexgen_lib.models.autoencoder import SHIPPED
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.conditions import draw
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import digest
from tests.builders import shipped_foundation


def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "pipeline"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(pipeline, tmp_path_factory):
    return saved(pipeline, tmp_path_factory)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.csv"
    rows = [f"case{i},Effusion number {i}." for i in range(6)]
    path.write_text("\n".join(["name,impression", *rows]) + "\n")
    return path


def command(prompts, weights, out, *more) -> list[str]:
    return ["sample", str(prompts), "--weights", str(weights), "--out", str(out), "--steps", "3", *more]


def content(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_samples_what_the_pipeline_samples(prompts, weights, tmp_path):
    assert cli.main(command(prompts, weights, tmp_path / "out", "--batch-size", "4", "--images-per-prompt", "2")) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    assert manifest["file"].to_list()[:3] == ["case0_0.png", "case0_1.png", "case1_0.png"] and len(manifest) == 12
    assert set(manifest["weights_sha256"]) == {files.digest(weights)} and manifest["seed"].n_unique() == 12
    pipe = ChexGenPipeline.from_pretrained(weights)
    row = manifest.row(3, named=True)
    generator = [torch.Generator().manual_seed(row["seed"])]
    expected = pipe(row["prompt"], num_inference_steps=3, generator=generator).images[0]
    found = Image.open(tmp_path / "out" / row["file"])
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1  # another batch rounds differently


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


@pytest.fixture(scope="module")
def adapter(controlled, tmp_path_factory):
    return saved(controlled, tmp_path_factory)


@pytest.fixture
def annotated(tmp_path):
    """Prompts with a mask, a box, neither, and a mask that is no image."""
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / "lungs.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    path = tmp_path / "annotated.csv"
    path.write_text(
        "name,impression,mask,boxes\n"
        "masked,Clear.,lungs=lungs.png,\n"
        "plain,Clear.,,\n"
        "broken,Clear.,lungs=broken.png,\n"
        "boxed,A nodule.,,Lung Lesion 0.5 0.5 0.3 0.3\n"
    )
    return path


def test_masks_and_boxes_control_their_rows_and_bad_ones_are_listed(annotated, adapter, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(command(annotated, adapter, out)) == 1
    error = capsys.readouterr().err
    assert "not sampled: broken (row 3): mask 'lungs'" in error and "broken.png: not a whole PNG" in error
    names = {"masked_0.png", "masked_condition.png", "plain_0.png", "boxed_0.png", "boxed_condition.png"}
    assert set(content(out)) == {*names, "manifest.csv"}
    manifest = pl.read_csv(out / "manifest.csv")
    assert manifest["file"].to_list() == ["masked_0.png", "plain_0.png", "boxed_0.png"]
    assert manifest["condition"].to_list() == ["masked_condition.png", None, "boxed_condition.png"]
    boxes = [{"class": "Lung Lesion", "x": 0.5, "y": 0.5, "w": 0.3, "h": 0.3}]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "boxed_condition.png")), draw(32, boxes=boxes))
    pipe = ChexGenPipeline.from_pretrained(adapter)
    seed = [torch.Generator().manual_seed(manifest["seed"][2])]
    expected = pipe("A nodule.", boxes=boxes, num_inference_steps=3, generator=seed).images[0]
    found = Image.open(out / "boxed_0.png")
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= 1
    before = content(out)
    assert cli.main(command(annotated, adapter, out)) == 1 and content(out) == before
    assert cli.main(command(annotated, adapter, out, "--control-scale", "0")) == 1
    assert content(out)["masked_0.png"] != before["masked_0.png"]
    assert content(out)["plain_0.png"] == before["plain_0.png"]


def test_a_drawing_is_written_once_whatever_the_batches(annotated, adapter, tmp_path, monkeypatch):
    written, replacing = [], files.replacing
    monkeypatch.setattr(files, "replacing", lambda path: written.append(path.name) or replacing(path))
    cli.main(command(annotated, adapter, tmp_path / "out", "--images-per-prompt", "3", "--batch-size", "1"))
    assert sorted(name for name in written if "condition" in name) == ["boxed_condition.png", "masked_condition.png"]
    assert len(pl.read_csv(tmp_path / "out/manifest.csv")) == 9


def test_a_mask_that_breaks_half_way_costs_only_its_row(annotated, adapter, tmp_path, monkeypatch, capsys):
    read, calls = files.read_masks, []

    def breaks(paths):
        calls.append(1)
        if paths and len(calls) > 3:  # the rows were drawn once already, to check them
            raise files.ConditionError("gone")
        return read(paths)

    monkeypatch.setattr(files, "read_masks", breaks)
    assert cli.main(command(annotated, adapter, tmp_path / "out")) == 1
    assert "not sampled: masked_0.png: gone" in capsys.readouterr().err
    assert {"plain_0.png", "boxed_0.png"} <= set(content(tmp_path / "out"))
    assert "masked_0.png" not in pl.read_csv(tmp_path / "out/manifest.csv")["file"].to_list()


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


def test_columns_of_metadata_go_to_the_encoder_of_a_model_that_has_one(pipeline, tmp_path, tmp_path_factory, capsys):
    torch.manual_seed(0)
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    transformer = type(pipeline.transformer)(**{**config, "metadata_sources": []})
    transformer.load_state_dict(pipeline.transformer.state_dict(), strict=False)
    folder = saved(ChexGenPipeline(**{**pipeline.components, "transformer": transformer}), tmp_path_factory)
    path = tmp_path / "people.csv"
    path.write_text("name,impression,sex,age,view\na,Clear lungs.,Female,54,AP\nb,Clear lungs.,,,\n")
    assert cli.main(command(path, folder, tmp_path / "out")) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    assert manifest["prompt"].to_list() == ["Clear lungs."] * 2
    asked = [{"sex": "F", "age": 54.0, "view": "AP"}, {}]
    assert [json.loads(text) for text in manifest["metadata"]] == asked
    pipe = ChexGenPipeline.from_pretrained(folder)
    generators = [torch.Generator().manual_seed(seed) for seed in manifest["seed"]]
    expected = pipe(["Clear lungs."] * 2, metadata=asked, num_inference_steps=3, generator=generators).images
    for name, image in zip("ab", expected, strict=True):
        found = np.asarray(Image.open(tmp_path / f"out/{name}_0.png"), int)
        assert np.abs(found - np.asarray(image, int)).max() <= 1
    for columns, row, message in (
        ("race", "White", "row 1 (a): these weights cannot be asked for race"),
        ("Effusion", "2", "row 1 (a): Effusion 2 is neither 1 (present) nor 0 (absent)"),
        ("No Finding,Edema", "1,1", "row 1 (a): 'No Finding' and 'Edema' are both present"),
        ("source", "mars", "row 1 (a): source 'mars' is none of"),
    ):
        path.write_text(f"name,impression,{columns}\na,Clear lungs.,{row}\n")
        assert cli.main(command(path, folder, tmp_path / "never")) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_weights_that_read_metadata_alone(pipeline, weights, tmp_path, tmp_path_factory, capsys):
    torch.manual_seed(0)
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    transformer = type(pipeline.transformer)(**{**config, "metadata_sources": ["nih", "openi"]})
    transformer.load_state_dict(pipeline.transformer.state_dict(), strict=False)
    torch.nn.init.normal_(transformer.metadata_embedder.table.weight)
    parts = {**pipeline.components, "transformer": transformer, "text_encoder": None, "tokenizer": None}
    folder = saved(ChexGenPipeline(**parts), tmp_path_factory)
    path = tmp_path / "people.csv"
    path.write_text("name,sex,age,source,Effusion,Edema\na,F,54,nih,1,\nb,M,30,openi,,0\n")
    assert cli.main(command(path, folder, tmp_path / "out")) == 0
    asked = [{"sex": "F", "age": 54.0, "source": "nih", "Effusion": 1},
             {"sex": "M", "age": 30.0, "source": "openi", "Edema": 0}]  # fmt: skip
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    assert [json.loads(text) for text in manifest["metadata"]] == asked
    pipe = ChexGenPipeline.from_pretrained(folder)
    generators = [torch.Generator().manual_seed(seed) for seed in manifest["seed"]]
    expected = pipe(metadata=asked, num_inference_steps=3, generator=generators).images
    for name, image in zip("ab", expected, strict=True):
        np.testing.assert_array_equal(Image.open(tmp_path / f"out/{name}_0.png"), image)
    plain = content(tmp_path / "out")["a_0.png"]
    assert cli.main(command(path, folder, tmp_path / "out", "--metadata-guidance", "age=10, sex=6")) == 0
    assert content(tmp_path / "out")["a_0.png"] != plain
    assert cli.main(command(path, folder, tmp_path / "never", "--metadata-guidance", "Effusion=2")) == 2
    assert "row 2 (b) says no Effusion" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(command(path, folder, tmp_path / "never", "--metadata-guidance", "age"))
    assert cli.main(command(path, weights, tmp_path / "never")) == 2
    assert "no column impression, and these weights have no metadata encoder" in capsys.readouterr().err
    path.write_text("name,impression,Effusion\na,Clear lungs.,1\n")
    assert cli.main(command(path, folder, tmp_path / "never")) == 2
    assert "these weights read no text" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
    assert cli.main(command(path, weights, tmp_path / "text")) == 0
    assert "no metadata encoder to read Effusion" in capsys.readouterr().err


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
    fails("--steps must be at least 1", *command(prompts, weights, out, "--steps", "0"))
    prompts.write_text("name,impression,boxes\na,Clear.,Effusion 0 0 1 1\n")
    fails("row 1 (a) has a mask or boxes: load weights with a control adapter", *command(prompts, weights, out))
    prompts.write_text("name,impression\na,Clear.\nb," + "effusion " * 3000 + "\n")
    fails("1 prompts have more than 120 tokens, shorten them: row 2", *command(prompts, weights, out))
    (tmp_path / "there").mkdir()
    fails("exists: name a new folder", "convert", str(prompts), str(tmp_path / "there"))


def test_a_weights_file_has_the_digest_that_others_compute(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert files.digest(tmp_path / "w.pth") == hashlib.sha256(b"weights").hexdigest()


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
    seen = {files.digest(tmp_path)}
    weights = next(path for path in (tmp_path / "transformer").iterdir() if path.suffix in (".bin", ".safetensors"))
    for path in (weights, tmp_path / "scheduler/scheduler_config.json", tmp_path / "vae/config.json"):
        path.write_bytes(path.read_bytes() + b" ")
        seen.add(files.digest(tmp_path))
    (tmp_path / "README.md").write_text("what people read changes no image")
    assert len(seen) == 4 and files.digest(tmp_path) in seen


def test_settings_of_the_sampler_are_another_job(pipeline, prompts, weights, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["sample", str(prompts), "--weights", str(weights), "--out", str(out), "--steps", "1"]) == 0
    assert '"timestep_spacing": "trailing"' in pl.read_csv(out / "manifest.csv")["sampler_settings"][0]


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
