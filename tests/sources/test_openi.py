"""Open-i: XML reports, MeSH headings, DICOM metadata."""

import io
import tarfile

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import openi, registry

REPORT = """<eCitation><uId id="CXR7"/><Abstract>
<AbstractText Label="INDICATION">XXXX-year-old female with cough</AbstractText>
<AbstractText Label="FINDINGS">Left basilar opacity.</AbstractText>
<AbstractText Label="IMPRESSION">Opacity &amp; effusion. XXXX</AbstractText></Abstract>
<MeSH><major>Opacity/lung/base/left</major><major>Pleural Effusion/left/small</major>
<major>Cardiomegaly/borderline</major><major>Calcinosis/aorta</major></MeSH>
<parentImage id="CXR7_IM-1"/><parentImage id="CXR7_IM-2"/></eCitation>"""


def archive(tmp_path, **reports: str | bytes):
    path = tmp_path / "reports.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in reports.items():
            data = text if isinstance(text, bytes) else text.encode()
            info = tarfile.TarInfo(f"ecgen-radiology/{name}.xml")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def metadata(tmp_path):
    path = tmp_path / "meta.csv"
    path.write_text(
        "imageid,Patient's Birth Date,Study Date,View Position,Patient Orientation\n"
        "CXR7_IM-1,19500820,20110819,PA,\"['L', 'F']\"\n"
        "CXR7_IM-2,19500820,20110820,,\"['A', 'F']\"\n"
    )
    return path


def test_report_becomes_one_record_per_image(tmp_path):
    df, rejects = openi.load(archive(tmp_path, a=REPORT), metadata(tmp_path))
    first, second = records.validate(df).to_dicts()
    assert rejects.is_empty()
    assert (first["view"], first["age"], first["sex"]) == ("PA", 60, "F")
    assert (second["view"], second["age"]) == ("LATERAL", 61)  # the birthday
    assert first["impression"] == "Opacity & effusion. XXXX"  # verbatim
    assert first["report"] == "Left basilar opacity."
    assert (first["Lung Opacity"], first["Effusion"], first["Fracture"]) == (1, 1, 0)
    assert first["Cardiomegaly"] is None and first["uncertain"] == ["Cardiomegaly"]
    places = [(d["finding"], d["side"], d["site"], d["severity"]) for d in first["details"]]
    assert places == [
        ("Lung Opacity", "left", "base", None),
        ("Effusion", "left", None, "mild"),
        ("Calcinosis/aorta", None, "aorta", None),
    ]
    assert first["study_id"] == first["patient_id"] == "openi:CXR7"


def test_normal_and_unindexed(tmp_path):
    head, tail = REPORT.split("<MeSH>")[0], REPORT.split("</MeSH>")[1]
    normal = f"{head}<MeSH><major>normal</major></MeSH>{tail}"
    unindexed = f"{head}<MeSH><major>No Indexing</major></MeSH>{tail}".replace("CXR7", "CXR8")
    df, _ = openi.load(archive(tmp_path, a=normal, b=unindexed), metadata(tmp_path))
    assert df["No Finding"].to_list() == [1, 1, None, None]
    assert df["Edema"].to_list() == [0, 0, None, None]


def test_rejects_add_up(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "b">]><eCitation><uId id="CXR9"/>&a;</eCitation>'
    empty = '<eCitation><uId id="CXR5"/></eCitation>'
    path = archive(tmp_path, a=REPORT, b=REPORT, c="<eCitation>", d=empty, e=bomb, f="<eCitation/>")
    df, rejects = openi.load(path, metadata(tmp_path))
    assert df.height == 2
    reasons = rejects.sort("row")["reason"].to_list()
    assert reasons[:2] == ["duplicate image id"] * 2
    assert reasons[2].startswith("unreadable report")
    assert reasons[3] == "report without an image"
    assert reasons[4].startswith("unreadable report")
    assert reasons[5] == "unreadable report: it has no uId"


def test_latin_1_report(tmp_path):
    data = ('<?xml version="1.0" encoding="iso-8859-1"?>' + REPORT.replace("cough", "café")).encode("latin-1")
    assert openi.load(archive(tmp_path, a=data), metadata(tmp_path))[0].height == 2


def test_damaged_and_empty_archives(tmp_path):
    (tmp_path / "bad.tgz").write_bytes(b"\x1f\x8b\x08 nothing")
    with pytest.raises(RecordError, match="bad.tgz: not a readable"):
        openi.load(tmp_path / "bad.tgz")
    with pytest.raises(RecordError, match="no XML report"):
        openi.load(archive(tmp_path))


@pytest.mark.parametrize(
    ("label", "finding", "side", "sites", "severity", "qualifiers"),
    [
        ("Opacity/lung/base/left/streaky", "Lung Opacity", "left", ("base",), None, ("streaky",)),
        ("Pleural Effusion/bilateral/large", "Effusion", "bilateral", (), "severe", ()),
        ("Cardiac Shadow/enlarged/mild", "Cardiomegaly", None, (), "mild", ("enlarged",)),
        ("Thickening/pleura/apex/right", "Pleural Other", "right", ("apex",), None, ()),
        ("Mass/breast/large", None, None, ("breast",), "severe", ()),
        ("Mediastinum/prominent", "Enlarged Cardiomediastinum", None, (), None, ("prominent",)),
        ("Spine/degenerative", None, None, (), None, ("degenerative",)),
        ("normal", "No Finding", None, (), None, ()),
    ],
)
def test_headings(label, finding, side, sites, severity, qualifiers):
    heading = openi.parse_heading(label)
    assert heading[1:6] == (finding, side, sites, severity, qualifiers)


def test_headers_that_call_all_images_of_a_report_frontal_are_not_believed(tmp_path, monkeypatch):
    table = tmp_path / "views.csv"
    table.write_text("imageid,tsne-view\nCXR7_IM-2,PA\n")
    monkeypatch.setattr(openi, "shipped", lambda name: table)
    path = metadata(tmp_path)
    path.write_text(path.read_text().replace(",,\"['A', 'F']\"", ",PA,\"['L', 'F']\""))
    df, _ = openi.load(archive(tmp_path, a=REPORT), path)
    assert df["view"].to_list() == [None, "PA"]
    views = openi.repairs(archive(tmp_path, a=REPORT), path).filter(field="view")
    assert views.select("image_id", "value").rows() == [("openi:CXR7_IM-1", "PA")]


def test_no_pair_of_the_shipped_reports_is_both_frontal():
    df, _ = openi.load()
    frontal = df["view"].is_in(records.FRONTAL).fill_null(False)
    pairs = df.with_columns(frontal=frontal).filter(pl.len().over("study_id") == 2)
    assert pairs.group_by("study_id").agg(pl.col("frontal").sum())["frontal"].max() == 1
    counts = dict(df["view"].fill_null("unknown").value_counts().iter_rows())
    assert counts == {"PA": 3298, "AP": 391, "LATERAL": 1322, "unknown": 2459}


def test_a_report_that_lies_there_twice_is_one_and_two_that_differ_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "7.xml").write_text(REPORT)
    records, rejects = openi.load(tmp_path)
    assert (records.height, rejects.height) == (2, 0)
    (tmp_path / "b/7.xml").write_text(REPORT.replace("left", "right"))
    with pytest.raises(RecordError, match="7.xml: another 7.xml differs; which is meant is not known"):
        openi.load(tmp_path)


def test_the_archive_and_its_unpacked_reports_must_agree(tmp_path):
    archive(tmp_path, a=REPORT).rename(tmp_path / "NLMCXR_reports.tgz")
    (tmp_path / "a.xml").write_text(REPORT)
    (tmp_path / "notes.xml").write_text("<notes/>")
    assert openi.load(tmp_path)[0].height == 2 and openi.load(tmp_path)[1].is_empty()
    (tmp_path / "a.xml").write_text(REPORT.replace("Pleural Effusion", "Pneumonia"))
    with pytest.raises(RecordError, match="another a.xml differs"):
        openi.load(tmp_path)


def test_a_heading_that_is_broken_over_lines_is_read(tmp_path):
    df, _ = openi.load(
        archive(tmp_path, a=REPORT.replace("Pleural Effusion", "Pleural\n   Effusion")), metadata(tmp_path)
    )
    assert df["Effusion"].to_list() == [1, 1] and "Pleural Effusion/left/small" in df["labels"][0]


REPORTS = """uid,MeSH,Problems,image,indication,comparison,findings,impression
1,normal,normal,Xray Chest,"57-year-old male, cough",None.,Clear lungs.,Normal chest x-XXXX.
2,Cardiomegaly/borderline;Opacity/lung/base/left,Cardiomegaly;Opacity,"Chest, 2 views",XXXX,,,Opacity.
3,normal,normal,,,,,No image.
"""
PROJECTIONS = """uid,filename,projection
1,1_IM-0001-4001.dcm.png,Frontal
1,1_IM-0001-3001.dcm.png,Lateral
2,2_IM-0652-1001.dcm.png,Frontal
4,4_IM-2050-1001.dcm.png,Frontal
2,2_IM-0652-2001.dcm.png,Oblique
"""


def test_the_mirror_with_two_tables_is_read_as_the_reports(tmp_path):
    (tmp_path / "indiana_reports.csv").write_text(REPORTS)
    (tmp_path / "indiana_projections.csv").write_text(PROJECTIONS)
    (tmp_path / "images/images_normalized").mkdir(parents=True)
    (tmp_path / "images/images_normalized/1_IM-0001-4001.dcm.png").write_bytes(b"1")
    df, rejects = registry.load("openi", tmp_path)
    front, side, other = records.validate(df).to_dicts()
    assert (
        front["image"] == "images/images_normalized/1_IM-0001-4001.dcm.png"
        and front["image_id"] == "openi:CXR1_1_IM-0001-4001"
    )
    assert (front["view"], side["view"], other["view"]) == ("PA", "LATERAL", "PA")
    assert (front["sex"], front["No Finding"], front["age"]) == ("M", 1, side["age"]) and front["age"] > 0
    assert front["report"] == "Clear lungs." and front["impression"] == "Normal chest x-XXXX."
    assert (other["report"], other["Lung Opacity"], other["uncertain"]) == (None, 1, ["Cardiomegaly"])
    assert other["labels"] == ["Cardiomegaly/borderline", "Opacity/lung/base/left"]
    assert dict(rejects.select("row", "reason").iter_rows()) == {
        "indiana_reports.csv 3": "report without an image",
        "indiana_projections.csv 4": "image without a report",
        "indiana_projections.csv 5": "projection 'Oblique'",
    }


@pytest.mark.parametrize("name", ["7/7_IM-1.dcm", "images/images_normalized/7_IM-1.dcm.png", "CXR7_IM-1.png"])
def test_images_are_found_under_the_names_of_either_archive(tmp_path, name):
    (tmp_path / "ecgen-radiology").mkdir()
    (tmp_path / "ecgen-radiology/7.xml").write_text(REPORT)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"1")
    assert registry.load("openi", tmp_path)[0]["image"][0] == name


def test_a_projection_that_the_header_contradicts_is_not_known(tmp_path):
    (tmp_path / "indiana_reports.csv").write_text(REPORTS)
    (tmp_path / "indiana_projections.csv").write_text("uid,filename,projection\n2,2_IM-0652-1001.dcm.png,Frontal\n")
    headers = (
        "imageid,Patient's Birth Date,Study Date,View Position,Patient Orientation\nCXR2_IM-0652-1001,,,LATERAL,\n"
    )
    (tmp_path / "nlmcxr_dicom_metadata.csv").write_text(headers)
    assert openi.load(tmp_path)[0]["view"].to_list() == [None]
    said = openi.repairs(tmp_path).filter(field="view")["value"].to_list()
    assert said == ["LATERAL, of an image of projection Frontal"]
