"""SIIM-ACR Pneumothorax: run lengths of several rows make one mask."""

import numpy as np
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import masks, siim_acr_ptx
from tests.sources.layouts import SIIM, by_id, put, reasons


def test_rows_of_an_image_are_one_mask(tmp_path):
    table, rejects = siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": SIIM}))
    found = by_id(table)
    two = found["siim_acr_ptx:1.2.276.247117"]
    assert np.flatnonzero(masks.read(two["mask"]).T).tolist() == [0, 1, 2, 557374, 557375, *range(558391, 558399)]
    assert (two["Pneumothorax"], two["labels"], two["Edema"]) == (1, ["Pneumothorax"], None)
    none = found["siim_acr_ptx:1.2.276.850819"]
    assert (none["Pneumothorax"], none["mask"], none["labels"]) == (0, None, [])
    assert reasons(rejects) == {"3": masks.MERGED}


def test_masks_of_reduced_images_are_refused(tmp_path):
    """In the frame of 1024 they would be in other places."""
    rows = [f"1.2.{i},{150_000 + 1000 * i} 9\n" for i in range(60)]
    with pytest.raises(RecordError, match="rle.csv: all 60 annotations end within a quarter of 1024 x 1024 pixels"):
        siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": "ImageId,EncodedPixels\n" + "".join(rows)}))
    one = "1.2.99,557374 2\n"
    assert siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": "".join(["ImageId,EncodedPixels\n", *rows, one])}))


def test_rejects_the_whole_image_of_a_bad_row(tmp_path):
    text = SIIM + "1.2.276.246952,1048570 20\n1.2.276.850819,0 1\n,0 1\nlone\nodd,1 2 3\n"
    table, rejects = siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": text}))
    assert table["image_id"].to_list() == ["siim_acr_ptx:1.2.276.247117"]
    assert table.height + rejects.height == 9
    found = reasons(rejects)
    assert found["4"] == masks.SPOILED and "after the frame" in found["5"]
    assert found["1"] == found["6"] == "both a mask and none for one image"
    assert found["7"] == "no image id" and found["8"].startswith("broken row") and "needs pairs" in found["9"]


def test_a_column_name_may_lack_its_space(tmp_path):
    path = put(tmp_path, {"stage_2_train.csv": SIIM.replace(", E", ",E")}) / "stage_2_train.csv"
    assert siim_acr_ptx.load(path)[0].height == 3


def test_the_shipped_table_is_accounted_for():
    table, rejects = siim_acr_ptx.load()
    assert (table.height, rejects.height, table.height + rejects.height) == (12_047, 907, 12_954)
    assert rejects["reason"].unique().to_list() == [masks.MERGED]
    assert records.validate(table)["Pneumothorax"].sum() == table["mask"].count() == 2_669
