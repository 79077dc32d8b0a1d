"""Every dataset in a small folder: text as its publisher writes it, and how its rows are counted without its reader."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from chexgen_lib.sources import (
    bimcv_covid,
    brax,
    chexpert,
    chexpert_labels,
    mimic_cxr,
    nih,
    padchest,
    ranczr_clip,
    vindr_pcxr,
)
from chexgen_lib.sources.files import read_text
from chexgen_lib.sources.table import read_table
from tests.sources.layouts import (
    CANDID,
    CHEST_DR,
    CHESTX_DET,
    OBJECTS,
    RALO,
    SIIM,
    VINDR,
    object_folder,
    put,
    rib_folder,
    vindr_folder,
)

STUDY = "p10000032/s50414267"
BIMCV = "sub-S1/ses-E1/mod-rx/sub-S1_ses-E1_run-1_bp-chest_vp-pa_dx.png"
# Datasets of tables that need an account.
FILES: dict[ModuleType, dict[str, str]] = {
    ranczr_clip: {"train.csv": "\n".join([",".join(ranczr_clip.COLUMNS), f"1,{'1,' * 10}0,p", f"2,{'0,' * 11}p"])},
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
        BIMCV.replace(".png", ".json"): "{}",
    },
}


def csv_rows(path: Path) -> int:
    return read_table(path, ()).height


def ralo_rows(path: Path) -> int:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    return len(rows) - 1 - next(i for i, row in enumerate(rows) if "Subject_ID" in row)


class Dataset(NamedTuple):
    """How to lay a dataset out, which of its files to damage, and how to count the rows of its tables."""

    lay_out: Callable[[Path], Path]
    files: tuple[str, ...]
    counted: tuple[str, ...]
    rows: Callable[[Path], int] = csv_rows

    def expected(self, folder: Path) -> int:
        """Rows of all tables, counted without the dataset's reader."""
        return sum(self.rows(folder / name) for name in self.counted)


def plain(files: dict[str, str], counted: tuple[str, ...] | None = None, rows=csv_rows) -> Dataset:
    """A dataset of text files; all are counted unless said otherwise."""
    return Dataset(lambda folder: put(folder, files), tuple(files), counted or tuple(files), rows)


PADCHEST = ",".join(padchest.COLUMNS) + (
    "\n1.png,0,20140915,s1,p1,1950.0,F,PA,sin hallazg .,['normal'],[['normal']]"
    "\n2.png,0,20140915,s2,p2,nan,M,L,\"dos\nlineas .\",\"['nodule', 'loc left']\",\"[['nodule', 'loc left']]\""
    "\n3.png,0,20140915,s3,p3,1950.0,M,EXCLUDE,,nan,nan"
)
NIH = {
    "Data_Entry_2017_v2020.csv": ",".join(nih.COLUMNS) + "\n00000001_000.png,Mass|Edema,00000001,60,M,PA"
    "\n00000002_000.png,No Finding,00000002,412,F,AP",
    "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,1,2,30,40,,,",
    "test_list.txt": "00000002_000.png",
}
CHEXPERT = ",".join(chexpert.COLUMNS) + "".join(
    f"\nCheXpert-v1.0/train/patient{i}/study1/view1_frontal.jpg,Female,60,Frontal,AP,,,1.0,-1.0" + "," * 10
    for i in range(3)
)
RIBS = ("train/Vindr_RibCXR_train_mask.json", "val/Vindr_RibCXR_val_mask.json")
CHEST_TABLES = ("chest_train.csv", "chest_test_WithLabel.csv")
OPENI = """<eCitation><uId id="CXR7"/><Abstract><AbstractText Label="IMPRESSION">Effusion.</AbstractText></Abstract>
<MeSH><major>Pleural Effusion/left</major></MeSH><parentImage id="CXR7_IM-1"/><parentImage id="CXR7_IM-2"/></eCitation>
"""
DATASETS = {
    "nih": plain(NIH, ("Data_Entry_2017_v2020.csv",)),
    "chexpert": plain({"train.csv": CHEXPERT}),
    "padchest": plain({"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": PADCHEST}),
    "siim_acr_ptx": plain({"train-rle.csv": SIIM}),
    "candid_ptx": plain(CANDID),
    "vindr_ribcxr": Dataset(rib_folder, RIBS, RIBS, lambda path: len(json.loads(read_text(path))["img"])),
    "object_cxr": Dataset(object_folder, tuple(OBJECTS), tuple(OBJECTS)),
    "chestx_det": plain(CHESTX_DET, rows=lambda path: len(json.loads(read_text(path)))),
    "ralo": plain({"ralo-dataset-metadata.csv": RALO}, rows=ralo_rows),
    "vindr_cxr": Dataset(vindr_folder, tuple(VINDR), tuple(VINDR)),
    "chest_dr": plain(CHEST_DR, CHEST_TABLES),
    "ranczr_clip": plain(FILES[ranczr_clip], ("train.csv",)),
    "brax": plain(FILES[brax], ("master_spreadsheet_update.csv",)),
    "vindr_pcxr": plain(FILES[vindr_pcxr], ("image_labels_train.csv",)),
    "mimic_cxr": plain(FILES[mimic_cxr], ("mimic-cxr-2.0.0-metadata.csv",)),
    "bimcv_covid": plain(FILES[bimcv_covid], (BIMCV,), rows=lambda path: 1),  # a row is an image file
    "openi": plain({"ecgen-radiology/7.xml": OPENI}, rows=lambda path: path.read_bytes().count(b"<parentImage")),
}
