"""RALO (Cohen et al. 2022): 2,373 radiographs of COVID-19 patients at Stony Brook, scored by two radiologists.

Each reader scores the geographic extent and the opacity of each lung from 0 to 4; the totals of both lungs, 0 to 8, are
used here. The image of data row i, counted from 0, is `CXR_images_scored/i.jpg`: no column names it, so that a table
which was sorted or filtered gives images the scores of others. It is refused where an image is of none of its rows;
where its order is strange, a warning says so.
"""

import csv
import io
import warnings
from pathlib import Path, PurePosixPath

import polars as pl

from chexgen_lib.records import RecordError, conform
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, read_text
from chexgen_lib.sources.table import separate

SOURCE = "ralo"
IMAGES = "**/CXR_images_scored/*.jpg"
MAX_TOTAL = 8  # both lungs
ENOUGH = 10  # rows of patients who have another one, from which their order tells
EXTENT, OPACITY = "Total GEOGRAPHIC", "Total OPACITY"  # each name heads two columns, one per reader

DATASHEET = Datasheet(
    source=SOURCE,
    title="Stony Brook Radiographic Assessment of Lung Opacity (RALO)",
    role="annotation-to-image",
    paper_name="RALO",
    size="2,373 images (the paper: 1,898 to train, 475 to test); extent and opacity scores of two radiologists",
    licence="as shown on its Zenodo record",
    obtain="download: doi:10.5281/zenodo.4633999",
    citation="Cohen J. P. et al. Radiographic assessment of lung opacity score dataset. Zenodo (2021); used in "
    "Applied Sciences 12, 4861 (2022)",
    parts=(
        Part("**/ralo-dataset-metadata.csv", "scores"),
        Part(IMAGES, "images"),
    ),
    caution="only the place of its row tells which image is scored: the table must be as published, neither sorted nor "
    "filtered",
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `ralo-dataset-metadata.csv` in the dataset's folder.

    `severity` holds the mean of the two readers divided by 8, so 0..1, for "Lung Opacity" (the paper's target) and
    "geographic extent". Lung Opacity is 1 where both readers score above 0, 0 where both score 0, else uncertain.
    Rejected: a score that is missing or not in 0..8, no patient, broken rows.

    Raises:
        RecordError: if the table is missing, cannot be read, or has fewer rows than there are images.
    """
    tree = Tree.of(folder)
    path = locate(tree, "**/ralo-dataset-metadata.csv")
    table = _read(path)
    _require_all_rows(path, table, tree)
    _warn_of_order(path, table)
    table, rejects = separate(table, SOURCE)
    least, most = pl.min_horizontal("opacity", "opacity 2"), pl.max_horizontal("opacity", "opacity 2")
    means = {
        "Lung Opacity": pl.mean_horizontal("opacity", "opacity 2"),
        "geographic extent": pl.mean_horizontal("extent", "extent 2"),
    }
    doubtful = (least == 0) & (most > 0)
    records = table.select(
        "image_id",
        "image",
        source=pl.lit(SOURCE),
        patient_id=pl.format(f"{SOURCE}:{{}}", "patient"),
        study_id=pl.format(f"{SOURCE}:{{}}/{{}}", "patient", "time"),
        view=pl.lit("AP"),
        severity=pl.concat_list(
            pl.struct(finding=pl.lit(name), score=(mean / MAX_TOTAL).cast(pl.Float32)) for name, mean in means.items()
        ),
        uncertain=pl.when(doubtful).then(pl.lit(["Lung Opacity"])),
        **{"Lung Opacity": pl.when(~doubtful).then((least > 0).cast(pl.Float32))},
    )
    return conform(records), rejects


def _read(path: Path) -> pl.DataFrame:
    """The columns that are used, by position: the table has a line above its header, and names that occur twice."""
    header, *rows = _rows(path)
    try:
        where = {"patient": header.index("Subject_ID"), "time": header.index("Exam_DateTime")}
        for key, name in (("extent", EXTENT), ("opacity", OPACITY)):
            where[key], where[f"{key} 2"] = [i for i, column in enumerate(header) if column == name]
    except ValueError as error:
        raise RecordError(
            f"{path}: needs Subject_ID, Exam_DateTime, and {EXTENT} and {OPACITY} twice each; it has {header[:16]}"
        ) from error
    cells = [[row[i].strip() if len(row) == len(header) else None for i in where.values()] for row in rows]
    table = pl.DataFrame(cells, schema=dict.fromkeys(where, pl.String), orient="row").with_row_index("number")
    scores = ["extent", "extent 2", "opacity", "opacity 2"]
    points = pl.col(scores).str.replace(",", ".", literal=True)  # as some countries write decimals
    table = table.with_columns(points.cast(pl.Float64, strict=False), broken=pl.col("patient").is_null())
    known = pl.all_horizontal(pl.col(scores).is_between(0, MAX_TOTAL).fill_null(False))
    return table.with_columns(
        row=pl.col("number") + 1,
        image_id=pl.format(f"{SOURCE}:{{}}", "number"),
        image=pl.format("CXR_images_scored/{}.jpg", "number"),
        reason=pl.when(pl.col("patient") == "")
        .then(pl.lit("no patient id"))
        .when(~known)
        .then(pl.lit(f"a score is missing or not in 0 to {MAX_TOTAL}")),
    )


def _require_all_rows(path: Path, table: pl.DataFrame, tree: Tree) -> None:
    """RecordError where rows are missing: there are images beyond the last."""
    images = set(tree.images)  # of any type
    names = [name for name in tree.matches("CXR_images_scored/*") if name in images] or images  # or all in one folder
    stems = (PurePosixPath(name).stem for name in names)
    last = max((int(stem) for stem in stems if stem.isdecimal()), default=-1)
    if last >= table.height:
        raise RecordError(
            f"{path}: has {table.height} rows, and the folder the image {last} of row {last + 1}; an image is "
            "known by the place of its row alone, so rows must not be missing: fetch the table again"
        )


def _warn_of_order(path: Path, table: pl.DataFrame) -> None:
    """Warn where the rows of patients are scattered: the table may have been sorted, or was published so."""
    patients = table["patient"].drop_nulls()
    again, together = len(patients) - patients.n_unique(), (patients == patients.shift()).sum()
    if again >= ENOUGH and 2 * together < again:
        warnings.warn(
            f"{path}: the rows of a patient are scattered; if the table was sorted after it was published, images get "
            "the scores of others, since an image is known by the place of its row alone: then fetch it again",
            stacklevel=3,
        )


def _rows(path: Path) -> list[list[str]]:
    """The header, which is the line that names Subject_ID, and the rows below it; blank lines are no rows."""
    text = read_text(path).decode()
    for delimiter in ",;\t":  # of the publisher, and of spreadsheets
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
        except csv.Error as error:
            raise RecordError(f"{path}: damaged or unreadable ({error}); fetch it again") from error
        head = next((i for i, row in enumerate(rows) if "Subject_ID" in row), None)
        if head is not None:
            return rows[head:]
    raise RecordError(f"{path}: no header with Subject_ID; fetch it again")
