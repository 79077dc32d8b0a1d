"""A shared model loads and samples as before; shared samples hold no text that may not go; a hub takes both."""

import io
import json
import socket

import huggingface_hub
import numpy as np
import polars as pl
import pydicom
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from PIL import Image

from chexgen_lib.cli import main as cli
from chexgen_lib.export.hub import push, write_model, write_samples
from chexgen_lib.export.images import read_recipe, save
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.sampling.baseline import BaselinePipeline
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.builders import shipped_adapter, shipped_foundation
from tests.export.hub_stand_in import HubStandIn

RECIPE = {"images": 1234, "patients": 56, "sources": {"chexpert": 1000, "nih": 234}, "training": {"steps": 5}}
TOKEN = "hf_stand_in"
STATES = {"prompt_embeds": torch.ones(1, 2, 384), "prompt_attention_mask": torch.ones(1, 2)}


@pytest.fixture(scope="module")
def light(pipeline):
    """A pipeline without text encoder, of a few kB."""
    return ChexGenPipeline(**{**pipeline.components, "text_encoder": None, "tokenizer": None})


@pytest.fixture
def pool(tmp_path):
    """Two copies of each request: one of Open-i, two of one MIMIC record."""
    folder = tmp_path / "pool"
    folder.mkdir()
    samples = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8), dtype=np.uint8)
    np.save(folder / "samples.npy", samples)
    manifest = {
        "image_id": ["openi:1", "mimic_cxr:7:box", "mimic_cxr:7:mask"],
        "record": ["openi:1", "mimic_cxr:7", "mimic_cxr:7"],
        "prompt": ["Normal.", "Secret finding.", "Secret finding."],
        "seeds": [[11, 12], [21, 22], [31, 32]],
    }
    pl.DataFrame(manifest).write_parquet(folder / "manifest.parquet")
    return folder


@pytest.fixture
def hub(monkeypatch):
    with HubStandIn(TOKEN).running() as hub:
        for module in (huggingface_hub.constants, huggingface_hub.hf_api.constants):
            monkeypatch.setattr(module, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_a_shared_model_samples_as_before_and_its_card_holds_the_facts(light, tmp_path):
    light.vae.register_to_config(_name_or_path="folder/that/it/was/loaded/from")
    folder = write_model(tmp_path / "model", light, RECIPE, "cc-by-4.0")
    assert not [path for path in folder.rglob("*.json") if "_name_or_path" in path.read_text()]
    first, second = (
        np.asarray(pipe(**STATES, num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0])
        for pipe in (light, ChexGenPipeline.from_pretrained(folder))
    )
    np.testing.assert_array_equal(first, second)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "diffusers") and "synthetic" in card.data.tags
    assert "images of CheXpert" in card.text and "1,000 (Stanford University Dataset Research" in card.text
    assert json.loads((folder / "recipe.json").read_text()) == RECIPE
    assert (
        "| goes on from | weights/mine |"
        in ModelCard.load(write_model(tmp_path / "on", light, RECIPE | {"start": "weights/mine"}) / "README.md").text
    )
    with pytest.raises(ValueError, match="exists: name a new folder"):
        write_model(folder, light, RECIPE)


def test_a_model_of_unknown_training_says_so(light, tmp_path):
    folder = write_model(tmp_path / "model", light, None)
    card = ModelCard.load(folder / "README.md")
    assert "Not recorded: whoever shares this" in card.text and card.data.license == "unknown"
    assert not (folder / "recipe.json").exists()


def test_what_the_package_ships_with_an_adapter_is_shared(tmp_path, monkeypatch):
    shipped_foundation(tmp_path / "foundation", monkeypatch)
    shipped_adapter(tmp_path / "adapter", monkeypatch)
    assert cli.main(["share", "model", "shipped-adapter", "--out", str(tmp_path / "model")]) == 0
    card = ModelCard.load(tmp_path / "model/README.md").text
    assert "under a control adapter of 1 copied blocks" in card and "; masks and boxes |" in card
    assert "English text of up to 120 tokens" in card and "| rectified_flow |" in card


def test_the_card_of_a_baseline_says_how_it_is_opened(pipeline, tmp_path):
    unet = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=384)
    baseline = BaselinePipeline(**{**pipeline.components, "transformer": unet})
    card = ModelCard.load(write_model(tmp_path / "model", baseline, None) / "README.md").text
    assert "from chexgen_lib.sampling.baseline import BaselinePipeline" in card
    assert "a U-Net of widths 16, 32" in card and "English text of up to 77 tokens" in card


def test_texts_of_credentialed_records_stay_at_home(pool, tmp_path):
    counts = write_samples(tmp_path / "out", pool)
    assert counts.rows() == [("mimic_cxr", False, 4), ("openi", True, 2)]
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"Normal." in written and b"Secret" not in written and b"mimic_cxr:" not in written
    table = pl.read_csv(tmp_path / "out/metadata.csv")
    assert table["seed"].to_list() == [11, 12, 21, 22, 31, 32]
    samples = np.load(pool / "samples.npy").reshape(6, 8, 8)
    for name, image, row in zip(table["file_name"], samples, table.rows(named=True), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), image)
        assert read_recipe(tmp_path / "out" / name)["seed"] == row["seed"]
    card = DatasetCard.load(tmp_path / "out/README.md")
    assert card.data.size_categories == "n<1K" and "prompts and record ids are left out" in card.text


def test_no_file_is_named_that_is_not_shared(pool, tmp_path):
    manifest = pl.read_parquet(pool / "manifest.parquet")
    drawn = manifest.with_columns(condition=pl.lit("conditions/0.png"), condition_hash=pl.lit("5eed"))
    drawn.write_parquet(pool / "manifest.parquet")
    write_samples(tmp_path / "out", pool)
    table = pl.read_csv(tmp_path / "out/metadata.csv")
    assert "condition" not in table.columns and set(table["condition_hash"]) == {"5eed"}
    assert "condition" not in read_recipe(tmp_path / "out" / table["file_name"][0])


@pytest.fixture
def foreign(tmp_path):
    """Images of another generator: of an own prompt, of a MIMIC record, and of a record of nobody knows where."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for name, pixels in (("a b.png", colours), ("c.png", colours[..., 0]), ("d.png", colours[..., 1])):
        Image.fromarray(pixels).save(folder / name)
    rows = ["a b.png,,Mine.,f,61,pa,0.5", "c.png,mimic_cxr:7,Secret.,M,50,AP,1", "d.png,s7,Secret.,M,50,AP,1"]
    (folder / "labels.csv").write_text("\n".join(["image,image_id,prompt,sex,age,view,Edema", *rows]))
    return folder


@pytest.mark.parametrize("form", ["png", "dicom"])
def test_images_of_another_generator_are_shared(foreign, tmp_path, form, capsys):
    out = tmp_path / "out"
    assert cli.main(["share", "samples", str(foreign), "--out", str(out), "--format", form]) == 0
    assert "unknown: no known terms allow passing on texts" in capsys.readouterr().out
    own, *others = pl.read_csv(out / "metadata.csv").rows(named=True)
    told = {"prompt": "Mine.", "sex": "F", "age": 61.0, "view": "PA", "Edema": 0.5, "generator": "unknown"}
    assert own.items() >= told.items() and own["source"] is None
    assert [(row["source"], row["prompt"], row["age"], row["Edema"]) for row in others] == [
        ("mimic_cxr", None, None, None), ("unknown", None, None, None)
    ]  # fmt: skip
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"Mine." in written and b"Secret" not in written and b"mimic_cxr:" not in written and b"s7" not in written
    assert read_recipe(out / own["file_name"])["prompt"] == "Mine."
    if form == "dicom":
        data = pydicom.dcmread(out / own["file_name"])
        assert (data.PatientSex, data.PatientAge, data.ViewPosition) == ("F", "061Y", "PA")
        assert data.PatientName == "SYNTHETIC^unknown" and "ChexGen" not in str(data.ContributingEquipmentSequence)
        data = pydicom.dcmread(out / others[0]["file_name"])
        np.testing.assert_array_equal(data.pixel_array, np.asarray(Image.open(foreign / "c.png")))
        assert not data.PatientAge and not data.ViewPosition


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["image,sex", "a b.png,x"], r"labels.csv, row 1: sex 'x' is none of M, F"),
        (["image,sex", "a b.png,mixed"], "row 1: sex 'mixed' is none of"),
        (["image,age", "a b.png,5000"], "row 1: age '5000' is no number of years"),
        (["image,condition", "a b.png,pneumonia"], "rename the column condition"),
        (["image,view", "a b.png,front"], "row 1: view 'front' is none of PA"),
        (["image,age", "c.png,50", "d.png,old"], "row 2: age 'old' is no number of years"),
        (["image,source", "a b.png,x"], "rename the column source"),
        (["pair,image,edited", "p,c.png,true"], "holds edited films .*: they show their patients"),
        (["image", "c.png", "z.png"], r"row 2: .*z\.png does not exist; mend its name"),
        (["image,prompt", "c.png,Normal.", "c.png,Edema."], "rows 1 and 2: the image is named twice"),
        (["file", "a b.png"], "names no image: it needs a column image"),
    ],
)
def test_a_list_of_images_that_cannot_be_shared_is_named(foreign, tmp_path, rows, words):
    (foreign / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match=words):
        write_samples(tmp_path / "out", foreign)
    assert not (tmp_path / "out").exists()


def test_ids_of_patients_and_studies_tell_the_source_and_stay(foreign, tmp_path):
    rows = ["a b.png,mimic_cxr:p7,mimic_cxr:s9,Secret.,1", ",,,,", "c.png,nih:p8,,Open.,2"]
    (foreign / "labels.csv").write_text("\n".join(["image,patient_id,study_id,prompt,row", *rows]))
    with pytest.warns(UserWarning, match=r"1 pictures are not in labels.csv and not shared: d\.png"):
        write_samples(tmp_path / "out", foreign)
    withheld, told = pl.read_csv(tmp_path / "out/metadata.csv").rows(named=True)
    assert (withheld["source"], withheld["prompt"]) == ("mimic_cxr", None)
    assert (told["source"], told["prompt"]) == ("nih", "Open.") and "patient_id" not in told
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not any(words in written for words in (b"Secret", b"mimic_cxr:", b"p7", b"s9"))


def test_own_prompts_are_shared_whole_from_png_and_dicom(tmp_path):
    names = ("a_0.png", "b_0.dcm")
    for i, name in enumerate(names):
        save(tmp_path / "in" / name, np.full((8, 8), i, np.uint8), {"file": name, "prompt": f"Mine {i}.", "seed": i})
    pl.DataFrame({"file": names}).write_csv(tmp_path / "in/manifest.csv")
    assert write_samples(tmp_path / "out", tmp_path / "in").rows() == [(None, True, 2)]
    assert pl.read_csv(tmp_path / "out/metadata.csv")["prompt"].to_list() == ["Mine 0.", "Mine 1."]
    (tmp_path / "in/b_0.dcm").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"b_0\.dcm: missing, not whole or without its recipe"):
        write_samples(tmp_path / "again", tmp_path / "in")
    assert not (tmp_path / "again").exists()


def test_neither_samples_nor_a_pool(tmp_path, pool):
    with pytest.raises(ValueError, match="has neither a manifest nor labels.csv: give what"):
        write_samples(tmp_path / "out", tmp_path)
    np.save(pool / "samples.npy", np.zeros((2, 2, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="3 requests and samples .2, 2, 8, 8. do not fit"):
        write_samples(tmp_path / "out", pool)


@pytest.mark.parametrize("name", ["samples.npy", "manifest.parquet"])
@pytest.mark.parametrize("left", [0, 20, -20])
def test_a_pool_that_was_cut_off_is_named(tmp_path, pool, name, left):
    (pool / name).write_bytes((pool / name).read_bytes()[:left])
    with pytest.raises(ValueError, match=f"{name} is cut off or damaged"):
        write_samples(tmp_path / "out", pool)
    assert not (tmp_path / "out").exists()


def test_images_that_were_handed_in_are_shared_without_seeds(pool, tmp_path):
    pl.read_parquet(pool / "manifest.parquet").drop("seeds").write_parquet(pool / "manifest.parquet")
    assert write_samples(tmp_path / "out", pool)["images"].sum() == 6
    table = pl.read_csv(tmp_path / "out/metadata.csv")
    assert table["copy"].to_list() == [0, 1] * 3 and "seed" not in table.columns


def test_records_without_a_datasheet_keep_their_texts_at_home(pool, tmp_path, capsys):
    manifest = pl.read_parquet(pool / "manifest.parquet")
    ids = {column: manifest[column].str.replace("mimic_cxr", "lung-masks") for column in ("image_id", "record")}
    manifest.with_columns(**ids).write_parquet(pool / "manifest.parquet")
    assert cli.main(["share", "samples", str(pool), "--out", str(tmp_path / "out")]) == 0
    assert "lung-masks: no known terms allow passing on texts: prompts and ids of 4" in capsys.readouterr().out
    card = DatasetCard.load(tmp_path / "out/README.md").text
    assert "| lung-masks (terms not recorded here) | 4; prompts and record ids are left out" in card


@pytest.mark.parametrize(("content", "words"), [("\n", "names no image: mend"), ("name\na\n", "has no column file")])
def test_a_manifest_of_no_images_says_so(content, words, tmp_path):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(ValueError, match=f"manifest.csv {words}"):
        write_samples(tmp_path / "out", tmp_path)


def test_a_hub_takes_samples_and_model_and_keeps_them_private(hub, pool, light, tmp_path, capsys):
    command = ["share", "samples", str(pool), "--out", str(tmp_path / "out"), "--push", "lab/films"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "mimic_cxr: its terms forbid passing on texts: prompts and ids of 4 images" in printed
    assert printed.endswith(f"{hub.url}/lab/films/commit/c0ffee{'0' * 34}\n")
    repository = hub.repositories["datasets/lab/films"]
    assert repository["private"] and len(repository["files"]) == 8
    assert Image.open(io.BytesIO(repository["files"]["images/000000.png"])).text["chexgen"]
    folder = write_model(tmp_path / "model", light, RECIPE)
    push(folder, "lab/model", private=False)
    push(folder, "lab/model")  # once more: it exists
    repository = hub.repositories["models/lab/model"]
    assert not repository["private"]
    for name, content in repository["files"].items():
        assert (folder / name).read_bytes() == content
    assert {"model_index.json", "README.md", "recipe.json"} <= repository["files"].keys()


def test_a_refused_upload_and_another_folder_are_one_clear_line(hub, pool, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert cli.main(["share", "samples", str(pool), "--out", str(tmp_path / "out"), "--push", "lab/films"]) == 2
    assert "401" in capsys.readouterr().err and not hub.repositories
    with pytest.raises(ValueError, match="is no shared model or samples: write it with `chexgen share`"):
        push(pool, "lab/films")


def test_an_upload_without_a_connection_is_one_clear_line(pool, tmp_path, monkeypatch, capsys):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for module in (huggingface_hub.constants, huggingface_hub.hf_api.constants):
            monkeypatch.setattr(module, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        assert cli.main(["share", "samples", str(pool), "--out", str(tmp_path / "out"), "--push", "lab/films"]) == 2
    said = capsys.readouterr().err
    assert f"no connection to {address}" in said and f"{tmp_path / 'out'} is written" in said and said.count("\n") == 1
    assert (tmp_path / "out/README.md").is_file()


@pytest.mark.parametrize(("content", "words"), [('{"images": ', "is no JSON"), ("[]", "is no recipe")])
def test_a_recipe_that_is_none_is_named(content, words, light, tmp_path, capsys):
    light.save_pretrained(tmp_path / "model")
    (tmp_path / "model/recipe.json").write_text(content)
    assert cli.main(["share", "model", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'model/recipe.json'} {words}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
