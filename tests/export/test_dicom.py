"""A sample as DICOM shows the same pixels, the right way round, and says in every place that it is synthetic."""

import numpy as np
import polars as pl
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.utils import unpack_bits

from chexgen_lib.descriptions import grammar
from chexgen_lib.export.dicom import view_in, write_dicom
from chexgen_lib.export.images import read_recipe, save
from chexgen_lib.images import ImageError, from_uint8, read_image
from chexgen_lib.records import FINDINGS, conform

PIXELS = np.arange(256, dtype=np.uint8).repeat(33 * 9)[: 67 * 99].reshape(67, 99)  # odd in number
RECIPE = {
    "prompt": "Großes Herz.",
    "seed": 7,
    "sampler": "DPM",
    "steps": 20,
    "guidance": 2.0,
    "weights_sha256": "a" * 64,
}


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    """pydicom refuses values that the standard does not allow, in what is written and in what is read."""
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.RAISE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)


def written(folder, pixels=PIXELS, recipe=RECIPE, **requested) -> pydicom.Dataset:
    return pydicom.dcmread(write_dicom(folder / "x.dcm", pixels, recipe, requested))


def test_the_pixels_come_back(tmp_path):
    full = np.resize(PIXELS, (64, 64))
    full[0, :2] = 0, 255  # the reader stretches an image to its own least and largest value: here they are all
    for pixels in (PIXELS, full):
        np.testing.assert_array_equal(written(tmp_path, pixels).pixel_array, pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "x.dcm"), from_uint8(full))
    narrow = full // 2 + 10
    written(tmp_path, narrow)
    np.testing.assert_allclose(read_image(tmp_path / "x.dcm"), (narrow - 10) / 127, atol=1e-6)


def test_it_says_that_it_is_synthetic_and_whence(tmp_path):
    data = written(tmp_path)
    assert data.SOPClassUID.name == "Secondary Capture Image Storage"
    assert (data.ConversionType, data.SyntheticData, data.Modality) == ("SYN", "YES", "OT")
    assert list(data.ImageType) == ["DERIVED", "SECONDARY"] and data.BurnedInAnnotation == "NO"
    assert data.PatientID.startswith("SYNTHETIC-") and "SYNTHETIC" in data.SeriesDescription
    assert data.DerivationDescription.endswith("Prompt: Großes Herz.") and "synth" in data.DerivationDescription.lower()
    (item,) = data.ContributingEquipmentSequence
    assert item.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
    assert item.ContributionDescription == "seed 7, sampler DPM, steps 20, guidance 2.0"
    assert item.DeviceSerialNumber == "a" * 64 and "chexgen_lib" in item.SoftwareVersions
    assert read_recipe(tmp_path / "x.dcm") == RECIPE
    overlay = unpack_bits(data[0x6000, 0x3000].value)[: PIXELS.size].reshape(PIXELS.shape)
    assert 50 < overlay.sum() < 600 and not overlay[:50].any()


def test_nobody_is_named_and_ids_follow_from_image_and_recipe(tmp_path):
    first, again = written(tmp_path), written(tmp_path)
    assert first == again and not first.PatientBirthDate and not first.StudyDate
    other = written(tmp_path, recipe={**RECIPE, "seed": 8})
    changed = written(tmp_path, pixels=PIXELS // 2)
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        assert len({str(data[keyword].value) for data in (first, other, changed)}) == 3
    assert len({first.SOPInstanceUID, first.SeriesInstanceUID, first.StudyInstanceUID}) == 3


@pytest.mark.parametrize(
    ("view", "position", "orientation"),
    [
        ("PA", "PA", ["L", "F"]),
        ("AP SUPINE", "AP", ["L", "F"]),
        ("FRONTAL", "", ["L", "F"]),
        ("LATERAL", "LL", ["P", "F"]),
        ("OBLIQUE", "", None),
        (None, "", None),
    ],
)
def test_a_viewer_knows_which_side_is_left(tmp_path, view, position, orientation):
    data = written(tmp_path, view=view, sex="Female", age=7.6)
    assert (data.ViewPosition or "", data.PatientOrientation or None) == (position, orientation)
    assert (data.PatientSex, data.PatientAge) == ("F", "007Y")


@pytest.mark.parametrize("view", ["PA", "AP", "AP SUPINE", "FRONTAL", "LATERAL", "OBLIQUE", None])
def test_the_view_is_read_from_every_description(view):
    n = 24  # more than the grammar has openings
    ids = {"image_id": [f"nih:{i}" for i in range(n)], "source": "nih", "patient_id": "nih:1", "study_id": "nih:1"}
    records = conform(pl.DataFrame(ids).with_columns(view=pl.lit(view), **{FINDINGS[5]: pl.lit(1.0)}))
    assert {view_in(text) for text in grammar.prompt(records)} == {None if view == "OBLIQUE" else view}
    assert view_in("PA and lateral views of the chest. No effusion.") is None


def test_the_view_of_the_prompt_yields_to_the_requested_one(tmp_path):
    recipe = {"prompt": "AP chest radiograph of a woman."}
    assert written(tmp_path, recipe=recipe).ViewPosition == "AP"
    assert written(tmp_path, recipe=recipe, view="PA").ViewPosition == "PA"


def test_long_prompts_are_cut_where_the_standard_ends_and_kept_in_the_recipe(tmp_path):
    recipe = {"prompt": "Effusion. " * 200}
    assert len(written(tmp_path, recipe=recipe).DerivationDescription) == 1024
    assert read_recipe(tmp_path / "x.dcm") == recipe


@pytest.mark.parametrize("requested", [{"sex": "male"}, {"age": -1}, {"view": "pa"}])
def test_what_no_person_is_and_no_view_is_refused(tmp_path, requested):
    with pytest.raises(ValueError, match=f"{next(iter(requested))} .* is no"):
        write_dicom(tmp_path / "x.dcm", np.zeros((8, 8), np.uint8), {}, requested)
    assert not (tmp_path / "x.dcm").exists()


@pytest.mark.parametrize("pixels", [PIXELS.astype(float), PIXELS.astype(np.uint16), np.zeros((4, 4, 3), np.uint8)])
def test_other_pixels_are_refused(tmp_path, pixels):
    with pytest.raises(ImageError, match=r"x\.dcm: needs uint8 \[H, W\]"):
        write_dicom(tmp_path / "x.dcm", pixels, {})


@pytest.mark.parametrize("name", ["x.png", "x.dcm"])
def test_a_file_without_its_recipe_or_its_end_has_none(tmp_path, name):
    path = save(tmp_path / name, Image.fromarray(PIXELS), RECIPE)
    assert read_recipe(path) == RECIPE
    path.write_bytes(path.read_bytes()[:-300])
    assert read_recipe(path) is None and read_recipe(tmp_path / f"no{name}") is None
    if name.endswith("png"):
        Image.fromarray(PIXELS).save(path)
    else:
        data = written(tmp_path)
        data.remove_private_tags()
        data.save_as(path)
    assert read_recipe(path) is None
