"""RANZCR CLiP: tubes and lines."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import ranczr_clip, registry

HEADER = ",".join(ranczr_clip.COLUMNS)
UID = "1.2.826.0.1.3680043.8.498.2669762895327322818901096767{}"


def row(i: int, *devices: str, patient: str = "ec89415d1") -> str:
    return ",".join([UID.format(i), *(str(int(d in devices)) for d in ranczr_clip.DEVICES), patient])


def write(folder, *rows: str):
    (folder / "train.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


def test_devices(tmp_path):
    df, rejects = ranczr_clip.load(write(tmp_path, row(1, "ETT - Abnormal", "CVC - Normal"), row(2)))
    some, none = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert (some["Support Devices"], none["Support Devices"]) == (1, None)  # another device may be there
    assert some["labels"] == ["ETT - Abnormal", "CVC - Normal"]
    assert (some["No Finding"], some["Pneumothorax"], some["view"]) == (None, None, "FRONTAL")
    assert some["image"] == f"train/{UID.format(1)}.jpg"
    assert some["patient_id"] == none["patient_id"] == "ranczr_clip:ec89415d1"
    assert registry.repairs("ranczr_clip", tmp_path).is_empty()


def test_rejects_add_up(tmp_path):
    rows = [row(1), row(1), row(2, patient=""), row(3).replace(",0", ",2", 1), UID]
    df, rejects = ranczr_clip.load(write(tmp_path, *rows))
    assert df.height + rejects.height == len(rows)
    assert rejects["reason"].to_list() == [
        "duplicate image id",
        "no patient id",
        "unknown state ETT - Abnormal '2'",
        "broken row: wrong number of fields",
    ]


def test_labels_with_a_point_are_labels(tmp_path):
    device = row(1, "CVC - Normal").replace(",1", ",1.0").replace(",0", ",0.0")
    df, rejects = ranczr_clip.load(write(tmp_path, device))
    assert rejects.is_empty() and df["labels"].to_list() == [["CVC - Normal"]]


def test_missing_column(tmp_path):
    (tmp_path / "train.csv").write_text("StudyInstanceUID,PatientID\n1,2\n")
    with pytest.raises(RecordError, match="train.csv.*ETT - Abnormal"):
        ranczr_clip.load(tmp_path)
