"""NIH ChestX-ray14 (Wang et al. 2017): 112,120 frontal radiographs, 14 labels from reports, 984 boxes."""

import re
from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, OPACITIES, SCHEMA, RecordError, conform
from chexgen_lib.sources.columns import contradicted, no_finding, sex, states, years
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, located, read_text
from chexgen_lib.sources.table import REJECTS, read_table, require_same_form, separate, shipped, unread

DATASHEET = Datasheet(
    source="nih",
    title="NIH ChestX-ray14",
    role="stage I",
    paper_name="NIH ChestX-ray14",
    size="112,120 frontal radiographs of 30,805 patients, 14 labels found in reports by text mining, 984 boxes",
    licence="free use, with a credit to the NIH Clinical Center, a link to the release and a citation of the paper",
    obtain="the NIH Clinical Center's open download, no registration; twelve archives of images and two tables",
    citation="Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale chest X-ray database "
    "and benchmarks on weakly-supervised classification and localization of common thorax diseases. CVPR 2017.",
    split="the publisher's lists of images, where they lie anywhere in the folder; else by a hash of the patient",
    parts=(
        Part("**/Data_Entry_2017*.csv*", "labels, age, sex and view of every image", needed=False, either="table"),
        Part("**/sample_labels.csv", "the same of the 5,606 images of Kaggle's sample", needed=False, either="table"),
        Part("**/BBox_List_2017*.csv*", "boxes in pixels of 1024 x 1024", needed=False),
        Part("**/*.png", "images, 1024 x 1024", needed=False),
        Part("**/train_val_list.txt", "the publisher's images for training and validation", needed=False),
        Part("**/test_list.txt", "the publisher's images for testing", needed=False),
        Part("**/train_val_list_NIH.txt", "the same list in a mirror of 224 x 224 pixels", needed=False),
        Part("**/test_list_NIH.txt", "the same list in a mirror of 224 x 224 pixels", needed=False),
    ),
    shipped=True,
    caution="labels were mined from reports: of 238 images called pneumothorax that radiologists read again, they "
    "confirmed 109 (46 %; Majkowska et al. 2020, Radiology 294, 421)",
)
TABLE, BOXES = "Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz"
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
OTHER_NAMES = {"Patient Sex": "Patient Gender"}  # as the publisher's download has it today
LISTS = {  # of images: the publisher's name and that of the most used mirror, of 224 x 224 pixels
    ("train_val_list.txt", "train_val_list_NIH.txt"): "train",
    ("test_list.txt", "test_list_NIH.txt"): "test",
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
BOX_FRAME = 1024  # pixels: the side of the released images, in which the boxes are given

# Emphysema, Fibrosis and Hernia are none of the 14 findings and stay in `labels`.
FINDING_OF: dict[str, str | None] = {
    "No Finding": "No Finding",
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Effusion",
    "Emphysema": None,
    "Fibrosis": None,
    "Hernia": None,
    "Infiltration": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural_Thickening": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
ANNOTATED = tuple(finding for finding in FINDINGS if finding in FINDING_OF.values())


def load(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `Data_Entry_2017`; rejected: unknown label, no label, broken or duplicate row.

    Findings that the dataset does not look for (Fracture, Support Devices, ...) are null. Boxes of `BBox_List_2017` are
    joined where the shipped table or the dataset's folder is read, see `load_boxes`. `split` is the publisher's, where
    its lists of images lie in the folder.
    """
    path = None if path is None else Tree.of(path)
    kept, rejects = separate(_prepare(path), "nih")
    records = kept.with_columns(no_finding(), source=pl.lit("nih"))
    records = records.join(_published(path, records["image_id"]), on="image_id", how="left", maintain_order="left")
    if boxes := _boxes_beside(path):
        records = records.join(load_boxes(boxes)[0], on="image_id", how="left", maintain_order="left")
    return conform(records.select(c for c in SCHEMA if c in records.columns)), rejects


def repairs(path: str | Path | None = None) -> pl.DataFrame:
    """Ages, sexes, views and boxes that could not be used, and No Finding where another finding is listed."""
    table = separate(_prepare(path), "nih")[0]
    fields = {"age": "Patient Age", "sex": "Patient Gender", "view": "View Position"}
    normal = pl.col("No Finding") == 1
    lost = load_boxes(boxes)[1] if (boxes := _boxes_beside(path)) else pl.DataFrame(schema=REJECTS)
    lost = lost.select("source", "row", "image_id", field=pl.lit("boxes"), value="reason")
    return pl.concat([unread(table, "nih", fields), contradicted(table, "nih", normal, "Finding Labels"), lost])


def _boxes_beside(path: str | Path | None) -> Path | None:
    """The table of boxes that comes with the shipped table or lies in the dataset's folder, if any."""
    if path is None:
        return shipped(BOXES)
    tree = Tree.of(path)
    return located(tree, "BBox_List_2017*.csv") if tree.folder.is_dir() else None


def _published(tree: Tree | None, image_ids: pl.Series) -> pl.DataFrame:
    """image_id and split of the publisher's two lists of images, where they lie in the dataset's folder.

    Where only one of the lists is there, all others of `image_ids` are of the other.

    Raises:
        RecordError: if an image is in both lists, or the ids of the lists are not written as `image_ids`.
    """
    frames, path = [pl.DataFrame(schema={"image_id": pl.String, "split": pl.String})], None
    for files, split in LISTS.items() if tree is not None and tree.folder.is_dir() else ():
        if there := located(tree, *files):
            path, names = there, [line.rpartition("/")[2] for line in re.split(r"[\s,;]+", read_text(there).decode())]
            names = pl.DataFrame({"image": filter(None, names)}, schema={"image": pl.String})
            frames.append(names.select(image_id=pl.format("nih:{}", _stem(pl.col("image"))), split=pl.lit(split)))
    lists = pl.concat(frames).unique()
    if (twice := lists.filter(pl.col("image_id").is_duplicated())).height:
        raise RecordError(
            f"{tree.folder}: image {twice['image_id'].min()!r} is in both lists, train_val_list.txt and test_list.txt; "
            "fetch them again"
        )
    if path is not None:
        require_same_form(path, lists["image_id"], image_ids)
    if lists["split"].n_unique() == 1:
        other = "train" if lists["split"][0] == "test" else "test"
        others = image_ids.filter(~image_ids.is_in(lists["image_id"].implode()))
        lists = pl.concat([lists, others.to_frame("image_id").with_columns(split=pl.lit(other))])
    return lists


def load_boxes(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(image_id, boxes) with one row per image, and the rejects: boxes that leave the image or cannot be read.

    Boxes are given in pixels of the 1024 x 1024 release and returned as fractions of width and height.
    """
    columns = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
    table = read_table(path or shipped(BOXES), columns).rename({"Bbox [x": "x", "h]": "h"})
    table = table.with_columns(pl.col(list("xywh")).str.strip_chars().cast(pl.Float64, strict=False) / BOX_FRAME)
    names = {"Infiltrate": "Lung Opacity"} | FINDING_OF
    finding = pl.col("Finding Label").replace_strict(names, default=None, return_dtype=pl.String)
    inside = (pl.col("x") + pl.col("w") <= 1) & (pl.col("y") + pl.col("h") <= 1)
    inside &= (pl.min_horizontal("x", "y") >= 0) & (pl.min_horizontal("w", "h") > 0)
    reason = (
        pl.when("broken")
        .then(pl.lit("broken row: wrong number of fields"))
        .when(finding.is_null())
        .then(pl.format("unknown label '{}'", "Finding Label"))
        .when(~inside.fill_null(False))
        .then(pl.lit("box leaves the 1024 x 1024 image"))
        .when(~pl.struct("Image Index", finding, *"xywh").is_first_distinct())
        .then(pl.lit("repeats an earlier box"))
    )
    table = table.with_columns(
        image_id=pl.format("nih:{}", _stem(pl.col("Image Index"))), reason=reason, finding=finding
    )
    lost = table.filter(pl.col("reason").is_not_null())
    rejects = lost.select(pl.lit("nih boxes").alias("source"), pl.col("row").cast(pl.String), "image_id", "reason")
    box = pl.struct("finding", *(pl.col(c).cast(pl.Float32) for c in "xywh"))
    boxes = table.filter(pl.col("reason").is_null()).group_by("image_id", maintain_order=True).agg(boxes=box)
    return boxes, rejects


def attach_images(records: pl.DataFrame, folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The records whose image lies in `folder` (any depth and size, .png or .jpg), and what is left over.

    `image` becomes the file's path relative to the folder. Rejects: every record without a file (source "nih"), and
    every file that is no record's image (source "nih files": other type, no bytes, unknown name, second file of a
    name). Of two files of one name that differ neither is taken: which is meant is not known. Of two types the .png is,
    which is what the publisher releases. Whether the pixels can be read is checked by `chexgen_lib.images`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; give the folder that holds the NIH images")
    tree, known = Tree(folder), set(records["image_id"])
    usable = {name: _unusable(folder / name, known) for name in tree.names}
    tree.names = [name for name, reason in usable.items() if reason is None]
    wanted = records.select("source", "image_id", image=pl.format("{}.png", pl.col("image_id").str.slice(len("nih:"))))
    found = wanted.join(tree.find(wanted["image"]), on="image", how="left", maintain_order="left")
    taken = found.filter(pl.col("rival").is_null()).drop_nulls("file").select("image_id", image="file")
    names = dict(taken.iter_rows())
    for name in set(tree.names) - set(names.values()):
        first = names.get(f"nih:{Path(name).stem}")
        usable[name] = f"second file of that image id, after {first}" if first else "several files of that image id"
    rows = [("nih files", name, f"nih:{Path(name).stem}", reason) for name, reason in usable.items() if reason]
    absent = found.join(taken, on="image_id", how="anti", maintain_order="left").select(
        "source",
        "image_id",
        row=pl.lit(None, pl.String),
        reason=pl.coalesce(
            pl.format("{} and {} differ: which is meant is not known, move one away", "file", "rival"),
            pl.lit("no image file in the folder"),
        ),
    )
    attached = records.drop("image").join(taken, on="image_id", how="inner", maintain_order="left")
    lost = pl.DataFrame(rows, schema=REJECTS, orient="row")
    return conform(attached), pl.concat([lost, absent.select(REJECTS.keys())])


def _unusable(file: Path, known: set[str]) -> str | None:
    """Why a file is not the image of a record, or None."""
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return f"not an image: expected one of {', '.join(IMAGE_SUFFIXES)}"
    if f"nih:{file.stem}" not in known:
        return "no record of that image id"
    return "empty file" if file.stat().st_size == 0 else None


def _prepare(path: str | Path | None) -> pl.DataFrame:
    """The raw table, the Record's plain columns, and the reason to reject a row, if any."""
    whole = "Data_Entry_2017*.csv"
    path = (located(path, whole) or locate(path, whole, "sample_labels.csv")) if path else shipped(TABLE)
    table = read_table(path, COLUMNS, other_names=OTHER_NAMES)
    stem, patient = _stem(pl.col("Image Index")), pl.col("Patient ID").str.strip_chars().str.zfill(8)
    table = table.join(_labels(table["Finding Labels"]), on="Finding Labels", how="left", maintain_order="left")
    table = table.with_columns(
        image_id=pl.format("nih:{}", stem),
        patient_id=pl.format("nih:{}", patient),
        study_id=pl.format("nih:{}", stem),  # every follow-up number is one image
        image=pl.col("Image Index"),
        age=years(pl.col("Patient Age")),
        sex=sex(pl.col("Patient Gender")),
        view=pl.col("View Position").replace_strict({"PA": "PA", "AP": "AP"}, default=None, return_dtype=pl.String),
    )
    reason = (
        pl.when(stem == "")
        .then(pl.lit("no image id"))
        .when(pl.col("Patient ID") == "")
        .then(pl.lit("no patient id"))
        .when(stem.str.slice(0, 8) != patient)
        .then(pl.format("not an image of patient {}", "Patient ID"))
        .when(pl.col("Finding Labels") == "")
        .then(pl.lit("no label"))
        .when(pl.col("unknown label").is_not_null())
        .then(pl.format("unknown label '{}'", "unknown label"))
    )
    return table.with_columns(reason=reason)


def _labels(given: pl.Series) -> pl.DataFrame:
    """What each distinct text of labels means: `labels`, the states of the 14 findings, and its unknown label."""
    labels = pl.col(given.name).str.split("|").list.eval(pl.element().str.strip_chars())
    present = pl.col("labels").list.eval(pl.element().replace_strict(FINDING_OF, default=None, return_dtype=pl.String))
    # A row that lists one of these but not Infiltration does not deny Lung Opacity.
    opaque = pl.col("present").list.set_intersection(list(OPACITIES)).list.len() > 0
    table = given.drop_nulls().unique().to_frame().with_columns(labels=labels).with_columns(present=present)
    unknown = pl.col("labels").list.filter(~pl.element().is_in(list(FINDING_OF))).list.first().alias("unknown label")
    table = table.with_columns(*states(pl.col("present"), {"Lung Opacity": opaque}, ANNOTATED), unknown)
    return table.drop("present")


def _stem(name: pl.Expr) -> pl.Expr:
    return name.str.strip_chars().str.replace(r"\.\w+$", "")
