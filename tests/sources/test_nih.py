"""NIH table, boxes and image folders, with the bad rows that users have."""

import gzip

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import nih
from chexgen_lib.sources.table import read_table, shipped

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"


def write(tmp_path, *rows: str, header: str = HEADER, encoding: str = "utf-8"):
    path = tmp_path / "nih.csv"
    path.write_bytes((header + "".join(row + "\n" for row in rows)).encode(encoding))
    return path


def test_labels_become_findings(tmp_path):
    path = write(
        tmp_path,
        "00000001_000.png,Infiltration|Mass|Hernia,0,1,057Y,m,PA",
        "00000002_000.png,No Finding,0,2,6M,F,AP",
    )
    df, rejects = nih.load(path)
    ill, well = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert (ill["Lung Opacity"], ill["Lung Lesion"], ill["Edema"], ill["No Finding"]) == (1, 1, 0, 0)
    assert ill["labels"] == ["Infiltration", "Mass", "Hernia"]
    assert ill["Fracture"] is None  # the dataset does not look for it
    assert (ill["age"], ill["sex"], well["age"], well["view"]) == (57, "M", 0.5, "AP")
    assert well["No Finding"] == 1
    assert (ill["patient_id"], ill["image"]) == ("nih:00000001", "00000001_000.png")


def test_the_publishers_table_of_today_names_the_sex_otherwise(tmp_path):
    header = HEADER.replace("Gender", "Sex")
    for mark in ",;":
        rows = [text.replace(",", mark) for text in (header, "00000001_000.png,Mass,0,1,57,M,PA")]
        assert nih.load(write(tmp_path, rows[1], header=rows[0]))[0]["sex"].to_list() == ["M"]
    with pytest.raises(RecordError, match="columns .'Patient Gender'. are missing"):
        nih.load(write(tmp_path, header=HEADER.replace("Gender", "Height")))


def test_another_opacity_leaves_lung_opacity_open(tmp_path):
    df, _ = nih.load(
        write(tmp_path, "00000001_000.png,Consolidation,0,1,57,M,PA", "00000001_001.png,Hernia,0,1,57,M,PA")
    )
    assert df["Lung Opacity"].to_list() == [None, 0]


def test_rejects_and_records_add_up(tmp_path):
    rows = [
        "00000001_000.png,No Finding,0,1,57,M,PA",
        "00000001_000.png,Edema,0,1,57,M,PA",  # same image id
        "00000002_000.png,Measles,0,2,57,M,PA",  # unknown label
        "00000003_000.png,,0,3,57,M,PA",  # no label
        "00000004_000.png,Edema,0,5,57,M,PA",  # image of another patient
        "00000006_000.png,Edema",  # broken row
        "00000007_000.png,Edema,0,7,57,M,PA,extra",  # broken row
        ",Edema,0,8,57,M,PA",  # no image id
        "00000009_000.png,Edema,0,,57,M,PA",  # no patient id
    ]
    df, rejects = nih.load(write(tmp_path, *rows))
    assert df.height + rejects.height == len(rows)
    reasons = dict(rejects.select("row", "reason").iter_rows())
    assert reasons["2"] == "duplicate image id"
    assert reasons["3"] == "unknown label 'Measles'"
    assert reasons["4"] == "no label"
    assert reasons["5"] == "not an image of patient 5"
    assert reasons["6"] == reasons["7"] == "broken row: wrong number of fields"
    assert reasons["8"] == "no image id"
    assert reasons["9"] == "no patient id"


@pytest.mark.parametrize(
    ("text", "age", "repaired"),
    [
        ("060Y", 60, 0),
        ("412", None, 1),
        ("", None, 0),
        ("018M", 1.5, 0),
        ("-3", None, 1),
        ("old", None, 1),
        ("nan", None, 0),
    ],
)
def test_ages(tmp_path, text, age, repaired):
    path = write(tmp_path, f"00000001_000.png,Edema,0,1,{text},M,PA")
    assert nih.load(path)[0]["age"].to_list() == [age]
    found = nih.repairs(path)
    assert found.height == repaired
    if repaired:
        assert found.select("field", "value").row(0) == ("age", text)


def test_missing_column_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"nih.csv: columns \['Patient Age'\] are missing"):
        nih.load(write(tmp_path, "a", header=HEADER.replace("Patient Age", "Age")))


def test_missing_damaged_and_empty_files(tmp_path):
    with pytest.raises(RecordError, match="none.csv: no such file"):
        nih.load(tmp_path / "none.csv")
    (tmp_path / "cut.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(RecordError, match="cut.csv.gz: damaged"):
        nih.load(tmp_path / "cut.csv.gz")
    whole = gzip.compress(HEADER.encode() * 50)
    (tmp_path / "half.csv.gz").write_bytes(whole[:-30])
    with pytest.raises(RecordError, match="half.csv.gz: damaged"):
        nih.load(tmp_path / "half.csv.gz")
    (tmp_path / "void.csv").write_bytes(b"")
    with pytest.raises(RecordError, match="void.csv: the file is empty"):
        nih.load(tmp_path / "void.csv")
    df, rejects = nih.load(write(tmp_path))  # a header alone is an empty table
    assert df.height == rejects.height == 0
    assert records.validate(df).height == 0


def test_boxes_are_fractions_and_strays_are_rejected(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Infiltrate,512,0,256,128\n"
        "00000001_000.png,Mass,0,0,64,64,,,\n"
        "00000002_000.png,Mass,1000,0,64,64\n"
        "00000003_000.png,Measles,0,0,64,64\n"
        "00000004_000.png,Mass,a,0,64,64\n"
        "00000005_000.png,Mass,0\n"
        "00000001_000.png,Mass,0,0,64.0,64,,,\n"
    )
    boxes, rejects = nih.load_boxes(path)
    assert boxes.to_dicts() == [
        {
            "image_id": "nih:00000001_000",
            "boxes": [
                {"finding": "Lung Opacity", "x": 0.5, "y": 0, "w": 0.25, "h": 0.125},
                {"finding": "Lung Lesion", "x": 0, "y": 0, "w": 0.0625, "h": 0.0625},
            ],
        }
    ]
    assert rejects["reason"].to_list() == [
        "box leaves the 1024 x 1024 image",
        "unknown label 'Measles'",
        "box leaves the 1024 x 1024 image",
        "broken row: wrong number of fields",
        "repeats an earlier box",
    ]


def test_attach_images(tmp_path):
    rows = [f"0000000{i}_000.png,Edema,0,{i},57,M,PA" for i in (1, 2, 3, 4)]
    df, _ = nih.load(write(tmp_path, *rows))
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for name in (
        "00000001_000.png",
        "b/00000001_000.jpg",
        "00000002_000.jpg",
        "00000099_000.png",
        "notes.txt",
    ):
        (folder / name).write_bytes(name.encode())  # so the .png and the .jpg differ
    (folder / "00000003_000.png").touch()
    kept, rejects = nih.attach_images(df, folder)
    assert kept.select("image_id", "image").rows() == [
        ("nih:00000001_000", "00000001_000.png"),
        ("nih:00000002_000", "00000002_000.jpg"),
    ]
    reasons = {r["row"] or r["image_id"]: r["reason"] for r in rejects.to_dicts()}
    assert reasons["b/00000001_000.jpg"].startswith("second file of that image id")
    assert reasons["00000099_000.png"] == "no record of that image id"
    assert reasons["notes.txt"].startswith("not an image")
    assert reasons["00000003_000.png"] == "empty file"
    lost = rejects.filter(pl.col("source") == "nih")
    assert kept.height + lost.height == df.height
    with pytest.raises(RecordError, match="no such folder"):
        nih.attach_images(df, tmp_path / "nowhere")


def test_radiologists_confirm_as_many_pneumothoraces_as_the_datasheet_says():
    read = read_table(shipped("google2019_nih-chest-xray-labels.csv.gz"), ("Finding Labels", "Pneumothorax"))
    called = read.filter(pl.col("Finding Labels").str.contains("Pneumothorax"))
    confirmed = (called["Pneumothorax"] == "YES").sum()
    assert f"of {called.height} images" in nih.DATASHEET.caution and f"{confirmed} (46 %" in nih.DATASHEET.caution
    assert round(confirmed / called.height, 2) == 0.46


@pytest.mark.parametrize("places", [("", "small/"), ("large/", "small/")])
def test_of_two_files_of_an_image_that_differ_neither_is_taken(tmp_path, places):
    table = write(tmp_path, *(f"0000000{i}_000.png,Edema,0,{i},57,M,PA" for i in (1, 2, 3)))
    files = {"00000001_000.png": (b"12", b"1"), "00000002_000.png": (b"12", b"12"), "00000003_000.png": (b"", b"1")}
    for place, number in zip(places, (0, 1), strict=True):
        (tmp_path / "images" / place).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "images" / place / name).write_bytes(content[number])
    kept, rejects = nih.attach_images(nih.load(table)[0], tmp_path / "images")
    assert kept["image"].to_list() == [f"{places[0]}00000002_000.png", "small/00000003_000.png"]
    lost = rejects.filter(pl.col("source") == "nih")
    assert lost["image_id"].to_list() == ["nih:00000001_000"] and "small/00000001_000.png differ" in lost["reason"][0]


def test_boxes_that_cannot_be_used_are_listed(tmp_path):
    write(tmp_path, "00000001_000.png,Mass,0,1,57,M,PA").rename(tmp_path / "Data_Entry_2017.csv")
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,mass,512,0,256,128,,,\n"
    (tmp_path / "BBox_List_2017.csv").write_text(boxes)
    assert nih.load(tmp_path)[0]["boxes"].to_list() == [[]]
    assert nih.repairs(tmp_path).select("image_id", "field", "value").rows() == [
        ("nih:00000001_000", "boxes", "unknown label 'mass'")
    ]


def test_the_lists_of_the_reduced_mirror_are_the_publishers(tmp_path):
    rows = [f"0000000{i}_000.png,Edema,0,{i},57,M,PA" for i in (1, 2)]
    write(tmp_path, *rows).rename(tmp_path / "Data_Entry_2017.csv")
    for name, image in (("train_val_list_NIH.txt", 1), ("test_list_NIH.txt", 2)):
        (tmp_path / name).write_text(f"0000000{image}_000.png\n")
    assert nih.load(tmp_path)[0]["split"].to_list() == ["train", "test"]
    promised = {part.pattern.removeprefix("**/") for part in nih.DATASHEET.parts if part.pattern.endswith(".txt")}
    assert promised == {name for names in nih.LISTS for name in names}
