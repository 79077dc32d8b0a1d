"""ChestX-Det: labels with their boxes and outlines."""

import json

import pytest

from chexgen_lib.records import RecordError
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


def test_annotations_of_reduced_images_are_refused(tmp_path):
    item = {"syms": ["Nodule"], "boxes": [[300, 300, 500, 510]], "polygons": [[[300, 300], [500, 510], [310, 400]]]}
    items = [item | {"file_name": f"{i}.png"} for i in range(60)]
    put(tmp_path, {"ChestX_Det_train.json": json.dumps(items), "ChestX_Det_test.json": "[]"})
    with pytest.raises(RecordError, match="all 60 annotations end within a quarter of 1024 x 1024 pixels"):
        chestx_det.load(tmp_path)


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


MAPPINGS = {
    "names": {"36302.png": "00000001_000.png", "36199.png": "00000001_001.png"},
    "the other way round": {"00000001_000.png": "36302.png", "00000001_001.png": "36199.png"},
    "objects": [{"new": "36302.png", "old": "00000001_000"}, {"new": "36199.png", "old": "00000001_001"}],
    "pairs by split": {"train": [["36302", "images_001/00000001_000.png"], ["36199", "00000001_001.png"]]},
}


@pytest.mark.parametrize("form", MAPPINGS)
def test_the_mapping_to_nih_makes_two_images_one_patient(form, tmp_path):
    put(tmp_path, CHESTX_DET | {"mapping.json": json.dumps(MAPPINGS[form])})
    patients = dict(chestx_det.load(tmp_path)[0].select("image_id", "patient_id").iter_rows())
    assert patients["chestx_det:36302"] == patients["chestx_det:36199"] == "chestx_det:00000001"
    assert patients["chestx_det:7"] == "chestx_det:7"  # not in the mapping


@pytest.mark.parametrize("content", ["[]", "3", '{"1.png": "00000001_000.png"}', "{"])
def test_a_mapping_of_no_use_is_an_error(content, tmp_path):
    put(tmp_path, CHESTX_DET | {"mapping.json": content})
    with pytest.raises(RecordError, match="mapping.json"):
        chestx_det.load(tmp_path)
