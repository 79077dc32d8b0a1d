"""Conditions show every class apart, in colour and in grey, and refuse what cannot be drawn."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from chexgen_lib.models.autoencoder import encode_conditions, new_autoencoder
from chexgen_lib.sampling.conditions import LEGEND, ConditionError, draw, read_boxes, read_masks


def square(value=1, dtype=np.uint8):
    mask = np.zeros((32, 32), dtype)
    mask[4:12, 8:20] = value
    return mask


def test_every_class_is_another_colour_and_another_grey():
    greys = sorted(np.mean(colour) for colour in LEGEND.values())
    assert len(set(LEGEND.values())) == len(LEGEND) and np.diff(greys).min() > 5 and greys[0] > 40


@pytest.mark.parametrize("mask", [square(), square(255), square(True, bool), square(1, np.int64)])
def test_masks_of_every_coding_draw_alike(mask):
    image = draw(64, {"Pneumothorax": mask})
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    inside = (image == LEGEND["Pneumothorax"]).all(-1)
    assert np.array_equal(inside, np.kron(square(), np.ones((2, 2))).astype(bool)) and not image[~inside].any()


def test_a_small_mask_does_not_vanish():
    small = np.zeros((1024, 1024), np.uint8)
    small[501:508, 501:508] = 1  # between the centres of 128 pixels
    rows, columns = (draw(128, {"Lung Lesion": small}) == LEGEND["Lung Lesion"]).all(-1).nonzero()
    assert rows.tolist() == columns.tolist() == [63]
    small[501:508, 501:508], small[501:505, 501:505] = 0, 1  # less than half of a pixel
    assert (draw(128, {"Lung Lesion": small}) == LEGEND["Lung Lesion"]).all(-1).sum() == 1


def test_later_classes_lie_on_top_whatever_the_order():
    whole = np.ones((32, 32), np.uint8)
    image = draw(32, {"Pneumothorax": square(), "lungs": whole})
    assert tuple(image[6, 10]) == LEGEND["Pneumothorax"] and tuple(image[0, 0]) == LEGEND["lungs"]


def test_a_box_is_an_outline():
    image = draw(64, boxes=[{"class": "Effusion", "x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}])
    coloured = (image == LEGEND["Effusion"]).all(-1)
    rows, columns = np.nonzero(coloured)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 47, 16, 47)
    assert not coloured[40, 30] and coloured.sum() == 2 * 32 + 2 * 14
    tiny = draw(64, boxes=[{"finding": "Lung Lesion", "x": 0.999, "y": 0.999, "w": 0.001, "h": 0.001}])
    assert tuple(tiny[63, 63]) == LEGEND["Lung Lesion"]


BOX = {"class": "Effusion", "x": 0.1, "y": 0.1, "w": 0.2, "h": 0.2}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "neither a mask nor a box"),
        ({"masks": {"liver": square()}}, "unknown class 'liver'"),
        ({"masks": {"lungs": square(0)}}, "is empty"),
        ({"masks": {"lungs": square()[:20]}}, "one square channel"),
        ({"masks": {"lungs": np.stack([square()] * 3, -1)}}, "one square channel"),
        ({"masks": {"lungs": np.random.default_rng(0).integers(0, 255, (8, 8))}}, "use 0 and 1"),
        ({"masks": {"lungs": square(7)}}, "use 0 and 1"),
        ({"boxes": [{**BOX, "class": "spleen"}]}, "unknown class 'spleen'"),
        ({"boxes": [{"x": 0, "y": 0, "w": 1, "h": 1}]}, "has no class"),
        ({"boxes": [{**BOX, "w": -0.2}]}, "must be positive"),
        ({"boxes": [{**BOX, "x": 0.9}]}, "inside the image"),
        ({"boxes": [{**BOX, "h": None}]}, "needs numbers"),
        ({"boxes": [{**BOX, "y": float("nan")}]}, "inside the image"),
    ],
)
def test_what_cannot_be_drawn_is_named(arguments, message):
    with pytest.raises(ConditionError, match=message):
        draw(64, **arguments)


PLACED = {"class": "Lung Lesion", "x": 0.5, "y": 0.25, "w": 0.125, "h": 0.25}
CORNERS = (0.5, 0.25, 0.625, 0.5)
PIXELS = {"image_width": 512, "image_height": 1024}


@pytest.mark.parametrize(
    "boxes",
    [
        "Lung Lesion 0.5 0.25 0.125 0.25",
        "Lung Lesion: 0.5, 0.25, 0.125, 0.25;",
        [PLACED],
        PLACED,
        json.dumps([PLACED]),
        json.dumps(PLACED),
        [PLACED | {"x1": None, "bbox": None}],
        [PLACED | dict(zip(("x1", "y1", "x2", "y2"), CORNERS, strict=True))],
        {"finding": "Lung Lesion", "x": 0.5, "y": 0.25, "width": 0.125, "height": "0.25"},
        {"label": "Lung Lesion", "left": 0.5, "top": 0.25, "width": 0.125, "height": 0.25},
        *(
            [{"class": "Lung Lesion", **dict(zip(keys.split(), CORNERS, strict=True))}]
            for keys in (
                "x1 y1 x2 y2", "x0 y0 x1 y1", "xmin ymin xmax ymax", "x_min y_min x_max y_max", "left top right bottom",
                "xtl ytl xbr ybr",
            )
        ),
        [{"category": "Lung Lesion", "bbox": [0.5, 0.25, 0.125, 0.25], "area": 3, "iscrowd": 0}],
        [{"class": "Lung Lesion", "bbox": [0.5, 0.25, 0.625, 0.5], "format": "xyxy"}],
        [{"class": "Lung Lesion", "bbox": [256, 256, 320, 512], "bbox_mode": 0, **PIXELS}],
        [{"class": "Lung Lesion", "bbox": [0.5625, 0.375, 0.125, 0.25], "bbox_format": "YOLO"}],
        [{"class": "Lung Lesion", "bbox": [0.5, 0.25, 0.125, 0.25], "format": "coco"}],
        [{"category_name": "Lung Lesion", "category_id": 4, "bbox": [256, 256, 64, 256], **PIXELS}],
        [{"class": "Lung Lesion", "xmin": 256, "ymin": 256, "xmax": 320, "ymax": 512, **PIXELS}],
        [{"class": "Lung Lesion", "bbox": [256, 256, 64, 256], "width": 512, "height": 1024}],
        [{"Class_Name": "Lung Lesion", "x_min": 256, "y_min": 256, "x_max": 320, "y_max": 512, "width": 512,
          "height": 1024}],
        [{"class": "Lung Lesion", **dict(zip(("xMin", "yMin", "xMax", "yMax"), CORNERS, strict=True))}],
        [{"name": "Lung Lesion", "bndbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), CORNERS, strict=True))}],
        [{"class": "Lung Lesion", "xyxy": CORNERS}],
        "Lung Lesion (0.5, 0.25, 0.125, 0.25)",
        "Lung Lesion [0.5 0.25 0.125 0.25]; ",
        [{"class": "lung_lesion", "bbox": "[0.5, 0.25, 0.125, 0.25]"}],
        [{"class": "LUNG LESION", "bbox": "0.5 0.25 0.125 0.25"}],
        [{"class": "Lung Lesion", "xywh": [0.5, 0.25, 0.125, 0.25]}],
        [{"class": "Lung Lesion", "cx": 0.5625, "cy": 0.375, "w": 0.125, "h": 0.25}],
        [{"label": "Lung Lesion", "x_center": 0.5625, "y_center": 0.375, "width": 0.125, "height": 0.25}],
        [PLACED | PIXELS],
        [["Lung Lesion", 0.5, 0.25, 0.125, 0.25]],
        ["Lung Lesion", 0.5, "0.25", 0.125, 0.25],
        [("Lung Lesion", (0.5, 0.25, 0.125, 0.25))],
        {"Lung Lesion": [0.5, 0.25, 0.125, 0.25]},
        {"Lung Lesion": {key: PLACED[key] for key in "xywh"}},
        {"Lung Lesion": [[0.5, 0.25, 0.125, 0.25]], "Effusion": []},
        str([PLACED]), str([tuple(PLACED.values())]),  # as pandas writes them into a table
    ],
)  # fmt: skip
def test_boxes_of_every_form_are_one_place(boxes):
    assert read_boxes(boxes) == [pytest.approx(PLACED)]
    assert np.array_equal(draw(64, boxes=boxes), draw(64, boxes=[PLACED]))


@pytest.mark.parametrize("boxes", [None, "", [], {}, " ; "])
def test_no_boxes(boxes):
    assert read_boxes(boxes) == []


def test_several_boxes():
    assert [box["class"] for box in read_boxes({"Effusion": [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]})] == ["Effusion"] * 2
    for mark in ("; ", "\n", " | "):
        assert [box["class"] for box in read_boxes(f"Effusion 0 0 1 1{mark}Edema 0 0 1 1")] == ["Effusion", "Edema"]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([{"class": "Effusion", "bbox": [256, 256, 64, 256]}], "in pixels: divide .* or add image_width"),
        ([{"class": "Effusion", "bbox": [0.5, 0.5, 0.6, 0.6]}], "corners are x1, y1, x2, y2"),
        ([{"class": "Effusion", "bbox": [0.5, 0.5, 0.6]}], "needs numbers"),
        ([{"class": "Effusion", "bbox": 3}], "needs numbers"),
        ([{"class": "Effusion", "bbox": [0, 0, 0.1, 0.1], "format": "polar"}], "its format is not known: give {class"),
        ([{"class": "Effusion", "x1": 0.5, "y1": 0.5, "x2": 0.4, "y2": 0.6}], "must be positive"),
        ([{"class": "Effusion", "x1": 0.5, "y1": 0.5}], "needs numbers"),
        ([{"category_id": 3, "bbox": [0, 0, 1, 1]}], "has no class: give one of lungs"),
        ([{"category": 3, "bbox": [0, 0, 1, 1]}], "the number 3 names none"),
        ([BOX | {"bbox": [0.5, 0.5, 0.1, 0.1]}], "two places"),
        ([{"class": "Effusion", "bbox": [9, 9, 5, 5], "image_width": 0, "image_height": 0}], "needs numbers"),
        ([{"class": "Effusion", "xMin": 0, "x_min": 1, "y_min": 0, "x_max": 1, "y_max": 1}], "something twice"),
        ({"images": [], "annotations": [{"bbox": [0, 0, 1, 1]}] * 99}, r"annotations.* [.]{3} has no class"),
        ([[0.1, 0.1, 0.2, 0.2]], "write {class, x, y, w, h}"),
        ([0.1, 0.1, 0.2, 0.2], "write {class, x, y, w, h}"),
        (7, "not understood"),
        ({"Effusion": 7}, "not understood"),
        ('[{"class": ', "no JSON"),
        ("Effusion 0 0 1", "class x y w h; class x y w h"),
    ],
)
def test_boxes_that_are_ambiguous_or_none_are_named(boxes, message):
    with pytest.raises(ConditionError, match=message):
        read_boxes(boxes)


def test_a_grey_autoencoder_tells_classes_apart():
    torch.manual_seed(0)
    images = np.stack([draw(32, {name: np.ones((4, 4), bool)}) for name in ("lungs", "Fracture")])
    latents = encode_conditions(new_autoencoder((8, 8, 8)).eval(), images)
    assert latents.shape == (2, 4, 4, 4) and not torch.allclose(latents[0], latents[1])


def test_a_lead_may_form_a_loop_but_an_organ_is_filled(tmp_path):
    y, x = np.mgrid[:96, :96]
    loop = abs(np.hypot(y - 40, x - 40) - 20) < 1
    Image.fromarray(np.uint8(loop) * 255).save(tmp_path / "loop.png")
    (drawn,) = read_masks({"Support Devices": tmp_path / "loop.png"}).values()
    np.testing.assert_array_equal(drawn, loop)
    with pytest.raises(ConditionError, match="mask 'heart': .*outlines around"):
        read_masks({"heart": tmp_path / "loop.png"})
