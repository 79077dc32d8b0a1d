"""BRAX: CheXpert's states under BRAX's names, age groups, views, paths."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import brax

PATH = "id_{0}/Study_1.2/Series_3.4/image-5.{0}"
DEFAULT = {"PatientID": "7", "PatientSex": "F", "PatientAge": "45", "AccessionNumber": "99", "ViewPosition": "PA"}


def write(folder, *rows: dict, header=brax.COLUMNS):
    lines = [",".join(header)]
    for i, row in enumerate(rows):
        path = PATH.format(i)
        paths = {"PngPath": f"images/{path}.png", "DicomPath": f"Anonymized_DICOMs/{path}.dcm"}
        lines.append(",".join((DEFAULT | paths | row).get(c, "") for c in header))
    (folder / "master_spreadsheet_update.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_paths_that_windows_wrote_are_read(tmp_path):
    path = f"images/{PATH.format(0)}.png"
    df, _ = brax.load(write(tmp_path, {"PngPath": path.replace("/", "\\")}))
    assert df.select("image_id", "image").rows() == [(f"brax:{PATH.format(0)}", path)]


def test_record(tmp_path):
    states = {"Pleural Effusion": "1.0", "Edema": "0.0", "Pneumonia": "-1.0"}
    df, rejects = brax.load(write(tmp_path, states, {"No Finding": "1", "PngPath": ""}))
    ill, well = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert (ill["Effusion"], ill["Edema"], ill["Pneumonia"], ill["Fracture"], ill["No Finding"]) == (
        1,
        0,
        None,
        None,
        0,
    )
    assert (ill["labels"], ill["uncertain"]) == (["Pleural Effusion"], ["Pneumonia"])
    assert ill["image_id"] == f"brax:{PATH.format(0)}" and ill["image"] == f"images/{PATH.format(0)}.png"
    assert (ill["patient_id"], ill["study_id"], ill["sex"]) == ("brax:7", "brax:99", "F")
    assert (well["No Finding"], well["Effusion"], well["Support Devices"]) == (1, 0, None)
    assert well["image"] == f"Anonymized_DICOMs/{PATH.format(1)}.dcm"


def test_age_groups(tmp_path):
    ages = {"45": 45, "85 or more": 85, "40-44": 40, "40 to 44": 40, "": None, "412": None}
    folder = write(tmp_path, *({"PatientAge": text} for text in ages))
    assert brax.load(folder)[0]["age"].to_list() == list(ages.values())
    assert brax.repairs(folder).select("field", "value").rows() == [("age", "412")]


def test_views(tmp_path):
    views = {"AP": "AP", "L": "LATERAL", "RL": "LATERAL", "RLO": "OBLIQUE", "LT-DECUB": "OTHER", "": None, "Q": None}
    folder = write(tmp_path, *({"ViewPosition": text} for text in views))
    assert brax.load(folder)[0]["view"].to_list() == list(views.values())
    assert brax.repairs(folder).select("field", "value").rows() == [("view", "Q")]


def test_normal_with_a_pathology_is_listed(tmp_path):
    folder = write(tmp_path, {"No Finding": "1.0", "Fracture": "1.0"}, {"No Finding": "1.0", "Support Devices": "1.0"})
    df, _ = brax.load(folder)
    assert (df["No Finding"].to_list(), df["Fracture"].to_list()) == ([0, 1], [1, 0])
    assert brax.repairs(folder).select("row", "field", "value").rows() == [("1", "No Finding", "1.0")]


def test_normal_leaves_the_uncertain_uncertain(tmp_path):
    row = brax.load(write(tmp_path, {"No Finding": "1.0", "Edema": "-1.0"}))[0].to_dicts()[0]
    assert (row["Edema"], row["Pneumonia"], row["uncertain"]) == (None, 0, ["Edema"])


def test_rejects_add_up(tmp_path):
    same = {"PngPath": "images/a.png"}
    rows = [
        {},
        same,
        same,
        {"PatientID": ""},
        {"AccessionNumber": " "},
        {"Edema": "yes"},
        {"PngPath": "", "DicomPath": ""},
    ]
    df, rejects = brax.load(write(tmp_path, *rows))
    assert df.height + rejects.height == len(rows)
    assert rejects["reason"].to_list() == [
        "duplicate image id",
        "no patient id",
        "no study id",
        "unknown state Edema 'yes'",
        "no image id",
    ]


def test_missing_column(tmp_path):
    with pytest.raises(RecordError, match="master_spreadsheet_update.csv.*PatientAge"):
        brax.load(write(tmp_path, {}, header=tuple(c for c in brax.COLUMNS if c != "PatientAge")))
