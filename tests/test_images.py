"""Reading, resizing and writing radiographs; every unusable file is refused by name."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from chexgen_lib import images
from chexgen_lib.images import ImageError

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
        ("dicom truncated", "not a readable DICOM"),
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
        assert set(np.unique(images.read_image(path))) == {0.0, 1.0}


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
