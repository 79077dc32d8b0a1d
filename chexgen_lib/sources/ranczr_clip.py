"""RANZCR CLiP (Tang et al. 2021): 30,083 radiographs, presence and position of tubes and lines.

The images were chosen from NIH ChestX-ray14 for their devices and carry new identifiers. A run that uses both sources
may therefore hold one image twice, under different patients and in different splits; no list of its makers tells
which. A mapping of image names to NIH's beside the table is used (`nih_names`).
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import conform
from chexgen_lib.sources import nih_names
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.table import read_table, separate

DATASHEET = Datasheet(
    source="ranczr_clip",
    title="RANZCR CLiP: catheter and line position challenge",
    role="stage I",
    paper_name="RANZCR CLiP",
    size="30,083 labelled radiographs of ChestX-ray14; 11 labels of tubes and lines, by radiologists",
    licence="the competition's rules: research and education, no redistribution",
    obtain="Kaggle account, accept the rules of the competition ranzcr-clip-catheter-line-classification",
    citation="Tang et al., CLiP, catheter and line position dataset, Scientific Data 8:285 (2021)",
    parts=(
        Part("train.csv", "one row per image: 11 labels, patient"),
        Part("train/*.jpg", "radiographs"),
        Part("train_annotations.csv", "courses of the tubes and lines, in pixels; not read", needed=False, read=False),
    ),
)
DEVICES = (
    *("ETT - Abnormal", "ETT - Borderline", "ETT - Normal"),
    *("NGT - Abnormal", "NGT - Borderline", "NGT - Incompletely Imaged", "NGT - Normal"),
    *("CVC - Abnormal", "CVC - Borderline", "CVC - Normal"),
    "Swan Ganz Catheter Present",
)
COLUMNS = ("StudyInstanceUID", *DEVICES, "PatientID")
FINDING_OF: dict[str, str | None] = dict.fromkeys(DEVICES, "Support Devices")


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `train.csv`, one row per image.

    Support Devices is 1 where any label is 1; else it is null, because a device of another kind (pacemaker, drain) may
    be there. The other findings were not looked for: null. Rejected: row without a patient, a label that is neither 0
    nor 1, broken or duplicate row.

    Args:
        folder: the dataset's folder, or the table itself.

    Raises:
        RecordError: if a table is missing or cannot be read.
    """
    tree = Tree.of(folder)
    kept, rejects = separate(_prepare(tree), "ranczr_clip")
    keep = ["image_id", "patient_id", "study_id", "image", "view", "labels", "Support Devices"]
    records = conform(kept.select(keep).with_columns(source=pl.lit("ranczr_clip")))
    return nih_names.with_patients(records, tree), rejects


def _prepare(folder: str | Path) -> pl.DataFrame:
    """The Record's columns, and the reason to reject a row, if any."""
    table = read_table(locate(folder, "train.csv"), COLUMNS).with_columns(pl.col(COLUMNS).str.strip_chars())
    table = table.with_columns(pl.col(DEVICES).str.replace(r"\.0$", ""))
    wrong = pl.coalesce(
        pl.when(~pl.col(d).is_in(["0", "1"])).then(pl.format("unknown state {} '{}'", pl.lit(d), d)) for d in DEVICES
    )
    labels = pl.concat_list(pl.when(pl.col(d) == "1").then(pl.lit(d)) for d in DEVICES).list.drop_nulls()
    return table.select(
        "row",
        "broken",
        image_id=pl.format("ranczr_clip:{}", "StudyInstanceUID"),
        patient_id=pl.format("ranczr_clip:{}", "PatientID"),
        study_id=pl.format("ranczr_clip:{}", "StudyInstanceUID"),
        image=pl.format("train/{}.jpg", "StudyInstanceUID"),
        view=pl.lit("FRONTAL"),  # as all of ChestX-ray14
        labels=labels,
        **{"Support Devices": pl.when(labels.list.len() > 0).then(1.0)},
        reason=pl.when(pl.col("PatientID") == "").then(pl.lit("no patient id")).otherwise(wrong),
    )
