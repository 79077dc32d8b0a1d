"""VinDr-RibCXR: a class for each rib."""

import json

import numpy as np

from chexgen_lib.sources import masks, vindr_ribcxr
from tests.sources.layouts import by_id, put, reasons, rib_folder, ribs


def test_each_rib_that_is_drawn_is_a_class_of_the_mask(tmp_path):
    table, rejects = vindr_ribcxr.load(rib_folder(tmp_path))
    found = by_id(table)
    assert rejects.is_empty() and table["split"].to_list() == ["train", "train", "test", "test"]
    assert masks.classes(found["vindr_ribcxr:VinDr_RibCXR_train_000"]["mask"]) == vindr_ribcxr.RIBS
    mask = found["vindr_ribcxr:VinDr_RibCXR_val_001"]["mask"]
    assert masks.classes(mask) == ("R1",)
    assert (tmp_path / found["vindr_ribcxr:VinDr_RibCXR_val_001"]["image"]).is_file()
    assert np.argwhere(masks.read(mask)).min(0).tolist() == [2, 2] and masks.read(mask).shape == (20, 40)


def test_images_without_a_usable_outline_are_rejected(tmp_path):
    folder = rib_folder(tmp_path)
    (folder / "train/img/VinDr_RibCXR_train_000.png").unlink()
    table = json.loads(ribs("val"))
    table["R1"]["0"][0]["x"] = 99
    table["R1"]["1"] = "None"
    put(folder, {"val/Vindr_RibCXR_val_mask.json": json.dumps(table)})
    kept, rejects = vindr_ribcxr.load(folder)
    assert kept.height == 1
    assert list(reasons(rejects).values()) == [
        "no such image, which alone gives the frame of its annotation",
        "polygon outside its 20 x 40 frame",
        "no rib is drawn",
    ]
