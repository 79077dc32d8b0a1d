"""ChestX-Det (Lian et al. 2021): 3,578 images of NIH ChestX-ray14, boxes and outlines of 13 findings by radiologists.

The images are renumbered (`36199.png`); the numbers are not rows of NIH's table. The authors' `mapping.json`, where it
lies in the folder, gives NIH's names: then the patient is known, and is in one split here and among NIH's own. Without
it each image counts as a patient, who can also be among NIH's or SIIM-ACR's: do not train on one and test on another
where such a leak matters.
"""

from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.records import FINDINGS, OPACITIES, RecordError, conform
from chexgen_lib.sources import nih_names
from chexgen_lib.sources.columns import states
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.masks import (
    ROWS,
    MaskError,
    box_around,
    numbers,
    read_json,
    require_whole_frames,
    stem_of,
    write,
)
from chexgen_lib.sources.table import separate

SOURCE = "chestx_det"
FRAME = (1024, 1024)  # height and width of every image
SPLITS = ("train", "test")
FINDING_OF: dict[str, str | None] = {
    "Atelectasis": "Atelectasis",
    "Calcification": None,
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Diffuse Nodule": "Lung Lesion",
    "Effusion": "Effusion",
    "Emphysema": None,
    "Fibrosis": None,
    "Fracture": "Fracture",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pleural Thickening": "Pleural Other",
    "Pneumothorax": "Pneumothorax",
}
ANNOTATED = ("No Finding", *(finding for finding in FINDINGS if finding in FINDING_OF.values()))

DATASHEET = Datasheet(
    source=SOURCE,
    title="ChestX-Det",
    role="annotation-to-image",
    paper_name="ChestX-Det",
    size="3,578 images (the paper's ED Table 2 says 4,720 to train); boxes and outlines of 13 findings",
    licence="none stated; the images are NIH ChestX-ray14's, free to use with attribution to the NIH Clinical Center",
    obtain="download: github.com/Deepwise-AILab/ChestX-Det-Dataset (annotations, and links to the images)",
    citation="Lian J. et al. A structure-aware relation network for thoracic diseases detection and segmentation. IEEE "
    "Transactions on Medical Imaging 40, 2042-2052 (2021)",
    split="the publisher's tables, training and test",
    parts=(
        Part("**/ChestX_Det_train.json", "boxes and outlines, train"),
        Part("**/ChestX_Det_test.json", "boxes and outlines, test"),
        Part("**/*mapping*.json", "NIH's name of each image: issue 2 of the repository", needed=False),
        Part("train/*.png", "images, train, 1024 x 1024"),
        Part("test/*.png", "images, test, 1024 x 1024"),
    ),
    gives=("image", "mask"),
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the two JSON files in the dataset's folder; a reject's row is `file number`.

    Classes of the mask and names of boxes are the findings, or the labels that are none of the 14. An image without
    annotations is No Finding, as in the paper (ED Table 7). Rejected: an unknown label, boxes or outlines that are
    damaged, leave the image or are not one per label.
    """
    rows, tree = [], Tree.of(folder)
    for split in SPLITS:
        path = locate(tree, f"ChestX_Det_{split}.json")
        items = read_json(path)
        if not isinstance(items, list):
            raise RecordError(f"{path}: needs a list of images; fetch it again")
        for number, item in enumerate(items, start=1):
            row = {"row": f"{path.name} {number}", "broken": False, "split": split, "source": SOURCE}
            rows.append(row | _record(item, split))
    table, rejects = separate(pl.DataFrame(rows, schema=ROWS), SOURCE)
    edges = (pl.element().struct[start] + pl.element().struct[size] for start, size in ("xw", "yh"))
    early = pl.col("boxes").list.eval(pl.max_horizontal(edges)).list.max() <= 0.5
    require_whole_frames(tree.folder, FRAME, table.filter(pl.col("boxes").list.len() > 0).select(early).to_series())
    labels = pl.col("labels")
    present = labels.list.eval(pl.element().replace_strict(FINDING_OF, default=None, return_dtype=pl.String))
    present = pl.when(labels.list.len() == 0).then(pl.lit(["No Finding"])).otherwise(present)
    unknown = {"Lung Opacity": labels.list.set_intersection(list(OPACITIES)).list.len() > 0}
    records = table.drop("row", "broken", "reason").with_columns(states(present, unknown, ANNOTATED))
    return nih_names.with_patients(conform(records), tree), rejects


def _record(item: Any, split: str) -> dict:
    image_id = None
    try:
        name, labels, boxes, outlines = _fields(item)
        image_id = f"{SOURCE}:{stem_of(name)}"
        names = [FINDING_OF[label] or label for label in labels]
        boxes = [{"finding": n} | box_around(FRAME, "box", numbers([b])) for n, b in zip(names, boxes, strict=True)]
        mask = write(FRAME, [(n, "polygon", numbers(points)) for n, points in zip(names, outlines, strict=True)])
    except MaskError as error:
        return {"image_id": image_id, "reason": str(error)}
    same = dict.fromkeys(("image_id", "patient_id", "study_id"), image_id)
    labels = list(dict.fromkeys(labels))
    return same | {"image": f"{split}/{name}", "view": "FRONTAL", "labels": labels, "boxes": boxes, "mask": mask}


def _fields(item: Any) -> tuple[Any, list, list, list]:
    """Name, labels, boxes and outlines of one image: known labels, one box and one outline for each."""
    keys = ("syms", "boxes", "polygons")
    if not isinstance(item, dict) or not all(isinstance(item.get(key), list) for key in keys):
        raise MaskError(f"needs the lists {', '.join(keys)}")
    labels, boxes, outlines = (item[key] for key in keys)
    if strange := [label for label in labels if not isinstance(label, str) or label not in FINDING_OF]:
        raise MaskError(f"unknown label {ascii(strange[0])[:40]}")
    if not len(labels) == len(boxes) == len(outlines):
        raise MaskError(f"{len(labels)} labels, {len(boxes)} boxes and {len(outlines)} outlines")
    return item.get("file_name"), labels, boxes, outlines
