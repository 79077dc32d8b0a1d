"""What is easily lost on the way in: 16 bits in colour, a note of orientation; and files that are no pictures."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from chexgen_lib.images import ImageError, read_image
from chexgen_lib.masks import read_mask
from chexgen_lib.pixels import read_pixels, upright_size
from tests.builders import deep_png

RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257  # 0 to 65535
MASK = np.zeros((16, 16), bool)
MASK[2:9, 3:7] = MASK[2:9, 9:13] = True


def deep(path, values):
    path.write_bytes(deep_png(values))
    return path


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_keep_their_16_bits(tmp_path, channels):
    colours = np.stack([RAMP, RAMP // 3, RAMP // 5, np.full_like(RAMP, 65535)][:channels], axis=-1)
    found = read_pixels(deep(tmp_path / "x.png", colours), ("PNG",))
    np.testing.assert_array_equal(found.values, colours[..., :3])
    assert found.top == 65535 and found.alpha is None


def test_a_film_in_16_bit_colour_is_not_nearly_black(tmp_path):
    """12 bits in 16, saved as three equal channels: Pillow keeps the upper 8 of each, 0 to 15."""
    film = deep(tmp_path / "x.png", np.stack([RAMP >> 4] * 3, axis=-1))
    with pytest.raises(ImageError, match="16-bit values of only 0 to 4095 are stored DICOM values"):
        read_image(film)
    (tmp_path / "x.json").write_text('{"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}')
    np.testing.assert_allclose(read_image(film), 1 - (RAMP >> 4) / 4095, atol=1e-6)
    whole = deep(tmp_path / "y.png", np.stack([RAMP] * 3, axis=-1))
    np.testing.assert_allclose(read_image(whole), RAMP / 65535, atol=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 1, 2], [0, 65535, 65535], [0, 256, 512]])
def test_a_mask_in_16_bit_colour_is_not_empty(tmp_path, labels):
    right = np.arange(16)[None] < 8
    values = np.array(labels, np.uint16)[np.where(MASK, np.where(right, 1, 2), 0)]
    np.testing.assert_array_equal(read_mask(deep(tmp_path / "x.png", np.stack([values] * 3, -1))), MASK)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_a_tiff_in_16_bit_colour_keeps_them(tmp_path, options):
    """Of labels 1 and 300 the first is 0 in the upper 8 bits: half a mask."""
    tifffile = pytest.importorskip("tifffile")  # which scikit-image brings
    labels = np.array([0, 1, 300], np.uint16)[np.where(MASK, np.where(np.arange(16)[None] < 8, 1, 2), 0)]
    tifffile.imwrite(tmp_path / "x.tif", np.stack([labels] * 3, -1), photometric="rgb", **options)
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.tif", ("TIFF",)).values[..., 0], labels)
    planes = np.stack([labels] * 3)
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match="x.tif: colours in 16 bits, in planes"):
        read_mask(tmp_path / "x.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_note_of_orientation_is_followed(tmp_path, suffix):
    turned = Image.fromarray(np.uint8(MASK[::-1, ::-1]) * 255)
    note = turned.getexif()
    note[0x0112] = 3  # Orientation: upside down
    turned.save(tmp_path / f"x.{suffix}", exif=note)
    np.testing.assert_array_equal(read_mask(tmp_path / f"x.{suffix}"), MASK)
    if suffix != "tif":
        np.testing.assert_array_equal(read_image(tmp_path / f"x.{suffix}") > 0.5, MASK)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_upright_size_is_that_of_the_pixels(tmp_path, suffix, orientation):
    path, image = tmp_path / f"x.{suffix}", Image.fromarray(np.zeros((10, 20), np.uint8))
    note = image.getexif()
    note[0x0112] = orientation
    image.save(path, exif=note)
    sizes = [upright_size(path), read_pixels(path, ("PNG", "JPEG")).values.shape]
    raw = path.read_bytes()
    if suffix == "png":  # a note may also stand behind the pixels
        start = raw.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(raw[start : start + 4])
        path.write_bytes(raw[:start] + raw[end:-12] + raw[start:end] + raw[-12:])
        sizes += [upright_size(path), read_pixels(path, ("PNG",)).values.shape]
    assert set(sizes) == {(20, 10) if 5 <= orientation <= 8 else (10, 20)}


def test_the_size_of_a_png_is_known_without_its_pixels(tmp_path, monkeypatch):
    films = np.random.default_rng(0).integers(0, 256, (512, 300), dtype=np.uint8)
    notes = PngInfo()
    notes.add_text("Title", "eXIf")  # no note about orientation
    Image.fromarray(films).save(tmp_path / "x.png", pnginfo=notes)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("reads the whole file"))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decodes the pixels"))
    assert upright_size(tmp_path / "x.png") == (512, 300)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    monkeypatch.undo()
    notes.add_itxt("XML:com.adobe.xmp", xmp.decode())
    Image.fromarray(films).save(tmp_path / "x.png", pnginfo=notes)
    assert upright_size(tmp_path / "x.png") == (300, 512) == read_pixels(tmp_path / "x.png", ("PNG",)).values.shape


def test_a_damaged_note_is_no_reason_to_refuse(tmp_path):
    Image.fromarray(np.uint8(MASK) * 255).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), MASK)
    assert upright_size(tmp_path / "x.png") == MASK.shape


def kinds(tmp_path):
    """Name -> what is no picture that is read: bytes, and what the refusal says."""
    image, files = Image.fromarray(np.uint8(MASK) * 255), {}
    for suffix, says in {"tif": "a TIFF file; save", "webp": "a WebP file; save", "jp2": "a JPEG 2000 file"}.items():
        image.save(tmp_path / f"a.{suffix}")
        files[f"film.{suffix}"] = (tmp_path / f"a.{suffix}").read_bytes(), says
    np.save(tmp_path / "a.npy", MASK)
    return files | {
        "film.npy": ((tmp_path / "a.npy").read_bytes(), "a NumPy array"),
        "film.dcm": (gzip.compress(b"\0" * 128 + b"DICM"), "packed with gzip; unpack it"),
        "film.dcm.gz": (gzip.compress(b"\0" * 128 + b"DICM"), "packed with gzip; unpack it"),
        "film.jpg": (b"<!DOCTYPE html><title>Log in</title>", "a web page"),
        "blank.jpg": (b"\xef\xbb\xbf\n<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page"),
        "said.jpg": (b'{"message": "Unauthorized"}', "JSON, outlines .* or what a server said"),
        "film.nrrd": (b"NRRD0004\ntype: uchar\n", "a volume .NRRD.; save its slice"),
        "film.mha": (b"ObjectType = Image\n", "a volume .MetaImage.; save its slice"),
        "film.nii": (b"\x5c\x01\0\0" + b"\0" * 344, "a volume .NIfTI.; save its slice"),
        "film.hdr": (b"\0\0\x01\x5c" + b"\0" * 344, "a volume .NIfTI.; save its slice"),
        "film.btf": (b"II+\0\x08\0\0\0" + b"\0" * 200, "a BigTIFF file"),
        "annex.png": (b"/annex/objects/MD5E-s41--0a.png\n", "a pointer of git-annex .* run git annex get"),
        "film.mat": (b"MATLAB 5.0 MAT-file", "a file of MATLAB"),
        "film.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        "film.psd": (b"8BPS\0\1", "a Photoshop file"),
        "film.pdf": (b"%PDF-1.4", "a PDF"),
        "link.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        "film.txt": (b"not a picture", "not a whole PNG or JPEG by its first bytes"),
    }


def test_other_kinds_of_files_are_named(tmp_path):
    for name, (raw, says) in kinds(tmp_path).items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(ImageError, match=f"{name}: .*{says}") as refusal:
            read_image(tmp_path / name)
        assert "BytesIO" not in str(refusal.value)
    (tmp_path / "mask.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(ImageError, match="mask.dcm: this is a DICOM file; save it as PNG"):
        read_mask(tmp_path / "mask.dcm")
