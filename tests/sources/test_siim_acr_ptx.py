"""SIIM-ACR Pneumothorax: run lengths of several rows make one mask."""

import numpy as np
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import masks, registry, siim_acr_ptx
from tests.sources.layouts import SIIM, by_id, picture, put, reasons


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


def test_the_usual_mirror_has_names_of_its_own_and_the_shipped_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(siim_acr_ptx, "shipped", lambda _: put(tmp_path, {"shipped.csv": SIIM}) / "shipped.csv")
    ids = ("1.2.276.850819", "1.2.276.247117", "1.2")
    rows = [f"{k}_train_0_.png,{i},0\n" for k, i in enumerate(ids)]
    names = "".join(["new_filename,ImageId,has_pneumo\n", *rows])
    put(tmp_path / "siim_acr_ptx", {"stage_1_train_images.csv": names})
    for folder in ("png_images", "png_masks"):
        for k in range(2):
            picture(tmp_path / f"siim_acr_ptx/{folder}/{k}_train_0_.png", width=64 + len(folder))
    said, ready = registry.check("siim_acr_ptx", tmp_path)
    assert ready and "2 of 3 records find their image" in said
    table, rejects = registry.load("siim_acr_ptx", tmp_path / "siim_acr_ptx")
    assert table["image"][:2].to_list() == ["png_images/0_train_0_.png", "png_images/1_train_0_.png"]
    assert rejects.filter(row="stage_1_train_images.csv 3")["reason"].to_list() == ["no row in the table of masks"]
