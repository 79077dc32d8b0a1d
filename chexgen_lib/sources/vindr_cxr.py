"""VinDr-CXR (Nguyen et al. 2022): 18,000 frontal radiographs; 22 findings with boxes and 6 diagnoses.

Three of 17 radiologists read each of the 15,000 training images; five agreed on one reading of each of the 3,000 test
images. The table that torchxrayvision ships (Kaggle's, 67,914 rows) holds the training images with 14 findings.
"""

from functools import lru_cache
from pathlib import Path

import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from chexgen_lib.records import FINDINGS, OPACITIES, RecordError, conform
from chexgen_lib.sources import image_sizes
from chexgen_lib.sources.columns import cell, own_states, states, without_ending
from chexgen_lib.sources.datasheet import Datasheet, Part
from chexgen_lib.sources.files import Tree, locate, located
from chexgen_lib.sources.masks import MERGED, one_row_per_image
from chexgen_lib.sources.table import REPAIRS, read_table, separate, shipped

SOURCE = "vindr_cxr"
TABLE = "vinbigdata-train.csv.gz"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
SAME_OVERLAP = 0.5  # intersection over union from which two boxes are of one region
VAGUE = ("Lung Opacity", "Other lesion")  # names of a region that give way to one as frequent that says more

_BOXED: dict[str, str | None] = {  # the 14 findings of the shipped table
    "Aortic enlargement": None,
    "Atelectasis": "Atelectasis",
    "Calcification": None,
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "ILD": None,
    "Infiltration": "Lung Opacity",
    "Lung Opacity": "Lung Opacity",
    "Nodule/Mass": "Lung Lesion",
    "Other lesion": None,
    "Pleural effusion": "Effusion",
    "Pleural thickening": "Pleural Other",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary fibrosis": None,
    "No finding": "No Finding",
}
_RELEASED: dict[str, str | None] = {  # what the full release adds
    "Clavicle fracture": "Fracture",
    "Edema": "Edema",
    "Emphysema": None,
    "Enlarged PA": None,
    "Lung cavity": "Lung Lesion",
    "Lung cyst": None,
    "Mediastinal shift": None,
    "Rib fracture": "Fracture",
    "COPD": None,
    "Lung tumor": "Lung Lesion",
    "Pneumonia": "Pneumonia",
    "Tuberculosis": None,
}
_SPELLINGS = {"train": "Other diseases", "test": "Other disease"}  # the last diagnosis, in the image labels of a split
FINDING_OF = _BOXED | _RELEASED | dict.fromkeys(_SPELLINGS.values())
LABELS = tuple(_BOXED)  # the 15 that the paper's classifiers predict

DATASHEET = Datasheet(
    source=SOURCE,
    title="VinDr-CXR",
    role="downstream",
    paper_name=None,
    size="18,000 images (15,000 train, 3,000 test); 22 findings with boxes, 6 diagnoses",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    obtain="training boxes come with torchxrayvision; the rest: physionet.org/content/vindr-cxr, after credentialing",
    citation="Nguyen H. Q. et al. VinDr-CXR: an open dataset of chest X-rays with radiologist's annotations. "
    "Scientific Data 9, 429 (2022)",
    split="the publisher's tables, training and test; Kaggle's table, which is also the shipped one, is training alone",
    parts=(
        Part("annotations/annotations_train.csv", "boxes of three readers, train", needed=False, either="table"),
        Part("annotations/image_labels_train.csv", "labels of three readers, train", needed=False),
        Part("annotations/annotations_test.csv", "agreed boxes, test", needed=False),
        Part("annotations/image_labels_test.csv", "agreed labels, test", needed=False),
        Part(
            "train.csv",
            "boxes of three readers, train: Kaggle's table, where it is alone",
            needed=False,
            either="table",
        ),
        Part(image_sizes.TABLES, "sizes of the originals, where images were reduced, in pixels", needed=False),
        Part("train/*.dicom", "images, train"),
        Part("test/*.dicom", "images, test"),
    ),
    shipped=True,
    gives=("image", "boxes"),
    caution="three of the 17 readers drew 95 % of the training boxes; 22 % of these repeat another box of the same "
    "reader under a second name, which is one box here; a normal image is never disputed among its three readers",
)


def load(folder: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of the four tables in the dataset's folder, of Kaggle's `train.csv` where that lies there
    alone, or of the shipped one, which is the same; a reject's row is `file row`.

    An image's rows are one Record, its further rows are rejects that say so. A finding is present if more than half of
    the image's readers (two of three) name it, absent if none does, else null and named in `uncertain`; `labels` are
    those that more than half name, and `states` those of `LABELS` by the same rule. Boxes that overlap by half are of
    one region, whatever readers call it: it has one box, under the finding that most readers give it, where that is
    more than half of the image's readers; its corners are the mean of theirs. Boxes are pixels of the original: where
    neither its DICOM file nor a table with its size is in the folder (`image_sizes`), `boxes` is empty, see `repairs`.
    What only a diagnosis tells is null where the image labels do not list the image. Rejected with all rows of its
    image: an unknown label, no reader, a box that is damaged or leaves the image.
    """
    tree = None if folder is None else Tree.of(folder)
    votes = _votes(tree)
    usable = _usable(votes)
    table, rejects = separate(votes, SOURCE)
    annotated = _BOXED if _only_table(tree) else FINDING_OF
    findings = tuple(finding for finding in FINDINGS if finding in annotated.values())
    opacities = pl.col("named").list.set_intersection([*OPACITIES, "ILD"]).list.len() > 0
    unknown = {finding: pl.col("uncertain").list.contains(finding) for finding in findings}
    unknown["Lung Opacity"] |= opacities
    if annotated is FINDING_OF:  # a diagnosis has no box
        undiagnosed = ~pl.col("diagnosed") & ~pl.col("present").list.contains("No Finding")
        unknown |= {finding: unknown[finding] | undiagnosed for finding in ("Lung Opacity", "Lung Lesion", "Pneumonia")}
    records = table.select("image_id", "image", "split").join(
        _agreed(usable), on="image_id", how="left", maintain_order="left"
    )
    records = records.join(_boxes(usable), on="image_id", how="left", maintain_order="left")
    records = records.with_columns(
        *states(pl.col("present"), unknown, findings),
        own_states(LABELS, pl.col("labels"), pl.col("disputed")),
        source=pl.lit(SOURCE),
        patient_id="image_id",
        study_id="image_id",
        view=pl.lit("PA"),
    )
    return conform(records.drop("present", "named", "disputed", "diagnosed")), rejects


def repairs(folder: str | Path | None = None) -> pl.DataFrame:
    """The boxes that are left out, since the size of their image is not known."""
    votes = _votes(None if folder is None else Tree.of(folder))
    lost = _usable(votes).filter(pl.col("boxed") & pl.col("width").is_null())
    value = pl.format("{} at {}: {}", pl.col("labels").list.first(), _corners(), image_sizes.why_unknown())
    row, field = pl.col("row").cast(pl.String), pl.lit("boxes").alias("field")
    return lost.select(pl.lit(SOURCE).alias("source"), row, "image_id", field, value.alias("value")).cast(REPAIRS)


def _corners() -> pl.Expr:
    return pl.concat_str(CORNERS, separator=" ")


def _usable(votes: pl.DataFrame) -> pl.DataFrame:
    return votes.filter(pl.col("reason").is_null() | (pl.col("reason") == MERGED))


@lru_cache(maxsize=1)  # a check of the dataset asks for records and repairs
def _votes(tree: Tree | None) -> pl.DataFrame:
    """A row per source row: the `labels` that a `reader` gives an image, and the corners of the box, if any."""
    if alone := _only_table(tree):
        tables = [_annotations(alone, "train")]
    else:
        names = [
            (f"{name}_{split}.csv", split, read)
            for split in ("train", "test")
            for name, read in (("annotations", _annotations), ("image_labels", _image_labels))
        ]
        tables = [read(locate(tree, name), split) for name, split, read in names]
    table = pl.concat(tables, how="diagonal")
    table = table.join(_sizes(tree, table), on="image", how="left", maintain_order="left")
    strange = pl.col("labels").list.filter(~pl.element().is_in(list(FINDING_OF))).list.first()
    numbers = pl.all_horizontal(pl.col(CORNERS).is_finite().fill_null(False))
    ordered = (pl.col("x_min") < pl.col("x_max")) & (pl.col("y_min") < pl.col("y_max"))
    inside = (pl.min_horizontal(CORNERS) >= 0) & (pl.col("x_max") <= pl.col("width").fill_null(float("inf")))
    inside &= pl.col("y_max") <= pl.col("height").fill_null(float("inf"))
    if tree is not None:
        image_sizes.require_original_sizes(tree.folder, table.filter("boxed"), ordered & ~inside)
    reason = (
        pl.when(pl.col("reader") == "")
        .then(pl.lit("no reader"))
        .when(pl.col("reason").is_not_null())
        .then("reason")
        .when(strange.is_not_null())
        .then(pl.format("unknown label '{}'", strange))
        .when(pl.col("boxed") & ~numbers)
        .then(pl.lit("box with corners that are not numbers"))
        .when(pl.col("boxed") & ~(ordered & inside))
        .then(pl.lit("box is empty or leaves the image"))
    )
    return one_row_per_image(table.with_columns(reason=reason))


def _sizes(tree: Tree | None, table: pl.DataFrame) -> pl.DataFrame:
    """`image_sizes.original_sizes` of the images with boxes."""
    boxed = table.filter("boxed")
    if tree is None or boxed.is_empty():
        return pl.DataFrame(schema=image_sizes.SIZES)
    tables = [tree.folder / name for name in tree.matches("annotations_*.csv") or tree.matches("train.csv")]
    return image_sizes.original_sizes(tree, boxed["image"], tables)


def _only_table(tree: Tree | None) -> Path | None:
    """The competition's table, shipped or in a folder without those of the release; None where the release is read."""
    if tree is None:
        return shipped(TABLE)
    return located(tree, "train.csv") if located(tree, "annotations_train.csv") is None else None


def _annotations(path: Path, split: str) -> pl.DataFrame:
    """A label and its box in each row."""
    readers = ("rad_id",) if split == "train" else ()
    table = read_table(path, ("image_id", "class_name", *readers, *CORNERS))
    boxed = pl.any_horizontal(cell(pl.col(CORNERS)) != "")
    boxed &= pl.col("class_name").str.strip_chars() != "No finding"  # of which some mirrors have a box of one pixel
    table = table.with_columns(
        pl.col(CORNERS).str.strip_chars().cast(pl.Float64, strict=False),
        boxed=boxed,
        diagnosed=pl.lit(False),
        labels=pl.concat_list(pl.col("class_name").str.strip_chars()),
        reason=pl.lit(None, pl.String),
    )
    if (largest := table.filter("boxed").select(pl.max_horizontal(CORNERS).max()).item()) and 0 < largest <= 1:
        raise RecordError(f"{path}: boxes in fractions of their images, at most {largest}; give the table in pixels")
    return _identified(table, path, split)


def _image_labels(path: Path, split: str) -> pl.DataFrame:
    """A reader and an image in each row, 0 or 1 for each label; blank means 0."""
    labels = (*_BOXED, *_RELEASED, _SPELLINGS[split])
    readers = ("rad_id",) if split == "train" else ()
    table = read_table(path, ("image_id", *readers, *labels))
    table = table.with_columns(pl.col(labels).str.strip_chars().str.replace(r"\.0$", ""))
    wrong = pl.coalesce(
        pl.when(~pl.col(label).is_in(["", "0", "1"])).then(pl.format("{} '{}'", pl.lit(label), label))
        for label in labels
    )
    given = pl.concat_list(pl.when(pl.col(label) == "1").then(pl.lit(label)) for label in labels).list.drop_nulls()
    reason = pl.when(wrong.is_not_null()).then(pl.format("label neither 0 nor 1: {}", wrong))
    table = table.with_columns(labels=given, reason=reason, boxed=pl.lit(False), diagnosed=pl.lit(True))
    return _identified(table, path, split)


def _identified(table: pl.DataFrame, path: Path, split: str) -> pl.DataFrame:
    name = without_ending(pl.col("image_id"))
    corners = [
        pl.col(corner) if corner in table.columns else pl.lit(None, pl.Float64).alias(corner) for corner in CORNERS
    ]
    return table.select(
        "broken",
        "labels",
        "boxed",
        "diagnosed",
        "reason",
        *corners,
        row=pl.format(f"{path.name} {{}}", "row"),
        image_id=pl.format(f"{SOURCE}:{{}}", name.replace("", None)),
        image=pl.format(f"{split}/{{}}.dicom", name),
        split=pl.lit(split),
        reader=pl.col("rad_id").str.strip_chars() if "rad_id" in table.columns else pl.lit("consensus"),
    )


def _agreed(votes: pl.DataFrame) -> pl.DataFrame:
    """Of each image: labels and findings (`present`) of more than half of its readers, the other labels (`disputed`)
    and findings (`uncertain`) that are named, all findings and labels that anybody names (`named`), and whether a table
    of diagnoses lists it (`diagnosed`)."""
    votes = votes.with_columns(readers=pl.col("reader").n_unique().over("image_id"), label="labels")
    votes = votes.explode("label", empty_as_null=True)  # a reader who names nothing is a reader, too
    finding = pl.col("label").replace_strict(FINDING_OF, default=None, return_dtype=pl.String)
    votes = votes.with_columns(finding=finding)
    agreed = {
        kind: pl.col("reader").n_unique().over("image_id", kind) * 2 > pl.col("readers")
        for kind in ("label", "finding")
    }
    votes = votes.with_columns(**{f"{kind} agreed": value for kind, value in agreed.items()})

    def among(kind: str, chosen: pl.Expr) -> pl.Expr:
        return pl.col(kind).filter(chosen).drop_nulls().unique(maintain_order=True)

    return votes.group_by("image_id", maintain_order=True).agg(
        labels=among("label", pl.col("label agreed")),
        disputed=among("label", ~pl.col("label agreed")),
        present=among("finding", pl.col("finding agreed")),
        uncertain=among("finding", ~pl.col("finding agreed")),
        named=pl.coalesce("finding", "label").drop_nulls().unique(),
        diagnosed=pl.col("diagnosed").any(),
    )


def _boxes(votes: pl.DataFrame) -> pl.DataFrame:
    """`boxes` of each image, as fractions: one for each region that readers agree on, see `load`."""
    votes = votes.with_columns(
        readers=pl.col("reader").n_unique().over("image_id"), label=pl.col("labels").list.first()
    )
    drawn = votes.filter(pl.col("boxed") & pl.col("width").is_not_null()).with_columns(
        *(pl.col(corner) / pl.col("width" if corner[0] == "x" else "height") for corner in CORNERS),
        finding=pl.coalesce(pl.col("label").replace_strict(FINDING_OF, return_dtype=pl.String), "label"),
    )
    drawn = drawn.unique(["image_id", "reader", "finding", *CORNERS], maintain_order=True).with_row_index("box")
    named = drawn.with_columns(region=_same_region(drawn)).group_by("region", "finding", maintain_order=True)
    named = named.agg(
        pl.first("image_id", "readers"), *(pl.col(c).mean() for c in CORNERS), agree=pl.col("reader").n_unique()
    )
    named = named.filter(pl.col("agree") * 2 > pl.col("readers"))
    named = named.sort(-pl.col("agree").cast(pl.Int64), pl.col("finding").is_in(VAGUE), maintain_order=True)
    regions = named.unique("region", keep="first", maintain_order=True).sort("region")
    box = pl.struct(
        "finding",
        x=pl.col("x_min"),
        y=pl.col("y_min"),
        w=pl.col("x_max") - pl.col("x_min"),
        h=pl.col("y_max") - pl.col("y_min"),
    )
    return regions.group_by("image_id", maintain_order=True).agg(boxes=box)


def _same_region(drawn: pl.DataFrame) -> pl.Series:
    """A number per box, equal for boxes of one image that overlap by SAME_OVERLAP, directly or via others."""
    pairs = drawn.join(drawn, on="image_id", suffix="_2").filter(pl.col("box") < pl.col("box_2"))

    def side(axis: str) -> pl.Expr:
        low, high = (
            pl.max_horizontal(f"{axis}_min", f"{axis}_min_2"),
            pl.min_horizontal(f"{axis}_max", f"{axis}_max_2"),
        )
        return (high - low).clip(0)

    def area(end: str) -> pl.Expr:
        return (pl.col(f"x_max{end}") - pl.col(f"x_min{end}")) * (pl.col(f"y_max{end}") - pl.col(f"y_min{end}"))

    common = side("x") * side("y")
    pairs = pairs.filter(common >= SAME_OVERLAP * (area("") + area("_2") - common))
    edges = (pairs["box"].to_numpy(), pairs["box_2"].to_numpy())
    graph = coo_array((pairs["box"].is_not_null().to_numpy(), edges), shape=(drawn.height, drawn.height))
    return pl.Series(connected_components(graph, directed=False)[1] if drawn.height else [], dtype=pl.Int64)
