"""Masks from files of every convention give the same pixels; what cannot be told is refused with the values found."""

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_erosion

from chexgen_lib.images import ImageError
from chexgen_lib.masks import read_mask

SHAPE = np.zeros((96, 96), bool)
SHAPE[20:70, 10:40] = SHAPE[20:70, 56:86] = True
DEVICE = np.zeros((96, 96), bool)
DEVICE[30:40, 35:45] = True
LABELS = np.where(SHAPE, 1, 0).astype(np.uint8)
LABELS[:, 48:] *= 2  # right lung 1, left lung 2


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def colours(*of_label: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.array(of_label, np.uint8)[LABELS])


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 128, 0)
CONVENTIONS = {
    "0 and 255": lambda: Image.fromarray(np.uint8(SHAPE) * 255),
    "0 and 1": lambda: Image.fromarray(np.uint8(SHAPE)),
    "0, 1 and 2": lambda: Image.fromarray(LABELS),
    "0, 127 and 254": lambda: Image.fromarray(LABELS * 127),
    "0, 20 and 40": lambda: Image.fromarray(LABELS * 20),
    "1 bit": lambda: Image.fromarray(SHAPE),
    "16 bit": lambda: Image.fromarray(np.uint16(SHAPE) * 65535),
    "16 bit with 1": lambda: Image.fromarray(np.uint16(SHAPE)),
    "16 bit with labels": lambda: Image.fromarray(np.uint16(LABELS)),
    "palette": lambda: palette(LABELS, BLACK, RED, GREEN),
    "palette whose first entry is a lung": lambda: palette(np.array([1, 0, 2], np.uint8)[LABELS], RED, BLACK, GREEN),
    "palette white, black": lambda: palette(np.uint8(~SHAPE), WHITE, BLACK),
    "palette of greys": lambda: palette(LABELS, *[(k, k, k) for k in range(256)]),
    "palette that nobody filled": lambda: palette(LABELS, *[BLACK] * 256),
    "colours": lambda: colours(BLACK, RED, GREEN),
    "colours that end on 1": lambda: colours(BLACK, (1, 0, 0), (0, 1, 0)),
    "opaque colours": lambda: colours((*BLACK, 255), (*RED, 255), (*GREEN, 255)),
    "colours on transparent white": lambda: colours((*WHITE, 0), (*RED, 255), (*GREEN, 255)),
    "opacity of white": lambda: colours((*WHITE, 0), (*WHITE, 255), (*WHITE, 255)),
    "opacity of black": lambda: colours((*BLACK, 0), (*BLACK, 255), (*BLACK, 255)),
    "grey and opacity": lambda: Image.fromarray(np.stack([SHAPE, SHAPE], -1).astype(np.uint8) * 255),
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_convention_gives_the_same_mask(tmp_path, convention):
    CONVENTIONS[convention]().save(tmp_path / "x.png")
    mask = read_mask(tmp_path / "x.png")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, SHAPE)


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tif", "jpg", "PNG"])
def test_other_files_give_the_same_mask(tmp_path, suffix):
    Image.fromarray(np.uint8(SHAPE) * 255).save(tmp_path / f"x.{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"x.{suffix}"), SHAPE)


@pytest.mark.parametrize("top", [255, 127, 4080])
def test_an_antialiased_edge_is_cut_at_half(tmp_path, top):
    y, x = np.mgrid[:384, :384]
    fine = ((y - 200) ** 2 + (x - 150) ** 2 < 90**2).reshape(96, 4, 96, 4)
    stored = np.rint(fine.mean((1, 3)) * top).astype(np.uint16 if top > 255 else np.uint8)
    assert len(np.unique(stored)) > 9
    Image.fromarray(stored).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), stored >= top / 2)


@pytest.mark.parametrize("angle", [0, 17, 45])
def test_an_antialiased_line_beside_a_structure_is_no_label(tmp_path, angle):
    line = Image.fromarray(np.uint8(SHAPE | CATHETER) * 255).resize((384, 384))
    line.rotate(angle, Image.Resampling.BICUBIC).resize((96, 96), Image.Resampling.BOX).save(tmp_path / "x.png")
    stored = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), stored >= stored.max() / 2)


def test_a_box_that_fills_most_of_the_image_is_a_mask(tmp_path):
    box = np.zeros((96, 96), bool)
    box[4:92, 8:90] = True
    Image.fromarray(np.uint8(box) * 255).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), box)


def test_the_edge_of_two_labels_is_not_lost(tmp_path):
    Image.fromarray(LABELS * 127).resize((91, 91), Image.Resampling.BOX).save(tmp_path / "x.png")
    stored = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), stored >= 127 / 2)


CATHETER = np.zeros((96, 96), bool)
CATHETER[4:90, 47:49] = True
HEART = np.zeros((96, 96), bool)
HEART[40:90, 32:70] = True
REFUSED = {
    "empty": (np.zeros((96, 96), np.uint8), r"same value, so it marks nothing or everything \(values 0\)"),
    "everything": (np.full((96, 96), 255, np.uint8), r"same value.*\(values 255\)"),
    "inverted": (np.uint8(~SHAPE) * 255, r"100% of the image's border is marked.*\(values 0, 255\)"),
    "inverted, in a frame": (
        np.uint8(np.pad(~SHAPE[9:81, 4:92], ((12, 12), (4, 4)))) * 255,
        r"100% of the border of a padded film is marked.*\(values 0, 255\)",
    ),
    "inverted, with bars at the sides": (
        np.uint8(np.pad(~SHAPE[:, 8:88], ((0, 0), (8, 8)))) * 255,
        r"100% of the border of a padded film",
    ),
    "a thin catheter beside lungs": (
        np.where(CATHETER, 100, np.uint8(SHAPE) * 255).astype(np.uint8),
        r"levels 100 and 255, one on \d% as many pixels",
    ),
    "no background": (LABELS + 1, r"no pixel is 0, the background \(values 1, 2, 3\)"),
    "a label beside one to ignore": (
        np.where(SHAPE[::-1], 255, LABELS).astype(np.uint8),
        "a level of 1 beside one of 255",
    ),
    "labels of a lung and of a device": (
        np.where(DEVICE, 127, np.uint8(SHAPE) * 255).astype(np.uint8),
        "levels 127 and 255",
    ),
    "small labels of both": (np.where(DEVICE, 2, SHAPE).astype(np.uint8), r"levels 1 and 2, one on 3% as many pixels"),
    "labels of both lungs and of the heart": (
        np.where(HEART, 2, SHAPE).astype(np.uint8),
        "two structures that do not lie beside each other",
    ),
    "labels of a lung each and of the heart": (np.where(HEART, 3, LABELS), r"3 structures, .*\(values 0, 1, 2, 3\)"),
    "outlines": (np.uint8(SHAPE ^ binary_erosion(SHAPE)) * 255, "outlines around 10 times their pixels; fill them"),
    "a picture": (
        np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8),
        r"many greys \(values 0, 1 ... 255, 256 in",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_with_the_values_found(tmp_path, case):
    values, message = REFUSED[case]
    Image.fromarray(values).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match=f"x.png: .*{message}"):
        read_mask(tmp_path / "x.png", whole_organ=True)


def test_colours_that_hide_labels_are_refused(tmp_path):
    palette(LABELS, BLACK, BLACK, WHITE).save(tmp_path / "x.png")  # half a mask, if colours were believed
    with pytest.raises(ImageError, match=r"share a colour \(values 0, 1, 2\)"):
        read_mask(tmp_path / "x.png", whole_organ=True)
    colours((*BLACK, 0), (*BLACK, 255), (*RED, 255)).save(tmp_path / "x.png")  # half a mask, if black were outside
    with pytest.raises(ImageError, match=r"both clear and black pixels.* \(values 0, 128\)"):
        read_mask(tmp_path / "x.png", whole_organ=True)
    colours(WHITE, RED, GREEN).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match="no pixel is 0"):
        read_mask(tmp_path / "x.png", whole_organ=True)
    Image.fromarray(np.array([BLACK, WHITE, (255, 0, 0)], np.uint8)[np.where(DEVICE, 2, SHAPE).astype(int)]).save(
        tmp_path / "x.png"
    )
    with pytest.raises(ImageError, match="one on 3% as many pixels"):
        read_mask(tmp_path / "x.png", whole_organ=True)
    organs = np.array([BLACK, (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)[np.where(HEART, 3, LABELS)]
    Image.fromarray(organs).save(tmp_path / "x.png")  # equally bright
    with pytest.raises(ImageError, match="3 structures"):
        read_mask(tmp_path / "x.png", whole_organ=True)
    Image.fromarray(organs).save(tmp_path / "y.jpg", quality=95)
    with pytest.raises(ImageError, match="3 structures"):
        read_mask(tmp_path / "y.jpg", whole_organ=True)
    Image.fromarray(LABELS * 127).save(tmp_path / "x.jpg", quality=60)
    with pytest.raises(ImageError, match="a JPEG does not keep apart"):
        read_mask(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("name", "message"), [("case_76_1-3.png", None), ("f6d980a0.jpg", "127 and 255"), ("16745_2_2.PNG", "nothing")]
)
def test_lung_masks_that_torchxrayvision_ships(tmp_path, name, message):
    """Of 517, 82 are empty, and in 51 the value 127 is an arrow, a letter or a device: no second lung."""
    archive = Path(find_spec("torchxrayvision").origin).with_name("data") / "semantic_masks_v7labs_lungs.zip"
    with zipfile.ZipFile(archive) as files:
        raw = files.read(f"semantic_masks_v7labs_lungs/{name}")
    (tmp_path / "x.png").write_bytes(raw)
    if message is None:
        assert 0.1 < read_mask(tmp_path / "x.png", whole_organ=True).mean() < 0.6
    else:
        with pytest.raises(ImageError, match=message):
            read_mask(tmp_path / "x.png", whole_organ=True)


def test_what_is_meant_as_a_whole_may_be_lines_and_many_labels(tmp_path):
    y, x = np.mgrid[:96, :96]
    loop = abs(np.hypot(y - 40, x - 40) - 20) < 1  # the lead of a pacemaker
    ribs = np.where((x > 20) & (x < 70) & (y % 16 < 6) & (y > 15), y // 16, 0).astype(np.uint8)  # one label each
    lines = np.where(abs(y - 50) < 3, 2, abs(x - 50) < 3).astype(np.uint8)
    for values in (np.uint8(loop) * 255, ribs, lines):
        Image.fromarray(values).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), values > 0)
        with pytest.raises(ImageError, match="outlines around|structures"):
            read_mask(tmp_path / "x.png", whole_organ=True)


@pytest.mark.parametrize("size", [192, 288, 384, 400])  # 2, 3 and 4 times, and what is not whole
def test_an_enlarged_antialiased_edge_is_no_structure(tmp_path, size):
    y, x = np.mgrid[:384, :384]
    fine = ((y - 200) ** 2 / 2 + (abs(x - 190) - 90) ** 2 < 70**2).reshape(96, 4, 96, 4)
    small = np.rint(fine.mean((1, 3)) * 255).astype(np.uint8)
    Image.fromarray(small).resize((size, size), Image.Resampling.NEAREST).save(tmp_path / "x.png")
    stored = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png", whole_organ=True), stored >= 255 / 2)


def test_unreadable_files_are_refused_by_name(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="x.png: not a whole PNG"):
        read_mask(tmp_path / "x.png")
    with pytest.raises(ImageError, match="y.png: no such file"):
        read_mask(tmp_path / "y.png")
    first = Image.fromarray(np.uint8(SHAPE) * 255)
    first.save(tmp_path / "x.gif", save_all=True, append_images=[Image.fromarray(LABELS * 127)])
    with pytest.raises(ImageError, match="holds 2 pictures"):
        read_mask(tmp_path / "x.gif")


def test_fractions_are_refused_with_a_remedy_and_whole_numbers_of_any_type_are_read(tmp_path):
    path = tmp_path / "soft.tif"
    Image.fromarray(SHAPE.astype(np.float32)).save(path)
    assert np.array_equal(read_mask(path), SHAPE)
    Image.fromarray(SHAPE * np.float32(0.9)).save(path)
    with pytest.raises(ImageError, match=r"soft.tif: values that are not whole numbers; save it as PNG, in 8 or 16"):
        read_mask(path)
