"""`chexgen sample` with masks, boxes and columns of metadata."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib.cli import main as cli
from chexgen_lib.cli import sample as files
from chexgen_lib.sampling.conditions import draw
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.builders import shipped_adapter, shipped_foundation
from tests.cli.commands import command, content, saved


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


def test_what_the_package_ships_follows_masks_and_boxes(prompts, tmp_path, monkeypatch):
    shipped_foundation(tmp_path / "foundation", monkeypatch)
    adapter, _ = shipped_adapter(tmp_path / "adapter", monkeypatch)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("name,impression,boxes\nwith,Edema.,Lung Lesion 0.4 0.4 0.2 0.2\nwithout,Edema.,\n")
    assert cli.main(command(boxes, "shipped", tmp_path / "out")) == 0
    manifest = pl.read_csv(tmp_path / "out/manifest.csv")
    recipe = json.loads((adapter / "recipe.json").read_text())
    known = {"with_0.png": recipe["sha256"], "without_0.png": None}
    assert dict(manifest.select("file", "adapter_sha256").iter_rows()) == known
    assert cli.main(command(prompts, "shipped", tmp_path / "plain")) == 0
    assert "adapter_sha256" not in pl.read_csv(tmp_path / "plain/manifest.csv").columns, "no row asks for a place"
