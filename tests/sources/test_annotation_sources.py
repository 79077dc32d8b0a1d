"""Datasets with masks, boxes or scores: their true layouts, their bad rows, and bytes that nobody expects.

CHEXGEN_FUZZ sets the number of damaged copies per dataset in the last test (default 30).
"""

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from chexgen_lib import records, sources
from chexgen_lib.records import RecordError
from chexgen_lib.sources import (
    candid_ptx,
    chest_dr,
    chestx_det,
    masks,
    object_cxr,
    ralo,
    read_table,
    siim_acr_ptx,
    vindr_cxr,
    vindr_ribcxr,
)

SIIM = """ImageId, EncodedPixels
1.2.276.850819,-1
1.2.276.247117,557374 2 1015 8
1.2.276.247117,0 3
1.2.276.246952,514175 10 1008 29
"""

CANDID = {
    "Pneumothorax_reports.csv": """StudyInstanceUID,SOPInstanceUID,filename,EncodedPixels,Report
st.1,1.2.826.1,P0001_2010_01.dcm,0 3,"Left apical
pneumothorax, drain in place"
st.1,1.2.826.1,P0001_2010_01.dcm,10 2,again
st.2,1.2.826.2,P0002_2011_02.dcm,-1,Normal
""",
    "chest_tube.csv": "anon_SOPUID,annotation_ref,mask_rle\n1.2.826.1,a,2048 5\n",
    "acute_rib_fracture.csv": "anon_SOPUID,annotation_ref,mask_rle\n1.2.826.2,b,4096 5\n1.2.826.9,c,0 1\n",
}


def ribs(split: str) -> str:
    """Two images: all ribs of the first are the same square, of the second only R1 is drawn."""
    square = [{"x": x, "y": y} for x, y in ((1.5, 1.5), (10.25, 1.5), (10.25, 8.0), (1.5, 8.0))]
    names = {str(i): f"data/{split}/img/VinDr_RibCXR_{split}_{i:03}.png" for i in (0, 1)}
    return json.dumps(
        {"img": names} | {r: {"0": square, "1": square if r == "R1" else "None"} for r in vindr_ribcxr.RIBS}
    )


OBJECTS = {
    "train.csv": "image_name,annotation\n00001.jpg,0 10 5 30 15;1 0 0 8 8;2 1 1 9 1 5 9\n00002.jpg,\n",
    "dev.csv": "image_name,annotation\n00001.jpg,2 0 0 40 0 40 20\n",
}

CHESTX_DET = {
    "ChestX_Det_train.json": json.dumps(
        [
            {
                "file_name": "36302.png",
                "syms": ["Effusion", "Emphysema"],
                "boxes": [[512, 256, 1024, 512], [0, 0, 64, 64]],
                "polygons": [[[512, 256], [1024, 256], [1024, 512]], [[0, 0], [64, 0], [64, 64], [0, 64]]],
            },
            {"file_name": "36199.png", "syms": [], "boxes": [], "polygons": []},
        ]
    ),
    "ChestX_Det_test.json": json.dumps(
        [{"file_name": "7.png", "syms": ["Nodule"], "boxes": [[339, 575, 386, 625]], "polygons": [[[364, 581]] * 3]}]
    ),
}

RALO = """,,Reader 1,,,,,,,Reader 2,,,,,,,,
Subject_ID,Exam_DateTime,Right GEOGRAPHIC,Right OPACITY,Left GEOGRAPHIC,Left OPACITY,Total GEOGRAPHIC,Total OPACITY,\
Notes,Right GEOGRAPHIC,Right OPACITY,Left GEOGRAPHIC,Left OPACITY,Total GEOGRAPHIC,Total OPACITY,Notes,Delta Geo-total,\
Delta Opa total
A1,20200401_101500,2,1,2,1,4,2,,3,2,3,2,6,4,,2,2
A1,20200402_101500,0,0,0,0,0,0,,0,0,0,0,0,0,clear,0,0
A2,20200403_101500,0,0,0,0,0,0,,1,1,0,0,1,1,"subtle,
left",1,1
A3,20200404_101500,0,0,0,0,,0,,1,1,0,0,1,1,,1,1
"""

VINDR_LABELS = [*vindr_cxr._BOXED, *vindr_cxr._RELEASED]


def image_labels(split: str, *rows: tuple[str, str, set[str]]) -> str:
    """The publisher's wide table: an image, a reader (train only) and the labels that are 1."""
    labels = [*VINDR_LABELS, "Other diseases" if split == "train" else "Other disease"]
    lines = [",".join(["image_id", *["rad_id"] * (split == "train"), *labels])]
    for image, reader, named in rows:
        lines.append(",".join([image, *[reader] * (split == "train"), *(str(int(name in named)) for name in labels)]))
    return "\n".join(lines) + "\n"


VINDR = {
    "annotations/annotations_train.csv": """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
a,R1,Pleural effusion,10,20,50,60
a,R2,Pleural effusion,14,20,54,60
a,R3,Nodule/Mass,80,80,90,90
b,R1,No finding,,,,
b,R2,No finding,,,,
b,R3,No finding,,,,
""",
    "annotations/image_labels_train.csv": image_labels(
        "train",
        ("a", "R1", {"Pneumonia", "Pleural effusion"}),
        ("a", "R2", {"Pneumonia"}),
        ("a", "R3", {"Other diseases"}),
    ),
    "annotations/annotations_test.csv": "image_id,class_name,x_min,y_min,x_max,y_max\nc,Rib fracture,1,2,11,12\n",
    "annotations/image_labels_test.csv": image_labels("test", ("c", "", {"Rib fracture", "Other disease"})),
}

CHEST_DR = {
    "chest_train.csv": ",".join(["img_id", "study", *chest_dr.FINDING_OF])
    + "\nDX.1.2.png,s,1,0,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0,0\n5C2E.png,t,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0\n",
    "chest_test_WithLabel.csv": ",".join(["img_id", "study", *chest_dr.FINDING_OF]) + "\n5CF8.png,u" + ",0" * 19 + "\n",
    "chest_1-shot_train_exp2.txt": "DX.1.2.png 1,0,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0,0\n5C2E.png "
    + ",".join("0" * 19)
    + "\n",
}


def picture(path: Path, width: int = 40, height: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def dicom(path: Path, rows: int, columns: int) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = rows, columns
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def rib_folder(folder: Path) -> Path:
    for split in ("train", "val"):
        put(folder, {f"{split}/Vindr_RibCXR_{split}_mask.json": ribs(split)})
        for number in (0, 1):
            picture(folder / f"{split}/img/VinDr_RibCXR_{split}_{number:03}.png")
    return folder


def object_folder(folder: Path) -> Path:
    for name in ("train/00001.jpg", "train/00002.jpg", "dev/00001.jpg"):
        picture(folder / name)
    return put(folder, OBJECTS)


def vindr_folder(folder: Path) -> Path:
    dicom(folder / "train/a.dicom", rows=200, columns=100)
    dicom(folder / "test/c.dicom", rows=20, columns=20)
    return put(folder, VINDR)


def by_id(table: pl.DataFrame) -> dict[str, dict]:
    return {row["image_id"]: row for row in records.validate(table).to_dicts()}


def reasons(rejects: pl.DataFrame) -> dict[str, str]:
    return dict(rejects.select("row", "reason").iter_rows())


# ----------------------------------------------------------------------------------------------------- what is read


def test_siim_rows_of_an_image_are_one_mask(tmp_path):
    table, rejects = siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": SIIM}))
    found = by_id(table)
    two = found["siim_acr_ptx:1.2.276.247117"]
    assert np.flatnonzero(masks.read(two["mask"]).T).tolist() == [0, 1, 2, 557374, 557375, *range(558391, 558399)]
    assert (two["Pneumothorax"], two["labels"], two["Edema"]) == (1, ["Pneumothorax"], None)
    none = found["siim_acr_ptx:1.2.276.850819"]
    assert (none["Pneumothorax"], none["mask"], none["labels"]) == (0, None, [])
    assert reasons(rejects) == {"3": masks.MERGED}


def test_siim_rejects_the_whole_image_of_a_bad_row(tmp_path):
    text = SIIM + "1.2.276.246952,1048570 20\n1.2.276.850819,0 1\n,0 1\nlone\nodd,1 2 3\n"
    table, rejects = siim_acr_ptx.load(put(tmp_path, {"train-rle.csv": text}))
    assert table["image_id"].to_list() == ["siim_acr_ptx:1.2.276.247117"]
    assert table.height + rejects.height == 9
    found = reasons(rejects)
    assert found["4"] == masks.SPOILED and "after the frame" in found["5"]
    assert found["1"] == found["6"] == "both a mask and none for one image"
    assert found["7"] == "no image id" and found["8"].startswith("broken row") and "needs pairs" in found["9"]


def test_siim_column_without_the_space(tmp_path):
    path = put(tmp_path, {"stage_2_train.csv": SIIM.replace(", E", ",E")}) / "stage_2_train.csv"
    assert siim_acr_ptx.load(path)[0].height == 3


def test_siim_shipped_table_is_accounted_for():
    table, rejects = siim_acr_ptx.load()
    assert (table.height, rejects.height, table.height + rejects.height) == (12_047, 907, 12_954)
    assert rejects["reason"].unique().to_list() == [masks.MERGED]
    assert records.validate(table)["Pneumothorax"].sum() == table["mask"].count() == 2_669


def test_candid(tmp_path):
    table, rejects = candid_ptx.load(put(tmp_path, CANDID))
    found = by_id(table)
    ill, other = found["candid_ptx:1.2.826.1"], found["candid_ptx:1.2.826.2"]
    assert masks.classes(ill["mask"]) == ("Pneumothorax", "Support Devices")
    assert np.flatnonzero(masks.read(ill["mask"], "Pneumothorax").T).tolist() == [0, 1, 2, 10, 11]
    assert (ill["Pneumothorax"], ill["Support Devices"], ill["Fracture"]) == (1, 1, None)
    assert ill["report"].startswith("Left apical\n") and ill["patient_id"] == "candid_ptx:P0001"
    assert (other["Pneumothorax"], other["Fracture"], other["labels"]) == (0, 1, ["acute rib fracture"])
    assert reasons(rejects) == {
        "Pneumothorax_reports.csv 2": masks.MERGED,
        "chest_tube.csv 1": masks.MERGED,
        "acute_rib_fracture.csv 1": masks.MERGED,
        "acute_rib_fracture.csv 2": "image without a row in Pneumothorax_reports.csv",
    }


def test_vindr_ribs(tmp_path):
    table, rejects = vindr_ribcxr.load(rib_folder(tmp_path))
    found = by_id(table)
    assert rejects.is_empty() and table["split"].to_list() == ["train", "train", "val", "val"]
    assert masks.classes(found["vindr_ribcxr:VinDr_RibCXR_train_000"]["mask"]) == vindr_ribcxr.RIBS
    mask = found["vindr_ribcxr:VinDr_RibCXR_val_001"]["mask"]
    assert masks.classes(mask) == ("R1",)
    assert (tmp_path / found["vindr_ribcxr:VinDr_RibCXR_val_001"]["image"]).is_file()
    assert np.argwhere(masks.read(mask)).min(0).tolist() == [2, 2] and masks.read(mask).shape == (20, 40)


def test_vindr_ribs_rejects(tmp_path):
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


def test_objects(tmp_path):
    table, rejects = object_cxr.load(object_folder(tmp_path))
    found = by_id(table)
    row = found["object_cxr:train/00001"]
    assert rejects.is_empty() and len(found) == 3  # train and dev may use the same file names
    assert row["boxes"][0] == pytest.approx({"finding": "Support Devices", "x": 0.25, "y": 0.25, "w": 0.5, "h": 0.5})
    assert len(row["boxes"]) == 3 and row["labels"] == ["foreign object"]
    assert row["Support Devices"] is None  # the publisher excluded them
    assert masks.read(row["mask"])[5:15, 10:30].all()
    assert (found["object_cxr:train/00002"]["mask"], found["object_cxr:train/00002"]["boxes"]) == (None, [])
    assert found["object_cxr:dev/00001"]["split"] == "val"


def test_objects_rejects(tmp_path):
    folder = object_folder(tmp_path)
    rows = ["00001.jpg,3 1 2 3 4", "00002.jpg,0 1 2 99 4", "00003.jpg,0 1 2 3 4", "00004.jpg,", "../x.jpg,", "a.jpg"]
    put(folder, {"train.csv": "\n".join(["image_name,annotation", *rows, "00004.jpg,", ""])})
    kept, rejects = object_cxr.load(folder)
    assert kept["image_id"].to_list() == ["object_cxr:train/00004", "object_cxr:dev/00001"]
    found = list(reasons(rejects).values())
    assert found[0].startswith("unknown type of shape '3'")
    assert found[1] == "box outside its 20 x 40 frame"
    assert found[2].startswith("no readable image")
    assert found[3].startswith("not the name of an image")
    assert found[4].startswith("broken row") and found[5] == "duplicate image id"


def test_chestx_det(tmp_path):
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
def test_chestx_det_rejects(tmp_path, change, reason):
    item = {"file_name": "1.png", "syms": ["Nodule"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3, 2], [3, 4]]]}
    files = CHESTX_DET | {"ChestX_Det_train.json": json.dumps([item | change, item | {"file_name": "2.png"}, "text"])}
    table, rejects = chestx_det.load(put(tmp_path, files))
    assert table.height == 2 and reason in rejects["reason"][0] and "needs the lists" in rejects["reason"][1]


def test_ralo(tmp_path):
    table, rejects = ralo.load(put(tmp_path, {"ralo-dataset-metadata.csv": RALO}))
    ill, well, doubtful = records.validate(table).to_dicts()
    assert ill["severity"] == [
        {"finding": "Lung Opacity", "score": 0.375},
        {"finding": "geographic extent", "score": 0.625},
    ]
    assert (ill["image"], ill["patient_id"], ill["view"]) == ("CXR_images_scored/0.jpg", "ralo:A1", "AP")
    assert [row["Lung Opacity"] for row in (ill, well, doubtful)] == [1, 0, None]
    assert doubtful["uncertain"] == ["Lung Opacity"] and doubtful["image"] == "CXR_images_scored/2.jpg"
    assert reasons(rejects) == {"4": "a score is missing or not in 0 to 8"}


def test_vindr_readers_vote(tmp_path):
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


def test_vindr_box_outside_its_image(tmp_path):
    folder = vindr_folder(tmp_path)
    dicom(folder / "train/a.dicom", rows=200, columns=52)
    table, rejects = vindr_cxr.load(folder)
    assert "vindr_cxr:a" not in table["image_id"]
    assert reasons(rejects)["annotations_train.csv 2"] == "box is empty or leaves the image"
    assert reasons(rejects)["annotations_train.csv 1"] == masks.SPOILED


def test_vindr_boxes_that_overlap_less_are_two(tmp_path):
    folder = vindr_folder(tmp_path)
    text = VINDR["annotations/annotations_train.csv"].replace("R2,Pleural effusion,14", "R2,Pleural effusion,40")
    put(folder, {"annotations/annotations_train.csv": text})
    row = by_id(vindr_cxr.load(folder)[0])["vindr_cxr:a"]
    assert row["Effusion"] == 1 and row["boxes"] == []


def test_vindr_shipped_table_is_accounted_for():
    table, rejects = vindr_cxr.load()
    assert (table.height, rejects.height, table.height + rejects.height) == (15_000, 52_914, 67_914)
    assert rejects["reason"].unique().to_list() == [masks.MERGED]
    records.validate(table)
    assert table["No Finding"].value_counts(sort=True).rows() == [(1.0, 10_606), (0.0, 4_394)]
    # Of the images in which readers name atelectasis, 124 have one who does, 44 two and 18 three.
    assert (table["Atelectasis"].sum(), table["Atelectasis"].null_count()) == (44 + 18, 124)
    assert table["boxes"].list.len().sum() == 0  # the table has no image sizes


def test_chest_dr(tmp_path):
    table, rejects = chest_dr.load(put(tmp_path, CHEST_DR))
    found = by_id(table)
    ill, old, clear = (found[f"chest_dr:{name}"] for name in ("DX.1.2", "5C2E", "5CF8"))
    assert (ill["Effusion"], ill["Pleural Other"], ill["Pneumonia"], ill["Fracture"]) == (1, 1, 0, None)
    assert ill["labels"] == ["pleural_effusion", "thickened_pleura", "emphysema"]
    assert (old["Fracture"], old["No Finding"], clear["No Finding"], clear["split"]) == (1, 0, None, "test")
    assert rejects.is_empty() and ill["Lung Opacity"] is None
    assert chest_dr.few_shot(tmp_path, 1, 2) == ["chest_dr:DX.1.2", "chest_dr:5C2E"]


def test_chest_dr_needs_a_published_support_set(tmp_path):
    put(tmp_path, CHEST_DR | {"chest_5-shot_train_exp1.txt": "a.png 1,0\n"})
    with pytest.raises(RecordError, match="choose shots from"):
        chest_dr.few_shot(tmp_path, 2, 1)
    with pytest.raises(RecordError, match="holds no"):
        chest_dr.few_shot(tmp_path, 10, 1)
    with pytest.raises(RecordError, match="19 labels"):
        chest_dr.few_shot(tmp_path, 5, 1)


def test_chest_dr_rejects(tmp_path):
    text = CHEST_DR["chest_train.csv"].replace("png,t,0", "png,t,2") + "DX.1.2.png,s" + ",0" * 19 + "\n"
    _, rejects = chest_dr.load(put(tmp_path, CHEST_DR | {"chest_train.csv": text}))
    assert list(reasons(rejects).values()) == ["label neither 0 nor 1: pleural_effusion '2'", "duplicate image id"]


@pytest.mark.parametrize("source", [candid_ptx, vindr_ribcxr, object_cxr, chestx_det, ralo, chest_dr])
def test_a_dataset_that_is_not_shipped_says_how_to_get_it(source, tmp_path):
    with pytest.raises(RecordError, match=re.escape(source.DATASHEET.obtain)):
        sources.load(source.SOURCE)
    with pytest.raises(RecordError, match="no such file or folder|holds no"):
        source.load(tmp_path / "gone")


# ------------------------------------------------------------------------------------------------------ any bytes


def csv_rows(path: Path) -> int:
    return read_table(path, ()).height


def ralo_rows(path: Path) -> int:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    return len(rows) - 1 - next(i for i, row in enumerate(rows) if "Subject_ID" in row)


class Dataset(NamedTuple):
    """How to lay a dataset out, read it, and count the rows of one of its tables without its reader."""

    lay_out: Callable[[Path], Path]
    load: Callable[[Path], tuple[pl.DataFrame, pl.DataFrame]]
    tables: tuple[str, ...]
    rows: Callable[[Path], int] = csv_rows


DATASETS = {
    "siim_acr_ptx": Dataset(lambda f: put(f, {"train-rle.csv": SIIM}), siim_acr_ptx.load, ("train-rle.csv",)),
    "candid_ptx": Dataset(lambda f: put(f, CANDID), candid_ptx.load, tuple(CANDID)),
    "vindr_ribcxr": Dataset(
        rib_folder,
        vindr_ribcxr.load,
        ("train/Vindr_RibCXR_train_mask.json", "val/Vindr_RibCXR_val_mask.json"),
        lambda path: len(json.loads(path.read_bytes())["img"]),
    ),
    "object_cxr": Dataset(object_folder, object_cxr.load, tuple(OBJECTS)),
    "chestx_det": Dataset(
        lambda f: put(f, CHESTX_DET),
        chestx_det.load,
        tuple(CHESTX_DET),
        lambda path: len(json.loads(path.read_bytes())),
    ),
    "ralo": Dataset(
        lambda f: put(f, {"ralo-dataset-metadata.csv": RALO}), ralo.load, ("ralo-dataset-metadata.csv",), ralo_rows
    ),
    "vindr_cxr": Dataset(vindr_folder, vindr_cxr.load, tuple(VINDR)),
    "chest_dr": Dataset(lambda f: put(f, CHEST_DR), chest_dr.load, ("chest_train.csv", "chest_test_WithLabel.csv")),
}


def drop_column(raw: bytes, number: int) -> bytes:
    lines = [line.split(b",") for line in raw.split(b"\n")]
    return b"\n".join(b",".join(cell for i, cell in enumerate(line) if i != number % len(lines[0])) for line in lines)


def flip(raw: bytes, places: list[tuple[int, int]]) -> bytes:
    raw = bytearray(raw)
    for place, value in places:
        raw[place % len(raw)] = value
    return bytes(raw)


DAMAGE = st.one_of(
    st.integers(0, 5000).map(lambda n: lambda raw: raw[: n % (len(raw) + 1)]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6).map(
        lambda places: lambda raw: flip(raw, places)
    ),
    st.lists(
        st.tuples(st.integers(0, 10_000), st.sampled_from(b'0123456789-.,;:" \n{}[]')), min_size=1, max_size=6
    ).map(lambda places: lambda raw: flip(raw, places)),
    st.integers(0, 40).map(lambda n: lambda raw: drop_column(raw, n)),
    st.just(lambda raw: b"\xef\xbb\xbf" + raw),
    st.just(lambda raw: raw.replace(b"\n", b"\r\n")),
    st.just(lambda raw: raw.replace(b",", b";")),
    st.just(lambda raw: raw.replace(b"a", b"\xe9")),
    st.just(lambda raw: raw + raw),
    st.binary(max_size=200).map(lambda data: lambda raw: data),
)


@pytest.mark.parametrize("name", DATASETS)
@settings(max_examples=int(os.environ.get("CHEXGEN_FUZZ", 30)), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_give_balanced_tables_or_a_record_error(name, data):
    dataset = DATASETS[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = dataset.lay_out(Path(folder))
        path = folder / data.draw(st.sampled_from(dataset.tables))
        raw = path.read_bytes()
        for damage in data.draw(st.lists(DAMAGE, min_size=1, max_size=2)):
            raw = damage(raw) if raw else raw
        path.write_bytes(raw)
        try:
            table, rejects = dataset.load(folder)
        except RecordError as error:
            assert str(error)
            return
        records.validate(table)
        assert rejects["reason"].null_count() == 0
        assert table.height + rejects.height == sum(dataset.rows(folder / name) for name in dataset.tables)
        for mask in table["mask"].drop_nulls():
            assert masks.read(mask).ndim == 2
