"""BRAX (Reis et al. 2022): 40,967 radiographs of 19,351 patients of one Brazilian hospital, CheXpert's 14 labels.

The labels come from Portuguese reports, which are not published.
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, conform
from chexgen_lib.sources import chexpert_labels
from chexgen_lib.sources.columns import contradicted, sex, slashed, years
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import locate
from chexgen_lib.sources.table import read_table, separate, unread

DATASHEET = Datasheet(
    source="brax",
    title="BRAX, a Brazilian labeled chest X-ray dataset, 1.1.0",
    role="stage I",
    paper_name="BRAX",
    size="40,967 radiographs (24,959 studies, 19,351 patients); 14 findings, from reports by a labeller",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    obtain="PhysioNet, credentialed account with the required training, signed data use agreement: "
    "physionet.org/content/brax",
    citation="Reis et al., BRAX, Brazilian labeled chest x-ray dataset, Scientific Data 9:487 (2022)",
    parts=(
        Part("master_spreadsheet*.csv", "one row per image: ids, sex, age group, view, labels"),
        Part("images/id_*/Study_*/Series_*/*.png", "radiographs as PNG", needed=False),
        Part("Anonymized_DICOMs/id_*/Study_*/Series_*/*.dcm", "radiographs as DICOM", needed=False),
    ),
)
COLUMNS = ("PatientID", "PatientSex", "PatientAge", "AccessionNumber", "PngPath", "DicomPath", "ViewPosition")
COLUMNS += chexpert_labels.COLUMNS
VIEWS = (
    {"PA": "PA", "AP": "AP"}
    | dict.fromkeys(("L", "LL", "RL"), "LATERAL")
    | dict.fromkeys(("RLO", "LLO"), "OBLIQUE")
    | dict.fromkeys(("AP LLD", "AP RLD", "LLD", "RLD", "LT-DECUB", "RT-DECUB"), "OTHER")  # decubitus
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the master spreadsheet, one row per image.

    `image` is the PNG, or the DICOM where no PNG is named. Age is published in groups of five years ("85 or more" is
    the last): the group's first year is taken. Rejected: row without patient, study or path, unknown state, broken or
    duplicate row.

    Args:
        folder: the dataset's folder, or the spreadsheet itself.

    Raises:
        RecordError: if a table is missing or cannot be read.
    """
    kept, rejects = separate(_prepare(folder), "brax")
    keep = ["image_id", "patient_id", "study_id", "image", "view", "age", "sex", "labels", "uncertain", *FINDINGS]
    records = chexpert_labels.with_states(kept).select(keep)
    return conform(records.with_columns(source=pl.lit("brax"))), rejects


def repairs(folder: str | Path) -> pl.DataFrame:
    """Ages, sexes and views that could not be used, and No Finding where a pathology is present."""
    kept = separate(_prepare(folder), "brax")[0].with_columns(normal=pl.col("No Finding"))
    values = unread(kept, "brax", {"age": "PatientAge", "sex": "PatientSex", "view": "ViewPosition"})
    table = chexpert_labels.with_states(kept)
    normal = pl.col("labels").list.contains("No Finding")
    return pl.concat([values, contradicted(table, "brax", normal, "normal")])


def _prepare(folder: str | Path) -> pl.DataFrame:
    """The raw table with the Record's plain columns, and the reason to reject a row, if any."""
    table = read_table(locate(folder, "master_spreadsheet*.csv"), COLUMNS)
    ids = pl.col("PatientID", "AccessionNumber", "PngPath", "DicomPath", "ViewPosition").str.strip_chars()
    table = table.with_columns(ids).with_columns(slashed(pl.col("PngPath", "DicomPath")))
    image = pl.coalesce(pl.col("PngPath", "DicomPath").replace("", None))
    name = image.str.replace(r"^(images|Anonymized_DICOMs)/", "").str.replace(r"\.\w+$", "")
    reason = (
        pl.when(pl.col("PatientID") == "")
        .then(pl.lit("no patient id"))
        .when(pl.col("AccessionNumber") == "")
        .then(pl.lit("no study id"))
        .otherwise(chexpert_labels.unknown_state())
    )
    group_end = r"\s*(-|to)\s*\d+$|\s*or more$|\s*\+$"
    return table.with_columns(
        image_id=pl.format("brax:{}", name),
        patient_id=pl.format("brax:{}", "PatientID"),
        study_id=pl.format("brax:{}", "AccessionNumber"),
        image=image,
        view=pl.col("ViewPosition").str.to_uppercase().replace_strict(VIEWS, default=None, return_dtype=pl.String),
        age=years(pl.col("PatientAge").str.replace(group_end, "")),
        sex=sex(pl.col("PatientSex")),
        reason=reason,
    )
