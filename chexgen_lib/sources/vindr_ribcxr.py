"""VinDr-RibCXR (Nguyen et al. 2021): 245 frontal radiographs of VinDr-CXR with the outlines of ribs 1-10 of each side.

The images are renumbered, so their names in VinDr-CXR cannot be recovered: do not train on one and test on the other.
"""

from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.records import RecordError, conform
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate
from chexgen_lib.sources.masks import (
    ROWS,
    SEVERAL,
    MaskError,
    frame_of,
    numbers,
    read_json,
    require_annotated_images,
    stem_of,
    write,
)
from chexgen_lib.sources.table import separate

SOURCE = "vindr_ribcxr"
RIBS = tuple(f"{side}{rib}" for side in "RL" for rib in range(1, 11))
SPLITS = {"train": "train", "val": "test"}  # name in files -> split; the paper tests on the 49 of "val"

DATASHEET = Datasheet(
    source=SOURCE,
    title="VinDr-RibCXR",
    role="annotation-to-image",
    paper_name="VinDr-RibCXR",
    size="245 images (196 to train, 49 to validate); outlines of 20 ribs",
    licence="data use agreement of VinBigData",
    obtain="sign the agreement at vindr.ai/datasets/ribcxr; the link to the files comes by mail",
    citation="Nguyen H. C. et al. VinDr-RibCXR: a benchmark dataset for automatic segmentation and labeling of "
    "individual ribs on chest X-rays. arXiv:2107.01327 (2021)",
    split='the publisher\'s tables: "train" is training, "val" test, as in the paper',
    parts=(
        Part("**/Vin[Dd]r_RibCXR_train_mask.json", "outlines, train"),
        Part("**/Vin[Dd]r_RibCXR_val_mask.json", "outlines, val"),
        Part("**/img/*.png", "images"),
    ),
    gives=("image", "mask"),
)


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the two JSON files in the dataset's folder; a reject's row is `file number`.

    The mask has a class for each rib that is drawn (`RIBS`; "None" means not drawn). Rejected: an image that is not in
    the folder (it gives the frame), an outline that is damaged or leaves it, no outline at all.
    """
    rows, tree = [], Tree.of(folder)
    for name, split in SPLITS.items():
        path = locate(tree, f"VinDr_RibCXR_{name}_mask.json")
        table = _read(path)
        named = [str(image) for image in table["img"].values()]
        found = {image: files for image, *files in tree.find(pl.Series(named, dtype=pl.String)).iter_rows()}
        for number, (key, image) in enumerate(table["img"].items(), start=1):
            row = _record(tree.folder, image, {rib: table[rib].get(key) for rib in RIBS}, found)
            rows.append({"row": f"{path.name} {number}", "broken": False, "split": split, "source": SOURCE} | row)
    require_annotated_images(tree.folder, rows)
    table, rejects = separate(pl.DataFrame(rows, schema=ROWS), SOURCE)
    return conform(table.drop("row", "broken", "reason")), rejects


def _read(path: Path) -> dict[str, dict]:
    """`img`: key -> image; `R1` ... `L10`: key -> corners of that rib, or "None"."""
    table = read_json(path)
    if not isinstance(table, dict) or not all(isinstance(table.get(name), dict) for name in ("img", *RIBS)):
        raise RecordError(f"{path}: needs the objects 'img' and 'R1' to 'L10'; fetch it again")
    return table


def _record(folder: Path, name: Any, ribs: dict[str, Any], found: dict[str, list]) -> dict[str, str | None]:
    """A Record's columns; `found`: name -> its file and another that may be meant, null where there is none."""
    image_id = None
    try:
        image_id = f"{SOURCE}:{stem_of(str(name).rpartition('/')[2])}"
        file, rival = found[str(name)]
        if file is None:
            raise MaskError("no such image, which alone gives the frame of its annotation")
        if rival is not None:
            raise MaskError(SEVERAL)
        parts = [(rib, "polygon", _corners(points)) for rib, points in ribs.items() if points not in (None, "None")]
        mask = write(frame_of(folder / file), parts)
        if mask is None:
            raise MaskError("no rib is drawn")
    except MaskError as error:
        return {"image_id": image_id, "reason": str(error)}
    same = dict.fromkeys(("image_id", "patient_id", "study_id"), image_id)
    return same | {"image": file, "mask": mask, "view": "PA"}


def _corners(points: Any) -> str:
    try:
        return numbers((point["x"], point["y"]) for point in points)
    except (TypeError, KeyError) as error:
        raise MaskError("corners that are not x and y") from error
