"""Stanford CheXpert training set (Irvin et al. 2019): 223,414 radiographs, 14 findings from reports."""

from pathlib import Path

import polars as pl

from chexgen_lib.records import SCHEMA, conform
from chexgen_lib.sources import chexpert_labels
from chexgen_lib.sources.columns import contradicted, sex, slashed, years
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import locate
from chexgen_lib.sources.table import read_table, separate, shipped, unread

DATASHEET = Datasheet(
    source="chexpert",
    title="CheXpert",
    role="stage I",
    paper_name="CheXpert",
    size="223,414 frontal and lateral training radiographs of 64,540 patients, 14 findings from reports, with "
    "uncertainty",
    licence="Stanford University Dataset Research Use Agreement: research only, no redistribution",
    obtain="registration at Stanford AIMI, which then sends a link; CheXpert-v1.0-small is the low-resolution release",
    citation="Irvin J, Rajpurkar P, Ko M, et al. CheXpert: A large chest radiograph dataset with uncertainty labels "
    "and expert comparison. AAAI 2019.",
    parts=(
        Part("**/train.csv", "path, sex, age, view and 14 states of every training image"),
        Part(
            "**/valid.csv",
            "the same of the 234 validation images, by radiologists; read where its path is given",
            needed=False,
            read=False,
        ),
        Part("**/patient*/study*/*.jpg", "images", needed=False),
    ),
    shipped=True,
)
TABLE = "chexpert_train.csv.gz"
ABOUT = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
COLUMNS = (*ABOUT, *chexpert_labels.COLUMNS)


def load(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `train.csv`; rejected: unreadable path or state, broken or duplicate row.

    Blank stays null (not mentioned), -1 becomes null and is named in `uncertain`. Where No Finding is 1, the
    pathologies are 0 (torchxrayvision's convention), Support Devices excepted; where one is 1, No Finding is 0,
    whatever the table says of it.
    """
    table, rejects = separate(_prepare(path), "chexpert")
    return conform(table.select(c for c in SCHEMA if c in table.columns)), rejects


def repairs(path: str | Path | None = None) -> pl.DataFrame:
    """Ages, sexes and views that could not be used, and No Finding where a pathology is present too."""
    table = separate(_prepare(path), "chexpert")[0].with_columns(value=pl.col("labels").list.join("|"))
    fields = {"age": "raw Age", "sex": "raw Sex", "view": "raw Frontal/Lateral"}
    normal = pl.col("labels").list.contains("No Finding")
    return pl.concat([unread(table, "chexpert", fields), contradicted(table, "chexpert", normal, "value")])


def _prepare(path: str | Path | None) -> pl.DataFrame:
    """The Record's columns, the raw ones with "raw " before their names, and the reason to reject a row, if any."""
    table = read_table(locate(path, "train.csv") if path else shipped(TABLE), COLUMNS)
    table = table.rename({c: f"raw {c}" for c in ABOUT}).with_columns(wrong=chexpert_labels.unknown_state())
    table = chexpert_labels.with_states(table)
    path_parts = slashed(pl.col("raw Path")).str.extract_groups(
        r"(?<patient>patient\d+)/(?<study>study\d+)/(?<image>view[^/]+)\.\w+$"
    )
    table = table.with_columns(path_parts.struct.unnest())
    frontal = pl.col("raw AP/PA").replace_strict({"AP": "AP", "PA": "PA"}, default="FRONTAL")
    view = pl.when(pl.col("raw Frontal/Lateral") == "Lateral").then(pl.lit("LATERAL"))
    view = view.when(pl.col("raw Frontal/Lateral") == "Frontal").then(frontal)
    unplaced = pl.format("path without patient/study/view: '{}'", "raw Path")
    return table.with_columns(
        source=pl.lit("chexpert"),
        reason=pl.when(pl.col("patient").is_null()).then(unplaced).otherwise("wrong"),
        image_id=pl.format("chexpert:{}/{}/{}", "patient", "study", "image"),
        patient_id=pl.format("chexpert:{}", "patient"),
        study_id=pl.format("chexpert:{}/{}", "patient", "study"),
        image=pl.col("raw Path"),
        view=view,
        age=years(pl.col("raw Age")),
        sex=sex(pl.col("raw Sex")),
    )
