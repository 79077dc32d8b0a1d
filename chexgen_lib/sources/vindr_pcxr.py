"""VinDr-PCXR (Pham et al. 2022): 9,125 radiographs of children under 10 from Vietnam, read by radiologists.

An image has 15 diagnoses (`image_labels_*.csv`) and boxes of 36 findings (`annotations_*.csv`). The paper's 7,728 cases
are the publisher's training set. The spelling of names is the publisher's. Patients are not identified: each image is
taken as one patient.
"""

from functools import lru_cache
from pathlib import Path

import polars as pl
from pydicom import dcmread

from chexgen_lib.records import FINDINGS, OPACITIES, SCHEMA, conform
from chexgen_lib.sources import image_sizes
from chexgen_lib.sources.columns import contradicted, no_finding, sex, states, without_ending, years
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, located
from chexgen_lib.sources.table import REPAIRS, read_table, separate, unread

DATASHEET = Datasheet(
    source="vindr_pcxr",
    title="VinDr-PCXR: pediatric chest X-rays, 1.0.0",
    role="stage I",
    paper_name="VinDr-PCXR",
    size="9,125 radiographs (7,728 train, 1,397 test) of children; 15 diagnoses, boxes of 36 findings, by radiologists",
    licence="PhysioNet Restricted Health Data License 1.5.0",
    obtain="PhysioNet account, signed data use agreement: physionet.org/content/vindr-pcxr",
    citation="Pham et al., PediCXR, an open, large-scale chest radiograph dataset for interpretation of common "
    "thoracic diseases in children, Scientific Data 10:240 (2023)",
    split="the publisher's tables, training and test",
    parts=(
        Part("image_labels_train.csv", "15 diagnoses of each training image"),
        Part("annotations_train.csv", "boxes of findings, training images", needed=False),
        Part("image_labels_test.csv", "15 diagnoses of each test image", needed=False),
        Part("annotations_test.csv", "boxes of findings, test images", needed=False),
        Part(image_sizes.TABLES, "sizes of the originals, where images were reduced, in pixels", needed=False),
        Part("train/*.dicom", "training radiographs"),
        Part("test/*.dicom", "test radiographs", needed=False),
    ),
    gives=("image", "boxes"),
)
DIAGNOSES: dict[str, str | None] = {
    "No finding": "No Finding",
    "Bronchitis": None,
    "Brocho-pneumonia": "Pneumonia",
    "Other disease": None,
    "Bronchiolitis": None,
    "Situs inversus": None,
    "Pneumonia": "Pneumonia",
    "Pleuro-pneumonia": "Pneumonia",
    "Diagphramatic hernia": None,
    "Tuberculosis": None,
    "Congenital emphysema": None,
    "CPAM": None,
    "Hyaline membrane disease": None,
    "Mediastinal tumor": "Enlarged Cardiomediastinum",
    "Lung tumor": "Lung Lesion",
}
_BOXED: dict[str | None, str] = {
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Infiltration, Other opacity, Reticulonodular opacity, Diffuse alveolar opacity, "
    "Diffuse aveolar opacity, Peribronchovascular interstitial opacity, Interstitial lung disease - ILD",
    "Lung Lesion": "Other nodule/mass, Lung cavity",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Effusion": "Pleural effusion",
    "Pleural Other": "Pleural thickening",
    "Fracture": "Clavicle fracture",
    "Enlarged Cardiomediastinum": "Anterior mediastinal mass",
    None: "Boot-shaped heart, Bronchial thickening, Enlarged PA, Intrathoracic digestive structure, Other lesion, "
    "Mediastinal shift, Dextro cardia, Aortic enlargement, Stomach on the right side, Calcification, "
    "Lung hyperinflation, Egg on string sign, Pulmonary fibrosis, Chest wall mass, Lung cyst, Emphysema, "
    "Bronchiectasis, Expanded edges of the anterior ribs, Paravertebral mass",
}
FINDING_OF = DIAGNOSES | {name: finding for finding, names in _BOXED.items() for name in names.split(", ")}
# Looked for as such; of fractures and mediastinal enlargement only one kind is, so the others may be there.
ANNOTATED = tuple(
    f for f in FINDINGS if f in FINDING_OF.values() and f not in ("Fracture", "Enlarged Cardiomediastinum")
)
ONLY_BOXED = tuple(f for f in ANNOTATED if f not in DIAGNOSES.values()) + ("Lung Lesion",)
EDGES = ("x_min", "y_min", "x_max", "y_max")
TAGS = ("Rows", "Columns", "PatientAge", "PatientSex", "ViewPosition")


def load(folder: str | Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of `image_labels_train.csv` and, where it is there, `image_labels_test.csv`.

    `labels` are the diagnoses and the boxes' names, `split` is the publisher's. Boxes are given in pixels: they become
    fractions with the size in the DICOM header or in a table (`image_sizes`), and are left out where neither is there,
    see `repairs`. Age, sex and view are the header's; without it age and sex are null and the view is FRONTAL. Findings
    that only boxes show are null where no table of boxes lists the image (as "No finding" where nothing is drawn), or a
    box's name is unknown. Rejected: a diagnosis that is neither 0 nor 1, broken or duplicate row.

    Raises:
        RecordError: if a table is missing or cannot be read.
    """
    images, boxes = _prepare(Tree.of(folder))
    kept, rejects = separate(images, "vindr_pcxr")
    kept = _with_states(kept)
    usable = boxes.filter("usable").group_by("image_id", maintain_order=True)
    finding = pl.coalesce(_meaning(pl.col("class_name")), "class_name")
    kept = kept.join(
        usable.agg(boxes=pl.struct(finding.alias("finding"), *"xywh")), on="image_id", how="left", maintain_order="left"
    )
    return conform(kept.select(c for c in SCHEMA if c in kept.columns)), rejects


def repairs(folder: str | Path) -> pl.DataFrame:
    """Headers, ages, sexes and views that could not be used, boxes left out, boxes' unknown names (state null), and No
    Finding where a pathology is present."""
    images, boxes = _prepare(Tree.of(folder))
    kept = _with_states(separate(images, "vindr_pcxr")[0])
    values = unread(kept, "vindr_pcxr", {"age": "PatientAge", "sex": "PatientSex", "header": "damage"})
    normal = pl.col("labels").list.contains("No finding")
    lost = boxes.filter(~pl.col("usable")).with_columns(field=pl.lit("boxes"))
    strange = boxes.filter(~_is_known(pl.col("class_name"))).with_columns(field=pl.lit("labels"))
    value = pl.format("{} at {}", "class_name", pl.concat_str(EDGES, separator=" ", ignore_nulls=True))
    unplaced = (pl.col("field") == "boxes") & ~pl.col("known")
    value = pl.when(unplaced).then(pl.format("{}: {}", value, image_sizes.why_unknown())).otherwise(value)
    rows = pl.concat([lost, strange]).select(
        pl.lit("vindr_pcxr").alias("source"), "row", "image_id", "field", value.alias("value")
    )
    return pl.concat([values, contradicted(kept, "vindr_pcxr", normal, "No finding"), rows.cast(REPAIRS)])


@lru_cache(maxsize=1)  # a check of the dataset asks for records and repairs, and headers are many
def _prepare(tree: Tree) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per image (the Record's plain columns, reason to reject), and one per box (fractions, usable)."""
    locate(tree, "image_labels_train.csv")
    splits = [split for split in ("train", "test") if located(tree, f"image_labels_{split}.csv")]
    images = pl.concat([_images(tree, split) for split in splits])
    found = tree.find(images["image"]).filter(pl.col("rival").is_null())  # of two that differ none gives the size
    files = dict(found.select("image", "file").iter_rows())
    headers = [_header(tree.folder / (files.get(image) or "none")) for image in images["image"]]
    schema = dict.fromkeys((*TAGS, "damage"), pl.String)
    images = images.hstack(pl.DataFrame(headers, schema=schema, orient="row"))
    boxes = pl.concat([_boxes(tree, split) for split in splits])
    sizes = _sizes(tree, images, [f"annotations_{split}.csv" for split in splits])
    boxes = _as_fractions(boxes.join(sizes, on="image_id", how="left", maintain_order="left"))
    image_sizes.require_original_sizes(tree.folder, boxes, pl.col("ordered") & ~pl.col("usable"))
    names = boxes.group_by("image_id").agg(names=pl.col("class_name").unique(maintain_order=True))
    images = images.join(names, on="image_id", how="left", maintain_order="left")
    view = pl.col("ViewPosition").replace_strict({"PA": "PA", "AP": "AP"}, default="FRONTAL", return_dtype=pl.String)
    return images.with_columns(
        labels=pl.concat_list("labels", pl.col("names").fill_null([])).list.unique(maintain_order=True),
        age=years(pl.col("PatientAge")),
        sex=sex(pl.col("PatientSex")),
        view=view,
        header=pl.when(pl.col("damage").is_null()).then(pl.lit("")),
        source=pl.lit("vindr_pcxr"),
    ), boxes


def _images(tree: Tree, split: str) -> pl.DataFrame:
    """The images of one set: ids, path, diagnoses that are 1, and whether the set's boxes list them."""
    table = read_table(locate(tree, f"image_labels_{split}.csv"), ("image_id", *DIAGNOSES))
    table = table.with_columns(without_ending(pl.col("image_id")), pl.col(list(DIAGNOSES)).str.strip_chars())
    table = table.with_columns(pl.col(list(DIAGNOSES)).replace({"0.0": "0", "1.0": "1"}))
    wrong = pl.coalesce(
        pl.when(~pl.col(d).is_in(["0", "1"])).then(pl.format("unknown state {} '{}'", pl.lit(d), d)) for d in DIAGNOSES
    )
    image_id, boxes = pl.format("vindr_pcxr:{}", "image_id"), located(tree, f"annotations_{split}.csv")
    listed = pl.DataFrame(schema={"image_id": pl.String}) if boxes is None else read_table(boxes, ("image_id",))
    listed = listed.select(without_ending(pl.col("image_id"))).to_series()
    return table.select(
        "broken",
        "No finding",
        row=pl.format("{}:{}", pl.lit(split), "row"),
        image=pl.format("{}/{}.dicom", pl.lit(split), "image_id"),
        image_id=image_id,
        patient_id=image_id,
        study_id=image_id,
        split=pl.lit(split),
        labels=pl.concat_list(pl.when(pl.col(d) == "1").then(pl.lit(d)) for d in DIAGNOSES).list.drop_nulls(),
        boxed=pl.col("image_id").is_in(listed.implode()),
        reason=wrong,
    )


def _sizes(tree: Tree, images: pl.DataFrame, tables: list[str]) -> pl.DataFrame:
    """image_id and `image_sizes.agreed` of the images."""
    pixels = {
        side: pl.col(tag).cast(pl.Int64, strict=False) for side, tag in (("height", "Rows"), ("width", "Columns"))
    }
    of_files = images.select("image", **pixels, tabled=pl.lit(False)).drop_nulls().unique("image")
    paths = [path for name in tables if (path := located(tree, name))]
    sizes = image_sizes.agreed(of_files, image_sizes.of_tables(tree, images["image"], paths))
    return images.select("image_id", "image").unique("image_id").join(sizes, on="image", how="inner")


def _boxes(tree: Tree, split: str) -> pl.DataFrame:
    """The boxes of one set, in pixels as text; none where the file is not there. "No finding" is not a box."""
    columns = ("image_id", "class_name", *EDGES)
    path = located(tree, f"annotations_{split}.csv")
    if path is None:
        return pl.DataFrame(schema=dict.fromkeys(("row", *columns), pl.String))
    table = read_table(path, columns).with_columns(pl.col(columns).str.strip_chars())
    table = table.with_columns(without_ending(pl.col("image_id")))
    table = table.with_columns(
        row=pl.format("{} box:{}", pl.lit(split), "row"), image_id=pl.format("vindr_pcxr:{}", "image_id")
    )
    return table.filter(pl.col("class_name").str.to_lowercase().ne_missing("no finding")).drop("broken")


def _as_fractions(boxes: pl.DataFrame) -> pl.DataFrame:
    """Add x, y, w, h (fractions of width and height), whether the image's size is `known`, its corners are `ordered`,
    and it is `usable`: ordered and inside the image."""
    left, top, right, bottom = (pl.col(edge).cast(pl.Float64, strict=False) for edge in EDGES)
    width, height = pl.col("width"), pl.col("height")
    ordered = (left < right) & (top < bottom)
    inside = (left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)
    box = {"x": left / width, "y": top / height, "w": (right - left) / width, "h": (bottom - top) / height}
    fractions = {k: v.cast(pl.Float32) for k, v in box.items()}
    usable = (ordered & inside).fill_null(False)
    return boxes.with_columns(known=width.is_not_null(), ordered=ordered, usable=usable, **fractions)


def _with_states(images: pl.DataFrame) -> pl.DataFrame:
    present = pl.col("labels").list.eval(_meaning(pl.element())).list.drop_nulls()
    unnamed = pl.col("labels").list.eval(~_is_known(pl.element())).list.any()
    unseen = (~pl.col("boxed") | unnamed) & ~pl.col("labels").list.contains("No finding")
    unknown = dict.fromkeys(ONLY_BOXED, unseen)
    # An image with one of these but no box of an opacity does not deny Lung Opacity.
    unknown["Lung Opacity"] = unseen | (pl.col("present").list.set_intersection(list(OPACITIES)).list.len() > 0)
    images = images.with_columns(present=present)
    return images.with_columns(states(pl.col("present"), unknown, ANNOTATED)).with_columns(no_finding())


def _meaning(name: pl.Expr) -> pl.Expr:
    meanings = {label.lower(): finding for label, finding in FINDING_OF.items()}
    return name.str.to_lowercase().replace_strict(meanings, default=None, return_dtype=pl.String)


def _is_known(name: pl.Expr) -> pl.Expr:
    return name.str.to_lowercase().is_in([label.lower() for label in FINDING_OF])


def _header(path: Path) -> dict[str, str]:
    """TAGS of a DICOM file as text, or its `damage`; nothing where there is no file."""
    if not path.is_file():
        return {}
    try:
        data = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
        return {tag: str(data[tag].value) for tag in TAGS if tag in data}
    except Exception as error:  # pydicom raises many types; whether the pixels can be read is for `images` to say
        return {"damage": f"unreadable DICOM header: {error}"}
