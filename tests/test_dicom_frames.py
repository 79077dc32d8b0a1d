"""A compressed film is read as its frame says, whatever the elements say; a frame that is cut off is refused."""

import base64
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from chexgen_lib import images
from chexgen_lib.images import ImageError
from tests.dicom_files import EIGHT, EXPLICIT, FRAMES, PLAIN, RAMP, dataset, saved


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("told", [True, False])
def test_compressed_frames(tmp_path, kind, told):
    """The syntax may be missing: then the frame tells it."""
    syntax, frame = FRAMES[kind]
    syntax = syntax if told else EXPLICIT
    path = saved(tmp_path, dataset(syntax=syntax, frame=base64.b64decode(frame)))
    np.testing.assert_allclose(images.read_image(path), PLAIN, atol=1e-6)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_frames_that_pydicom_compresses(tmp_path, syntax):
    data = dataset(RAMP.repeat(4, axis=0).repeat(4, axis=1))
    data.compress(syntax)
    x = images.read_image(saved(tmp_path, data))
    np.testing.assert_allclose(x, PLAIN.repeat(4, axis=0).repeat(4, axis=1), atol=1e-6)


@pytest.mark.parametrize("colours", [False, True])
def test_a_jpeg_is_followed_where_the_elements_differ_from_it(tmp_path, colours):
    """Eight bits, or three channels, in a file whose elements say one of 12 bits in 16."""
    grey = Image.fromarray((RAMP >> 4).astype(np.uint8)).resize((64, 64))
    buffer, found = BytesIO(), []
    (grey.convert("RGB") if colours else grey).save(buffer, "JPEG", quality=98)
    data = dataset(np.zeros((64, 64), np.uint16), syntax=JPEGBaseline8Bit, frame=buffer.getvalue())
    x = images.read_image(saved(tmp_path, data), found.append)
    wanted = np.asarray(grey) / 255
    wanted = wanted if colours else (wanted - wanted.min()) / np.ptp(wanted)
    np.testing.assert_allclose(x, wanted, atol=0.03)
    assert f"is a JPEG of {3 if colours else 1} channels of 8 bits" in found[0]


def jpeg(mode="L", form="JPEG", **options) -> bytes:
    buffer = BytesIO()
    GREY.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def lossless(image: np.ndarray) -> bytes:
    """Values [H, W, C] of eight bits as JPEG Lossless: differences from the left, each after its size in four bits."""
    values, left = image.astype(int), np.full(image.shape, 128)
    left[:, 1:], left[1:, 0] = values[:, :-1], values[:-1, 0]
    bits = ""
    for difference in (values - left).ravel().tolist():
        size = abs(difference).bit_length()
        above = difference if difference > 0 else difference + 2**size - 1
        bits += f"{size:04b}" + (f"{above:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    channels = range(1, image.shape[2] + 1)
    frame = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 8 + 3 * len(channels), 8, *image.shape)
    frame += b"".join(bytes([channel, 0x11, 0]) for channel in channels)
    frame += b"\xff\xc4\0\x1c\0" + bytes([0, 0, 0, 9, *[0] * 12, *range(9)])
    frame += b"\xff\xda" + struct.pack(">HB", 6 + 2 * len(channels), len(channels))
    return frame + b"".join(bytes([channel, 0]) for channel in channels) + b"\1\0\0" + packed + b"\xff\xd9"


GREY = Image.fromarray((RAMP >> 4).astype(np.uint8)).resize((64, 64))
WRONG = {
    "one channel called RGB": (jpeg(quality=98), dict(kind="RGB", SamplesPerPixel=3)),
    "one channel called YBR, of one": (jpeg(quality=98), dict(kind="YBR_FULL_422", SamplesPerPixel=1)),
    "another size of as many pixels": (jpeg(quality=98), dict(Rows=32, Columns=128)),
    "other rows": (jpeg(quality=98), dict(Rows=128)),
    "called RLE": (jpeg(quality=98), dict(syntax=RLELossless)),
    "JPEG 2000 of other rows": (jpeg(form="JPEG2000"), dict(syntax=JPEG2000Lossless, Rows=32)),
    "JPEG 2000 called JPEG": (jpeg(form="JPEG2000"), {}),
    "JPEG 2000 called uncompressed": (jpeg(form="JPEG2000"), dict(syntax=EXPLICIT)),
    "lossless colours called grey": (
        lossless(np.asarray(GREY.convert("RGB"))),
        dict(syntax="1.2.840.10008.1.2.4.70", SamplesPerPixel=3),
    ),
    "progressive colours called grey": (jpeg("RGB", quality=98, progressive=True), dict(SamplesPerPixel=3)),
    "progressive, its syntax missing": (jpeg(quality=98, progressive=True), dict(syntax=EXPLICIT)),
    "JPEG 2000 of colours called grey": (jpeg("RGB", "JPEG2000"), dict(syntax=JPEG2000Lossless)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_frame_is_followed_where_the_elements_differ_from_it(tmp_path, case):
    """In size, channels and kind of compression."""
    frame, elements = WRONG[case]
    elements = dict(syntax=JPEGBaseline8Bit) | EIGHT | elements
    x = images.read_image(saved(tmp_path, dataset(np.zeros((64, 64), np.uint16), frame=frame, **elements)))
    wanted = np.asarray(GREY) / 255
    wanted = wanted if "colours" in case else (wanted - wanted.min()) / np.ptp(wanted)
    np.testing.assert_allclose(x, wanted, atol=0.03)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG Lossless", "JPEG-LS", "HTJ2K"])
def test_a_frame_that_is_cut_off_is_refused(tmp_path, kind):
    """Decoders of JPEG make up what is missing."""
    syntax, frame = FRAMES.get(kind, (JPEGBaseline8Bit, ""))
    frame, size = (base64.b64decode(frame), 16) if frame else (jpeg(), 64)
    cut = frame[: len(frame) * 2 // 3]
    elements = EIGHT if kind == "JPEG" else {}
    path = saved(tmp_path, dataset(np.zeros((size, size), np.uint16), syntax=syntax, frame=cut, **elements))
    with pytest.raises(ImageError, match="Pixel Data .7FE0,0010. .*fetch it again") as caught:
        images.read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG Lossless", "JPEG-LS"])
@pytest.mark.parametrize("end", [b"", b"\0\0", b"\xff", b"\xff\xd9\0\xff\xda"])
def test_a_frame_whose_end_marker_alone_is_missing(tmp_path, kind, end):
    """Or that something follows which looks like a further scan."""
    syntax, frame = FRAMES.get(kind, (JPEGBaseline8Bit, ""))
    frame, pixels = (base64.b64decode(frame), RAMP) if frame else (jpeg(quality=98), np.asarray(GREY))
    elements, notes = EIGHT if kind == "JPEG" else {}, []
    path = saved(tmp_path, dataset(pixels, syntax=syntax, frame=frame[:-2] + end, **elements))
    x = images.read_image(path, notes.append)
    np.testing.assert_allclose(x, (pixels - pixels.min()) / np.ptp(pixels), atol=0.03)
    assert [note for note in notes if "end marker" not in note] == []
    assert len(notes) == (len(end) < 3)


@pytest.mark.parametrize("lost", [3, 30])
@pytest.mark.parametrize("filled", [b"", b"\0" * 40])
def test_a_frame_that_lacks_values_before_its_end_marker_is_refused(tmp_path, lost, filled):
    frame = jpeg(quality=98)[: -2 - lost] + filled
    path = saved(tmp_path, dataset(np.asarray(GREY), syntax=JPEGBaseline8Bit, frame=frame, **EIGHT))
    with pytest.raises(ImageError, match="Pixel Data .7FE0,0010. ends within its JPEG; fetch it again"):
        images.read_image(path)


def test_a_progressive_frame_without_its_last_scan_is_refused(tmp_path):
    whole = jpeg(quality=98, progressive=True)
    frame = whole[: whole.rindex(b"\xff\xda")]
    path = saved(tmp_path, dataset(np.asarray(GREY), syntax=JPEGBaseline8Bit, frame=frame, **EIGHT))
    with pytest.raises(ImageError, match="ends within its JPEG"):
        images.read_image(path)


def test_pixels_that_are_not_compressed_though_the_header_says_so(tmp_path):
    path = saved(tmp_path, dataset())
    raw = path.read_bytes()
    path.write_bytes(raw.replace(EXPLICIT.encode() + b"\0", RLELossless.encode() + b"\0"))
    assert path.read_bytes() != raw
    np.testing.assert_allclose(images.read_image(path), PLAIN, atol=1e-6)


def test_compressed_pixels_whose_end_is_not_marked(tmp_path):
    syntax, frame = FRAMES["JPEG Lossless"]
    path = saved(tmp_path, dataset(syntax=syntax, frame=base64.b64decode(frame)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])  # without Sequence Delimitation Item
    np.testing.assert_allclose(images.read_image(path), PLAIN, atol=1e-6)
    path.write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="Pixel Data .7FE0,0010. ends within its last item"):
        images.read_image(path)
