"""MIMIC-CXR: both releases, reports in files or packed, the link to MIMIC-IV, the split by folder."""

import gzip
import re
import zipfile

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.records import FINDINGS, RecordError
from chexgen_lib.sources import mimic_cxr
from chexgen_lib.sources.chexpert_labels import COLUMNS as LABELS

METADATA = """dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate
02aa804e-bde0afdd,10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506
174413ec-4ec4c1f7,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506
2a2277a9-b0ded155,19999442,58708861,CHEST (PORTABLE AP),AP,2544,3056,21461105
"""
RECORD_LIST = """subject_id,study_id,dicom_id,path
10000032,50414267,02aa804e-bde0afdd,files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm
"""
PATIENTS = """subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod
10000032,F,52,2178,2014 - 2016,
19999442,M,91,2190,2011 - 2013,
"""
ADMISSIONS = """subject_id,hadm_id,admittime,race
10000032,1,2180-05-06 22:23:00,BLACK/CAPE VERDEAN
10000032,2,2180-03-23 11:51:00,WHITE - RUSSIAN
10000032,3,2180-05-05 10:00:00,UNABLE TO OBTAIN
10000032,4,2180-06-26 18:27:00,ASIAN - CHINESE
19999442,5,2148-01-01 00:00:00,HISPANIC/LATINO - CUBAN
19999442,6,2149-01-01 00:00:00,WHITE
"""


def labels(**cells: dict[str, str]) -> str:
    """The labels' table: study -> cells by column."""
    lines = ["subject_id,study_id," + ",".join(LABELS)]
    lines += [f"1,{study.strip('s')}," + ",".join(row.get(c, "") for c in LABELS) for study, row in cells.items()]
    return "\n".join(lines) + "\n"


def write(folder, metadata=METADATA, states=None, reports=None):
    """The JPG release in a folder, with the unpacked reports by path."""
    (folder / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(gzip.compress(metadata.encode()))
    states = states or labels(s50414267={"Edema": "1.0", "Pneumonia": "-1.0"}, s58708861={"No Finding": "1.0"})
    (folder / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(gzip.compress(states.encode()))
    for name, text in (reports or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return folder


def write_mimic_iv(folder, patients=PATIENTS, admissions=ADMISSIONS):
    (folder / "hosp").mkdir(parents=True)
    (folder / "hosp/patients.csv.gz").write_bytes(gzip.compress(patients.encode()))
    (folder / "hosp/admissions.csv").write_text(admissions)
    return folder


def test_jpg_release(tmp_path):
    df, rejects = mimic_cxr.load(write(tmp_path))
    first, lateral, test = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert first["image"] == "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg"
    assert (first["view"], lateral["view"], test["view"]) == ("PA", "LATERAL", "AP")
    assert (first["split"], test["split"]) == ("train", "test")  # folder p19
    assert first["study_id"] == lateral["study_id"] != test["study_id"]
    assert (first["Edema"], first["Pneumonia"], first["Fracture"], first["No Finding"]) == (1, None, None, 0)
    assert first["labels"] == ["Edema"] and lateral["uncertain"] == ["Pneumonia"]
    assert all(test[f] == 0 for f in FINDINGS if f not in ("No Finding", "Support Devices"))
    assert df.select(pl.col("age", "sex", "race", "report").null_count()).row(0) == (3, 3, 3, 3)


def test_dicom_release_has_neither_views_nor_labels(tmp_path):
    (tmp_path / "cxr-record-list.csv.gz").write_bytes(gzip.compress(RECORD_LIST.encode()))
    row = records.validate(mimic_cxr.load(tmp_path)[0]).to_dicts()[0]
    assert row["image"] == "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"
    assert row["view"] is None and all(row[finding] is None for finding in FINDINGS)


def test_jpg_tables_beside_dicom_images(tmp_path):
    image = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.dcm"
    df, _ = mimic_cxr.load(write(tmp_path, reports={image: b"DICM"}))
    assert df["image"].str.ends_with(".dcm").all() and df["view"][0] == "PA"


def test_reports_unpacked_or_packed(tmp_path):
    texts = {"files/p10/p10000032/s50414267.txt": b"  FINDINGS: clear.\r\n IMPRESSION: No edema.\n\n"}
    texts["files/p19/p19999442/s58708861.txt"] = "Fran\xe7ois".encode("latin-1")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    unpacked, _ = mimic_cxr.load(write(tmp_path / "a", reports=texts))
    with zipfile.ZipFile(tmp_path / "b" / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
        archive.writestr("files/p11/p11000000/s51111111.txt", "of no image")
    packed, _ = mimic_cxr.load(write(tmp_path / "b"))
    assert unpacked["report"].to_list() == packed["report"].to_list()
    assert unpacked["report"].to_list() == ["FINDINGS: clear.\r\n IMPRESSION: No edema."] * 2 + ["Fran\xe7ois"]


def test_damaged_archive(tmp_path):
    path = write(tmp_path) / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("files/p10/p10000032/s50414267.txt", "clear" * 100)
    path.write_bytes(path.read_bytes().replace(b"clearclear", b"clearCLEAR"))
    with pytest.raises(RecordError, match="mimic-cxr-reports.zip.*fetch it again"):
        mimic_cxr.load(tmp_path)


def test_sections_stand_in_for_reports_that_are_not_there(tmp_path):
    table = 'study,impression,findings,last_paragraph,comparison\ns50414267,No change.,"Small, left\neffusion.",,\n'
    (tmp_path / "mimic_cxr_sectioned.csv").write_text(table + "s58708861,,,Clear lungs.,\ns59999999,Other.,,,\n")
    df, _ = mimic_cxr.load(write(tmp_path))
    assert df["report"].drop_nulls().unique(maintain_order=True).to_list() == [
        "FINDINGS: Small, left\neffusion.\nIMPRESSION: No change.", "Clear lungs."
    ]  # fmt: skip
    assert df["impression"].drop_nulls().unique().to_list() == ["No change."]
    (tmp_path / "mimic_cxr_sectioned.csv").write_text(table.replace("s50414267", "50414267.0"))
    with pytest.raises(RecordError, match="sectioned.csv: its ids are not written as the dataset's"):
        mimic_cxr.load(tmp_path)
    df, _ = mimic_cxr.load(write(tmp_path, reports={"files/p10/p10000032/s50414267.txt": b"IMPRESSION: Clear."}))
    assert df["impression"].drop_nulls().unique().to_list() == ["Clear."]


def test_mimic_iv_beside_the_folder_is_found(tmp_path):
    (tmp_path / "mimic_cxr").mkdir()
    write_mimic_iv(tmp_path / "mimic_iv")
    df, _ = mimic_cxr.load(write(tmp_path / "mimic_cxr"))
    assert df["sex"].null_count() < df.height
    parts = mimic_cxr.DATASHEET.check(tmp_path / "mimic_cxr").filter(pl.col("part").str.contains("mimic_iv"))
    assert (parts["state"] == "present").all() and parts.height == 2


@pytest.mark.parametrize("folder", ["mimic_iv/mimic-iv-1.0/core", "mimic_cxr"])
def test_the_first_releases_of_mimic_iv_name_folder_and_race_otherwise(folder, tmp_path):
    """Some users are told to put these two tables beside the images' tables."""
    texts = {"patients.csv": PATIENTS, "admissions.csv": ADMISSIONS.replace("race", "ethnicity", 1)}
    for name, text in texts.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "mimic_cxr").mkdir(exist_ok=True)
    df, _ = mimic_cxr.load(write(tmp_path / "mimic_cxr"))
    assert df["race"].to_list() == ["Black", "Black", "Hispanic"] and df["sex"].to_list() == ["F", "F", "M"]
    parts = mimic_cxr.DATASHEET.check(tmp_path / "mimic_cxr").filter(pl.col("part").str.contains("mimic_iv"))
    assert (parts["state"] == "present").all() and parts.height == 2


def test_age_sex_and_race_from_mimic_iv(tmp_path):
    df, _ = mimic_cxr.load(write(tmp_path), write_mimic_iv(tmp_path / "mimiciv"))
    assert df["age"].to_list() == [54, 54, 47]  # anchor_age + year of study - anchor_year
    assert df["sex"].to_list() == ["F", "F", "M"]
    # the last admission up to the study that states a race; none before: the first after it
    assert df["race"].to_list() == ["Black", "Black", "Hispanic"]


def test_dates_and_ages_that_a_spreadsheet_rewrote(tmp_path):
    folder = write_mimic_iv(tmp_path / "iv", PATIENTS.replace(",52,2178,", ",52.0,2178.0,"))
    for date in ("21800506.0", "2180-05-06"):
        df, _ = mimic_cxr.load(write(tmp_path, METADATA.replace("21800506", date)), folder)
        assert df["age"].to_list() == [54, 54, 47] and df["race"].to_list() == ["Black", "Black", "Hispanic"]
    (folder / "hosp/admissions.csv").write_text(
        "subject_id,hadm_id,admittime,race\n10000032,1,06/05/2180 22:23,WHITE\n"
    )
    with pytest.raises(RecordError, match="admissions.csv: admittime '06/05/2180 22:23' is no YYYY"):
        mimic_cxr.load(tmp_path, folder)


def test_values_that_cannot_be_used_are_listed(tmp_path):
    patients = PATIENTS.replace("M,91,2190", "X,91,1990")
    metadata = METADATA.replace(",PA,", ",UPSIDE DOWN,")
    states = labels(s50414267={"No Finding": "1.0", "Edema": "1.0"})
    write(tmp_path, metadata, states), write_mimic_iv(tmp_path / "iv", patients)
    df, rejects = mimic_cxr.load(tmp_path, tmp_path / "iv")
    assert rejects.is_empty() and df["No Finding"].to_list() == [0, 0, None]
    repaired = mimic_cxr.repairs(tmp_path, tmp_path / "iv").select("row", "field", "value").rows()
    assert repaired == [
        ("1", "view", "UPSIDE DOWN"),
        ("3", "age", "91 in 1990, study 21461105"),
        ("3", "sex", "X"),
        ("1", "No Finding", "1.0"),
        ("2", "No Finding", "1.0"),
    ]


def test_rejects_add_up(tmp_path):
    rows = METADATA.splitlines()
    rows += [rows[1], "x,20000032,50414267,,PA,1,1,21800506", "y,10000032,abc,,PA,1,1,21800506", "z,1"]
    states = labels(s58708861={"Edema": "2"})
    df, rejects = mimic_cxr.load(write(tmp_path, "\n".join(rows) + "\n", states))
    assert df.height + rejects.height == len(rows) - 1
    assert rejects["reason"].to_list() == [
        "unknown state Edema '2'",
        "duplicate image id",
        "no subject: '20000032'",
        "no study: 'abc'",
        "broken row: wrong number of fields",
    ]


@pytest.mark.parametrize("name", ["patients.csv", "admissions.csv"])
def test_joined_tables_must_be_whole(tmp_path, name):
    folder = write_mimic_iv(tmp_path / "iv")
    (folder / "hosp/patients.csv.gz").unlink()
    (folder / "hosp/patients.csv").write_text(PATIENTS)
    table = folder / "hosp" / name
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    with pytest.raises(RecordError, match=f"{name}.*row .* repeats"):
        mimic_cxr.load(write(tmp_path), folder)


def test_labels_repeated(tmp_path):
    states = labels(s50414267={"Edema": "1.0"})
    with pytest.raises(RecordError, match="chexpert.csv.gz.*repeats its study_id"):
        mimic_cxr.load(write(tmp_path, states=states + states.splitlines()[1] + "\n"))


@pytest.mark.parametrize("name", ["chexpert.csv.gz", "patients.csv", "admissions.csv"])
def test_a_joined_table_whose_ids_are_written_otherwise_is_refused(tmp_path, name):
    states = labels(s50414267={"Edema": "1.0"}).replace("50414267", "50414267.0")
    folder = write(tmp_path, states=states if "chexpert" in name else None)
    changed = {"patients": PATIENTS, "admissions": ADMISSIONS}
    tables = {key: re.sub(r"(1\d{7}),", r"\1.0,", text) for key, text in changed.items() if name.startswith(key)}
    with pytest.raises(RecordError, match=rf"{name}.*not written as the dataset's, '\d{{8}}\.0' here, '\d{{8}}' in"):
        mimic_cxr.load(folder, write_mimic_iv(tmp_path / "iv", **tables))


def test_patients_none_of_whom_was_admitted_have_no_race(tmp_path):
    admissions = re.sub(r"1\d{7},", "19999999,", ADMISSIONS)
    df, _ = mimic_cxr.load(write(tmp_path), write_mimic_iv(tmp_path / "iv", admissions=admissions))
    assert df["race"].null_count() == df.height and df["age"].null_count() < df.height


def test_empty_folder(tmp_path):
    with pytest.raises(RecordError, match="holds no mimic-cxr"):
        mimic_cxr.load(tmp_path)
