"""What a viewer shows of a DICOM file is read, whatever its optional elements, compression and header; else the refusal
names the element."""

import base64
import struct
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from chexgen_lib import images
from chexgen_lib.images import ImageError

EXPLICIT = "1.2.840.10008.1.2.1"
RAMP = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)  # 0 to 4080, twelve bits
WINDOW = dict(WindowCenter=2048, WindowWidth=4096)
# RAMP as encoders write it that `pydicom` has no counterpart of.
FRAMES = {
    "JPEG Lossless": (
        "1.2.840.10008.1.2.4.57",
        "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAICQUM/8MACwwAEAAQAQARAP/aAAgBAAAGAADn/wDQ0NDQ0NDQ0NDQ0NDQ0NCgCAQCAQCAQCAQCAQC"
        "AQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIB"
        "AIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQC"
        "AQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgK"
        "AIBAIBAIBAIBAIBAIBAIBAIA/9k=",
    ),
    "JPEG-LS": (
        "1.2.840.10008.1.2.4.80",
        "/9j/6AAgU1BJRkYAAgAAAQAAABAAAAAQChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQABAAEAEBEQD/+AANAf//ABIAQwEUAED/2gAIAQEA"
        "AAAAoPwfg/B2G4PwdhuGYvFYnEY+NwBCCD0OQ1GItFIlIR0ZGRUVCDAERERERGjRo0aNEiRIkHr/IkSJEiRIkSFCiiiihz/Ioooooooooooo"
        "ooa/qKKKKKKKKKKKKKCMfxBCEIQhCEIQhCLftCEIQhCEIQhCEU/SEIQhEREREREvyiIiIiIiIiJD8IiIiIiJJJHfdJJJJJJJGfZJJJJJJUZ9"
        "VVVVVRX0VVVVVFfNX/8I/9k=",
    ),
    "HTJ2K": (
        "1.2.840.10008.1.2.4.201",
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH4AAf+TwAAmSfYFB3QAAMAAEsAAEwAiAYd0AEbyA4d0AMAAE0AA"
        "E4AQyAECdAAe6ZEAw1QAwAAVEAAFYIZhGKpwgnUAfvTDDz/+wFKB7LYAwAArIAAWkO7u7u7nwKenp8J4AP79/f39/f39/Yxge/Yxgey6AP/Z",
    ),
}


def dataset(pixels=RAMP, kind="MONOCHROME2", syntax=EXPLICIT, frame=None, **elements) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.tobytes() if frame is None else encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = ("OW", False) if frame is None else ("OB", True)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def saved(folder, data: Dataset):
    data.save_as(folder / "x.dcm", enforce_file_format=True)
    return folder / "x.dcm"


def read(folder, *arguments, **elements) -> np.ndarray:
    return images.read_image(saved(folder, dataset(*arguments, **elements)))


PLAIN = (RAMP / RAMP.max()).astype(np.float32)


def table(values, first=0, bits=16, data=None) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(values) % 65536, first, bits]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes() if data is None else data)
    return [item]


def hollow() -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", None)
    return [item]


SIGNED = dict(PixelRepresentation=1, BitsStored=16, HighBit=15)
SAME_FILM = {
    "MONOCHROME1": dict(pixels=4080 - RAMP, kind="MONOCHROME1"),
    "a kind with spaces": dict(kind="monochrome2 "),
    "slope -1": dict(pixels=4080 - RAMP, RescaleSlope=-1, RescaleIntercept=4080),
    "slope -1 and a window": dict(pixels=4080 - RAMP, RescaleSlope=-1, RescaleIntercept=4080, **WINDOW),
    "slope -1 of MONOCHROME1": dict(kind="MONOCHROME1", RescaleSlope=-1, RescaleIntercept=4080, **WINDOW),
    "slope without intercept": dict(RescaleSlope=2, WindowCenter=4096, WindowWidth=8192),
    "intercept without slope": dict(RescaleIntercept=-1024, WindowCenter=1024, WindowWidth=4096),
    "slope and intercept empty": dict(RescaleSlope=None, RescaleIntercept=None, **WINDOW),
    "slope 0": dict(RescaleSlope=0, RescaleIntercept=0, **WINDOW),
    "VOI LUT Function empty": dict(VOILUTFunction="", **WINDOW),
    "VOI LUT Function unknown": dict(VOILUTFunction="GAMMA", **WINDOW),
    "exact window": dict(VOILUTFunction="LINEAR_EXACT", **WINDOW),
    "window empty": dict(WindowCenter=None, WindowWidth=None),
    "window width 0": dict(WindowCenter=2048, WindowWidth=0),
    "window width negative": dict(WindowCenter=2048, WindowWidth=-4),
    "center without width": dict(WindowCenter=2048),
    "first window senseless": dict(WindowCenter=[1, 2048], WindowWidth=[0, 4096]),
    "two windows": dict(WindowCenter=[2048, 10], WindowWidth=[4096, 5]),
    "VOI table": dict(VOILUTSequence=table(np.arange(4096) * 16)),
    "VOI table of 8 bits": dict(VOILUTSequence=table(np.arange(4096) // 16, bits=8)),
    "VOI table of packed bytes": dict(
        VOILUTSequence=table([0] * 4096, bits=8, data=bytes(k // 16 for k in range(4096)))
    ),
    "VOI table after a rescale": dict(
        RescaleSlope=0.5, RescaleIntercept=-1000, VOILUTSequence=table(np.arange(2049), 64536)
    ),
    "VOI table hollow": dict(VOILUTSequence=hollow(), **WINDOW),
    "VOI table after a hollow one": dict(
        pixels=4080 - RAMP, VOILUTSequence=[*hollow(), *table(4080 - np.arange(4081))]
    ),
    "VOI table shorter than it says": dict(VOILUTSequence=table([0] * 99, data=b"\0\0"), **WINDOW),
    "VOI sequence empty": dict(VOILUTSequence=[], **WINDOW),
    "modality table": dict(ModalityLUTSequence=table(np.arange(4096) * 2), WindowCenter=4096, WindowWidth=8192),
    "modality table hollow": dict(ModalityLUTSequence=hollow(), **WINDOW),
    "signed": dict(pixels=(RAMP.astype(np.int16) - 2048), **SIGNED),
    "signed in 12 bits": dict(pixels=((RAMP - 2048) & 0xFFF), PixelRepresentation=1),
    "overlay above the stored bits": dict(pixels=RAMP | 0x1000),
    "stored bits above an overlay": dict(pixels=(RAMP << 4) | 0x5, HighBit=15),
    "high bit that the values belie": dict(HighBit=15),
    "no padding in the image": dict(PixelPaddingValue=4095),
    "no representation, high bit": dict(PixelRepresentation=None, HighBit=None, SamplesPerPixel=None),
    "stored bits missing": dict(BitsStored=None),
    "frames empty": dict(NumberOfFrames=None),
    "frames 1": dict(NumberOfFrames=1),
}


@pytest.mark.parametrize("case", SAME_FILM)
def test_the_same_film_whatever_its_header(tmp_path, case):
    np.testing.assert_allclose(read(tmp_path, **SAME_FILM[case]), PLAIN, atol=0.005)


def test_a_damaged_number_for_display_is_left_out(tmp_path):
    path = saved(tmp_path, dataset(WindowCenter="111111", WindowWidth="222222"))
    path.write_bytes(path.read_bytes().replace(b"111111", b"a few ").replace(b"222222", b"wide\\x"))
    found = []
    np.testing.assert_allclose(images.read_image(path, found.append), PLAIN, atol=1e-6)
    assert found == ["left out Window Center (0028,1050) and Window Width (0028,1051), which are no window"]


def test_a_sigmoid_window(tmp_path):
    x = read(tmp_path, VOILUTFunction="SIGMOID", WindowCenter=2048, WindowWidth=1000)
    curve = 1 / (1 + np.exp(-4 * (RAMP - 2048.0) / 1000))
    np.testing.assert_allclose(x, (curve - curve.min()) / np.ptp(curve), atol=1e-5)


def test_a_window_of_rescaled_values_applies_to_them(tmp_path):
    x = read(tmp_path, RescaleSlope=2, WindowCenter=2000, WindowWidth=2000)
    np.testing.assert_allclose(x, np.clip((RAMP * 2.0 - 1000) / 2000, 0, 1), atol=0.001)


def test_padding_is_black_and_does_not_stretch_the_greys(tmp_path):
    pixels = RAMP.copy()
    pixels[:, :4] = 0xFFF
    pixels[0, 4:] = 2000
    x = read(tmp_path, pixels, kind="MONOCHROME1", PixelPaddingValue=0xFFF)
    inside = pixels[:, 4:].astype(float)
    assert (x[:, :4] == 0).all()
    np.testing.assert_allclose(x[:, 4:], 1 - (inside - inside.min()) / np.ptp(inside), atol=1e-6)


def test_without_transfer_syntax_or_preamble(tmp_path):
    data = dataset(syntax="1.2.840.10008.1.2")
    whole = saved(tmp_path, data).read_bytes()
    body = tmp_path / "body"
    pydicom.dcmwrite(body, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
    raw = body.read_bytes()
    raw = raw[raw.index(b"\x08\0\x16\0") :]  # from SOP Class UID on: the data set alone
    assert whole.endswith(raw)
    for name, content in {"a.dcm": b"\0" * 128 + b"DICM" + raw, "b.dcm": raw, "IM0001": raw}.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_allclose(images.read_image(tmp_path / name), PLAIN, atol=1e-6)


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
EIGHT = dict(BitsAllocated=8, BitsStored=8, HighBit=7)
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


@pytest.mark.parametrize("kind", ["CMYK", "HSV", "YBR_PARTIAL_420"])
def test_colours_that_are_not_known_are_refused(tmp_path, kind):
    data = dataset((RAMP >> 4).astype(np.uint8), kind, SamplesPerPixel=3, PlanarConfiguration=0, **EIGHT)
    data.PixelData = data.PixelData * 3
    with pytest.raises(ImageError, match=f"Photometric Interpretation .0028,0004. {kind} with"):
        images.read_image(saved(tmp_path, data))


def test_pixels_that_are_not_compressed_though_the_header_says_so(tmp_path):
    path = saved(tmp_path, dataset())
    raw = path.read_bytes()
    path.write_bytes(raw.replace(EXPLICIT.encode() + b"\0", RLELossless.encode() + b"\0"))
    assert path.read_bytes() != raw
    np.testing.assert_allclose(images.read_image(path), PLAIN, atol=1e-6)


def test_the_first_of_several_frames(tmp_path):
    found = []
    path = saved(tmp_path, dataset(np.stack([RAMP, 4080 - RAMP]), NumberOfFrames=2))
    np.testing.assert_allclose(images.read_image(path, found.append), PLAIN, atol=1e-6)
    assert found == ["Number of Frames (0028,0008) is 2: took the first"]


def item(**elements) -> list[Dataset]:
    data = Dataset()
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return [data]


def test_fewer_frames_than_the_header_says(tmp_path):
    notes = []
    data = dataset(NumberOfFrames=3)
    assert np.array_equal(images.read_image(saved(tmp_path, data), notes.append), PLAIN)
    assert notes == ["Number of Frames (0028,0008) is 3: took the first"]


def test_pixel_data_that_is_padded_to_its_length_is_remarked(tmp_path):
    data = dataset(np.tile(RAMP, (4, 4)))
    data.PixelData = data.PixelData[: len(data.PixelData) // 2] + bytes(len(data.PixelData) // 2)
    film = images.read_image(saved(tmp_path, data))
    assert images.cut_off(film) == "its last 50% hold one value: cut off, or collimated"


def test_values_that_more_bits_than_the_stored_ones_hold_are_remarked(tmp_path):
    notes = []
    images.read_image(saved(tmp_path, dataset(RAMP * 8)), notes.append)
    assert notes == ["Bits Stored (0028,0101) is 12, and 88% of the values have more: left out those bits"]


def test_the_first_frames_window_of_an_enhanced_image(tmp_path):
    shared = item(
        PixelValueTransformationSequence=item(RescaleSlope=2, RescaleIntercept=0),
        FrameVOILUTSequence=item(WindowCenter=9, WindowWidth=9),
    )
    frame = item(FrameVOILUTSequence=item(WindowCenter=2000, WindowWidth=2000))
    groups = dict(SharedFunctionalGroupsSequence=shared, PerFrameFunctionalGroupsSequence=[*frame, Dataset()])
    x = read(tmp_path, np.stack([RAMP, RAMP]), NumberOfFrames=2, **groups)
    np.testing.assert_allclose(x, np.clip((RAMP * 2.0 - 1000) / 2000, 0, 1), atol=0.001)


def test_compressed_pixels_whose_end_is_not_marked(tmp_path):
    syntax, frame = FRAMES["JPEG Lossless"]
    path = saved(tmp_path, dataset(syntax=syntax, frame=base64.b64decode(frame)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])  # without Sequence Delimitation Item
    np.testing.assert_allclose(images.read_image(path), PLAIN, atol=1e-6)
    path.write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="Pixel Data .7FE0,0010. ends within its last item"):
        images.read_image(path)


def test_pixels_that_are_no_squares_are_remarked(tmp_path):
    found = []
    path = saved(tmp_path, dataset(PixelAspectRatio=[2, 1], ImagerPixelSpacing=[0.1, 0.1]))
    np.testing.assert_allclose(images.read_image(path, found.append), PLAIN, atol=1e-6)
    assert found == ["Pixel Aspect Ratio (0028,0034) is 2 and 1: took its pixels for squares"]


def test_a_mirrored_film_and_raw_values_are_remarked(tmp_path):
    found = []
    data = dataset(PatientOrientation=["R", "F"], PresentationIntentType="FOR PROCESSING")
    np.testing.assert_allclose(images.read_image(saved(tmp_path, data), found.append), PLAIN, atol=1e-6)
    assert found == [
        "Presentation Intent Type (0008,0068) is FOR PROCESSING: the detector's raw values, not a film to be read",
        "Patient Orientation (0020,0020) is R and F: mirrored or upside down, took it as it is",
    ]
    for usual in (["L", "F"], ["A", "F"], "", ["L"]):
        images.read_image(saved(tmp_path, dataset(PatientOrientation=usual)), lambda said: pytest.fail(said))


def test_three_channels_that_are_called_grey_are_colours(tmp_path):
    notes, grey = [], (RAMP >> 4).astype(np.uint8)
    data = dataset(grey, SamplesPerPixel=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    data.PixelData = np.stack([grey] * 3, axis=-1).tobytes()
    np.testing.assert_allclose(images.read_image(saved(tmp_path, data), notes.append), grey / 255, atol=1e-6)
    assert notes == ["Photometric Interpretation (0028,0004) is MONOCHROME2, of three channels: took them for RGB"]


def test_colour_becomes_luma(tmp_path):
    grey = (RAMP // 16).astype(np.uint8)
    colour = dict(SamplesPerPixel=3, BitsAllocated=8, BitsStored=8, HighBit=7, PlanarConfiguration=0)
    data = dataset(grey, "RGB", **colour)
    data.PixelData = np.repeat(grey[..., None], 3, axis=2).tobytes()
    np.testing.assert_allclose(images.read_image(saved(tmp_path, data)), grey / 255, atol=1e-6)


REFUSED = {
    "Rows (0028,0010) is missing": dict(Rows=None),
    "Bits Allocated (0028,0100) is missing": dict(BitsAllocated=None),
    "Photometric Interpretation (0028,0004) is missing": dict(PhotometricInterpretation=None),
    "Photometric Interpretation (0028,0004) YBR_FULL with Samples per Pixel (0028,0002) 1": dict(kind="YBR_FULL"),
    "Window Center (0028,1050) leaves one grey value of pixels that are 0 to 4080": dict(
        WindowCenter=-9e5, WindowWidth=9
    ),
    "VOI LUT Sequence (0028,3010) leaves one grey value": dict(VOILUTSequence=table([7] * 4096)),
    "Pixel Data (7FE0,0010) (Explicit VR Little Endian) cannot be decoded": dict(PixelData=b"\0\0"),
    "Transfer Syntax UID (0002,0010) MPEG2 Main Profile / Main Level: no decoder": dict(
        syntax="1.2.840.10008.1.2.4.100", frame=b"\0\0"
    ),
    "Transfer Syntax UID (0002,0010) is missing and the compressed pixels": dict(frame=b"\1\2\3\4"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_refusal_names_the_element(tmp_path, message):
    with pytest.raises(ImageError) as error:
        read(tmp_path, **REFUSED[message])
    assert str(error.value).startswith(f"{tmp_path / 'x.dcm'}: {message}")


def test_a_file_without_pixels_or_without_sense(tmp_path):
    data = dataset()
    del data.PixelData
    with pytest.raises(ImageError, match="Pixel Data .7FE0,0010. is missing or empty"):
        images.read_image(saved(tmp_path, data))
    (tmp_path / "x.dcm").write_bytes(b"this is no DICOM file at all" * 9)
    with pytest.raises(ImageError, match="x.dcm: "):
        images.read_image(tmp_path / "x.dcm")
