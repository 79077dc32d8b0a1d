"""Datasets as publishers and mirrors lay them out are read, and the check says of each what is missing."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.records import RecordError, assign_splits, validate
from chexgen_lib.sources import chexpert, chexpert_labels, mimic_cxr, nih, registry
from tests.sources import unusual_layouts as unusual
from tests.sources.layouts import CANDID, CHEST_DR, CHESTX_DET, OBJECTS, RALO, SIIM, VINDR, dicom, picture, put, zipped

REPORT = "FINAL REPORT\n IMPRESSION:  Cardiomegaly.\n"
MIMIC = "dicom_id,subject_id,study_id,ViewPosition,StudyDate\naaaa-bbbb,10000001,50000001,PA,21800506\n"


def chexpert_rows(prefix: str, *patients: str, split: str = "train") -> str:
    rows = [f"{prefix}/{split}/{p}/study1/view1_frontal.jpg,Female,60,Frontal,AP,1.0" + "," * 13 for p in patients]
    return "\n".join([",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *chexpert_labels.COLUMNS)), *rows])


def report(source: str, root: Path) -> tuple[str, bool]:
    text, ready = registry.check(source, root)
    return text.replace(f"{root}/", ""), ready


LAYOUTS = {
    "batches": ("batch 1 (validate & csv)/train.csv", ["batch 2 (train 1)/{}", "batch 3 (train 2)/{}"]),
    "mirror": ("train.csv", ["train/{}"] * 2),
    "gzipped, one folder more": ("archive/CheXpert/train.csv.gz", ["archive/CheXpert/train/{}"] * 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_chexpert_in_batches_and_mirrors(layout, tmp_path):
    (table, places), patients = LAYOUTS[layout], ("patient00001", "patient21514")
    folder, text = tmp_path / "chexpert", chexpert_rows("CheXpert-v1.0", *patients)
    put(folder, {table: text if table.endswith("csv") else ""})
    if table.endswith("gz"):
        (folder / table).write_bytes(gzip.compress(text.encode()))
    for place, patient in zip(places, patients, strict=True):
        picture(folder / place.format(patient) / "study1/view1_frontal.JPG")
    records, _ = registry.load("chexpert", folder)
    assert all((folder / image).is_file() for image in records["image"])
    text, ready = report("chexpert", tmp_path)
    assert ready and "2 of 2 records find their image" in text and f"reads chexpert/{table}" in text


def test_the_sample_of_nih_at_kaggle_is_read(tmp_path):
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    table = head + "00000013_005.png,Emphysema|Infiltration,005,00000013,060Y,M,AP\n"
    put(tmp_path / "nih", {"sample_labels.csv": table, "sample/sample_labels.csv": table})
    for place in ("sample/images", "sample/sample/images"):  # as its archive has them, twice
        picture(tmp_path / "nih" / place / "00000013_005.png")
    text, ready = report("nih", tmp_path)
    assert ready and "1 of 1 records find their image" in text
    assert registry.load_all(tmp_path)["nih"][0].select("age", "view").rows() == [(60, "AP")]


def test_the_check_calls_no_table_read_that_is_not(tmp_path):
    put(tmp_path / "chexpert", {"train.csv": chexpert_rows("CheXpert-v1.0", "patient00001"), "valid.csv": "Path\n"})
    text, _ = report("chexpert", tmp_path)
    assert "reads chexpert/train.csv" in text and "reads chexpert/valid.csv" not in text


def test_links_that_lead_to_no_file_are_named(tmp_path):
    """A hub's snapshot that was copied without the files that its links lead to."""
    folder = put(tmp_path / "chexpert", {"train.csv": chexpert_rows("CheXpert-v1.0", "patient00001")})
    image = folder / "train/patient00001/study1/view1_frontal.jpg"
    image.parent.mkdir(parents=True)
    image.symlink_to("../../../../../blobs/0a1b")
    text, ready = report("chexpert", tmp_path)
    assert not ready and "1 links lead to no file, first chexpert/train/patient00001/study1/view1_front" in text
    (folder / "train.csv").unlink()
    (folder / "train.csv").symlink_to("../../blobs/2c3d")
    text, ready = report("chexpert", tmp_path)
    assert not ready and "2 links lead to no file, first chexpert/train.csv: copy again" in text
    with pytest.raises(RecordError, match="holds no train.csv; 2 links lead to no file, first .*train.csv"):
        registry.load("chexpert", folder)


@pytest.mark.parametrize("absent", ["NA", "nan", "<NA>", "NULL", "N/A", "#N/A"])
def test_an_empty_cell_that_a_program_wrote_in_words(absent, tmp_path):
    head, row = chexpert_rows("CheXpert-v1.0", "patient00001").split("\n")
    put(tmp_path, {"train.csv": f"{head}\n{row.replace(',,', f',{absent},').replace(',,', f',{absent},')}{absent}\n"})
    records, rejects = chexpert.load(tmp_path)
    assert rejects.is_empty() and records["Support Devices"].to_list() == [None] and records["Edema"].to_list() == [0]
    put(tmp_path / "b", {name: text.replace(".jpg,\n", f".jpg,{absent}\n") for name, text in OBJECTS.items()})
    for image in ("train/00001.jpg", "train/00002.jpg", "dev/00001.jpg"):
        picture(tmp_path / "b" / image)
    assert registry.load("object_cxr", tmp_path / "b")[1].is_empty()
    boxes = VINDR["annotations/annotations_train.csv"].replace(",,,,", "".join([f",{absent}"] * 4))
    put(tmp_path / "c", VINDR | {"annotations/annotations_train.csv": boxes})
    reasons = registry.load("vindr_cxr", tmp_path / "c")[1]["reason"].unique().to_list()
    assert reasons == ["merged with an earlier row of its image"]


def test_the_check_fails_where_no_image_is_found(tmp_path):
    put(tmp_path / "chexpert", {"train.csv": chexpert_rows("CheXpert-v1.0", "patient00001"), "train/else.jpg": "x"})
    text, ready = report("chexpert", tmp_path)
    assert not ready and "0 of 1 records find their image" in text
    assert "first remedy: no record finds its image (for example CheXpert-v1.0/train/patient00001" in text


def test_the_check_names_images_that_lie_there_twice(tmp_path):
    folder = put(tmp_path / "chexpert", {"train.csv": chexpert_rows("CheXpert-v1.0", "patient00001")})
    for size in ("small", "original"):
        picture(folder / f"{size}/train/patient00001/study1/view1_frontal.jpg", len(size) * 9)
    picture(folder / "small/train/patient00002/study1/view1_frontal.jpg")
    text, ready = report("chexpert", tmp_path)
    assert not ready and "1 images have several files, first CheXpert-v1.0/train/patient00001" in text


def test_the_validation_table_of_chexpert_is_read_by_its_path(tmp_path):
    put(tmp_path, {"valid.csv": chexpert_rows("CheXpert-v1.0-small", "patient64541", split="valid")})
    assert chexpert.load(tmp_path / "valid.csv")[0]["patient_id"].to_list() == ["chexpert:patient64541"]


@pytest.mark.parametrize(
    "where", ["files", "mimic-cxr-reports/files", "one folder", "zip", "zip with a folder", "flat zip"]
)
def test_reports_of_mimic(where, tmp_path):
    folder = put(tmp_path / "mimic_cxr", {"2.0.0/mimic-cxr-2.0.0-metadata.csv": MIMIC})
    name = "p10/p10000001/s50000001.txt" if where not in ("one folder", "flat zip") else "s50000001.txt"
    if "zip" in where:
        inside = f"mimic-cxr-reports/files/{name}" if "folder" in where else f"files/{name}"
        (folder / "mimic-cxr-reports.zip").write_bytes(zipped(**{inside: REPORT}))
    else:
        put(folder, {f"{where}/{name}": REPORT})
    picture(folder / "2.0.0/files/p10/p10000001/s50000001/aaaa-bbbb.jpg")
    records, _ = registry.load("mimic_cxr", folder)
    assert records["impression"].to_list() == ["Cardiomegaly."] and (folder / records["image"][0]).is_file()
    text, ready = report("mimic_cxr", tmp_path)
    assert ready and "1 of 1 records find their report" in text and "1 of 1 records find their image" in text


def test_reports_of_mimic_that_are_not_there_or_differ(tmp_path):
    folder = put(tmp_path / "mimic_cxr", {"mimic-cxr-2.0.0-metadata.csv": MIMIC})
    picture(folder / "files/p10/p10000001/s50000001/aaaa-bbbb.jpg")
    text, ready = report("mimic_cxr", tmp_path)
    assert not ready and "0 of 1 records find their report" in text
    put(folder, {f"{place}/p10/p10000001/s50000001.txt": REPORT + place for place in "ab"})
    with pytest.raises(RecordError, match="1 studies have reports that differ, first mimic_cxr:50000001"):
        mimic_cxr.load(folder)


def test_two_releases_of_mimic_are_refused(tmp_path):
    put(tmp_path, {"mimic-cxr-2.0.0-metadata.csv": MIMIC, "mimic-cxr-2.1.0-metadata.csv": MIMIC.replace("PA", "AP")})
    with pytest.raises(RecordError, match="holds mimic-cxr-2.0.0-metadata.csv and mimic-cxr-2.1.0-metadata.csv"):
        mimic_cxr.load(tmp_path)


def test_siim_of_the_second_stage(tmp_path):
    folder = put(
        tmp_path / "siim_acr_ptx",
        {"stage_2_train.csv": "ImageId,EncodedPixels\nID_1,-1\nID_2,557374 2 1015 8\nID_2,600000 5\n"},
    )
    for name in ("ID_1", "ID_2"):
        dicom(folder / f"stage_2_images/{name}.dcm", 4, 4)
    records, rejects = registry.load("siim_acr_ptx", folder)
    assert records["image"].to_list() == ["stage_2_images/ID_1.dcm", "stage_2_images/ID_2.dcm"]
    assert records["mask"].null_count() == 1 and rejects.height == 1
    assert report("siim_acr_ptx", tmp_path)[1]
    put(folder, {"train-rle.csv": SIIM, "train-rle-sample.csv": "x"})
    with pytest.raises(RecordError, match="holds train-rle.csv and stage_2_train.csv"):
        registry.load("siim_acr_ptx", folder)


@pytest.mark.parametrize("source", ["object_cxr", "vindr_cxr", "chestx_det"])
def test_a_folder_more_and_upper_case(source, tmp_path):
    """Frames and sizes, too, are those of the images where they are found."""
    files = {"object_cxr": OBJECTS, "vindr_cxr": VINDR, "chestx_det": CHESTX_DET}[source]
    folder = put(tmp_path / source, {f"archive/release 1/{name}": text for name, text in files.items()})
    images = (
        "train/00001.JPG",
        "train/00002.jpg",
        "dev/00001.jpeg",
        "train/36302.PNG",
        "train/36199.png",
        "test/7.png",
    )
    for name in images if source != "vindr_cxr" else ():
        picture(folder / "archive/images" / name)
    dicom(folder / "archive/images/a.DICOM", rows=200, columns=100)
    for name in "bc":
        dicom(folder / f"archive/images/{name}.dcm", rows=20, columns=20)
    records, rejects = registry.load(source, folder)
    assert all((folder / image).is_file() for image in records["image"]) and records["boxes"].list.len().sum()
    assert not rejects.filter(pl.col("reason").str.contains("no readable image")).height
    assert report(source, tmp_path)[1]


def test_the_lists_of_nih_give_its_splits(tmp_path):
    names = [f"0000000{i}_000.png" for i in (1, 2, 3)]
    rows = [f"{name},No Finding,0,{name[:8]},60,M,PA" for name in names]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    files = {"Data_Entry_2017.csv": "\n".join([header, *rows]), "train_val_list.txt": "\n".join(names[:1])}
    put(tmp_path, files | {"lists/test_list.txt": names[1]})
    assert nih.load(tmp_path)[0]["split"].to_list() == ["train", "test", None]
    (tmp_path / "train_val_list.txt").rename(tmp_path / "else.txt")
    assert nih.load(tmp_path)[0]["split"].to_list() == ["train", "test", "train"]
    (tmp_path / "else.txt").rename(tmp_path / "train_val_list.txt")
    put(tmp_path, {"lists/test_list.txt": f"images_001/images/{names[1]},\n{names[2]},"})
    assert nih.load(tmp_path)[0]["split"].to_list() == ["train", "test", "test"]
    (tmp_path / "lists/test_list.txt").unlink()
    assert nih.load(tmp_path)[0]["split"].to_list() == ["train", "test", "test"]
    put(tmp_path, {"train_val_list.txt": "00000009_000.png"})  # the table is one of test images alone
    assert nih.load(tmp_path)[0]["split"].to_list() == ["test", "test", "test"]
    put(tmp_path, {"train_val_list.txt": "1_000.png"})
    with pytest.raises(RecordError, match="train_val_list.txt: its ids are not written as the dataset's, 'nih:1_000'"):
        nih.load(tmp_path)
    put(tmp_path, {"train_val_list.txt": names[0]})
    put(tmp_path, {"lists/test_list.txt": "\n".join(names[:2])})
    with pytest.raises(RecordError, match="image 'nih:00000001_000' is in both lists"):
        nih.load(tmp_path)


SMALL = {
    "siim_acr_ptx": {"train-rle.csv": SIIM},
    "candid_ptx": CANDID,
    "chestx_det": CHESTX_DET,
    "ralo": {"ralo-dataset-metadata.csv": RALO},
    "chest_dr": CHEST_DR,
    "object_cxr": {"train.csv": "image_name,annotation\n00001.jpg,\n", "dev.csv": "image_name,annotation\n1.jpg,\n"},
    "mimic_cxr": {"mimic-cxr-2.0.0-metadata.csv": MIMIC},
    "chexpert": {"train.csv": chexpert_rows("CheXpert-v1.0", "patient00001")},
}
DAMAGES = {
    "no image": lambda folder: None,
    "an image of nobody": lambda folder: picture(folder / "else/of_nobody.png"),
    "only hidden copies": lambda folder: put(folder, {"__MACOSX/train/._a.png": "x", ".cache/train/a.jpg": "x"}),
    "a broken link": lambda folder: (folder / "images").symlink_to(folder / "gone"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("source", SMALL)
def test_no_check_is_fine_where_no_record_finds_an_image(source, damage, tmp_path):
    DAMAGES[damage](put(tmp_path / source, SMALL[source]))
    text, ready = report(source, tmp_path)
    assert not ready and "first remedy: " in text


def test_whatever_lies_below_the_root_can_be_described_and_split(tmp_path):
    for source, files in SMALL.items():
        put(tmp_path / source, files)
    loaded = registry.load_all(tmp_path)
    assert set(SMALL) <= set(loaded)
    table = pl.concat(loaded[source][0] for source in SMALL)
    table = check(grammar.describe(assign_splits(table)))
    assert validate(table).height == table.height and (table["qc"] == "pass").sum() > table.height / 2


def test_the_check_says_what_lies_in_place_of_images(tmp_path):
    for layout, says in (
        (unusual.empty_images, "00000001_000.png is empty; fetch it again"),
        (unusual.pointers, "00000001_000.png is a pointer of Git LFS in place of the file; run git lfs pull"),
        (unusual.login_pages, "00000001_000.png is a web page or another text; log in"),
        (unusual.packed_images, "unpack images_001.tar.gz, or put images"),
    ):
        root = tmp_path / layout.__name__
        layout(unusual.whole("nih", root))
        said, fine = registry.check("nih", root)
        assert not fine and "0 of 2 records find their image" in said and says in said


def test_the_check_names_the_archive_that_may_hold_what_is_missing(tmp_path):
    put(tmp_path / "chexpert", {"archive.zip": "x"})
    assert "unpack archive.zip, or to obtain it: " in report("chexpert", tmp_path)[0]
    folder = put(tmp_path / "mimic_cxr", {"mimic-cxr-2.0.0-metadata.csv": MIMIC, "mimic-cxr-reports.tar.gz": "x"})
    for image in registry.load("mimic_cxr", folder)[0]["image"]:
        picture(folder / image)
    said, fine = report("mimic_cxr", tmp_path)
    assert not fine and "no record finds its report: unpack mimic-cxr-reports.tar.gz, or" in said
