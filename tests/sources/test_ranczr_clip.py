"""RANZCR CLiP: devices; and all five readers that need an account, fed with damaged files."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import bimcv_covid, brax, chexpert_labels, mimic_cxr, ranczr_clip, read_table, vindr_pcxr

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
    assert ranczr_clip.repairs(tmp_path).is_empty()


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


def test_missing_column(tmp_path):
    (tmp_path / "train.csv").write_text("StudyInstanceUID,PatientID\n1,2\n")
    with pytest.raises(RecordError, match="train.csv.*ETT - Abnormal"):
        ranczr_clip.load(tmp_path)


# --- damaged files ---

STUDY = "p10000032/s50414267"
BIMCV = "sub-S1/ses-E1/mod-rx/sub-S1_ses-E1_run-1_bp-chest_vp-pa_dx.png"
FILES = {
    ranczr_clip: {"train.csv": "\n".join([HEADER, row(1, "CVC - Normal"), row(2)])},
    brax: {
        "master_spreadsheet_update.csv": ",".join(brax.COLUMNS)
        + "\n7,F,45,9,images/a.png,a.dcm,PA,1.0,,,-1,0"
        + "," * 9
        + "\n8,M,85 or more,9,images/b.png,b.dcm,L,,1.0,,-1,0"
        + "," * 9
    },
    vindr_pcxr: {
        "image_labels_train.csv": ",".join(["image_id", "rad_ID", *vindr_pcxr.DIAGNOSES])
        + f"\na,R1{',0' * 14},1\nb,R1,1{',0' * 14}",
        "annotations_train.csv": "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max\n"
        "a,R1,Edema,1,2,3,4\nb,R1,No finding,,,,",
        "train/a.dicom": "\0" * 128 + "DICM\2\0\0\0UL\4\0\0\0\0\0(\0\20\0US\2\0\10\0(\0\21\0US\2\0\10\0",
    },
    mimic_cxr: {
        "mimic-cxr-2.0.0-metadata.csv": "dicom_id,subject_id,study_id,ViewPosition,StudyDate\n"
        "a,10000032,50414267,PA,21800506\nb,10000032,50414267,LATERAL,21800506",
        "mimic-cxr-2.0.0-chexpert.csv": ",".join(["subject_id", "study_id", *chexpert_labels.COLUMNS])
        + "\n10000032,50414267,1.0,,,,-1.0,,,,,,,,,1.0",
        f"files/p10/{STUDY}.txt": "IMPRESSION: Clear.",
        "hosp/patients.csv": "subject_id,gender,anchor_age,anchor_year\n10000032,F,52,2180",
        "hosp/admissions.csv": "subject_id,hadm_id,admittime,race\n10000032,1,2180-05-06 22:23:00,WHITE",
    },
    bimcv_covid: {
        "derivatives/labels/labels_covid_posi.tsv": "ReportID\tReport\tLabels\tLabelsLocalizationsBySentence\n"
        "ses-E1\tt\xf3rax\t['pneumonia', 'COVID 19']\t[['pneumonia', 'loc left']]",
        "participants.tsv": "participant\tage\tgender\nsub-S1\t[80, 81]\tM",
        BIMCV: "",
    },
}
# The table whose rows are counted, and a column of it; BIMCV's rows are its image files.
TABLES = {
    ranczr_clip: {"train.csv": ranczr_clip.COLUMNS},
    brax: {"master_spreadsheet_update.csv": brax.COLUMNS},
    vindr_pcxr: {"image_labels_train.csv": ("image_id",)},
    mimic_cxr: {"mimic-cxr-2.0.0-metadata.csv": ("dicom_id",)},
    bimcv_covid: {},
}


def drop_column(raw: bytes, at: int) -> bytes:
    cells = [line.split(b",") for line in raw.split(b"\n")]
    return b"\n".join(b",".join(line[:at] + line[at + 1 :]) for line in cells)


def flip(raw: bytes, at: int, byte: int) -> bytes:
    at %= max(len(raw), 1)
    return raw[:at] + bytes([byte]) + raw[at + 1 :]


BYTES = st.sampled_from([b",", b"\t", b";", b"1", b"0", b"\n", b'"'])
DAMAGES = st.one_of(
    st.builds(lambda n: lambda raw: raw[: n % (len(raw) + 1)], st.integers(0, 2000)),
    st.builds(lambda n, b: lambda raw: flip(raw, n, b), st.integers(0, 2000), st.integers(0, 255)),
    st.builds(lambda n: lambda raw: drop_column(raw, n), st.integers(0, 20)),
    st.builds(lambda n, text: lambda raw: raw[:n] + text + raw[n:], st.integers(0, 2000), st.binary(max_size=8)),
    st.builds(lambda a, b: lambda raw: raw.replace(a, b), BYTES, BYTES),
    st.sampled_from([
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: raw.decode("utf-8", "replace").encode("latin-1", "replace"),
        lambda raw: raw + b"\n" + raw.rpartition(b"\n")[2],
        lambda raw: raw.decode("utf-8", "replace").encode("utf-16"),
    ]),
)  # fmt: skip


@pytest.mark.parametrize("source", FILES, ids=lambda source: source.__name__.rpartition(".")[2])
def test_damaged_files_balance_or_are_named(source):
    """Any damage gives valid Records and rejects, as many as there are rows, or a RecordError."""
    examples = int(os.environ.get("CHEXGEN_FUZZ", 30))

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize="CHEXGEN_FUZZ" not in os.environ,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.lists(st.tuples(st.sampled_from(list(FILES[source])), DAMAGES), min_size=1, max_size=3))
    def check(damages):
        with TemporaryDirectory() as name:
            folder = Path(name)
            contents = {file: text.encode() for file, text in FILES[source].items()}
            for file, damage in damages:
                contents[file] = damage(contents[file])
            for file, raw in contents.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(raw)
            arguments = (folder, folder) if source is mimic_cxr else (folder,)
            try:
                df, rejects = source.load(*arguments)
                source.repairs(*arguments)
            except RecordError:
                return
            rows = sum(read_table(folder / table, columns).height for table, columns in TABLES[source].items())
            assert df.height + rejects.height == (rows if TABLES[source] else 1)
            records.validate(df)

    check()
