"""`chexgen judge` end to end on a toy cohort: what it writes, what it lists, what it refuses before anything begins."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from chexgen_lib.cli import judge as command
from chexgen_lib.cli import main as cli
from chexgen_lib.cli.judge import named
from chexgen_lib.cli.options import judging
from chexgen_lib.quality.arms import FLOOR, NOISE, REAL
from chexgen_lib.rehearsal import weights as stand_ins
from tests.experiments.judge import toy
from tests.experiments.judge.test_entries import handed_in
from tests.quality.test_retrieval import tiny_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return toy.cohort(tmp_path_factory.mktemp("cohort"))


def judge(cohort, folder, *more):
    options = ["--cohort", str(cohort), "--out", str(folder / "judged"), "--kept", str(folder / "kept")]
    return cli.main(["judge", "--prompts", "24", "--resamples", "20", *options, *map(str, more)])


def test_without_a_generator_it_writes_the_prompts(cohort, tmp_path, capsys):
    assert judge(cohort, tmp_path) == 0
    assert "24 prompts; generate images for them" in capsys.readouterr().out
    prompts = pl.read_csv(tmp_path / "judged/prompts.csv")
    assert prompts.columns == ["image_id", "prompt", "sex", "age", "view"] and len(prompts) == 24
    assert [path.name for path in (tmp_path / "judged").iterdir()] == ["prompts.csv"]


def test_a_report_is_not_written_among_the_images_that_are_judged(tmp_path, capsys):
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged/labels.csv").write_text("image,image_id\n")
    assert judge(tmp_path / "no cohort is read", tmp_path, tmp_path / "judged") == 2
    assert "judged, whose images are read: name a folder elsewhere" in capsys.readouterr().err


def test_two_folders_are_judged_side_by_side(cohort, tmp_path, capsys):
    assert judge(cohort, tmp_path) == 0
    ids = pl.read_csv(tmp_path / "judged/prompts.csv")["image_id"]
    table = pl.read_parquet(cohort / "cohort.parquet")
    table = ids.to_frame().join(table, on="image_id", maintain_order="left")
    unknown = table[:1].with_columns(image_id=pl.lit("mars:1"))
    one = handed_in(tmp_path / "one", pl.concat([table, unknown]), copies=2)
    two = handed_in(tmp_path / "two", table.sample(fraction=1, shuffle=True, seed=1).with_columns(image_id=ids), 2)
    sources = [one, f"shuffled={two}", "--classifier-steps", "2", "--embedders", "classifier", "radiomics"]
    sources += ["--image-text-encoder", tiny_clip(tmp_path / "clip")]
    assert judge(cohort, tmp_path, *sources) == 0
    out = tmp_path / "judged"
    printed = capsys.readouterr().out
    assert "one: FID-classifier" in printed and str(out / "report.md") in printed
    found = pl.read_csv(out / "metrics.csv", infer_schema_length=None)
    assert {"one", "shuffled", FLOOR, NOISE} <= set(found["arm"])
    assert {"KID-radiomics", "coverage-classifier", "MS-SSIM", "Pearson r"} <= set(found["metric"])
    assert {"R@1, image-text", "R@10, image-text", "FID-image-text"} <= set(found["metric"])
    shown = pl.read_csv(out / "asked_and_shown.csv", infer_schema_length=None)
    assert {REAL, "one", "shuffled"} <= set(shown["arm"]) and {"sex", "side", "Edema"} <= set(shown["attribute"])
    excluded = pl.read_csv(out / "excluded.csv")
    assert excluded["image_id"].to_list() == ["mars:1"] * 2 and set(excluded["generator"]) == {"one"}
    written = json.loads((out / "judge.json").read_text())
    about, settings = written["generators"], written["settings"]
    assert settings["cohort"] == cohort.as_posix() and settings["images_per_prompt"] == 2
    assert settings["resamples"] == 20 and settings["classifier_steps"] == 2
    assert about["shuffled"]["pool"] == two.as_posix() and about["one"]["images"] == [24, 2]
    report = (out / "report.md").read_text()
    assert "2 excluded (excluded.csv)" in report and "## Differences from one" in report
    assert "one anatomy" not in report  # these are no renders of the phantom
    assert (out / "metrics.png").stat().st_size > 10_000


def test_options_that_cannot_work_are_refused_before_anything_begins(cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    monkeypatch.setattr("torchxrayvision.utils.get_cache_dir", lambda: str(tmp_path / "none"))
    for message, *more in (
        ("--embedders radiomics radiomics: give each once", "shipped", "--embedders", "radiomics", "radiomics"),
        ("is missing: run `chexgen weights fetch", "shipped", "--embedders", "classifier", "xrv"),
        ("unknown embedders ['inception']", "shipped", "--embedders", "inception"),
        ("give NAME=SOURCE, every name once", "a=shipped", "a=other"),
        ("no generator at 'nobody/nothing'", "nobody/nothing"),
    ):
        assert judge(cohort, tmp_path, *more) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["judge", "shipped", "--cohort", str(tmp_path), "--out", str(tmp_path / "judged")]) == 2
    assert "holds no images_*.npy: give the folder that 02_cohort wrote" in capsys.readouterr().err


def test_what_cannot_be_judged_is_named_before_anything_is_rendered_or_sampled(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "render_reference", lambda *_: pytest.fail("rendered"))
    for name in ("images", "wide", "whole", "cut", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "images/0.png").touch()
    (tmp_path / "labels.csv").touch()
    config = tmp_path / "wide/unet/config.json"
    stand_ins.pipeline(tmp_path / "wide")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 64}))
    shutil.rmtree(stand_ins.pipeline(tmp_path / "cut") / "tokenizer")
    nan = stand_ins.pipeline(tmp_path / "nan") / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: torch.full_like(x, torch.nan) for name, x in load_file(nan).items()}, nan)
    (tmp_path / "foreign/model_index.json").write_text(json.dumps({"_class_name": ["mine", "ChestPipeline"]}))
    for source, message in (
        ("images", "holds neither images listed in labels.csv (columns image and image_id) nor a pipeline"),
        ("labels.csv", "is a file and no released .pth: give the folder"),
        ("absent", "does not exist: give a folder"),
        ("epoch_1.pth", "does not exist: give a folder"),
        ("wide", "no Stable Diffusion pipeline at"),
        ("cut", "lacks tokenizer, which its model_index.json names: write or download it again"),
        ("nan", "a trial of one step gave values that are not finite in place of a radiograph"),
        ("foreign", "holds a ['mine', 'ChestPipeline'], which is no text-to-image pipeline of diffusers"),
    ):
        options = ["--out", str(tmp_path / "judged"), "--kept", str(tmp_path / "kept")]
        assert cli.main(["judge", f"other={tmp_path / source}", *options]) == 2, source
        assert message in (said := capsys.readouterr().err) and str(tmp_path / source) in said
    assert not (tmp_path / "judged").exists()


def test_the_embedded_reference_is_rendered_once(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "render_reference", toy.render)
    toy.RENDERED.clear()
    options = ["judge", "--out", str(tmp_path / "judged"), "--kept", str(tmp_path / "kept")]
    assert cli.main([*options, "--prompts", "24"]) == 0
    few = pl.read_csv(tmp_path / "judged/prompts.csv")
    assert cli.main([*options, "--prompts", "30", "--workers", "1"]) == 0
    assert len(toy.RENDERED) == 1 and set(toy.RENDERED[0]) == {"train", "val", "test"}
    assert pl.read_csv(tmp_path / "judged/prompts.csv")["image_id"].to_list()[:24] == few["image_id"].to_list()


def test_names_of_generators():
    assert named(["mine=~/a/b"]) == {"mine": str(Path.home() / "a/b")}
    assert named(["shipped", "other=a/b", "runs/x/transformer", "epoch_1.pth", "a/sd-v1.4", "sd-v1.5/"]) == {
        "shipped": "shipped",
        "other": "a/b",
        "transformer": "runs/x/transformer",
        "epoch_1": "epoch_1.pth",
        "sd-v1.4": "a/sd-v1.4",
        "sd-v1.5": "sd-v1.5/",
    }
    for texts in (["a b"], ["=x"], ["a="], ["x", "y/x"]):
        with pytest.raises(ValueError, match="give NAME=SOURCE"):
            named(texts)


def test_what_the_page_says_is_what_the_program_takes(capsys):
    """Commands of docs/judging.md and of `make judge`, and every option that the page names."""
    page, parser = (ROOT / "docs/judging.md").read_text(), argparse.ArgumentParser()
    judging.add(parser.add_subparsers())
    commands = [shlex.split(line) for line in re.findall(r"chexgen (judge [^`\n]*)", page)]
    assert [parser.parse_args(words).generators for words in commands] == [
        ["shipped"],
        ["shipped", "mine=FOLDER", "roentgen=HUB/ID"],
        [],
    ]
    make = ["make", "--dry-run", "judge", "GENERATOR=shipped a=b", "OPTIONS=--prompts 200 --int8"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = printed.partition("chexgen_lib.cli ")[2].partition("\n")[0]  # within make, another line follows
    made = parser.parse_args(shlex.split(command))
    assert made.generators == ["shipped", "a=b"] and made.prompts == 200 and made.int8
    with pytest.raises(SystemExit):
        parser.parse_args(["judge", "--help"])
    known = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z][a-z0-9-]*", page)) - {"--training"} <= known  # that one is of `chexgen audit`
