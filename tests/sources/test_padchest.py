"""PadChest: labels, locations, ages, incomplete reports."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import padchest, registry

DEFAULT = dict.fromkeys(padchest.COLUMNS, "") | {
    "ImageDir": "3",
    "StudyDate_DICOM": "20140915",
    "StudyID": "s",
    "PatientID": "p",
    "PatientBirth": "1930.0",
    "PatientSex_DICOM": "F",
    "Projection": "PA",
    "Labels": "['normal']",
    "LabelsLocalizationsBySentence": "[['normal']]",
}


def write(tmp_path, *rows: dict, encoding: str = "utf-8"):
    columns = (*padchest.COLUMNS, *(["ReportID"] if any("ReportID" in row for row in rows) else []))
    lines = [",".join(columns)]
    for i, row in enumerate(rows):
        row = DEFAULT | {"ImageID": f"{i}.png"} | row
        lines.append(",".join('"' + row[c].replace('"', '""') + '"' for c in columns))
    path = tmp_path / "padchest.csv"
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def test_a_report_without_a_word_is_none(tmp_path):
    """The release has 17 of nan, and 13 of points alone."""
    texts = (" sin hallazg . ", "nan", " . . . ", "")
    df, _ = padchest.load(write(tmp_path, *({"Report": text} for text in texts)))
    assert df["report"].to_list() == ["sin hallazg .", None, None, None]


@pytest.mark.parametrize("column", ["PatientID", "StudyID"])
def test_ids_that_a_spreadsheet_rounded_are_refused(tmp_path, column):
    """They would make one patient, or study, of many."""
    path = write(tmp_path, {}, *({column: "2.05367E+37", "StudyDate_DICOM": f"201{i}0101"} for i in range(2)))
    with pytest.raises(RecordError, match=r"padchest, row 2: \w+_id '2.05367E\+37' is a number .* rounded \(2 such"):
        padchest.load(path)


def test_labels_views_and_age(tmp_path):
    df, rejects = padchest.load(
        write(
            tmp_path,
            {"Labels": "['pleural effusion', ' pneumonia', 'scoliosis']", "Projection": "AP_horizontal"},
            {},
        )
    )
    ill, well = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert (ill["Effusion"], ill["Pneumonia"], ill["Edema"], ill["No Finding"]) == (1, 1, 0, 0)
    assert ill["Lung Opacity"] is None  # pneumonia is one, whether or not the report says so
    assert set(ill["labels"]) == {"pleural effusion", "pneumonia", "scoliosis"}
    assert (ill["view"], ill["age"], ill["image"]) == ("AP SUPINE", 84, "3/0.png")
    assert well["No Finding"] == 1 and well["Effusion"] == 0


@pytest.mark.parametrize("label", ["unchanged", "suboptimal study", ""])
def test_incomplete_reports_deny_nothing(tmp_path, label):
    df, _ = padchest.load(write(tmp_path, {"Labels": f"['pneumothorax', '{label}']"}))
    assert df["Pneumothorax"].to_list() == [1]
    assert df["Edema"].to_list() == [None]


@pytest.mark.parametrize("labels", ["[pneumothorax]", "['nodule', pneumothorax]", "[]", "['pneumothorax'"])
def test_labels_that_are_no_list_of_quoted_names_deny_nothing(tmp_path, labels):
    df, rejects = padchest.load(write(tmp_path, {"Labels": labels}))
    assert df.is_empty() and rejects["reason"].to_list() == ["no labels"]


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("[['pleural effusion', 'loc pleural', 'loc left']]", [("Effusion", "left", None)]),
        (
            "[['nodule', 'loc right upper lobe'], ['normal', 'loc cardiac']]",
            [("Lung Lesion", "right", "upper lobe")],
        ),
        ("['pleural effusion', 'loc left', 'loc right']", [("Effusion", "bilateral", None)]),
        ("['infiltrates', 'loc basal bilateral']", [("Lung Opacity", "bilateral", "base")]),
        # Two labels of one finding share the place; of two findings neither gets it.
        ("[['alveolar pattern', 'interstitial pattern', 'loc left']]", [("Lung Opacity", "left", None)]),
        ("[['pneumonia', ' pleural effusion', 'loc left']]", []),
        # Both sides and two sites: which is where is not said.
        (
            "['infiltrates', 'loc left', 'loc right', 'loc basal', 'loc lingula']",
            [("Lung Opacity", None, "base"), ("Lung Opacity", None, "lingula")],
        ),
        ("[['rib fracture', 'loc rib', 'loc left']]", [("Fracture", "left", None)]),
        ("['cardiomegaly', 'loc cardiac', 'loc left']", []),
        ("nan", []),
    ],
)
def test_details_invent_no_place(text, details):
    assert padchest.parse_details(text) == details


def test_rejects_add_up(tmp_path):
    rows = [
        {},
        {"Labels": "nan", "LabelsLocalizationsBySentence": "nan"},
        {"Labels": "['exclude']"},
        {"Projection": "EXCLUDE"},
        {"Labels": "['measles']"},
        {"ImageID": "0.png"},
    ]
    df, rejects = padchest.load(write(tmp_path, *rows))
    assert df.height + rejects.height == len(rows)
    assert rejects["reason"].to_list() == [
        "no labels",
        "study excluded by the dataset",
        "projection excluded by the dataset",
        "unknown label 'measles'",
        "duplicate image id",
    ]


def test_ages_and_locations_that_cannot_be_used_are_listed(tmp_path):
    path = write(
        tmp_path,
        {"PatientBirth": "1602"},
        {"PatientBirth": ""},
        {"LabelsLocalizationsBySentence": "[['nodule', 'loc elbow']]", "Labels": "['nodule']"},
    )
    df, _ = padchest.load(path)
    assert df["age"].to_list() == [None, None, 84]
    assert padchest.repairs(path).select("field", "value").rows() == [
        ("age", "1602"),
        ("details", "'loc elbow'"),
    ]


def test_latin_1_report_is_read(tmp_path):
    df, _ = padchest.load(write(tmp_path, {"Report": "corazón normal"}, encoding="latin-1"))
    assert df["report"].to_list() == ["corazón normal"]


def test_quoted_line_break_is_one_row(tmp_path):
    path = write(tmp_path, {"Report": "a\nb"}, {})
    assert padchest.load(path)[0].height == 2


def test_every_label_and_location_is_mapped():
    assert len(padchest.FINDING_OF) == 190
    assert all(registry.finding_of(label) == finding for label, finding in padchest.FINDING_OF.items())
    assert all(label.strip() == label for label in padchest.FINDING_OF)
    assert set().union(*padchest.MAYBE.values()) <= set(padchest.FINDING_OF)


def test_patient_ids_that_share_a_report_are_one_person(tmp_path):
    pairs = [("p3", "r1"), ("p2", "r1"), ("p2", "r2"), ("p1", "r2"), ("p4", "r3"), ("p5", ""), ("p6", "")]
    path = write(tmp_path, *({"PatientID": patient, "ReportID": report} for patient, report in pairs))
    df, _ = padchest.load(path)
    assert df["patient_id"].to_list() == [f"padchest:p{i}" for i in (1, 1, 1, 1, 4, 5, 6)]
    repaired = padchest.repairs(path).filter(field="patient_id")["value"].to_list()
    assert repaired == ["p3 is p1", "p2 is p1"]


def test_patient_ids_of_several_persons_are_counted(tmp_path):
    years = ("1930.0", "1950.0", "nan")
    path = write(tmp_path, *({"PatientBirth": year} for year in years), {"PatientID": "q"})
    assert padchest.load(path)[0]["patient_id"].n_unique() == 2
    assert padchest.repairs(path).filter(field="patient_id")["value"].to_list() == ["p was born in 1930, 1950"]
