"""Reading, resizing and writing radiographs; every unusable file is refused by name."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from chexgen_lib import images
from chexgen_lib.images import ImageError
from chexgen_lib.masks import read_mask
from tests.builders import deep_png

SHARED = Path(__file__).resolve().parents[2] / "shared"
RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def save(tmp_path, image, name="x.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def dicom(tmp_path, pixels, kind="MONOCHROME2", **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    data = pydicom.Dataset()
    data.file_meta = meta
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    path = tmp_path / "x.dcm"
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_png_modes_read_the_same_grey(tmp_path, mode):
    path = save(tmp_path, Image.fromarray(RAMP).convert(mode))
    x = images.read_image(path)
    assert x.dtype == np.float32 and x.shape == (8, 8)
    np.testing.assert_allclose(x, RAMP / 255, atol=1e-6)


def test_one_bit_and_16_bit_png(tmp_path):
    one = images.read_image(save(tmp_path, Image.fromarray(RAMP > 100)))
    assert set(np.unique(one)) == {0.0, 1.0}
    deep = RAMP.astype(np.uint16) * 257 + 1
    np.testing.assert_allclose(images.read_image(save(tmp_path, Image.fromarray(deep))), deep / 65535, atol=1e-7)


def header(tmp_path, **elements):
    (tmp_path / "x.json").write_text(json.dumps(elements))


TWELVE_BITS = RAMP.astype(np.uint16) * 16


def test_stored_values_are_read_by_the_header_beside_them(tmp_path):
    path = save(tmp_path, Image.fromarray(TWELVE_BITS))
    shown = TWELVE_BITS / TWELVE_BITS.max()
    for kind, greys in {"MONOCHROME2": shown, "MONOCHROME1": 1 - shown}.items():
        header(tmp_path, **{"00280004": {"vr": "CS", "Value": [kind]}, "00280101": {"vr": "US", "Value": [12]}})
        np.testing.assert_allclose(images.read_image(path), greys, atol=1e-6)
        header(tmp_path, PhotometricInterpretation=kind)
        np.testing.assert_allclose(images.read_image(path), greys, atol=1e-6)
    window = {"00281050": {"vr": "DS", "Value": [1000]}, "00281051": {"vr": "DS", "Value": [1000]}}
    header(tmp_path, **{"00280004": {"vr": "CS", "Value": ["MONOCHROME2"]}}, **window)
    np.testing.assert_allclose(images.read_image(path), np.clip((TWELVE_BITS - 500.0) / 1000, 0, 1), atol=2e-3)


def test_a_header_in_a_list_or_in_utf_16_is_read(tmp_path):
    path = save(tmp_path, Image.fromarray(TWELVE_BITS))
    (tmp_path / "x.json").write_text('[{"00280004": {"vr": "CS", "Value": ["MONOCHROME1"]}}]')
    np.testing.assert_allclose(images.read_image(path), 1 - TWELVE_BITS / TWELVE_BITS.max(), atol=1e-6)
    (tmp_path / "x.json").write_text('{"PhotometricInterpretation": "MONOCHROME1"}', encoding="utf-16")
    np.testing.assert_allclose(images.read_image(path), 1 - TWELVE_BITS / TWELVE_BITS.max(), atol=1e-6)


def test_a_film_in_colour_is_said(tmp_path):
    """Its brightness is no grey of the film; a small mark in colour is."""
    said = []
    heat = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=-1)
    images.read_image(save(tmp_path, Image.fromarray(heat)), said.append)
    assert len(said) == 1 and "in colour, of which only the brightness is kept" in said[0]
    marked = np.stack([np.tile(RAMP, (8, 8))] * 3, axis=-1)
    marked[2:6, 2:6] = (255, 0, 0)
    images.read_image(save(tmp_path, Image.fromarray(marked), "y.png"), said.append)
    assert len(said) == 1


def test_stored_values_without_their_header_are_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(TWELVE_BITS))
    with pytest.raises(ImageError, match="16-bit values of only 0 to 4032 are stored DICOM values.*x.json"):
        images.read_image(path)
    header(tmp_path, Modality="CR")  # says nothing about the values
    with pytest.raises(ImageError, match="stored DICOM values"):
        images.read_image(path)
    header(tmp_path, BitsStored=12)
    with pytest.raises(ImageError, match=r"Photometric Interpretation \(0028,0004\) missing"):
        images.read_image(path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ImageError, match="x.json: not a readable header of x.png"):
        images.read_image(path)
    path = save(tmp_path, Image.fromarray(RAMP), "y.png")
    with pytest.raises(ImageError, match="nothing tells whether they are a negative.*y.json"):
        images.read_image(path, need_header=True)


def test_converted_values_are_a_negative_or_not_only_if_the_header_can_tell(tmp_path):
    path = save(tmp_path, Image.fromarray(RAMP))
    header(tmp_path, PhotometricInterpretation="MONOCHROME1")  # eight bits stored: they are those of the file
    np.testing.assert_allclose(images.read_image(path), 1 - RAMP / RAMP.max(), atol=1e-6)
    header(tmp_path, PhotometricInterpretation="MONOCHROME2", BitsStored=12)
    found = []
    np.testing.assert_allclose(images.read_image(path, found.append), RAMP / 255, atol=1e-6)
    assert found == ["values 0 to 252 of 12 stored bits have been converted: took them as they are"]
    header(tmp_path, PhotometricInterpretation="MONOCHROME1", BitsStored=12)
    with pytest.raises(ImageError, match="values 0 to 252 cannot be told with"):
        images.read_image(path)


def test_16_bits_with_transparency(tmp_path):
    """Through 8-bit RGBA, as Pillow converts it, nearly every value would become white."""
    deep = RAMP.astype(np.uint16) * 257 + 1
    path = save(tmp_path, Image.fromarray(deep), transparency=7)  # no pixel has that value
    np.testing.assert_allclose(images.read_image(path), deep / 65535, atol=1e-7)
    path = save(tmp_path, Image.fromarray(deep), transparency=int(deep[3, 3]))
    with pytest.raises(ImageError, match="transparent pixels"):
        images.read_image(path)
    for alpha in (65535, 300):
        path.write_bytes(deep_png(np.stack([deep, np.full_like(deep, alpha)], axis=-1)))
        if alpha == 65535:
            np.testing.assert_allclose(images.read_image(path), deep / 65535, atol=1e-7)
    with pytest.raises(ImageError, match="transparent pixels"):
        images.read_image(path)


def test_a_file_is_read_by_its_content_not_its_name(tmp_path):
    np.testing.assert_allclose(
        images.read_image(save(tmp_path, Image.fromarray(RAMP), "x.dcm", format="PNG")), RAMP / 255
    )


def film(lungs=0.2):
    """A bright mediastinum between darker lungs."""
    column = np.exp(-((np.linspace(-0.5, 0.5, 64) ** 2) / 0.02))
    return np.tile((lungs + (0.9 - lungs) * column).astype(np.float32), (64, 1))


def test_unusual_greys(tmp_path):
    assert images.unusual(film(), frontal=True) is None
    assert images.unusual(1 - film(), frontal=True).startswith("looks like a negative")
    assert images.unusual(1 - film(), frontal=False) is None
    assert images.unusual(0.5 + 0.01 * film(), frontal=True).startswith("nearly flat")
    assert images.unusual(film(0.0) ** 4, frontal=True) == "outside the usual greys: mean 0.08"


@pytest.mark.parametrize("filling", [0.0, 0.5, 1.0])
def test_a_film_that_ends_in_one_value_is_remarked(filling):
    cut = film() + np.linspace(0, 0.1, 64, dtype=np.float32)[:, None]
    cut[32:] = filling
    assert images.cut_off(cut) == "its last 50% hold one value: cut off, or collimated"
    cut[32:60] = film()[32:60]
    assert images.cut_off(cut) is None


def test_jpeg(tmp_path):
    smooth = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    x = images.read_image(save(tmp_path, Image.fromarray(smooth), "x.jpg", quality=95))
    np.testing.assert_allclose(x, smooth / 255, atol=0.02)


def test_dicom_monochrome_1_is_the_inverse_of_2(tmp_path):
    pixels = RAMP.astype(np.uint16) * 10
    two = images.read_image(dicom(tmp_path, pixels))
    np.testing.assert_allclose(two, pixels / pixels.max(), atol=1e-6)
    np.testing.assert_allclose(images.read_image(dicom(tmp_path, pixels, "MONOCHROME1")), 1 - two, atol=1e-6)


def test_dicom_rescale_and_window_are_applied(tmp_path):
    pixels = RAMP.astype(np.uint16) * 10  # 0 to 2520; rescaled to -1000 to 4040
    path = dicom(tmp_path, pixels, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=1000)
    x = images.read_image(path)
    value = pixels * 2.0 - 1000
    np.testing.assert_array_equal(x[value <= 499], 0)
    np.testing.assert_array_equal(x[value > 1500], 1)
    inside = (value > 520) & (value < 1480)
    np.testing.assert_allclose(x[inside], (value[inside] - 500) / 1000, atol=2e-3)


def broken(tmp_path, case):
    path = tmp_path / f"{case}.png"
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole)
    if case == "missing":
        return path
    if case == "0-byte":
        path.touch()
    elif case == "truncated":
        path.write_bytes(whole.read_bytes()[:-2000])
    elif case == "text":
        path.write_text("not an image")
    elif case == "constant":
        Image.new("L", (8, 8), 7).save(path)
    elif case == "transparent":
        Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(path)
    elif case == "dicom constant":
        return dicom(tmp_path, np.full((8, 8), 5))
    elif case == "dicom truncated":
        path = dicom(tmp_path, RAMP)
        path.write_bytes(path.read_bytes()[:-60])
    elif case == "dicom colour":
        return dicom(tmp_path, RAMP, "YBR_FULL")
    elif case == "jpeg truncated":
        path = save(tmp_path, Image.open(whole), "x.jpg")
        path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing", "no such file"),
        ("0-byte", "0 bytes"),
        ("truncated", "not a whole PNG"),
        ("jpeg truncated", "not a whole PNG"),
        ("text", "not a whole PNG"),
        ("constant", "same value"),
        ("transparent", "transparent"),
        ("dicom constant", "same value"),
        ("dicom truncated", "Pixel Data .7FE0,0010."),
        ("dicom colour", "MONOCHROME1"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, case, says):
    path = broken(tmp_path, case)
    with pytest.raises(ImageError, match=says) as error:
        images.read_image(path)
    assert str(path) in str(error.value)


def test_png_round_trip_and_no_part_left(tmp_path):
    x = RAMP.astype(np.float32) / 255
    path = images.write_png(tmp_path / "deep" / "x.png", x)
    np.testing.assert_array_equal(images.read_image(path), x)
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_resize_crops_the_centre_and_keeps_the_mean():
    x = np.zeros((6, 64, 128), np.float32)
    x[:, :, 32:96] = np.random.default_rng(0).random((6, 64, 64))
    small = images.resize(x, 16)
    assert small.shape == (6, 16, 16)
    np.testing.assert_allclose(small.mean(), x[:, :, 32:96].mean(), atol=5e-3)
    assert images.resize(x[0], 64).shape == (64, 64)
    # antialiasing: a one-pixel checkerboard becomes grey, not one of its two colours
    board = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    assert np.ptp(images.resize(board, 16)[2:-2, 2:-2]) < 0.05


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the shared radiographs are not on this machine")
def test_real_radiographs_and_one_bit_masks():
    for path in sorted((SHARED / "data/nih-mini/images").glob("*.jpg"))[:5]:
        x = images.resize(images.read_image(path), 128)
        assert x.shape == (128, 128) and 0.2 < x.mean() < 0.8 and x.std() > 0.1
    for path in sorted((SHARED / "data/lung-masks/masks").glob("*.png"))[:5]:
        np.testing.assert_array_equal(read_mask(path), images.read_image(path) > 0.5)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    path = save(tmp_path, Image.new("1", (9000, 9000)))
    with pytest.raises(ImageError, match="9000 x 9000 pixels are more than 67108864"):
        images.read_image(path)
    with pytest.raises(ImageError, match="more than 67108864"):
        images.read_image(dicom(tmp_path, RAMP, Rows=9000, Columns=9000))


@given(st.sampled_from(["png", "deep png", "jpg", "tif", "dicom"]), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_read_or_refused_and_nothing_else(tmp_path, kind, seed):
    if kind == "dicom":
        path = dicom(tmp_path, RAMP, WindowCenter=1000, WindowWidth=1000)
    else:
        image = Image.fromarray(RAMP.astype(np.uint16) * 257 if kind == "deep png" else RAMP)
        path = save(tmp_path, image, f"x.{kind.removeprefix('deep ')}")
    rng, raw = np.random.default_rng(seed), bytearray(path.read_bytes())
    for place in rng.integers(0, len(raw), rng.integers(1, 9)):
        raw[place] = rng.integers(256)
    path.write_bytes(raw[: rng.integers(1, len(raw) + 1)] if seed % 3 == 0 else raw)
    for read in (images.read_image, read_mask):
        try:
            assert read(path).ndim == 2
        except ImageError as error:
            assert str(path) in str(error)


def test_ranges_round_trip():
    x = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    model = images.to_model(x)
    assert model.shape == (2, 3, 8, 8) and -1 <= model.min() and model.max() <= 1
    np.testing.assert_allclose(images.from_model(model), x, atol=1e-6)
    xrv = images.to_xrv(x)
    assert xrv.shape == (2, 1, 8, 8)
    np.testing.assert_allclose(xrv[:, 0].numpy(), (x * 2 - 1) * 1024, atol=1e-3)
    np.testing.assert_allclose(images.from_uint8(images.to_uint8(x)), x, atol=0.5 / 255 + 1e-6)
    assert images.from_model(torch.full((1, 3, 2, 2), 7.0)).max() == 1  # beyond the range: cut, not wrapped


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((8, 8), np.uint8),
        np.full((8, 8), 1.5, np.float32),
        np.full((8, 8), np.nan, np.float32),
        np.zeros((1, 1, 8, 8), np.float32),
        np.zeros((0, 8, 8), np.float32),
    ],
)
def test_values_outside_the_contract_are_refused(bad):
    for convert in (images.to_uint8, images.to_model, images.to_xrv, lambda x: images.resize(x, 4)):
        with pytest.raises(ImageError):
            convert(bad)


def test_nan_from_a_model_is_refused():
    with pytest.raises(ImageError, match="NaN"):
        images.from_model(torch.full((1, 3, 2, 2), float("nan")))


def test_reduced_is_resize_in_blocks():
    x = np.random.default_rng(0).integers(0, 256, (7, 12, 12), dtype=np.uint8)
    whole = images.to_uint8(images.resize(images.from_uint8(x), 5))
    assert np.array_equal(images.reduced(x, 5, block=3), whole) and images.reduced(x, 12) is x
