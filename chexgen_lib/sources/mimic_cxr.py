"""MIMIC-CXR (Johnson et al. 2019): 377,110 radiographs, 227,835 reports, 65,379 patients of one Boston hospital.

Two releases, which may lie in one folder: MIMIC-CXR (DICOM images, reports) and MIMIC-CXR-JPG (JPEG images, views,
dates, CheXpert labels). Age, sex and race are not in them; they come from MIMIC-IV, whose subject ids and shifted dates
are the same (paper, Methods, Model bias detection).
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import polars as pl

from chexgen_lib.records import MAX_AGE, SCHEMA, RecordError, conform
from chexgen_lib.sources import chexpert_labels, impressions
from chexgen_lib.sources.columns import contradicted, prose, sex
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, as_utf8, locate, located
from chexgen_lib.sources.table import read_table, require_same_form, separate, unread

DATASHEET = Datasheet(
    source="mimic_cxr",
    title="MIMIC-CXR and MIMIC-CXR-JPG 2.0.0, with MIMIC-IV",
    role="stage I",
    paper_name="MIMIC-CXR",
    size="377,110 radiographs, 227,835 studies with a report, 65,379 patients; 14 findings, from reports by a labeller",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    obtain="PhysioNet, credentialed account with the required training, a signed data use agreement for each of "
    "physionet.org/content/mimic-cxr, mimic-cxr-jpg and mimiciv",
    citation="Johnson et al., MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs, "
    "arXiv:1901.07042 (2019)",
    split="test is folder p19, training p10 to p18, as in the paper; the publisher's table of splits is not read",
    parts=(
        Part("mimic-cxr-*-metadata.csv*", "JPG release: view and date of each image", needed=False, either="table"),
        Part("mimic-cxr-*-chexpert.csv*", "JPG release: 14 labels of each study", needed=False),
        Part("cxr-record-list.csv*", "DICOM release: path of each image", needed=False, either="table"),
        Part("mimic-cxr-reports.zip", "DICOM release: reports, packed", needed=False),
        Part("p1?/p*/s*.txt", "DICOM release: reports, unpacked", needed=False),
        Part("mimic_cxr_sectioned.csv", "in place of both: their sections, by the publisher's program", needed=False),
        Part("p1?/p*/s*/*.jpg", "JPG release: radiographs", needed=False),
        Part("p1?/p*/s*/*.dcm", "DICOM release: radiographs", needed=False),
        Part("../mimic_iv/**/patients.csv*", "MIMIC-IV: age and sex", needed=False),
        Part("../mimic_iv/**/admissions.csv*", "MIMIC-IV: race", needed=False),
    ),
    gives=("image", "report"),
)
METADATA, RECORD_LIST, REPORTS = "mimic-cxr-*-metadata.csv", "cxr-record-list.csv", "mimic-cxr-reports*.zip"
SECTIONED = "mimic_cxr_sectioned.csv"  # where the reports are not there
VIEWS = (
    {"PA": "PA", "AP": "AP", "AP LORDOTIC": "LORDOTIC", "LORDOTIC": "LORDOTIC"}
    | dict.fromkeys(("LATERAL", "LL", "RL", "XTABLE LATERAL"), "LATERAL")
    | dict.fromkeys(("LAO", "RAO", "LPO", "RPO"), "OBLIQUE")
    | dict.fromkeys(("AP AXIAL", "AP LLD", "AP RLD", "PA LLD", "PA RLD", "SWIMMERS"), "OTHER")
)
OTHER_NAMES = {"ethnicity": "race"}  # in the first releases of MIMIC-IV
# Beginning of MIMIC-IV's race -> group. The paper compares the first three; what fits none is left unknown.
RACES = {
    **{"WHITE": "White", "PORTUGUESE": "White", "BLACK": "Black", "ASIAN": "Asian"},
    **{"HISPANIC": "Hispanic", "SOUTH AMERICAN": "Hispanic"},
}
# Folder of a study's images; its report has the same name and the ending .txt, in the folder of its patient or in any.
STUDY = pl.format("files/p{}/p{}/s{}", pl.col("subject_id").str.slice(0, 2), "subject_id", "study_id")
REPORT = re.compile(r"(?:^|/)s(\d{8})\.txt$", re.IGNORECASE)
BATCH = 10_000  # reports held as Python objects at a time


def load(folder: str | Path, mimic_iv: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the JPG release's metadata, or else of the DICOM release's record list.

    Split: folders p10 to p18 train, p19 test (paper, Methods), not the publisher's; `records.assign_splits` keeps
    it. Age is anchor_age + year of the study - anchor_year, all three in MIMIC-IV's shifted calendar; MIMIC-IV
    writes 91 for all older than 89. Race is that of the last admission before the study that states one of RACES,
    or else of the first after it. View, date and findings are known from the JPG release only. A study without
    labels or report has null there; `impression` is that section of the report (`impressions.sections`). Rejected:
    ids that are not MIMIC's, unknown state, broken or duplicate row.

    Args:
        folder: with the publisher's tables and `files`; reports unpacked, in any folder, as mimic-cxr-reports.zip, or
            their sections in `SECTIONED`.
        mimic_iv: MIMIC-IV's folder, for age, sex and race, null without it; by default the folder mimic_iv beside
            `folder`, or `folder` itself where it holds MIMIC-IV's tables.

    Raises:
        RecordError: if a table or the archive of reports cannot be read, or a table that is joined by an id has an id
            twice or ids that are not written as the images'.
    """
    tree = Tree.of(folder)
    kept, rejects = separate(_prepare(tree, mimic_iv), "mimic_cxr")
    records = chexpert_labels.with_states(kept)
    records = records.join(_reports(tree, kept), on="study_id", how="left", maintain_order="left")
    records = records.with_columns(impressions.sections(records["report"])["impression"], source=pl.lit("mimic_cxr"))
    return conform(records.select(c for c in SCHEMA if c in records.columns)), rejects


def repairs(folder: str | Path, mimic_iv: str | Path | None = None) -> pl.DataFrame:
    """Views, ages and sexes that could not be used, and No Finding where a pathology is present."""
    kept, _ = separate(_prepare(Tree.of(folder), mimic_iv), "mimic_cxr")
    values = unread(kept, "mimic_cxr", {"view": "ViewPosition", "age": "dates", "sex": "gender"})
    states = chexpert_labels.with_states(kept.with_columns(normal=pl.col("No Finding")))
    normal = pl.col("labels").list.contains("No Finding")
    return pl.concat([values, contradicted(states, "mimic_cxr", normal, "normal")])


def _prepare(tree: Tree, mimic_iv: str | Path | None) -> pl.DataFrame:
    """One row per image: the Record's plain columns, the labels' cells, and the reason to reject a row, if any."""
    beside = tree.folder.parent / "mimic_iv"
    if mimic_iv is None:
        within = tree if tree.matches("patients.csv") and tree.matches("admissions.csv") else None
        mimic_iv = beside if beside.is_dir() else within
    table = _images(tree)
    table = table.join(_labels(tree, table), on="study_id", how="left", maintain_order="left")
    table = table.join(_patients(mimic_iv, table), on="subject_id", how="left", maintain_order="left")
    table = table.join(_races(table, mimic_iv), on=["subject_id", "StudyDate"], how="left", maintain_order="left")
    year = pl.col("StudyDate").str.slice(0, 4).cast(pl.Int32, strict=False)
    anchor_age, anchor_year = (
        pl.col(c).cast(pl.Float64, strict=False).cast(pl.Int32, strict=False) for c in ("anchor_age", "anchor_year")
    )
    age = anchor_age + year - anchor_year
    dates = pl.format("{} in {}, study {}", "anchor_age", "anchor_year", "StudyDate")
    reason = (
        pl.when(~pl.col("subject_id").str.contains(r"^1\d{7}$"))
        .then(pl.format("no subject: '{}'", "subject_id"))
        .when(~pl.col("study_id").str.contains(r"^\d{8}$"))
        .then(pl.format("no study: '{}'", "study_id"))
        .otherwise(chexpert_labels.unknown_state())
    )
    return table.with_columns(
        image_id=pl.format("mimic_cxr:{}", "dicom_id"),
        patient_id=pl.format("mimic_cxr:{}", "subject_id"),
        study_id=pl.format("mimic_cxr:{}", "study_id"),
        view=pl.col("ViewPosition").str.to_uppercase().replace_strict(VIEWS, default=None, return_dtype=pl.String),
        age=pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32),
        dates=dates,
        sex=sex(pl.col("gender")),
        split=pl.when(pl.col("subject_id").str.starts_with("19")).then(pl.lit("test")).otherwise(pl.lit("train")),
        reason=reason,
    )


def _images(tree: Tree) -> pl.DataFrame:
    """row, broken, subject_id, study_id, dicom_id, ViewPosition, StudyDate and image of every image."""
    none = pl.lit(None, pl.String)
    metadata = located(tree, METADATA)
    path = metadata or locate(tree, METADATA, RECORD_LIST)
    ids = ("subject_id", "study_id", "dicom_id")
    if metadata is None:
        table = read_table(path, ids).with_columns(ViewPosition=none, StudyDate=none)
    else:
        table = read_table(path, (*ids, "ViewPosition", "StudyDate"))
    dicom = table.with_columns(image=pl.format("{}/{}.dcm", STUDY, "dicom_id"))
    # The JPG release's tables may lie beside the DICOM images.
    if metadata is None or tree.matches("*.dcm"):
        return dicom
    return dicom.with_columns(pl.col("image").str.replace(r"dcm$", "jpg"))


def _labels(tree: Tree, images: pl.DataFrame) -> pl.DataFrame:
    """study_id and the 14 cells of every study; no row where the JPG release's labels are not there."""
    columns = ("study_id", *chexpert_labels.COLUMNS)
    path = located(tree, "mimic-cxr-*-chexpert.csv")
    return _nothing(*columns) if path is None else _keyed(path, columns, images)


def _patients(mimic_iv: str | Path | None, images: pl.DataFrame) -> pl.DataFrame:
    """subject_id, gender, anchor_age and anchor_year of every patient of MIMIC-IV."""
    columns = ("subject_id", "gender", "anchor_age", "anchor_year")
    return _nothing(*columns) if mimic_iv is None else _keyed(locate(mimic_iv, "patients.csv"), columns, images)


def _races(studies: pl.DataFrame, mimic_iv: str | Path | None) -> pl.DataFrame:
    """subject_id, StudyDate and race of the studies of patients with an admission that states one of RACES."""
    columns = ("hadm_id", "subject_id", "admittime", "race")
    path = None if mimic_iv is None else locate(mimic_iv, "admissions.csv")
    admissions = _nothing(*columns) if path is None else _keyed(path, columns, studies)
    text = pl.col("race").str.strip_chars().str.to_uppercase()
    group = pl.coalesce(pl.when(text.str.starts_with(word)).then(pl.lit(name)) for word, name in RACES.items())
    day = pl.col("admittime").str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    if admissions.height and not admissions.select(day.is_not_null().any()).item():
        raise RecordError(f"{path}: admittime {admissions['admittime'][0]!r} is no YYYY-MM-DD HH:MM:SS; fetch it again")
    stated = admissions.select("subject_id", day=day, race=group).drop_nulls().sort("day")
    day = pl.col("StudyDate").str.replace_all("-", "").str.slice(0, 8).str.to_date("%Y%m%d", strict=False)
    studies = studies.select("subject_id", "StudyDate", day=day).drop_nulls().unique().sort("day")
    before, after = (
        studies.join_asof(stated, on="day", by="subject_id", strategy=strategy, check_sortedness=False)
        for strategy in ("backward", "forward")
    )
    return before.select("subject_id", "StudyDate", before["race"].fill_null(after["race"]))


def _keyed(path: Path, columns: tuple[str, ...], images: pl.DataFrame) -> pl.DataFrame:
    """`columns` of a table whose first is its key; RecordError unless every row is whole, its key unique, and ids of
    patients or studies are written as the images'."""
    table = read_table(path, columns, other_names=OTHER_NAMES)
    wrong = table.filter(pl.col("broken") | pl.col(columns[0]).is_duplicated())
    if wrong.height:
        row = wrong["row"][0]
        raise RecordError(
            f"{path}: row {row} is broken or repeats its {columns[0]} ({wrong.height} rows); fetch it again"
        )
    shared = next(column for column in columns if column in images.columns)
    require_same_form(path, table[shared], images[shared])
    return table.select(columns)


def _nothing(*columns: str) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def _reports(tree: Tree, images: pl.DataFrame) -> pl.DataFrame:
    """study_id and report (its whole text) of the images' studies, read once, in batches."""
    studies = {study.partition(":")[2]: study for study in images["study_id"].unique(maintain_order=True)}
    texts = chain(_unpacked(tree, studies), *(_packed(tree.folder / name, studies) for name in tree.matches(REPORTS)))
    schema = {"study_id": pl.String, "report": pl.String}
    batches = iter(lambda: list(islice(texts, BATCH)), [])
    frames = [pl.DataFrame(batch, schema=schema, orient="row") for batch in batches]
    if not frames and (path := located(tree, SECTIONED)):
        frames = [_sectioned(path, images)]
    reports = pl.concat([pl.DataFrame(schema=schema), *frames])
    reports = reports.with_columns(pl.col("report").str.strip_chars().replace("", None)).unique(maintain_order=True)
    if (twice := reports.filter(pl.col("study_id").is_duplicated())["study_id"]).len():
        raise RecordError(
            f"{tree.folder}: {twice.n_unique()} studies have reports that differ, first {twice[0]}: which are meant is "
            "not known; move one copy away"
        )
    return reports


def _sectioned(path: Path, images: pl.DataFrame) -> pl.DataFrame:
    """study_id and report of the images' studies, put together from the sections of a table; without any, it is the
    last paragraph, which the program then keeps."""
    table = read_table(path, ("study", "findings", "impression"), ("last_paragraph",))
    if (broken := table.filter("broken")).height:
        raise RecordError(f"{path}: row {broken['row'][0]} is broken ({broken.height} rows); write it again")
    parts = [pl.format(f"{name.upper()}: {{}}", prose(pl.col(name))) for name in ("findings", "impression")]
    last = prose(pl.col("last_paragraph")) if "last_paragraph" in table.columns else pl.lit(None, pl.String)
    report = pl.concat_str(parts, separator="\n", ignore_nulls=True).replace("", None)
    study = pl.format("mimic_cxr:{}", pl.col("study").str.strip_chars().str.strip_prefix("s"))
    table = table.select(study_id=study, report=pl.coalesce(report, last))
    require_same_form(path, table["study_id"], images["study_id"])
    return table.filter(pl.col("study_id").is_in(images["study_id"].implode()))


def _packed(archive: Path, studies: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(study_id, text) of the archive's reports that belong to one of the studies (MIMIC's number -> study_id)."""
    try:
        with zipfile.ZipFile(archive) as reports:
            for name in reports.namelist():
                if study := studies.get(_study(name)):
                    yield study, as_utf8(reports.read(name)).decode()
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{archive}: not a readable archive of reports ({error}); fetch it again") from error


def _unpacked(tree: Tree, studies: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(study_id, text) of the report files that are there."""
    for name in tree.matches("s*.txt"):
        if study := studies.get(_study(name)):
            try:
                yield study, as_utf8((tree.folder / name).read_bytes()).decode()
            except (OSError, ValueError) as error:
                raise RecordError(f"{tree.folder / name}: unreadable report ({error}); fetch it again") from error


def _study(name: str) -> str | None:
    """The number of the study whose report a file is, or None."""
    match = REPORT.search(name)
    return match and match[1]
