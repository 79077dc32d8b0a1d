"""Object-CXR (JF Healthcare 2020): 10,000 frontal radiographs, half with foreign objects: boxes, ellipses, polygons.

The publisher left support devices out of the annotation, so the state of Support Devices is unknown here. Boxes still
carry that name: it is this library's class for anything that is not part of the patient.
"""

from pathlib import Path

import polars as pl

from chexgen_lib.records import conform
from chexgen_lib.sources.columns import cell
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.masks import (
    ROWS,
    SEVERAL,
    MaskError,
    box_around,
    frame_of,
    require_annotated_images,
    stem_of,
    write,
)
from chexgen_lib.sources.table import read_table, separate

SOURCE = "object_cxr"
LABEL, CLASS = "foreign object", "Support Devices"
SHAPES = {"0": "box", "1": "ellipse", "2": "polygon"}
SPLITS = {"train": "train", "dev": "test"}  # folder and table -> split; the paper tests on the 1,000 of "dev"

DATASHEET = Datasheet(
    source=SOURCE,
    title="object-CXR",
    role="annotation-to-image",
    paper_name="Object-CXR",
    size="10,000 images (8,000 train, 1,000 dev, 1,000 test without published annotations); foreign objects in half",
    licence="terms of the object-CXR challenge; none is stated in its files",
    obtain="download from the challenge's page, jfhealthcare.github.io/object-CXR, and unpack train.zip and dev.zip",
    citation="JF Healthcare. object-CXR: automatic detection of foreign objects on chest X-rays. MIDL (2020)",
    split='the publisher\'s tables: "train" is training, "dev" test, since its test set has no annotations',
    parts=(
        Part("train.csv", "annotations, train"),
        Part("dev.csv", "annotations, dev"),
        Part("train/*.jpg", "images, train"),
        Part("dev/*.jpg", "images, dev"),
    ),
    gives=("image", "mask"),
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of train.csv and dev.csv in the dataset's folder; a reject's row is `file row`.

    `labels` says whether there are foreign objects, `mask` and `boxes` where. Rejected: an annotated image that is not
    in the folder (it gives the frame), an annotation that is damaged or leaves the image.

    Raises:
        RecordError: if a table is missing or cannot be read, or images are not of the size that was annotated.
    """
    tree = Tree.of(folder)
    table = pl.concat([_read(locate(tree, f"{name}.csv"), name) for name in SPLITS])
    found = {image: files for image, *files in tree.find(table["image"]).iter_rows()}  # of both: they may share names
    rows = []
    columns = ("row", "split", "image", "annotation", "broken")
    for row, split, image, annotation, broken in table.select(columns).iter_rows():
        record = {} if broken else _record(image, tree.folder, found[image], annotation)
        rows.append({"row": row, "broken": broken, "split": split, "source": SOURCE} | record)
    require_annotated_images(tree.folder, rows)
    table, rejects = separate(pl.DataFrame(rows, schema=ROWS), SOURCE)
    return conform(table.drop("row", "broken", "reason")), rejects


def _read(path: Path, name: str) -> pl.DataFrame:
    table = read_table(path, ("image_name", "annotation"))
    image = pl.format("{}/{}", pl.lit(name), pl.col("image_name").str.strip_chars())
    row = pl.format("{}.csv {}", pl.lit(name), "row")
    annotation = cell(pl.col("annotation"))
    return table.with_columns(image=image, row=row, split=pl.lit(SPLITS[name]), annotation=annotation)


def _record(image: str, folder: Path, found: list[str | None], annotation: str) -> dict:
    """A Record's columns; `found`: its file and another that may be meant, null where there is none."""
    image_id, (found_file, rival) = None, found
    try:
        split, _, file = image.partition("/")
        image_id = f"{SOURCE}:{split}/{stem_of(file)}"
        shapes = [_shape(text) for text in annotation.split(";") if text.strip()]
        if shapes and rival is not None:
            raise MaskError(SEVERAL)
        frame = frame_of(folder / (found_file or image)) if shapes else (0, 0)
        boxes = [{"finding": CLASS} | box_around(frame, *shape) for shape in shapes]
        mask = write(frame, [(CLASS, *shape) for shape in shapes])
    except MaskError as error:
        return {"image_id": image_id, "reason": str(error)}
    same = dict.fromkeys(("image_id", "patient_id", "study_id"), image_id)
    labels = [LABEL] if shapes else []
    return same | {"image": image, "view": "FRONTAL", "labels": labels, "boxes": boxes, "mask": mask}


def _shape(text: str) -> tuple[str, str]:
    kind, _, values = text.strip().partition(" ")
    if kind not in SHAPES:
        raise MaskError(f"unknown type of shape {ascii(kind)[:20]}: 0 is a box, 1 an ellipse, 2 a polygon")
    return SHAPES[kind], values
