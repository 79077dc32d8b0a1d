"""MedFMC ChestDR (Wang et al. 2023): 4,848 frontal radiographs of two Chinese hospitals, 19 labels by radiologists.

The paper's few-shot benchmark. Patients are not published, so every image counts as one.
"""

import re
from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, RecordError, conform
from chexgen_lib.sources.columns import own_states, states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, located, read_text
from chexgen_lib.sources.table import read_table, separate

SOURCE = "chest_dr"
FINDING_OF: dict[str, str | None] = {  # in the order of the publisher's columns
    "pleural_effusion": "Effusion",
    "nodule": "Lung Lesion",
    "pneumonia": "Pneumonia",
    "cardiomegaly": "Cardiomegaly",
    "hilar_enlargement": None,
    "fracture_old": "Fracture",
    "fibrosis": None,
    "aortic_calcification": None,
    "tortuous_aorta": None,
    "thickened_pleura": "Pleural Other",
    "TB": None,
    "pneumothorax": "Pneumothorax",
    "emphysema": None,
    "atelectasis": "Atelectasis",
    "calcification": None,
    "pulmonary_edema": "Edema",
    "increased_lung_markings": None,
    "elevated_diaphragm": None,
    "consolidation": "Consolidation",
}
LABELS = tuple(FINDING_OF)
ANNOTATED = tuple(finding for finding in FINDINGS if finding in FINDING_OF.values())
SUPPORT = "**/chest_*-shot_train_exp*.txt"
_SUPPORT = re.compile(r"chest_(\d+)-shot_train_exp(\d+)\.txt")
_LINE = rf"^(\S+)\.\w+\s+(?:[01],){{{len(LABELS) - 1}}}[01]$"  # an image and its labels
TABLES = {"train": "chest_train.csv", "test": "chest_test_WithLabel.csv"}

DATASHEET = Datasheet(
    source=SOURCE,
    title="MedFMC ChestDR",
    role="downstream",
    paper_name=None,
    size="4,848 images; 19 labels; support sets of 1, 5 and 10 shots, five draws each",
    licence="as shown on its figshare record",
    obtain="download: doi:10.6084/m9.figshare.c.6476047; support sets: data_anns of github.com/openmedlab/MedFM",
    citation="Wang D. et al. A real-world dataset and benchmark for foundation model adaptation in medical image "
    "classification. Scientific Data 10, 574 (2023)",
    split="the publisher's tables: `chest_train.csv` is training, `chest_test_WithLabel.csv` test",
    parts=(
        Part("**/chest_train.csv", "labels, train"),
        Part("**/chest_test_WithLabel.csv", "labels, test", needed=False),
        Part(SUPPORT, "support sets", needed=False),
        Part("**/images/*.png", "images"),
    ),
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the training table in the dataset's folder, and of the test table where it is there.

    A reject's row is `file row`. Rejected: a label that is neither 0 nor 1, broken and duplicate rows. Only old
    fractures are labelled, so without one the state of Fracture is unknown. No Finding is 0 where a label is present
    and unknown elsewhere: the 19 labels are not all there is to find. `states` are those of the 19 labels, `sets` the
    support sets that an image is in: "5-shot 2" is the second draw of five images for each label.

    Raises:
        RecordError: for a table or support set that cannot be read, or a support set with an image of no table.
    """
    tables, tree = [], Tree.of(folder)
    for split, name in TABLES.items():
        path = locate(tree, name) if split == "train" else located(tree, name)
        if path is not None:
            table = read_table(path, ("img_id", *FINDING_OF))
            tables.append(table.with_columns(row=pl.format(f"{path.name} {{}}", "row"), split=pl.lit(split)))
    table, rejects = separate(_prepare(pl.concat(tables)), SOURCE)
    labels = pl.concat_list(pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in FINDING_OF).list.drop_nulls()
    table = table.with_columns(labels=labels)
    present = pl.col("labels").list.eval(pl.element().replace_strict(FINDING_OF, return_dtype=pl.String))
    records = table.select(
        "image_id",
        "split",
        "labels",
        *states(present, {"Fracture": pl.lit(True)}, ANNOTATED),
        source=pl.lit(SOURCE),
        patient_id="image_id",
        study_id="image_id",
        image=pl.format("images/{}", "img_id"),
        view=pl.lit("FRONTAL"),
    )
    ill = pl.when(pl.col("labels").list.len() > 0).then(0.0)
    records = records.with_columns(ill.cast(pl.Float32).alias("No Finding"), own_states(LABELS, pl.col("labels")))
    return conform(_with_sets(records, tree)), rejects


def _with_sets(records: pl.DataFrame, tree: Tree) -> pl.DataFrame:
    """The records with the column `sets`, from the support sets that lie in the folder."""
    parts = [pl.DataFrame(schema={"image_id": pl.String, "sets": pl.String})]
    for path in sorted(tree.folder / name for name in tree.matches(SUPPORT)):
        shots, draw = _SUPPORT.match(path.name.lower()).groups()
        lines = [line.strip() for line in read_text(path).decode().splitlines() if line.strip()]
        names = pl.Series(lines, dtype=pl.String).str.extract(_LINE)
        if names.null_count() or names.is_empty():
            raise RecordError(f"{path}: needs lines of an image and {len(LABELS)} labels, 0 or 1; fetch it again")
        ids = pl.DataFrame({"image_id": f"{SOURCE}:" + names}).with_columns(
            sets=pl.lit(f"{int(shots)}-shot {int(draw)}")
        )
        if (lost := ids.join(records, on="image_id", how="anti")).height:
            raise RecordError(
                f"{path}: {lost.height} images are in none of the tables, first {lost['image_id'][0]!r}; tables and "
                "support sets are of different releases: fetch both again"
            )
        parts.append(ids)
    sets = pl.concat(parts).group_by("image_id").agg(pl.col("sets").sort())
    return records.join(sets, on="image_id", how="left", maintain_order="left")


def _prepare(table: pl.DataFrame) -> pl.DataFrame:
    names = list(FINDING_OF)
    table = table.with_columns(pl.col("img_id", *names).str.strip_chars())
    table = table.with_columns(pl.col(names).str.replace(r"^([01])\.0$", "${1}"))
    wrong = pl.coalesce(
        pl.when(~pl.col(name).is_in(["0", "1"])).then(pl.format("{} '{}'", pl.lit(name), name)) for name in names
    )
    return table.with_columns(
        image_id=pl.format(f"{SOURCE}:{{}}", pl.col("img_id").str.replace(r"\.\w+$", "")),
        reason=pl.when(wrong.is_not_null()).then(pl.format("label neither 0 nor 1: {}", wrong)),
    )
