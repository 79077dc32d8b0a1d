"""ChestX-Det: labels with their boxes and outlines."""

import json

import pytest

from chexgen_lib.sources import chestx_det, masks
from tests.sources.layouts import CHESTX_DET, by_id, put


def test_labels_boxes_and_outlines_belong_together(tmp_path):
    table, rejects = chestx_det.load(put(tmp_path, CHESTX_DET))
    found = by_id(table)
    ill, well = found["chestx_det:36302"], found["chestx_det:36199"]
    assert (ill["Effusion"], ill["Cardiomegaly"], ill["No Finding"], ill["Edema"]) == (1, 0, 0, None)
    assert ill["boxes"][0] == {"finding": "Effusion", "x": 0.5, "y": 0.25, "w": 0.5, "h": 0.25}
    assert masks.classes(ill["mask"]) == ("Effusion", "Emphysema") and ill["labels"] == ["Effusion", "Emphysema"]
    assert (well["No Finding"], well["Effusion"], well["mask"]) == (1, 0, None)
    assert found["chestx_det:7"]["Lung Lesion"] == 1 and found["chestx_det:7"]["split"] == "test"
    assert rejects.is_empty()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"syms": ["Measles"]}, "unknown label 'Measles'"),
        ({"syms": [["Nodule"]]}, "unknown label"),
        ({"boxes": []}, "1 labels, 0 boxes and 1 outlines"),
        ({"boxes": [[1, 2, 1025, 4]]}, "box outside"),
        ({"boxes": [[1, 2, "3", 4]]}, "not pairs of numbers"),
        ({"boxes": [[1, 2, 10**400, 4]]}, "not pairs of numbers"),
        ({"polygons": [[[1, 2], [3, 4]]]}, "2 points"),
        ({"polygons": [[1, 2]]}, "not pairs of numbers"),
        ({"polygons": None}, "needs the lists"),
        ({"file_name": "a/b.png"}, "not the name of an image"),
        ({"file_name": 7}, "not the name of an image"),
        ({"file_name": "\ud800.png"}, "not the name of an image"),
    ],
)
def test_a_damaged_annotation_rejects_its_image(tmp_path, change, reason):
    item = {"file_name": "1.png", "syms": ["Nodule"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3, 2], [3, 4]]]}
    files = CHESTX_DET | {"ChestX_Det_train.json": json.dumps([item | change, item | {"file_name": "2.png"}, "text"])}
    table, rejects = chestx_det.load(put(tmp_path, files))
    assert table.height == 2 and reason in rejects["reason"][0] and "needs the lists" in rejects["reason"][1]
