"""BIMCV-COVID19 (de la Iglesia Vaya et al. 2020): radiographs of 11 hospitals near Valencia, Spanish reports.

COVID19+ (patients with a positive test) and COVID19- (negative) have the same layout, and PadChest's labels and
locations. A row here is a PNG of a radiograph; CT volumes are skipped. The PNG holds stored values: window and
photometric interpretation are in the .json beside it, and some images are MONOCHROME1 (white air).
"""

import io
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from chexgen_lib.records import FINDINGS, MAX_AGE, SCHEMA, RecordError, conform
from chexgen_lib.sources import padchest_labels as padchest
from chexgen_lib.sources.columns import contradicted, prose, sex, states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, every, read_text
from chexgen_lib.sources.table import REPAIRS, require_same_form, separate, unread

LABELS, PARTICIPANTS, IMAGES = "**/[Ll]abels_*.tsv", "**/participants.tsv", "**/sub-*_ses-*.png"
RELEASED = "**/derivatives/labels/[Ll]abels_*.tsv"
ELSEWHERE = re.compile(r"(?:^|/)(?:derivatives|mod-(?!rx/)[^/]*)/")  # folders without radiographs

DATASHEET = Datasheet(
    source="bimcv_covid",
    title="BIMCV-COVID19+ and BIMCV-COVID19-, iterations 1 and 2",
    role="stage I",
    paper_name="BIMCV-Covid",
    size="45,633 radiographs (paper); 188 radiological findings and their locations, from reports",
    licence="BIMCV-COVID19 Dataset Research Use Agreement: research only, no redistribution",
    obtain="accept the agreement at bimcv.cipf.es/bimcv-projects/bimcv-covid19, or IEEE DataPort "
    "(doi:10.21227/w3aw-rv39, doi:10.21227/m4j2-ap59); unpack all archives into one folder",
    citation="de la Iglesia Vaya et al., BIMCV COVID-19+: a large annotated dataset of RX and CT images from COVID-19 "
    "patients, arXiv:2006.01174 (2020)",
    parts=(
        Part(LABELS, "report and labels of each session"),
        Part(PARTICIPANTS, "age and sex of each patient", needed=False),
        Part(IMAGES, "radiographs, in sub-*/ses-*/mod-rx or all in one folder"),
        Part(
            "**/sub-*_ses-*.json",
            "DICOM headers: window and polarity of the stored values, without which no image is shown",
        ),
    ),
)
COLUMNS = ("ReportID", "Report", "Labels", "LabelsLocalizationsBySentence")
VIEWS = {"pa": "PA", "ap": "AP"} | dict.fromkeys(("ll", "rl", "lat", "lateral"), "LATERAL")

# COVID 19 is the report's suspicion: no finding of its own, but the opacities or pneumonia it rests on may be there.
FINDING_OF = padchest.FINDING_OF | {"COVID 19": None, "COVID 19 uncertain": None, "viral pneumonia": "Pneumonia"}
COVID = ("COVID 19", "COVID 19 uncertain", "viral pneumonia")
MAYBE = padchest.MAYBE | {f: [*padchest.MAYBE[f], *COVID] for f in ("Lung Opacity", "Consolidation", "Pneumonia")}


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the radiographs in a folder, at any depth: in its `mod-rx`, or so named anywhere else.

    The session's labels hold for all its images. A label that is not listed is absent, except in incomplete reports,
    where MAYBE leaves it open, and beside a label that FINDING_OF does not know. Age is given per patient, as a list of
    one or two years: the lower is taken, so it is correct to within one year. View is the `vp-` tag of the file's name.
    Of several reports of one session the first is taken. Rejected: file name without patient and session, other body
    part, session without labels, study that the dataset excludes, second file of a name.

    Raises:
        RecordError: if a table is missing or cannot be read.
    """
    kept, rejects = separate(_prepare(folder), "bimcv_covid")
    kept = _with_states(kept)
    kept = kept.join(_details(kept), on="image_id", how="left", maintain_order="left")
    kept = kept.with_columns(pl.col("labels").list.filter(~pl.element().is_in(["", "unchanged"])))
    return conform(kept.select(c for c in SCHEMA if c in kept.columns)), rejects


def repairs(folder: str | Path) -> pl.DataFrame:
    """Ages, sexes and views that could not be used, labels that FINDING_OF does not know, and "normal" where a
    pathology is present."""
    kept = _with_states(separate(_prepare(folder), "bimcv_covid")[0])
    values = unread(kept, "bimcv_covid", {"age": "given age", "sex": "gender", "view": "tag"})
    strange = kept.explode("strange").drop_nulls("strange")
    strange = strange.select("source", "row", "image_id", pl.lit("labels").alias("field"), value="strange")
    normal = pl.col("labels").list.contains("normal")
    return pl.concat([values, strange.cast(REPAIRS), contradicted(kept, "bimcv_covid", normal, "Labels")])


def _prepare(folder: str | Path | Tree) -> pl.DataFrame:
    """One row per image: the Record's plain columns, the session's labels, and the reason to reject it, if any."""
    tree = Tree.of(folder)
    table = _images(tree)
    names = table["image"].str.extract(r"([^/]+)$")
    rivals = tree.find(names.filter(names.is_duplicated())).drop_nulls("rival")["image"]
    labels = RELEASED if tree.matches(RELEASED) else LABELS
    labels = _tables(tree, labels, COLUMNS, "ReportID").unique(maintain_order=True)
    labels = labels.with_columns(disputed=pl.col("ReportID").is_duplicated())
    labels = labels.unique("ReportID", keep="first", maintain_order=True)
    table = table.join(labels, left_on="session", right_on="ReportID", how="left", maintain_order="left")
    table = _with_people(tree, table)
    age = pl.col("given age").str.extract_all(r"\d+(\.\d+)?").list.eval(pl.element().cast(pl.Float32)).list.min()
    quoted = pl.col("Labels").str.extract_all(r"'[^']*'|\"[^\"]*\"")
    table = table.with_columns(
        age=pl.when(age <= MAX_AGE).then(age),
        sex=sex(pl.col("gender")),
        report=prose(pl.col("Report")),
        labels=quoted.list.eval(pl.element().str.strip_chars("'\" ")).list.unique(maintain_order=True),
    )
    known = [*FINDING_OF, *padchest.INCOMPLETE, "exclude"]
    part = pl.col("part").str.to_lowercase()
    reason = (
        pl.when(names.is_in(rivals.to_list()))
        .then(pl.lit("several files of one name that differ: move one away"))
        .when(pl.col("session").is_null())
        .then(pl.lit("file name without sub-S... and ses-E..."))
        .when(~part.is_in(["chest", "thorax"]))
        .then(pl.format("body part '{}'", "part"))
        .when(pl.col("disputed"))
        .then(pl.format("tables differ in the labels of {}", "session"))
        .when(pl.col("Labels").is_null())
        .then(pl.format("no labels of {}", "session"))
        .when(padchest.unlisted(pl.col("Labels")))
        .then(pl.lit("no labels"))
        .when(pl.col("labels").list.contains("exclude"))
        .then(pl.lit("study excluded by the dataset"))
    )
    return table.with_columns(strange=pl.col("labels").list.filter(~pl.element().is_in(known)), reason=reason)


def _with_people(tree: Tree, table: pl.DataFrame) -> pl.DataFrame:
    """Add `given age` and `gender` of each subject, null where no table of participants is there or names it."""
    columns = ("participant", "age", "gender")
    known = tree.matches(PARTICIPANTS)
    people = _tables(tree, PARTICIPANTS, columns, "participant") if known else _nothing(columns)
    if known:
        require_same_form(tree.folder / known[0], people["participant"], table["subject"])
    people = people.rename({"age": "given age"}).unique("participant", keep="first", maintain_order=True)
    table = table.join(people, left_on="subject", right_on="participant", how="left", maintain_order="left")
    return table.with_columns(pl.col("given age").str.strip_chars("[]' "))


def _images(tree: Tree) -> pl.DataFrame:
    """The PNG files and what their names say, for example sub-S03169_ses-E07193_run-1_bp-chest_vp-ap_dx.png."""
    published = tree.matches("mod-rx/*.png")
    named = tree.matches(IMAGES) or ([] if published else every(tree, IMAGES))  # which says what is missing
    files = sorted({*published, *(name for name in named if not ELSEWHERE.search(name.lower()))})
    name = pl.col("image").str.extract(r"(?i)([^/]+)\.png$")
    ids = name.str.extract_groups(r"^(?<subject>sub-[^_/]+)_(?<session>ses-[^_/]+)").struct
    tag = name.str.extract(r"_vp-([^_]+)")
    return pl.DataFrame({"image": files}, schema={"image": pl.String}).with_columns(
        source=pl.lit("bimcv_covid"),
        row="image",
        broken=pl.lit(False),
        image_id=pl.format("bimcv_covid:{}", name),
        patient_id=pl.format("bimcv_covid:{}", ids["subject"]),
        study_id=pl.format("bimcv_covid:{}", ids["session"]),
        subject=ids["subject"],
        session=ids["session"],
        part=name.str.extract(r"_bp-([^_]+)"),
        tag=tag,
        view=tag.str.to_lowercase().replace_strict(VIEWS, default=None, return_dtype=pl.String),
    )


def _tables(tree: Tree, pattern: str, columns: tuple[str, ...], key: str) -> pl.DataFrame:
    """The tables of all iterations that the folder holds, below each other; of each the first row of a `key`."""
    tables = (_read_tsv(path, columns) for path in every(tree, pattern))
    return pl.concat([_nothing(columns), *(table.unique(key, keep="first", maintain_order=True) for table in tables)])


def _read_tsv(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """`columns` of a tab-separated table as text, without rows of too many or too few fields, whose images are
    rejected."""
    options = pa_csv.ParseOptions(delimiter="\t", newlines_in_values=True, invalid_row_handler=lambda row: "skip")
    convert = pa_csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
    raw = read_text(path)
    try:
        read = pa_csv.ReadOptions(use_threads=False)
        return pl.DataFrame(pl.from_arrow(pa_csv.read_csv(io.BytesIO(raw), read, options, convert)))
    except pa.ArrowException as error:
        hint = f"needs a tab-separated table with the columns {list(columns)}"
        raise RecordError(f"{path}: {hint} ({error}); fetch it again") from error


def _nothing(columns: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))


def _with_states(table: pl.DataFrame) -> pl.DataFrame:
    listed = pl.col("labels")
    findings = listed.list.eval(pl.element().replace_strict(FINDING_OF, default=None, return_dtype=pl.String))
    vague = _any_of(listed, padchest.INCOMPLETE) | (pl.col("strange").list.len() > 0)
    unknown = {f: vague | _any_of(listed, MAYBE.get(f, ())) for f in FINDINGS}
    normal = listed.list.set_difference([*padchest.INCOMPLETE, "normal"]).list.len() == 0
    table = table.with_columns(present=findings).with_columns(states(pl.col("present"), unknown, FINDINGS))
    no_other = pl.when(normal).then("No Finding").otherwise(0.0).cast(pl.Float32)
    return table.with_columns(no_other.alias("No Finding"))


def _any_of(listed: pl.Expr, labels: tuple[str, ...] | list[str]) -> pl.Expr:
    return listed.list.set_intersection(list(labels)).list.len() > 0


def _details(table: pl.DataFrame) -> pl.DataFrame:
    """image_id and details (finding, side, site) of the images whose report locates what its labels name."""
    texts = table["LabelsLocalizationsBySentence"].fill_null("").unique(maintain_order=True)
    rows = [(text, *detail) for text in texts for detail in padchest.parse_details(text)]
    schema = ["LabelsLocalizationsBySentence", "finding", "side", "site"]
    located = pl.DataFrame(rows, schema=dict.fromkeys(schema, pl.String), orient="row")
    located = table.join(located, on="LabelsLocalizationsBySentence", how="inner", maintain_order="left")
    named = pl.col("present").list.contains(pl.col("finding")) | pl.col("labels").list.contains(pl.col("finding"))
    detail = pl.struct("finding", "side", "site", pl.lit(None, pl.String).alias("severity"))
    return located.filter(named).group_by("image_id", maintain_order=True).agg(details=detail)
