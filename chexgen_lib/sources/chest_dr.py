"""MedFMC ChestDR (Wang et al. 2023): 4,848 frontal radiographs of two Chinese hospitals, 19 labels by radiologists.

The paper's few-shot benchmark. Patients are not published, so every image counts as one.
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, conform
from chexgen_lib.sources.columns import states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, located
from chexgen_lib.sources.masks import no_repairs
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
ANNOTATED = tuple(finding for finding in FINDINGS if finding in FINDING_OF.values())
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
    parts=(
        Part("**/chest_train.csv", "labels, train"),
        Part("**/chest_test_WithLabel.csv", "labels, test", needed=False),
        Part("**/chest_*-shot_train_exp*.txt", "support sets", needed=False),
        Part("**/images/*.png", "images"),
    ),
)

repairs = no_repairs


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the training table in the dataset's folder, and of the test table where it is there.

    A reject's row is `file row`. Rejected: a label that is neither 0 nor 1, broken and duplicate rows. Only old
    fractures are labelled, so without one the state of Fracture is unknown. No Finding is 0 where a label is present
    and unknown elsewhere: the 19 labels are not all there is to find.
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
    return conform(records.with_columns(ill.cast(pl.Float32).alias("No Finding"))), rejects


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
