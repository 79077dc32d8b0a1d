"""Open-i as its mirror at Kaggle has it: two tables in place of the XML reports, images named by their DICOM files.

`indiana_reports.csv` has a row for each report that has an image, its headings joined by ";";
`indiana_projections.csv` a row for each image, which somebody looked at: frontal or lateral.
"""

import re

import polars as pl

from chexgen_lib.sources.columns import prose
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.table import read_table

REPORTS, IMAGES = "indiana_reports.csv", "indiana_projections.csv"
PROJECTIONS = ("Frontal", "Lateral")
_SECTIONS = {"findings": "report", "impression": "impression"}
_SEX = re.compile(r"year[- ]?old\s+(?:\w+\s+)?(male|man|gentleman|female|woman|lady)\b", re.IGNORECASE)
# A row for each image: what the reports say of it.
SCHEMA = {c: pl.String for c in ("row", "key", "image_id", "patient_id", "study_id", "image", "sex", "report")}
SCHEMA |= {"impression": pl.String, "labels": pl.List(pl.String), "projection": pl.String}
SCHEMA |= {"broken": pl.Boolean, "reason": pl.String}


def are_in(tree: Tree) -> bool:
    """Whether a folder holds the tables."""
    return tree.folder.is_dir() and bool(tree.matches(REPORTS) or tree.matches(IMAGES))


def read(tree: Tree) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per image, and the reports without an image.

    Rejected: an image without a report, a report that is there twice, a projection that is neither of `PROJECTIONS`.

    Raises:
        RecordError: if one of the tables is missing or cannot be read.
    """
    reports = read_table(locate(tree, REPORTS), ("uid", "MeSH", "indication", *_SECTIONS)).rename({"row": "line"})
    images = read_table(locate(tree, IMAGES), ("uid", "filename", "projection"))
    reports, images = (table.with_columns(pl.col("uid").str.strip_chars()) for table in (reports, images))
    whole = reports.filter(~pl.col("broken") & pl.col("uid").ne_missing(""))
    alone = reports.filter(~pl.col("uid").is_in(images["uid"].drop_nulls().implode()).fill_null(False))
    lost = alone.select(
        source=pl.lit("openi"),
        row=pl.format(f"{REPORTS} {{}}", "line"),
        image_id=pl.lit(None, pl.String),
        reason=pl.when("broken")
        .then(pl.lit("broken row: wrong number of fields"))
        .otherwise(pl.lit("report without an image")),
    )
    count = whole.group_by("uid").agg(reports=pl.len())
    table = images.join(count, on="uid", how="left", maintain_order="left")
    table = table.join(whole.unique("uid", keep="first").drop("broken"), on="uid", how="left", maintain_order="left")
    return _rows(table), lost


def _rows(table: pl.DataFrame) -> pl.DataFrame:
    key = pl.format("CXR{}", pl.col("filename").str.strip_chars().str.replace(r"(?i)(\.(dcm|png|jpe?g))+$", ""))
    named = pl.col("filename").str.strip_chars().str.starts_with(pl.format("{}_", "uid"))
    projection = pl.col("projection").str.strip_chars().str.to_titlecase()
    reason = (
        pl.when(pl.col("uid") == "")
        .then(pl.lit("no report's number (uid)"))
        .when(pl.col("reports").is_null())
        .then(pl.lit("image without a report"))
        .when(pl.col("reports") > 1)
        .then(pl.lit("several reports of one number (uid)"))
        .when(~named)
        .then(pl.format("not an image of report {}", "uid"))
        .when(~projection.is_in(PROJECTIONS))
        .then(pl.format("projection '{}'", "projection"))
    )
    texts = {name: prose(pl.col(column)) for column, name in _SECTIONS.items()}
    person = pl.format("openi:CXR{}", "uid")
    headings = pl.col("MeSH").fill_null("").map_elements(_headings, return_dtype=pl.List(pl.String))
    return table.select(
        row=pl.format(f"{IMAGES} {{}}", "row"),
        key=key,
        image_id=pl.format("openi:{}", key.str.replace("^CXR1_IM", "CXR1_1_IM")),  # as only the first report has it
        patient_id=person,
        study_id=person,
        image=pl.col("filename").str.strip_chars(),
        sex=pl.col("indication").fill_null("").map_elements(sex_in, return_dtype=pl.String),
        **texts,
        labels=headings,
        projection=projection,
        broken="broken",
        reason=reason,
    ).select(SCHEMA.keys())


def _headings(text: str) -> list[str]:
    return list(dict.fromkeys(tidy(heading) for heading in text.split(";") if heading.strip()))


def tidy(heading: str) -> str:
    """A heading without line breaks and spaces around its parts."""
    return "/".join(" ".join(part.split()) for part in heading.split("/"))


def sex_in(indication: str) -> str | None:
    """ "M" or "F" as the indication says ("45-year-old male"), else None."""
    said = _SEX.search(indication)
    return None if said is None else "F" if said[1].lower() in ("female", "woman", "lady") else "M"
