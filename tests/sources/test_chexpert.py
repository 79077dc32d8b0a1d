"""CheXpert's label states, views and ids."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import FINDINGS, RecordError
from chexgen_lib.sources import chexpert

HEADER = ",".join(chexpert.COLUMNS)


def load(tmp_path, *rows: dict):
    """A table whose rows have the given states by finding, and `Path`, `Sex`, ... where given."""
    lines = [HEADER]
    for i, row in enumerate(rows):
        default = {"Path": f"C/train/patient{i:05d}/study1/view1_frontal.jpg", "Sex": "Female", "Age": "63"}
        default |= {"Frontal/Lateral": "Frontal", "AP/PA": "AP"}
        lines.append(",".join(str((default | row).get(column, "")) for column in chexpert.COLUMNS))
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines) + "\n")
    return chexpert.load(path)


def test_states(tmp_path):
    df, _ = load(tmp_path, {"Edema": "1.0", "Pneumonia": "-1.0", "Pleural Effusion": "0.0", "Support Devices": "1.0"})
    row = records.validate(df).to_dicts()[0]
    assert (row["Edema"], row["Effusion"], row["Pneumonia"], row["Fracture"]) == (1, 0, None, None)
    assert row["uncertain"] == ["Pneumonia"]
    assert row["labels"] == ["Edema", "Support Devices"]
    assert row["No Finding"] == 0  # a pathology is present


def test_paths_that_windows_wrote_are_read(tmp_path):
    path = "C/train/patient00001/study2/view1_frontal.jpg"
    df, rejects = load(tmp_path, {"Path": path.replace("/", "\\")})
    assert rejects.is_empty() and df["image_id"].to_list() == ["chexpert:patient00001/study2/view1_frontal"]


def test_a_blank_state_is_not_filled_from_another_image_of_the_patient(tmp_path):
    paths = [f"C/train/patient00001/study{i}/view1_frontal.jpg" for i in (1, 2)]
    df, _ = load(tmp_path, {"Path": paths[0], "Edema": "1.0"}, {"Path": paths[1], "Fracture": "1.0"})
    assert df.sort("image")["Edema"].to_list() == [1, None]
    assert df.sort("image")["Fracture"].to_list() == [None, 1]


def test_no_finding_denies_the_pathologies_but_not_devices(tmp_path):
    row = load(tmp_path, {"No Finding": "1.0", "Support Devices": "1.0"})[0].to_dicts()[0]
    assert all(row[f] == 0 for f in FINDINGS if f not in ("No Finding", "Support Devices"))
    assert row["No Finding"] == row["Support Devices"] == 1


def test_only_uncertain_leaves_no_finding_open(tmp_path):
    assert load(tmp_path, {"Edema": "-1.0"})[0]["No Finding"].to_list() == [None]


@pytest.mark.parametrize(
    ("plane", "projection", "view"),
    [
        ("Frontal", "AP", "AP"),
        ("Frontal", "PA", "PA"),
        ("Frontal", "LL", "FRONTAL"),
        ("Lateral", "", "LATERAL"),
    ],
)
def test_views(tmp_path, plane, projection, view):
    df, _ = load(tmp_path, {"Frontal/Lateral": plane, "AP/PA": projection})
    assert df["view"].to_list() == [view]


def test_path_gives_patient_and_study(tmp_path):
    row = load(tmp_path, {"Path": "X/valid/patient64541/study3/view2_lateral.jpg"})[0].to_dicts()[0]
    assert row["patient_id"] == "chexpert:patient64541"
    assert row["study_id"] == "chexpert:patient64541/study3"
    assert row["image_id"] == "chexpert:patient64541/study3/view2_lateral"


def test_rejects_add_up(tmp_path):
    rows = [
        {},
        {"Path": "C/train/patient00000/study1/view1_frontal.jpg"},
        {"Path": "scan.jpg"},
        {"Edema": "2"},
        {"Sex": "Unknown"},
    ]
    df, rejects = load(tmp_path, *rows)
    assert df.height + rejects.height == len(rows)
    assert rejects["reason"].to_list() == [
        "duplicate image id",
        "path without patient/study/view: 'scan.jpg'",
        "unknown state Edema '2'",
    ]
    assert df["sex"].to_list() == ["F", None]


def test_missing_column(tmp_path):
    (tmp_path / "x.csv").write_text("Path,Sex\na,b\n")
    with pytest.raises(RecordError, match="Frontal/Lateral"):
        chexpert.load(tmp_path / "x.csv")
