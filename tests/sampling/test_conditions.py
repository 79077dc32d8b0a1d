"""Conditions show every class apart, in colour and in grey, and refuse what cannot be drawn."""

import numpy as np
import pytest
import torch

from chexgen_lib.models.autoencoder import encode_conditions, new_autoencoder
from chexgen_lib.sampling.conditions import LEGEND, ConditionError, draw


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


def test_a_grey_autoencoder_tells_classes_apart():
    torch.manual_seed(0)
    images = np.stack([draw(32, {name: np.ones((4, 4), bool)}) for name in ("lungs", "Fracture")])
    latents = encode_conditions(new_autoencoder((8, 8, 8)).eval(), images)
    assert latents.shape == (2, 4, 4, 4) and not torch.allclose(latents[0], latents[1])
