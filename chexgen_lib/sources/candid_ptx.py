"""CANDID-PTX (Feng et al. 2021): 19,237 radiographs, reports; masks of pneumothorax, chest tube, acute rib fracture.

The paper tests pneumothorax segmentation on it (its "Candix-PTX"). The three tables hold one row per region, RLE in a
1024 x 1024 frame as in SIIM-ACR; `-1` means nothing drawn.
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import conform
from chexgen_lib.sources.columns import prose, without_ending
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.masks import union_of_rle
from chexgen_lib.sources.table import read_table, separate

SOURCE = "candid_ptx"
FRAME = (1024, 1024)  # height and width of every image
REPORTS = "Pneumothorax_reports.csv"
COLUMNS = ("SOPInstanceUID", "StudyInstanceUID", "filename", "EncodedPixels", "Report")
# Class of a mask -> the publisher's names for its table, which differ between releases.
DEVICES_AND_FRACTURES = {
    "Support Devices": ("chest_tube.csv",),
    "Fracture": ("acute_rib_fracture.csv", "Rib_fracture_mask_rle.csv"),
}
LABELS = {"Pneumothorax": "pneumothorax", "Support Devices": "chest tube", "Fracture": "acute rib fracture"}

DATASHEET = Datasheet(
    source=SOURCE,
    title="CANDID-PTX",
    role="downstream",
    paper_name=None,
    size="19,237 images; masks of pneumothorax, chest tube and acute rib fracture; reports",
    licence="data use agreement with the University of Auckland, after an online course in research ethics",
    obtain="request through doi:10.17608/k6.auckland.14173982; ask whether access from abroad is open",
    citation="Feng S. et al. Curation of the CANDID-PTX dataset with free-text reports. Radiology: Artificial "
    "Intelligence 3, e210136 (2021)",
    split="all of it is test: the paper's external one, no publisher's",
    parts=(
        Part(f"**/{REPORTS}", "pneumothorax masks, RLE; reports"),
        Part("**/chest_tube.csv", "chest tube masks, RLE"),
        Part("**/*[Rr]ib_fracture*.csv", "acute rib fracture masks, RLE"),
        Part("dataset/*", "images, DICOM without a suffix, 1024 x 1024"),
    ),
    gives=("image", "report", "mask"),
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the three tables in the dataset's folder; a reject's row is `file row`.

    An image's rows are one Record, whose mask is their union; its further rows are rejects that say so. Rejected with
    all rows of its image: damaged RLE, a mask and `-1` for one class. Only the three annotated things are known:
    without a chest tube, other devices are possible, and without an acute rib fracture, other fractures.
    """
    tree = Tree.of(folder)
    tables = [_reports(locate(tree, REPORTS))]
    for name, files in DEVICES_AND_FRACTURES.items():
        tables.append(_regions(locate(tree, *files), name))
    table = union_of_rle(pl.concat(tables, how="diagonal"), FRAME, tree.folder)
    stray = pl.col("reason").is_null() & (pl.col("name") != "Pneumothorax")  # an image's first row is of the reports
    patient = pl.col("filename").str.extract(r"^(P?\d+)_")
    reason = pl.when(stray).then(pl.lit(f"image without a row in {REPORTS}"))
    reason = reason.when(pl.col("reason").is_null() & patient.is_null()).then(
        pl.format("no patient in the file name '{}'", "filename")
    )
    table, rejects = separate(table.with_columns(reason=pl.coalesce("reason", reason), patient=patient), SOURCE)
    has = {name: pl.col("mask").str.contains(f"; {name}=", literal=True).fill_null(False) for name in LABELS}
    records = table.select(
        "image_id",
        "mask",
        source=pl.lit(SOURCE),
        patient_id=pl.format(f"{SOURCE}:{{}}", "patient"),
        study_id=pl.coalesce(pl.format(f"{SOURCE}:{{}}", pl.col("StudyInstanceUID").replace("", None)), "image_id"),
        image=pl.format("dataset/{}", "uid"),
        view=pl.lit("FRONTAL"),
        split=pl.lit("test"),
        Pneumothorax=has["Pneumothorax"].cast(pl.Float32),
        **{name: pl.when(has[name]).then(1.0) for name in DEVICES_AND_FRACTURES},
        labels=pl.concat_list(pl.when(has[n]).then(pl.lit(label)) for n, label in LABELS.items()).list.drop_nulls(),
        report=prose(pl.col("Report")),
    )
    return conform(records), rejects


def _reports(path: Path) -> pl.DataFrame:
    table = read_table(path, COLUMNS).rename({"SOPInstanceUID": "uid", "EncodedPixels": "rle"})
    return _identified(table, path, "Pneumothorax")


def _regions(path: Path, name: str) -> pl.DataFrame:
    table = read_table(path, ("anon_SOPUID", "mask_rle")).rename({"anon_SOPUID": "uid", "mask_rle": "rle"})
    return _identified(table, path, name)


def _identified(table: pl.DataFrame, path: Path, name: str) -> pl.DataFrame:
    return table.with_columns(
        without_ending(pl.col("uid")),
        pl.col("rle").str.strip_chars(),
        row=pl.format(f"{path.name} {{}}", "row"),
        image_id=pl.format(f"{SOURCE}:{{}}", without_ending(pl.col("uid")).replace("", None)),
        name=pl.lit(name),
    )
