"""PadChest (Bustos et al. 2020): 160,861 radiographs, Spanish reports, labels and locations on a UMLS tree.

39,053 rows were labelled by physicians and 121,808 by the authors' text classifier; both use the same English label and
location names. `report` is the dataset's pre-processed (stemmed) Spanish text, verbatim.
"""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from chexgen_lib.records import FINDINGS, MAX_AGE, SCHEMA, conform
from chexgen_lib.sources.columns import contradicted, prose, sex, states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import locate
from chexgen_lib.sources.padchest_labels import FINDING_OF, INCOMPLETE, LOCATIONS, MAYBE, parse_details, unlisted
from chexgen_lib.sources.table import REPAIRS, read_table, separate, shipped, unread

DATASHEET = Datasheet(
    source="padchest",
    title="PadChest",
    role="stage I",
    paper_name="PadChest",
    size="160,861 radiographs of 67,625 patients with Spanish reports; 174 findings, 19 differential diagnoses and 104 "
    "locations, 27 % of the reports labelled by physicians, the others by a network",
    licence="PadChest Dataset Research Use Agreement: research only, no redistribution",
    obtain="registration at BIMCV, the Medical Imaging Databank of the Valencia Region, with the agreement signed",
    citation="Bustos A, Pertusa A, Salinas JM, de la Iglesia-Vaya M. PadChest: A large chest x-ray image dataset with "
    "multi-label annotated reports. Medical Image Analysis 66:101797, 2020.",
    parts=(
        Part("**/PADCHEST*.csv*", "one row per image: patient, view, report, labels and locations"),
        Part("**/*.png", "images of 16 bits, in folders numbered 0 to 54", needed=False),
    ),
    shipped=True,
)
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
COLUMNS = (
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
)
COLUMNS += ("Projection", "Report", "Labels", "LabelsLocalizationsBySentence")
VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP SUPINE", "L": "LATERAL", "COSTAL": "COSTAL"}


def load(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the PadChest table.

    Rejected: no labels (nan), studies or projections that the dataset marks "exclude", unknown labels, broken or
    duplicate rows. Age is the study's year minus the birth year (both of the same row), so within one year; the
    header's Pediatric, which misses most films of minors, is not read. Patient ids that share a report are one. A label
    that a row does not list is absent, except in incomplete reports and where MAYBE leaves it open.
    """
    table, rejects = separate(_prepare(path), "padchest")
    table = table.with_columns(source=pl.lit("padchest"))
    return conform(table.select(c for c in SCHEMA if c in table.columns)), rejects


def repairs(path: str | Path | None = None) -> pl.DataFrame:
    """Values that could not be used.

    These are birth years, sexes and projections, locations that LOCATIONS does not know, "normal" where a finding is
    listed too, and patient ids of one person, or of several (`_people`).
    """
    table = separate(_prepare(path), "padchest")[0]
    fields = {"age": "PatientBirth", "sex": "PatientSex_DICOM", "view": "Projection"}
    names = pl.col("LabelsLocalizationsBySentence").str.extract_all(r"'\s*loc [^']+'")
    places = table.select("row", "image_id", value=names).explode("value").drop_nulls("value")
    places = places.filter(~pl.col("value").str.strip_chars(" '").str.slice(4).is_in(list(LOCATIONS)))
    places = places.select(
        pl.lit("padchest").alias("source"),
        pl.col("row").cast(pl.String),
        "image_id",
        pl.lit("details").alias("field"),
        "value",
    )
    normal = pl.col("labels").list.contains("normal")
    people = _people(table.with_columns(source=pl.lit("padchest")))
    values = unread(table, "padchest", fields)
    return pl.concat([values, places, contradicted(table, "padchest", normal, "Labels"), people])


def physical_lines(path: str | Path | None = None) -> int:
    """Lines of the file less its header: more than its rows, because quoted fields contain line breaks."""
    with gzip.open(_table(path)) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 22), b"")) - 1


def _table(path: str | Path | None) -> Path:
    return locate(path, "PADCHEST*.csv", "*160K*.csv") if path else shipped(TABLE)


def _prepare(path: str | Path | None) -> pl.DataFrame:
    """The raw table with the Record's columns, and the reason to reject a row, if any."""
    table = _with_people(read_table(_table(path), COLUMNS, ("ReportID",)))
    for column, meaning in (("Labels", _labels), ("LabelsLocalizationsBySentence", _details)):
        table = table.join(meaning(table[column]), on=column, how="left", maintain_order="left")
    year = pl.col("StudyDate_DICOM").str.slice(0, 4).cast(pl.Int32, strict=False)
    age = year - pl.col("PatientBirth").cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
    reason = (
        pl.when(pl.col("PatientID") == "")
        .then(pl.lit("no patient id"))
        .when(unlisted(pl.col("Labels")))
        .then(pl.lit("no labels"))
        .when("excluded")
        .then(pl.lit("study excluded by the dataset"))
        .when(pl.col("Projection") == "EXCLUDE")
        .then(pl.lit("projection excluded by the dataset"))
        .when(pl.col("unknown label").is_not_null())
        .then(pl.format("unknown label '{}'", "unknown label"))
    )
    return table.with_columns(
        image_id=pl.format("padchest:{}", pl.col("ImageID").str.replace(r"\.\w+$", "")),
        patient_id=pl.format("padchest:{}", "person"),
        study_id=pl.format("padchest:{}", "StudyID"),
        image=pl.format("{}/{}", "ImageDir", "ImageID"),
        age=pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32),
        sex=sex(pl.col("PatientSex_DICOM")),
        view=pl.col("Projection").replace_strict(VIEWS, default=None, return_dtype=pl.String),
        report=prose(pl.col("Report")),
        reason=reason,
    )


def _with_people(table: pl.DataFrame) -> pl.DataFrame:
    """Add `person`, one id (the first) for all patient ids that share a report, also by way of a third.

    1,214 reports of the release belong to two patient ids: one person, who must not be trained and tested on.
    """
    report = "ReportID" if "ReportID" in table.columns else "PatientID"
    given = (pl.col("PatientID") != "") & ~pl.col(report).is_in(["", "nan"])
    links = table.filter(given).select("PatientID", ReportID=report).unique(maintain_order=True)
    if links.is_empty():
        return table.with_columns(person="PatientID")
    patient, report = ((links[c].rank("dense") - 1).to_numpy() for c in ("PatientID", "ReportID"))
    size = int(patient.max() + report.max()) + 2
    graph = coo_array((np.ones(len(links), bool), (patient, report + patient.max() + 1)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][patient]
    people = links.select("PatientID", group=group).unique("PatientID", maintain_order=True)
    people = people.select("PatientID", person=pl.col("PatientID").min().over("group"))
    table = table.join(people, on="PatientID", how="left", maintain_order="left")
    return table.with_columns(pl.coalesce("person", "PatientID").alias("person"))


def _people(table: pl.DataFrame) -> pl.DataFrame:
    """The repairs of patient ids: those that share a report with another, and those that hold several years of birth.

    The latter are several persons, whom nothing tells apart: all stay in one split.
    """
    plausible = pl.when(pl.col("age").is_not_null()).then("PatientBirth")
    born = plausible.cast(pl.Float64, strict=False).drop_nulls().unique().sort()
    years = born.cast(pl.Int32).cast(pl.String).str.join(", ")
    ids = table.group_by("PatientID", maintain_order=True).agg(
        pl.first("source", "row", "image_id", "person"), years=years, births=born.len()
    )
    same = pl.when(pl.col("person") != pl.col("PatientID")).then(pl.format("{} is {}", "PatientID", "person"))
    several = pl.when(pl.col("births") > 1).then(pl.format("{} was born in {}", "PatientID", "years"))
    values = pl.concat(ids.with_columns(value=value).drop_nulls("value") for value in (same, several))
    return values.select("source", "row", "image_id", pl.lit("patient_id").alias("field"), "value").cast(REPAIRS)


def _labels(given: pl.Series) -> pl.DataFrame:
    """Meaning of each distinct text of labels: `labels`, states of the 14 findings, `excluded`, first unknown label."""
    quoted = pl.col(given.name).str.extract_all(r"'[^']*'|\"[^\"]*\"")
    listed = quoted.list.eval(pl.element().str.strip_chars("'\" ")).list.unique(maintain_order=True)
    table = given.drop_nulls().unique().to_frame().with_columns(labels=listed)
    listed = pl.col("labels")
    findings = listed.list.eval(pl.element().replace_strict(FINDING_OF, default=None, return_dtype=pl.String))
    incomplete = listed.list.set_intersection(INCOMPLETE).list.len() > 0
    maybe = {f: listed.list.set_intersection(labels).list.len() > 0 for f, labels in MAYBE.items()}
    unknown = {f: incomplete | maybe.get(f, pl.lit(False)) for f in FINDINGS}
    normal = listed.list.set_difference([*INCOMPLETE, "normal"]).list.len() == 0
    table = table.with_columns(present=findings).with_columns(states(pl.col("present"), unknown, FINDINGS))
    known = [*FINDING_OF, *INCOMPLETE, "exclude"]
    return table.drop("present").with_columns(
        pl.when(~normal).then(0.0).otherwise("No Finding").cast(pl.Float32).alias("No Finding"),
        listed.list.filter(~pl.element().is_in(known)).list.first().alias("unknown label"),
        excluded=listed.list.contains("exclude"),
        labels=listed.list.filter(~pl.element().is_in(["", "unchanged"])),
    )


def _details(sentences: pl.Series) -> pl.DataFrame:
    """The details of every distinct LabelsLocalizationsBySentence that has any, keyed by that text."""
    texts = sentences.drop_nulls().unique(maintain_order=True)
    rows = [(text, *detail) for text in texts for detail in parse_details(text)]
    flat = pl.DataFrame(rows, schema=[sentences.name, "finding", "side", "site"], orient="row")
    flat = flat.with_columns(severity=pl.lit(None, pl.String)).cast(pl.String)
    detail = pl.struct("finding", "side", "site", "severity")
    return flat.group_by(sentences.name, maintain_order=True).agg(details=detail)
