"""`chexgen sample --format dicom` writes what it writes as PNG, and goes on where it was."""

import numpy as np
import polars as pl
import pydicom
import pytest
from PIL import Image

from chexgen_lib.cli import main as cli
from chexgen_lib.export.images import read_recipe
from chexgen_lib.sampling.pipeline import ChexGenPipeline

PROMPTS = "name,impression,sex,age,view\na,Effusion.,F,54,PA\nb,Lateral chest radiograph of a man.,,,\n"
SEEN = {"a_0.dcm": ("F", "054Y", "PA", "L"), "b_0.dcm": ("", "", "LL", "P")}  # sex, age, view, what is at the right


@pytest.fixture
def sample(pipeline, tmp_path):
    """Samples PROMPTS into a folder named for the format."""
    pipeline.save_pretrained(tmp_path / "weights")
    (tmp_path / "prompts.csv").write_text(PROMPTS)

    def run(kind):
        options = ["--weights", str(tmp_path / "weights"), "--steps", "2", "--format", kind]
        return cli.main(["sample", str(tmp_path / "prompts.csv"), "--out", str(tmp_path / kind), *options])

    return run


def test_dicom_holds_the_pixels_and_recipe_of_the_png(sample, tmp_path, monkeypatch):
    assert sample("png") == sample("dicom") == 0
    assert {path.name for path in (tmp_path / "dicom").iterdir()} == {*SEEN, "manifest.csv"}
    for row in pl.read_csv(tmp_path / "dicom/manifest.csv").iter_rows(named=True):
        data = pydicom.dcmread(tmp_path / "dicom" / row["file"])
        beside = tmp_path / "png" / row["file"].replace("dcm", "png")
        np.testing.assert_array_equal(data.pixel_array, np.asarray(Image.open(beside)))
        recipe = read_recipe(tmp_path / "dicom" / row["file"])
        assert recipe == read_recipe(beside) | {"file": row["file"]} and recipe["prompt"] == row["prompt"]
        seen = (data.PatientSex, data.PatientAge, data.ViewPosition, data.PatientOrientation[0])
        assert seen == SEEN[row["file"]]
    monkeypatch.setattr(ChexGenPipeline, "__call__", lambda *a, **k: pytest.fail("sampled again"))
    assert sample("dicom") == 0
