"""What is kept is exported with the recipe that samples it again."""

import numpy as np
import polars as pl
import pydicom
import pytest
import torch
from PIL import Image

from chexgen_lib.export.hub import write_samples
from chexgen_lib.export.images import read_recipe
from chexgen_lib.models.loading import fastest_device, weights_sha256
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.studio.request import Finding, Request
from chexgen_lib.studio.session import Session

ONE = Request((Finding("Effusion", "left"),), sex="F", age=60, steps=2, seed=5)
OTHER = Request(words="Clear lungs.", steps=2)


def test_a_request_is_sampled_once_and_alike(session, monkeypatch):
    first = session.sample(ONE)
    monkeypatch.setattr(ChexGenPipeline, "__call__", lambda *a, **k: pytest.fail("sampled again"))
    assert first.dtype == np.uint8 and session.sample(ONE) is first


def test_every_setting_of_sampling_changes_the_image(session):
    changed = [
        Request(words="Clear lungs.", **{"steps": 2, **more}) for more in ({"seed": 1}, {"steps": 3}, {"guidance": 5.0})
    ]
    images = [session.sample(request) for request in (OTHER, *changed)]
    assert all((image != images[0]).any() for image in images[1:])


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_what_is_exported_can_be_sampled_again(session, tmp_path, kind):
    for request in (ONE, OTHER, ONE):
        session.keep(request)
    folder = session.export(tmp_path / "kept", kind)
    manifest = pl.read_csv(folder / "manifest.csv")
    assert len(manifest) == 2 and manifest["prompt"].to_list() == [ONE.prompt, OTHER.prompt]
    for row in manifest.iter_rows(named=True):
        recipe = read_recipe(folder / row["file"])
        generator = torch.Generator().manual_seed(recipe["seed"])
        options = {"num_inference_steps": recipe["steps"], "guidance_scale": recipe["guidance"]}
        again = session.pipeline(recipe["prompt"], generator=generator, **options).images[0]
        path = folder / row["file"]
        stored = np.asarray(Image.open(path)) if kind == "png" else pydicom.dcmread(path).pixel_array
        np.testing.assert_array_equal(stored, np.asarray(again))
        assert len(recipe["weights_sha256"]) == 64 and recipe["chexgen_lib"]
    if kind == "dicom":
        first, second = (pydicom.dcmread(folder / name) for name in manifest["file"])
        assert (first.PatientSex, first.PatientAge, first.ViewPosition) == ("F", "060Y", "PA")
        assert (second.PatientSex, second.ViewPosition or "") == ("", "")
    assert write_samples(tmp_path / "shared", folder)["images"].to_list() == [2]


def test_a_folder_of_weights_is_identified_by_its_content(pipeline, tmp_path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "somebodys")
    moved = []
    monkeypatch.setattr(ChexGenPipeline, "to", lambda self, device: (moved.append(device), self)[1])
    made = Session(tmp_path / "somebodys")
    assert made.recipe(OTHER)["weights_sha256"] == weights_sha256(tmp_path / "somebodys")
    assert "somebodys" not in str(made.recipe(OTHER)) and moved == [fastest_device()]


def test_exports_that_cannot_be(session, tmp_path):
    with pytest.raises(ValueError, match="nothing is kept"):
        session.export(tmp_path / "kept")
    session.keep(OTHER)
    with pytest.raises(ValueError, match="exists: name a new folder"):
        session.export(tmp_path)
    with pytest.raises(ValueError, match="'gif' is none of png, dicom"):
        session.export(tmp_path / "kept", "gif")


def test_a_model_that_reads_no_text_is_refused(pipeline, tmp_path):
    ChexGenPipeline(**{**pipeline.components, "text_encoder": None, "tokenizer": None}).save_pretrained(tmp_path / "x")
    with pytest.raises(ValueError, match="reads no text, and the studio writes prompts"):
        Session(tmp_path / "x")
