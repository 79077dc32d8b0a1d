"""The four shipped sources: accounts that balance at full size, datasheets, folders, and damage of any kind."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import chexpert_labels, nih, openi, padchest, registry
from chexgen_lib.sources.table import REJECTS, read_table

ROWS = {
    "nih": (112_120, 0),
    "chexpert": (223_414, 0),
    "padchest": (160_861, 1_426),
    "openi": (7_470 + 104, 104),
}


@pytest.mark.parametrize("source", registry.ALWAYS)
def test_rows_are_accounted_for(source):
    df, rejects = registry.load(source)
    rows, lost = ROWS[source]
    assert df.height + rejects.height == rows
    assert rejects.height == lost
    assert rejects["reason"].null_count() == 0
    assert records.validate(df).height == df.height
    if source == "nih":
        assert df["boxes"].list.len().sum() == 984
    if source == "openi":
        assert df["study_id"].n_unique() + rejects.filter(pl.col("image_id").is_null()).height == 3_955


def test_unknown_source():
    with pytest.raises(records.RecordError, match="choose from"):
        registry.load("mimic")


def test_shipped_without_importing_torchxrayvision():
    import subprocess
    import sys

    code = "from chexgen_lib.sources import table; table.shipped('x'); import sys; "
    code += "print('torchxrayvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("source", registry.ALL)
def test_every_source_has_a_datasheet_and_a_reader(source):
    module = registry.reader(source)
    assert module.DATASHEET.source == source
    assert module.DATASHEET.shipped or source not in registry.ALWAYS
    assert callable(module.load)


def test_a_label_means_the_same_in_every_source():
    for source in registry.ALL:
        for label, finding in getattr(registry.reader(source), "FINDING_OF", {}).items():
            assert registry.finding_of(label) == finding, (source, label)


# --- damage ---

NIH = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
00000001_000.png,Infiltration|Hernia,0,1,57,M,PA
00000001_001.png,No Finding,1,1,058Y,M,AP
00000002_000.png,"Edema",0,2,412,F,PA
"""
STATES = ",".join(chexpert_labels.NAMES.values())
CHEXPERT = f"""Path,Sex,Age,Frontal/Lateral,AP/PA,{STATES}
C/train/patient00001/study1/view1_frontal.jpg,Female,63,Frontal,AP,1.0,,,,,,,,,,,,,1.0
C/train/patient00002/study1/view1_frontal.jpg,Male,40,Frontal,PA,,,-1.0,1.0,,,,,,,0.0,,,
C/train/patient00002/study1/view2_lateral.jpg,Male,40,Lateral,,,,,1.0,,,,,,,,,,
"""
PADCHEST = f"""{",".join(padchest.COLUMNS)}
0.png,3,20140915,s1,p1,1930.0,F,PA,coraz\u00f3n normal,['normal'],[['normal']]
1.png,3,20140916,s2,p2,1950,M,L,"a
b","['pneumonia', 'nodule']","[['pneumonia', 'loc left'], ['nodule', 'loc basal']]"
2.png,4,20140917,s3,p3,1602,F,PA,.,['exclude'],
"""
REPORT = """<eCitation><uId id="CXR7"/><AbstractText Label="INDICATION">20-year-old male</AbstractText>
<AbstractText Label="IMPRESSION">Opacity.</AbstractText><major>Opacity/lung/base/left</major>
<major>Cardiomegaly/borderline</major><parentImage id="CXR7_IM-1"/><parentImage id="CXR7_IM-2"/></eCitation>"""
FIXTURES = {"nih": NIH, "chexpert": CHEXPERT, "padchest": PADCHEST, "openi": REPORT}


def flip(data: bytes, at: int, value: int) -> bytes:
    at %= max(len(data), 1)
    return data[:at] + bytes([value % 256]) + data[at + 1 :]


def drop_column(data: bytes, at: int, value: int) -> bytes:
    rows = [line.split(b",") for line in data.split(b"\n")]
    return b"\n".join(b",".join(cells[: at % 8] + cells[at % 8 + 1 :]) for cells in rows)


DAMAGE = {
    "cut": lambda data, at, value: data[: at % (len(data) + 1)],
    "flip": flip,
    "insert": lambda data, at, value: data[: at % (len(data) + 1)] + bytes([value] * 3) + data[at % (len(data) + 1) :],
    "repeat": lambda data, at, value: data + data[at % (len(data) + 1) :],
    "drop a column": drop_column,
    "byte order mark": lambda data, at, value: b"\xef\xbb\xbf" + data,
    "CRLF": lambda data, at, value: data.replace(b"\n", b"\r\n"),
    "Latin-1": lambda data, at, value: data.decode("utf-8", "replace").encode("latin-1", "replace"),
    "UTF-16": lambda data, at, value: data.decode("utf-8", "replace").encode("utf-16"),
    "semicolons": lambda data, at, value: data.replace(b",", b";"),
    "gzip": lambda data, at, value: gzip.compress(data),
    "odd number": lambda data, at, value: data.replace(b"1", (b"1e400", b"-1", b"nan", b"99999999999")[value % 4]),
    "other word": lambda data, at, value: data.replace((b"Edema", b"normal", b"lung", b"M")[value % 4], b"No Finding"),
}
damages = st.lists(st.tuples(st.sampled_from(list(DAMAGE)), st.integers(0, 2**16), st.integers(0, 255)), max_size=4)


def load(source: str, data: bytes, folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The reader's answer to a damaged table, or archive of one damaged report; Open-i has its own metadata."""
    path = folder / ("reports.tgz" if source == "openi" else "table.csv")
    if source == "openi" and not data.startswith(b"\x1f\x8b"):
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("1.xml")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    else:
        path.write_bytes(data)
    return registry.load(source, path)


@pytest.mark.parametrize("source", registry.ALWAYS)
def test_damage_gives_balanced_tables_or_a_record_error(source, tmp_path, monkeypatch):
    """CHEXGEN_FUZZ sets the number of damaged tables per source."""
    whole = FIXTURES[source].encode()
    assert load(source, whole, tmp_path)[0].height >= 2
    if source == "openi":  # its 7,469 rows are read once, not for each example
        metadata = openi._metadata(None)
        monkeypatch.setattr(openi, "_metadata", lambda path: metadata)

    @settings(
        max_examples=int(os.environ.get("CHEXGEN_FUZZ", 30)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damages)
    @example([("odd number", 0, 0)])
    @example([("odd number", 0, 3)])
    def run(steps):
        data = whole
        for kind, at, value in steps:
            data = DAMAGE[kind](data, at, value)
        try:
            df, rejects = load(source, data, tmp_path)
        except RecordError as error:
            assert str(tmp_path) in str(error)
            return
        assert records.validate(df).height == df.height
        assert rejects["reason"].null_count() == 0
        assert rejects.columns == list(REJECTS)
        if source != "openi":
            module = registry.reader(source)
            rows = read_table(tmp_path / "table.csv", module.COLUMNS).height
            assert df.height + rejects.height == rows
        registry.repairs(source, tmp_path / ("reports.tgz" if source == "openi" else "table.csv"))

    run()


# --- contradictions ---


def test_no_finding_with_a_finding_is_a_counted_repair(tmp_path):
    tables = {
        "nih": NIH.replace("No Finding", "No Finding|Edema"),
        "chexpert": CHEXPERT.replace("AP,1.0,,,,,", "AP,1.0,,,,,1.0"),
        "padchest": PADCHEST.replace(",['normal'],", ",\"['normal', 'pulmonary edema']\","),
        "openi": REPORT.replace("<major>", "<major>normal</major><major>pulmonary edema</major><major>", 1),
    }
    for source, text in tables.items():
        df, rejects = load(source, text.encode(), tmp_path)
        wrong = df.filter(pl.col("Edema") == 1, pl.col("labels").list.len() > 1)
        assert wrong.height and wrong["No Finding"].to_list() == [0.0] * wrong.height, source
        path = tmp_path / ("reports.tgz" if source == "openi" else "table.csv")
        repaired = registry.repairs(source, path).filter(pl.col("field") == "No Finding")
        assert repaired["image_id"].to_list() == wrong["image_id"].to_list(), source


def test_both_sexes_of_one_patient_are_a_counted_repair(tmp_path):
    tables = {
        "nih": NIH.replace("058Y,M", "058Y,F"),
        "chexpert": CHEXPERT.replace("lateral.jpg,Male", "lateral.jpg,Female"),
        "padchest": PADCHEST.replace("p2", "p1"),
    }
    for source, text in tables.items():
        df, _ = load(source, text.encode(), tmp_path)
        both = df.filter(pl.col("patient_id").is_duplicated())
        assert both["sex"].to_list() == [None, None], source
        assert df.height == 2 or df.filter(~pl.col("patient_id").is_duplicated())["sex"].null_count() == 0
        repaired = registry.repairs(source, tmp_path / "table.csv").filter(pl.col("field") == "sex")
        assert repaired["image_id"].to_list() == both["image_id"].to_list(), source


# --- folders ---


def test_the_dataset_s_folder_is_as_good_as_its_table(tmp_path):
    layouts = {
        "nih": "Data_Entry_2017_v2020.csv",
        "chexpert": "CheXpert-v1.0-small/train.csv",
        "padchest": "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    }
    for source, name in layouts.items():
        path = tmp_path / source / name
        path.parent.mkdir(parents=True)
        path.write_text(FIXTURES[source])
        assert registry.load(source, tmp_path / source)[0].equals(registry.load(source, path)[0])
        assert "missing" not in registry.reader(source).DATASHEET.check(tmp_path / source)["state"].to_list()
        (tmp_path / "none").mkdir(exist_ok=True)
        with pytest.raises(RecordError, match="holds no"):
            registry.load(source, tmp_path / "none")
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Infiltrate,512,0,256,128\n"
    (tmp_path / "nih/BBox_List_2017.csv").write_text(boxes)
    assert nih.load(tmp_path / "nih")[0]["boxes"].list.len().to_list() == [1, 0, 0]


def test_open_i_s_folder(tmp_path):
    load("openi", REPORT.encode(), tmp_path)
    (tmp_path / "reports.tgz").rename(tmp_path / "NLMCXR_reports.tgz")
    header = "imageid,Patient's Birth Date,Study Date,View Position,Patient Orientation\n"
    (tmp_path / "nlmcxr_dicom_metadata.csv").write_text(header + "CXR7_IM-1,19500820,20110819,PA,\"['L', 'F']\"\n")
    assert openi.load(tmp_path)[0]["age"].to_list() == [60, None]
    assert openi.repairs(tmp_path)["field"].to_list() == ["age"]
    (tmp_path / "NLMCXR_reports.tgz").unlink()
    (tmp_path / "ecgen-radiology").mkdir()
    (tmp_path / "ecgen-radiology/7.xml").write_text(REPORT)  # the archive, unpacked
    assert openi.load(tmp_path)[0]["age"].to_list() == [60, None]
