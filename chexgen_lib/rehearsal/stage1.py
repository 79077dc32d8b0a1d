"""Stand-ins of the datasets of stage I (Extended Data Table 1), in their publishers' layouts."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from chexgen_lib.records import FINDINGS
from chexgen_lib.rehearsal import files
from chexgen_lib.rehearsal.cases import Case, cases
from chexgen_lib.sources import brax as brax_reader
from chexgen_lib.sources import chexpert_labels
from chexgen_lib.sources import nih as nih_reader
from chexgen_lib.sources import padchest as padchest_reader
from chexgen_lib.sources import ranczr_clip as ranczr_reader
from chexgen_lib.sources import vindr_pcxr as pcxr_reader

PATHOLOGIES = FINDINGS[1:]
CORNERS = ("x_min", "y_min", "x_max", "y_max")
FRONTAL_AND_LATERAL = ("PA", "AP", "LATERAL")
# Finding -> the first of a publisher's labels that means it.
OF_NIH = {finding: label for label, finding in reversed(nih_reader.FINDING_OF.items())}
OF_PADCHEST = {finding: label for label, finding in reversed(padchest_reader.FINDING_OF.items())}


def table(path: Path, header: str | Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> None:
    """A CSV table; a header that is one text stands as it is."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    if isinstance(header, str):
        stream.write(header + "\n")
    else:
        writer.writerow(header)
    writer.writerows(rows)
    files.text(path, stream.getvalue())


def nih(folder: Path) -> None:
    """PNGs of 8 bits in the archives' folders, labels joined by |, boxes in pixels of 1024, two lists of names."""
    made = cases("nih", 56, [f for f in nih_reader.ANNOTATED if f != "No Finding"], views=("PA", "AP"))
    names = [f"{case.number + 1:08}_000.png" for case in made]
    rows, boxes = [], []
    for case, name in zip(made, names, strict=True):
        files.png(folder / f"images_{1 + case.number // 28:03}/images/{name}", files.enlarged(case.picture.image, 256))
        about = case.record
        labels = [OF_NIH[finding] for finding in case.findings if finding in OF_NIH]
        person = (0, case.number + 1, about["age"], about["sex"], about["view"])
        rows.append([name, "|".join(labels), *person, 2048, 2500, 0.168, 0.168])
        pixels = [(b["finding"], [1024 * b[k] for k in "xywh"]) for b in case.picture.boxes]
        boxes += [[name, OF_NIH[f], *box, "", "", ""] for f, box in pixels if OF_NIH.get(f, "No") in BOXED_BY_NIH]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    table(folder / "Data_Entry_2017_v2020.csv", header, rows)
    table(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    tested = [name for i, name in enumerate(names) if i % 5 == 4]
    files.text(folder / "test_list.txt", "\n".join(tested))
    files.text(folder / "train_val_list.txt", "\n".join(name for name in names if name not in tested))


BOXED_BY_NIH = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Pneumonia", "Pneumothorax")


def labelled(case: Case) -> list[str]:
    """The 14 cells of CheXpert's labeller for a case: 1.0, 0.0, and blank for what a report would not mention."""
    blank = {finding: "" for i, finding in enumerate(FINDINGS) if (case.number + i) % 4 and not case.has(finding)}
    return [blank.get(finding, f"{case.picture.truth[finding]:.1f}") for finding in FINDINGS]


def chexpert(folder: Path) -> None:
    """JPEGs in patient and study, taller than wide; paths in the table begin with the release's name."""
    rows = []
    for case in cases("chexpert", 36, PATHOLOGIES, FRONTAL_AND_LATERAL):
        frontal = case.record["view"] != "LATERAL"
        side = "frontal" if frontal else "lateral"
        path = f"CheXpert-v1.0-small/train/patient{case.number + 1:05}/study1/view1_{side}.jpg"
        files.jpg(folder / path, files.enlarged(case.picture.image, 160, 16))
        person = ["Male" if case.record["sex"] == "M" else "Female", case.record["age"], side.capitalize()]
        rows.append([path, *person, case.record["view"] if frontal else "", *labelled(case)])
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *chexpert_labels.COLUMNS]
    table(folder / "CheXpert-v1.0-small/train.csv", header, rows)


def padchest(folder: Path) -> None:
    """PNGs of 16 bits in numbered folders; labels and locations as lists in a quoted field."""
    rows = []
    for case in cases("padchest", 48, PATHOLOGIES, ("PA", "AP", "LATERAL")):
        name, place = f"{case.number + 1000}_standin.png", case.number % 3
        files.png(folder / f"images/{place}/{name}", files.enlarged(case.picture.image, 192, 8), bits=16)
        labels = [OF_PADCHEST[finding] for finding in case.findings]
        view = {"LATERAL": "L"}.get(case.record["view"], case.record["view"])
        ids = (f"{case.number + 1000}", f"{case.number + 5000}", f"{2014 - case.record['age']}.0", case.record["sex"])
        said = (case.number, f" {' '.join(labels)} .", str(labels), str([[label] for label in labels]))
        rows.append([name, place, "20140915", *ids, view, *said])
    header = ["ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"]
    header += ["Projection", "ReportID", "Report", "Labels", "LabelsLocalizationsBySentence"]
    table(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)


def mimic_cxr(folder: Path) -> None:
    """MIMIC-CXR-JPG: JPEGs in p10 ... p19, tables of views and labels, zipped reports; MIMIC-IV beside it."""
    made = cases("mimic_cxr", 180, PATHOLOGIES, views=("PA",) * 7 + ("LATERAL", "AP", "LATERAL"))
    images, labels, reports, people, stays = [], [], {}, [], []
    for case in made:
        tested = case.number % 4 == 3
        subject = f"{19 if tested else 10 + case.number % 9}{case.number:06}"
        study, name = f"{50000000 + case.number}", f"{case.number:08x}-standin"
        files.jpg(
            folder / f"files/p{subject[:2]}/p{subject}/s{study}/{name}.jpg", files.enlarged(case.picture.image, 224, 20)
        )
        images.append([name, subject, study, "CHEST (PA AND LAT)", case.record["view"], 264, 224, "21800506"])
        labels.append([subject, study, *labelled(case)])
        report = (
            f"                                 FINAL REPORT\n INDICATION:  Cough.\n\n IMPRESSION:\n {case.impression}"
        )
        reports[f"files/p{subject[:2]}/p{subject}/s{study}.txt"] = report
        people.append([subject, case.record["sex"], case.record["age"], 2180, "2017 - 2019", ""])
        stays.append([subject, 20000000 + case.number, "2180-05-01 10:00:00", case.race.upper()])
    columns = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"]
    table(folder / "mimic-cxr-2.0.0-metadata.csv", [*columns, "Columns", "StudyDate"], images)
    table(folder / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *chexpert_labels.COLUMNS], labels)
    with zipfile.ZipFile(folder / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in reports.items():
            archive.writestr(name, text)
    hosp = folder.parent / "mimic_iv/hosp"
    columns = ["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"]
    table(hosp / "patients.csv", columns, people)
    table(hosp / "admissions.csv", ["subject_id", "hadm_id", "admittime", "race"], stays)


def bimcv_covid(folder: Path) -> None:
    """PNGs of stored values, 12 bits in 16, some of them negatives, each with its DICOM header as JSON; TSV tables."""
    people, sessions = [], []
    for case in cases("bimcv_covid", 18, PATHOLOGIES, ("PA", "AP", "LATERAL")):
        subject, session = f"sub-S{case.number + 3000:05}", f"ses-E{case.number + 6000:05}"
        view = {"LATERAL": "ll"}.get(case.record["view"], case.record["view"].lower())
        stem = folder / f"{subject}/{session}/mod-rx/{subject}_{session}_run-1_bp-chest_vp-{view}_dx"
        negative = case.number % 3 == 0
        stored = 1 - case.picture.image if negative else case.picture.image
        files.png(stem.with_suffix(".png"), files.enlarged(stored, 192) * 4095 / 65535, bits=16)
        files.text(stem.with_suffix(".json"), json.dumps(_bimcv_header(negative)))
        people.append([subject, f"[{case.record['age']}]", case.record["sex"]])
        labels = [OF_PADCHEST[finding] for finding in case.findings]
        sessions.append([session, " ".join(labels), str(labels), str([[label] for label in labels])])
    table(folder / "participants.tsv", ["participant", "age", "gender"], people, "\t")
    header = ["ReportID", "Report", "Labels", "LabelsLocalizationsBySentence"]
    table(folder / "derivatives/labels/labels_covid19_posi.tsv", header, sessions, "\t")


def _bimcv_header(negative: bool) -> dict[str, dict]:
    """DICOM's JSON model of a header."""
    kind = "MONOCHROME1" if negative else "MONOCHROME2"
    numbers = {"00280010": 192, "00280011": 192, "00280100": 16, "00280101": 12, "00280102": 11, "00280103": 0}
    header = {tag: {"vr": "US", "Value": [value]} for tag, value in numbers.items()}
    header["00280004"] = {"vr": "CS", "Value": [kind]}
    return header | {tag: {"vr": "DS", "Value": [v]} for tag, v in {"00281050": 2048, "00281051": 4096}.items()}


def vindr_pcxr(folder: Path) -> None:
    """Children: DICOM without compression, header with age and sex; diagnoses in a wide table, boxes in a long one."""
    boxed = {finding: names.split(", ")[0] for finding, names in pcxr_reader._BOXED.items() if finding}
    diagnoses, boxes = [], []
    for case in cases("vindr_pcxr", 18, list(boxed), ("PA", "AP"), age=(1, 10)):
        name = f"{case.number:032x}"
        header = {"PatientAge": f"{case.record['age']:03}Y", "PatientSex": case.record["sex"]}
        files.dicom(folder / f"train/{name}.dicom", files.enlarged(case.picture.image, 192, 12), **header)
        ill = "Pneumonia" if case.has("Lung Opacity") else "No finding"
        diagnoses.append([name, "R1", *(int(diagnosis == ill) for diagnosis in pcxr_reader.DIAGNOSES)])
        drawn = [(boxed[b["finding"]], corners(b, 192, 12)) for b in case.picture.boxes if b["finding"] in boxed]
        boxes += [[name, "R1", label, *box] for label, box in drawn] or [[name, "R1", "No finding", *[""] * 4]]
    table(folder / "image_labels_train.csv", ["image_id", "rad_ID", *pcxr_reader.DIAGNOSES], diagnoses)
    table(folder / "annotations_train.csv", ["image_id", "rad_ID", "class_name", *CORNERS], boxes)


def corners(box: dict, size: int, margin: int) -> list[float]:
    """x_min, y_min, x_max, y_max in pixels of a box, in a picture that `files.enlarged` made."""
    left, top, width, height = (size * box[key] for key in "xywh")
    return [round(v, 1) for v in (left, top + margin, left + width, top + height + margin)]


def brax(folder: Path) -> None:
    """PNGs of 8 bits in patient, study and series; ages in groups of five years."""
    rows = []
    for case in cases("brax", 18, PATHOLOGIES, FRONTAL_AND_LATERAL):
        place = f"id_{case.number:08}/Study_{case.number + 500}/Series_1/image-{case.number}"
        files.png(folder / f"images/{place}.png", files.enlarged(case.picture.image, 192, 8))
        view = {"LATERAL": "L"}.get(case.record["view"], case.record["view"])
        about = [case.number, case.record["sex"], case.record["age"] // 5 * 5, case.number + 500]
        rows.append([*about, f"images/{place}.png", f"Anonymized_DICOMs/{place}.dcm", view, *labelled(case)])
    table(folder / "master_spreadsheet_update.csv", brax_reader.COLUMNS, rows)


def ranczr_clip(folder: Path) -> None:
    """JPEGs in one folder; eleven labels of tubes and lines."""
    rows = []
    for case in cases("ranczr_clip", 18, ["Support Devices", "Effusion", "Lung Opacity"]):
        name = f"1.2.826.0.1.3680043.8.498.{case.number}"
        files.jpg(folder / f"train/{name}.jpg", files.enlarged(case.picture.image, 192))
        placed = case.number % len(ranczr_reader.DEVICES) if case.has("Support Devices") else None
        rows.append([name, *(int(i == placed) for i in range(11)), f"{case.number:09x}"])
    table(folder / "train.csv", ranczr_reader.COLUMNS, rows)
