"""What a viewer shows of a DICOM file is read, whatever its optional elements and header; else the refusal names the
element."""

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from chexgen_lib import images
from chexgen_lib.images import ImageError
from tests.dicom_files import EIGHT, PLAIN, RAMP, dataset, read, saved

WINDOW = dict(WindowCenter=2048, WindowWidth=4096)


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


@pytest.mark.parametrize("kind", ["CMYK", "HSV", "YBR_PARTIAL_420"])
def test_colours_that_are_not_known_are_refused(tmp_path, kind):
    data = dataset((RAMP >> 4).astype(np.uint8), kind, SamplesPerPixel=3, PlanarConfiguration=0, **EIGHT)
    data.PixelData = data.PixelData * 3
    with pytest.raises(ImageError, match=f"Photometric Interpretation .0028,0004. {kind} with"):
        images.read_image(saved(tmp_path, data))


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
