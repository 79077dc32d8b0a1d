"""Masks as text: runs, polygons, ellipses and boxes become the pixels that their publishers mean."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from chexgen_lib.sources import masks
from chexgen_lib.sources.masks import MaskError

FRAME = (6, 4)


def drawn(shape: str, values: str, frame=FRAME) -> np.ndarray:
    return masks.read(masks.write(frame, [("x", shape, values)]))


def test_rle_goes_down_the_columns():
    mask = drawn("rle", "2 3 5 1")
    assert mask.shape == FRAME
    assert np.argwhere(mask.T).tolist() == [[0, 2], [0, 3], [0, 4], [1, 4]]  # column, row


def test_runs_are_the_same_pixels_counted_from_one():
    assert (drawn("runs", "3 3 11 1") == drawn("rle", "2 3 5 1")).all()


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_any_mask_survives_rle(mask):
    flat = np.pad(mask.T.ravel(), 1)
    edges = np.flatnonzero(np.diff(flat.astype(int)))  # starts and ends in turn
    rle = np.diff(edges, prepend=0)
    if not rle.size:
        return
    runs = np.stack([edges[::2] + 1, edges[1::2] - edges[::2]], axis=1).ravel()
    assert (drawn("rle", " ".join(map(str, rle)), mask.shape) == mask).all()
    assert (drawn("runs", " ".join(map(str, runs)), mask.shape) == mask).all()


def test_shapes_fill_what_they_enclose():
    assert np.argwhere(drawn("box", "1 2 3 4")).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    ellipse = drawn("ellipse", "20 40 80 60", (100, 100))
    assert ellipse.sum() == pytest.approx(np.pi * 30 * 10, rel=0.02)
    assert ellipse[50, 22] and not ellipse[42, 22]
    triangle = drawn("polygon", "0 0 90 0 0 90", (100, 100))
    assert triangle.sum() == 91 * 92 / 2  # the outline belongs to it
    assert triangle[10, 10] and not triangle[80, 80]


def test_classes_are_read_alone_or_together():
    text = masks.write((4, 4), [("R1", "box", "0 0 2 2"), ("L1", "box", "2 2 4 4"), ("R1", "box", "0 3 1 4")])
    assert text == "4x4; R1=box 0 0 2 2; L1=box 2 2 4 4; R1=box 0 3 1 4"
    assert masks.classes(text) == ("R1", "L1")
    assert (masks.read(text, "R1").sum(), masks.read(text, "L1").sum(), masks.read(text).sum()) == (5, 4, 9)
    with pytest.raises(MaskError, match="no part .'R2'."):
        masks.read(text, "R2")


def test_nothing_to_draw_is_no_mask():
    assert masks.write(FRAME, []) is None


@pytest.mark.parametrize(
    ("shape", "values", "message"),
    [
        ("rle", "1 2 3", "3 values: needs pairs"),
        ("rle", "", "0 values: needs pairs"),
        ("rle", "1 x", "not whole numbers"),
        ("rle", "1 2.5", "not whole numbers"),
        ("rle", f"1 {10**30}", "not whole numbers"),
        ("rle", "-1 2", "below 0"),
        ("rle", "1 25", "above the 24 pixels"),
        ("rle", "5 0 3 0", "marks no pixel"),
        ("rle", "20 3 1 1", "1 pixels after the frame"),
        ("runs", "5 3 6 2", "overlap"),
        ("runs", "0 3", "overlap"),
        ("runs", "24 2", "1 pixels after the frame"),
        ("polygon", "0 0 1 1", "2 points: needs 3 or more"),
        ("polygon", "0 0 1 1 2", "needs pairs"),
        ("polygon", "0 0 5 1 2 2", "outside its 6 x 4 frame"),
        ("polygon", "0 0 nan 1 2 2", "outside"),
        ("box", "0 0 1", "needs pairs"),
        ("box", "0 0 1 1 2 2", "3 points: needs 2"),
        ("box", "2 2 1 3", "not below and right"),
        ("ellipse", "0 0 0 3", "not below and right"),
        ("star", "0 0", "unknown shape"),
    ],
)
def test_shapes_that_cannot_be_drawn(shape, values, message):
    with pytest.raises(MaskError, match=message):
        masks.write(FRAME, [("x", shape, values)])
    assert message in masks.fault(FRAME, shape, values)


@pytest.mark.parametrize("text", ["", "6x4", "6x4; rle 1 2", "6x4; x=rle", "axb; x=rle 1 2", "path/to/mask.png"])
def test_text_that_is_no_mask(text):
    with pytest.raises(MaskError, match="not 'HxW"):
        masks.read(text)


def test_boxes_around_shapes_are_fractions():
    box = {"x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}
    assert masks.box_around((8, 4), "box", "1 4 3 6") == box
    assert masks.box_around((8, 4), "polygon", "1 6 3 5 2 4") == box
    with pytest.raises(MaskError, match="without area"):
        masks.box_around((8, 4), "polygon", "1 1 2 1 3 1")


def test_frame_of_an_image(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    assert masks.frame_of(tmp_path / "a.png") == (20, 30)
    for name in ("b.png", "c.png", "\0"):
        with pytest.raises(MaskError, match="no readable image"):
            masks.frame_of(tmp_path / name)


def test_union_of_rows():
    table = pl.DataFrame(
        {
            "image_id": ["a", "b", "a", "c", "c", "d", "d"],
            "rle": ["0 2", "-1", "4 2", "0 1", "-1", "0 1", "0"],
            "name": ["x"] * 7,
        }
    )
    table = masks.union_of_rle(table, FRAME, Path("x.csv"))
    kept = table.filter(pl.col("reason").is_null())
    assert kept.select("image_id", "mask").rows() == [("a", "6x4; x=rle 0 2; x=rle 4 2"), ("b", None)]
    assert np.flatnonzero(masks.read(kept["mask"][0]).T).tolist() == [0, 1, 4, 5]
    denied = "both a mask and none for one image"
    assert table["reason"].to_list()[2:] == [
        masks.MERGED,
        denied,
        denied,
        masks.SPOILED,
        "rle with 1 values: needs pairs",
    ]
