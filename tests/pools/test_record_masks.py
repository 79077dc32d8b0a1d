"""Masks and boxes of Records lie where they lie on the cohort's square images."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import resize
from chexgen_lib.pools import record_masks as rm

WIDE = "40x60; R1=box 10 0 20 40; L10=box 50 0 60 40; Effusion=box 25 10 35 20"


def test_masks_are_cropped_and_resized_as_images_are():
    masks = rm.RecordMasks((WIDE, None, "40x40; Effusion=polygon 0 0 39 0 39 39 0 39"), ("ribs", "Effusion"), 20)
    assert masks.shape == (3, 2, 20, 20) and masks[np.array([0, 1])].shape == (2, 2, 20, 20)
    pixels = np.zeros((40, 60), np.float32)
    pixels[10:20, 25:35] = 1
    np.testing.assert_array_equal(masks[0, 1], resize(pixels, 20) > 0.5)
    assert masks[0, 0][:, :5].all() and not masks[0, 0][:, 5:].any()  # two ribs are one class; the right one is cut off
    assert not masks[1].any() and masks[2, 1].all() and not masks[2, 0].any()
    np.testing.assert_array_equal(masks.take(np.array([2, 0]))[1], masks[0])


def test_a_small_mark_does_not_vanish():
    masks = rm.RecordMasks(("1024x1024; Pneumothorax=box 500 500 503 503",), ("Pneumothorax",), 32)
    assert 1 <= masks[0, 0].sum() <= 4


def test_boxes_are_fractions_of_the_square():
    box = {"finding": "Effusion", "x": 25 / 60, "y": 0.25, "w": 10 / 60, "h": 0.25}
    half = {"finding": "Effusion", "x": 0.0, "y": 0.0, "w": 0.5, "h": 1.0}
    gone = {"finding": "Effusion", "x": 0.0, "y": 0.0, "w": 0.1, "h": 1.0}
    table = pl.DataFrame({"image_id": ["a", "b"], "mask": [WIDE, None], "boxes": [[box, half, gone], []]})
    (first, second, *others), none = rm.boxes_of(table)
    assert first == pytest.approx({"x": 0.375, "y": 0.25, "w": 0.25, "h": 0.25, "class": "Effusion"}) and not others
    assert second == pytest.approx({"x": 0, "y": 0, "w": 0.5, "h": 1, "class": "Effusion"}) and none == []
    assert rm.classes_of(table["mask"], table["boxes"]) == {"ribs", "Effusion"}
    with pytest.raises(CohortError, match="a: boxes without a mask"):
        rm.boxes_of(table.with_columns(mask=pl.lit(None, pl.String)))
