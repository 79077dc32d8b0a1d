"""SIIM-ACR Pneumothorax (Filice et al. 2020): 12,047 radiographs of NIH ChestX-ray14, 2,669 with pneumothorax masks.

The training table has 12,954 rows: one per region that was drawn, or one `-1` where there is no pneumothorax. It names
neither NIH's images nor patients, so a patient of these images can also be among NIH's and ChestX-Det's: train on one
of the three and test on another only where such a leak does not matter, or put a mapping beside the table
(`nih_names`).
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import conform
from chexgen_lib.sources import nih_names
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, every, locate, located
from chexgen_lib.sources.masks import union_of_rle
from chexgen_lib.sources.table import read_table, separate, shipped

SOURCE = "siim_acr_ptx"
TABLE = "siim-pneumothorax-train-rle.csv.gz"
TABLES = ("*train[-_]rle.csv", "*stage_2_train.csv")  # of the competition's first and second stage
NAMES = "stage_1_*_images.csv"  # of the usual mirror, which has masks as PNG and names of its own
FRAME = (1024, 1024)  # height and width of every image

DATASHEET = Datasheet(
    source=SOURCE,
    title="SIIM-ACR Pneumothorax Segmentation",
    role="annotation-to-image",
    paper_name="SIIM-ACR-PTX",
    size="12,047 images (the paper: 10,675 to train, 1,372 to test); pneumothorax masks in 2,669",
    licence="rules of the Kaggle competition, accepted when joining it; the images are NIH ChestX-ray14's",
    obtain="the table comes with torchxrayvision; images: Kaggle competition siim-acr-pneumothorax-segmentation",
    citation="Filice R. W. et al. Crowdsourcing pneumothorax annotations using machine learning annotations on the "
    "NIH chest X-ray dataset. Journal of Digital Imaging 33, 490-496 (2020)",
    parts=(
        Part("**/*train[-_]rle.csv", "masks, RLE", needed=False, either="table"),
        Part("**/*stage_2_train.csv", "masks, RLE, of the second stage", needed=False, either="table"),
        Part(f"**/{NAMES}", "names of images in a mirror at Kaggle: masks are shipped", needed=False, either="table"),
        Part("**/*.dcm", "images, DICOM, 1024 x 1024", needed=False, either="images"),
        Part("**/png_images/*.png", "images of that mirror", needed=False, either="images"),
    ),
    shipped=True,
    gives=("image", "mask"),
)


def load(folder: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `train-rle.csv` or `stage_2_train.csv` in the dataset's folder, or of the shipped table:
    without a folder, or where it has the names of a mirror's images (`NAMES`) in place of a table.

    An image's rows are one Record, whose mask is their union; its further rows are rejects that say so. Rejected with
    all rows of its image: RLE that is damaged or leaves the image, a mask and `-1` for one image.
    """
    tree = None if folder is None else Tree.of(folder)
    mirrored = tree is not None and bool(tree.matches(NAMES)) and not tree.matches("*.dcm")
    own = None if tree is None else located(tree, *TABLES)
    path = own or (shipped(TABLE) if tree is None or mirrored else locate(tree, *TABLES))
    table, rejects = separate(union_of_rle(_read(path), FRAME, path), SOURCE)
    ill = pl.col("mask").is_not_null()
    records = table.select(
        "image_id",
        "mask",
        source=pl.lit(SOURCE),
        patient_id="image_id",
        study_id="image_id",
        image=pl.format("{}.dcm", "ImageId"),
        view=pl.lit("FRONTAL"),
        Pneumothorax=ill.cast(pl.Float32),
        labels=pl.when(ill).then(pl.lit(["Pneumothorax"])),
    )
    if mirrored:
        records, unknown = _renamed(records, tree)
        rejects = pl.concat([rejects, unknown])
    records = conform(records)
    return records if tree is None else nih_names.with_patients(records, tree), rejects


def _renamed(records: pl.DataFrame, tree: Tree) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records with a mirror's names of their images, where it has them; and its images without a record."""
    tables = [(path.name, read_table(path, ("new_filename", "ImageId"))) for path in every(tree, NAMES)]
    names = pl.concat(table.with_columns(row=pl.format(f"{file} {{}}", "row")) for file, table in tables)
    names = names.with_columns(
        image=pl.format("png_images/{}", pl.col("new_filename").str.strip_chars()),
        image_id=pl.format(f"{SOURCE}:{{}}", pl.col("ImageId").str.strip_chars().replace("", None)),
    )
    known = pl.col("image_id").is_in(records["image_id"].implode()).fill_null(False)
    reason = pl.when(~known).then(pl.lit("no row in the table of masks"))
    names, rejects = separate(names.with_columns(reason=reason), SOURCE)
    names = names.select("image_id", name="image")
    records = records.join(names, on="image_id", how="left", maintain_order="left")
    return records.with_columns(image=pl.coalesce("name", "image")).drop("name"), rejects


def _read(path: Path) -> pl.DataFrame:
    table = read_table(path, ("ImageId", "EncodedPixels")).rename({"EncodedPixels": "rle"})
    return table.with_columns(
        pl.col("ImageId", "rle").str.strip_chars(),
        image_id=pl.format(f"{SOURCE}:{{}}", pl.col("ImageId").str.strip_chars().replace("", None)),
        name=pl.lit("Pneumothorax"),
    )
