"""VinDr-CXR: several readers vote."""

import pytest

from chexgen_lib import records
from chexgen_lib.sources import masks, vindr_cxr
from tests.sources.layouts import VINDR, by_id, dicom, image_labels, put, reasons, vindr_folder


def test_readers_vote(tmp_path):
    table, rejects = vindr_cxr.load(vindr_folder(tmp_path))
    found = by_id(table)
    ill, well, test = (found[f"vindr_cxr:{name}"] for name in "abc")
    assert (ill["Effusion"], ill["Lung Lesion"], ill["Cardiomegaly"], ill["Pneumonia"]) == (1, None, 0, 1)
    assert ill["uncertain"] == ["Lung Lesion"] and ill["Support Devices"] is None
    assert set(ill["labels"]) == {"Pleural effusion", "Pneumonia"}
    assert ill["Lung Opacity"] is None  # pneumonia is one, whether or not a reader says so
    # The mean of two readers' boxes; the third box is one reader's alone.
    assert ill["boxes"] == [pytest.approx({"finding": "Effusion", "x": 0.12, "y": 0.1, "w": 0.4, "h": 0.2})]
    assert (well["No Finding"], well["Effusion"]) == (1, 0)
    assert (test["Fracture"], test["split"], set(test["labels"])) == (1, "test", {"Rib fracture", "Other disease"})
    assert test["boxes"] == [pytest.approx({"finding": "Fracture", "x": 0.05, "y": 0.1, "w": 0.5, "h": 0.5})]
    assert table.height + rejects.height == 6 + 3 + 1 + 1


def test_a_box_outside_its_image_rejects_the_image(tmp_path):
    folder = vindr_folder(tmp_path)
    dicom(folder / "train/a.dicom", rows=200, columns=52)
    table, rejects = vindr_cxr.load(folder)
    assert "vindr_cxr:a" not in table["image_id"]
    assert reasons(rejects)["annotations_train.csv 2"] == "box is empty or leaves the image"
    assert reasons(rejects)["annotations_train.csv 1"] == masks.SPOILED


def test_boxes_that_overlap_less_are_two(tmp_path):
    folder = vindr_folder(tmp_path)
    text = VINDR["annotations/annotations_train.csv"].replace("R2,Pleural effusion,14", "R2,Pleural effusion,40")
    put(folder, {"annotations/annotations_train.csv": text})
    row = by_id(vindr_cxr.load(folder)[0])["vindr_cxr:a"]
    assert row["Effusion"] == 1 and row["boxes"] == []


def test_the_shipped_table_is_accounted_for():
    table, rejects = vindr_cxr.load()
    assert (table.height, rejects.height, table.height + rejects.height) == (15_000, 52_914, 67_914)
    assert rejects["reason"].unique().to_list() == [masks.MERGED]
    records.validate(table)
    assert table["No Finding"].value_counts(sort=True).rows() == [(1.0, 10_606), (0.0, 4_394)]
    # Of the images in which readers name atelectasis, 124 have one who does, 44 two and 18 three.
    assert (table["Atelectasis"].sum(), table["Atelectasis"].null_count()) == (44 + 18, 124)
    assert table["boxes"].list.len().sum() == 0  # the table has no image sizes


def test_an_image_in_which_no_reader_names_anything_is_a_record(tmp_path):
    folder = vindr_folder(tmp_path)
    nothing = image_labels("train", *(("n", f"R{i}", set()) for i in (1, 2, 3)))
    put(folder, {"annotations/image_labels_train.csv": nothing})
    table, rejects = vindr_cxr.load(folder)
    row = by_id(table)["vindr_cxr:n"]
    assert row["labels"] == [] and row["Effusion"] == 0 and row["uncertain"] == []
    assert table.height + rejects.height == 6 + 3 + 1 + 1
