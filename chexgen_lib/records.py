"""The Record table: one row per chest radiograph, whatever its source.

Every stage reads and writes this table, so its columns, label states and limits are declared and enforced here only. A
finding's state follows torchxrayvision's convention: 1 present, 0 absent, null unknown (not annotated by the source, or
uncertain; uncertain ones are also named in `uncertain`). The finding names are CheXpert's 14 (paper, ED Table 6) as
torchxrayvision spells them. A dataset with a label set of its own (VinDr-CXR, MedFMC ChestDR) gives the state of each
of its labels in `states` as well: what a classifier predicts is a property of the data (`label_set`).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.storage import Table, blocks, replacing

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
# FRONTAL: the source says frontal but not PA or AP. OTHER: stated by the source, none of the rest.
VIEWS = ("PA", "AP", "AP SUPINE", "FRONTAL", "LATERAL", "OBLIQUE", "LORDOTIC", "COSTAL", "OTHER")
FRONTAL = ("PA", "AP", "AP SUPINE", "FRONTAL")
OPACITIES = ("Consolidation", "Pneumonia", "Edema", "Atelectasis", "Lung Lesion")  # each is a Lung Opacity, too
SIDES = ("left", "right", "bilateral")
SEVERITIES = ("mild", "moderate", "severe")
SPLITS = ("train", "val", "test")
MAX_AGE = 120  # years; the oldest person on record reached 122, the sources' larger values are typing errors

SCHEMA: dict[str, pl.DataType] = {
    "image_id": pl.String(),
    "source": pl.String(),
    "patient_id": pl.String(),
    "study_id": pl.String(),
    "image": pl.String(),
    "view": pl.String(),
    "age": pl.Float32(),
    "sex": pl.String(),
    "race": pl.String(),
    **{finding: pl.Float32() for finding in FINDINGS},
    "uncertain": pl.List(pl.String()),
    "labels": pl.List(pl.String()),
    "states": pl.List(pl.Struct({"label": pl.String(), "state": pl.Float32()})),
    "details": pl.List(pl.Struct({k: pl.String() for k in ("finding", "side", "site", "severity")})),
    "report": pl.String(),
    "impression": pl.String(),
    "description": pl.String(),
    "description_origin": pl.String(),
    "qc": pl.String(),
    "split": pl.String(),
    "sets": pl.List(pl.String()),
    "mask": pl.String(),
    "boxes": pl.List(pl.Struct({"finding": pl.String(), **{k: pl.Float32() for k in "xywh"}})),
    "severity": pl.List(pl.Struct({"finding": pl.String(), "score": pl.Float32()})),
}
REQUIRED = ("image_id", "source", "patient_id", "study_id")
DEFAULT_SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
# Datasets with a training and a test set, which take the place of any other split: the one rule for all stages.
# MIMIC-CXR's are the paper's (folders p10 to p18 and p19), NIH's are those of its two lists, where these lie beside its
# table. Of VinDr-RibCXR and Object-CXR the validation set is tested on, since their test sets come without annotations;
# CANDID-PTX as a whole: no publisher says so, but the paper does.
PUBLISHED = (
    *("mimic_cxr", "nih", "vindr_cxr", "vindr_pcxr", "chestx_det", "chest_dr"),
    *("vindr_ribcxr", "object_cxr", "candid_ptx"),
)
OF_NIH = ("chestx_det", "ranczr_clip", "siim_acr_ptx")  # their images are NIH ChestX-ray14's, under other names


class RecordError(ValueError):
    """A table is not a valid Record table; the message names the row, the column and the remedy."""


def conform(df: Table) -> Table:
    """Add the optional columns that `df` lacks (null, or an empty list), cast and order all as in SCHEMA.

    Raises:
        RecordError: if a required column is missing, a column is unknown or a cast would lose values.
    """
    columns = df.collect_schema().names()
    if missing := [c for c in REQUIRED if c not in columns]:
        raise RecordError(f"columns {missing} are missing: every Record needs {list(REQUIRED)}")
    if unknown := [c for c in columns if c not in SCHEMA]:
        raise RecordError(f"columns {unknown} are not part of a Record: drop or rename them")
    try:
        df = df.select(
            (pl.col(c).cast(dtype) if c in columns else pl.lit(None, dtype)).alias(c) for c, dtype in SCHEMA.items()
        )
    except pl.exceptions.PolarsError as error:
        raise RecordError(f"a column cannot be cast to its Record type: {error}") from error
    lists = [c for c, dtype in SCHEMA.items() if isinstance(dtype, pl.List)]
    empty = (pl.col(c).fill_null(pl.lit([], SCHEMA[c])) for c in lists)
    return df.with_columns(pl.col(pl.Float32).fill_nan(None), *empty)


def validate(df: pl.DataFrame) -> pl.DataFrame:
    """`df` in SCHEMA's column order and types, every value checked. An empty table with the required columns is valid.

    Raises:
        RecordError: for the first offending row; it names the row (0-based, with its image_id), column, value and
            remedy.
    """
    df = conform(df)
    check_values(df)
    check_ids(df)
    return df


def check_ids(df: pl.DataFrame | pl.LazyFrame) -> None:
    """What concerns all rows of a conforming table together: ids are unique, and nobody is in several splits."""
    df = df.lazy().select("image_id", "patient_id", "split").collect()
    repeated = ~pl.col("image_id").is_first_distinct()
    _forbid(df, repeated, "image_id", "image ids must be unique: reject the second row")
    if shared := in_several_splits(df):
        raise RecordError(f"patient {shared[0]!r} is in several splits: use assign_splits")


def check_values(df: pl.DataFrame, first: int = 0) -> None:
    """Each row of a conforming table, by itself; `first` is the number of the first one, as an error gives it."""
    df = df.with_row_index(offset=first)
    for column in REQUIRED:
        _forbid(df, pl.col(column).is_null() | (pl.col(column) == ""), column, "give every row an id")
    for column in ("image_id", "patient_id", "study_id"):
        prefixed = pl.col(column).str.starts_with(pl.col("source") + ":")
        _forbid(df, ~prefixed, column, "prefix ids with '<source>:' so that sources cannot collide")
    for column, allowed in (("view", VIEWS), ("sex", ("M", "F")), ("split", SPLITS)):
        _forbid(df, ~pl.col(column).is_in(allowed), column, f"use one of {list(allowed)} or null")
    _forbid(df, ~pl.col("age").is_between(0, MAX_AGE), "age", f"years, 0 to {MAX_AGE}, or null")
    for finding in FINDINGS:
        _forbid(df, ~pl.col(finding).is_in([0.0, 1.0]), finding, "use 1 present, 0 absent, null unknown")
    _check_lists(df)


def write(df: pl.DataFrame, path: str | Path) -> Path:
    """Validate `df` and write it to `path` as parquet, atomically: a reader never sees half a table."""
    df, path = validate(df), Path(path)
    with replacing(path) as partial:
        df.write_parquet(partial, compression="zstd")
    return path


def read(path: str | Path) -> pl.DataFrame:
    """Read and validate a Record table written by `write`; raises as `scan` does."""
    return scan(path).collect()


def scan(path: str | Path) -> pl.LazyFrame:
    """A Record table written by `write`, validated in blocks, to be read in blocks or by columns.

    Raises:
        RecordError: if the file is missing, unreadable or not valid; it names the file and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; run the curation stage (notebook 01) first")
    try:
        table, first = conform(pl.scan_parquet(path, glob=False)), 0
        for block in blocks(table):
            check_values(block, first)
            first += len(block)
        check_ids(table)
        return table
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    except pl.exceptions.InvalidOperationError as error:
        raise RecordError(f"{path}: a column cannot be cast to its Record type: {error}") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordError(f"{path}: not a readable parquet file ({error}); run notebook 01 again") from error


def label_set(df: pl.DataFrame) -> tuple[str, ...]:
    """What these Records are labelled with: their dataset's own labels in its order, or the 14 findings.

    Records of several label sets share the 14 findings alone.
    """
    own = df.select(pl.col("states").list.eval(pl.element().struct.field("label"))) if "states" in df.columns else None
    sets = {tuple(labels or ()) for (labels,) in own.unique().iter_rows()} if own is not None else {()}
    return (sets.pop() if len(sets) == 1 else ()) or FINDINGS


def label_states(df: pl.DataFrame, labels: tuple[str, ...] = FINDINGS) -> np.ndarray:
    """State of each label in each Record, float32 [N, L]: 1, 0, or NaN where unknown.

    Where `labels` is not the 14 findings, a Record without states of its own knows those that are named like a finding.
    """
    if labels == FINDINGS:
        return df.select(pl.col(FINDINGS).cast(pl.Float32)).fill_null(np.nan).to_numpy()
    none = pl.col("states").list.len().fill_null(0) == 0
    columns = []
    for label in labels:
        own = pl.element().filter(pl.element().struct.field("label") == label).struct.field("state")
        state = pl.col("states").list.eval(own).list.first().cast(pl.Float32)
        finding = pl.col(label).cast(pl.Float32) if label in FINDINGS else pl.lit(None, pl.Float32)
        columns.append(pl.when(none).then(finding).otherwise(state).alias(label))
    return df.select(columns).fill_null(np.nan).to_numpy()


def assign_splits(df: pl.DataFrame, fractions: Mapping[str, float] | None = None, seed: int = 0) -> pl.DataFrame:
    """Fill `split` so that no person is in two splits, and what a dataset publishes stays as it is published.

    Who is in a set of `PUBLISHED` (the `split` that the source's reader gives) stays there; a validation set is cut
    from its training set, and leaves out who is in one of the publisher's few-shot sets (`sets`). A person in several
    published sets, of one dataset or of several that share images, is tested on if one of them tests on her: nobody is
    trained on who is held out anywhere. All others' split is a hash of the person and `seed` alone: it stays the
    same when rows or sources are added or removed.

    Args:
        df: Records.
        fractions: share of patients in train, val and test, summing to 1 (default 80/10/10).
        seed: of the hash.

    Raises:
        RecordError: if the fractions do not sum to 1, or a patient id is null.
    """
    fractions = dict(fractions or DEFAULT_SPLITS)
    if set(fractions) - set(SPLITS) or min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise RecordError(f"fractions {fractions}: give non-negative shares of {SPLITS} that sum to 1")
    if df["patient_id"].null_count():
        raise RecordError("patient_id: null in some rows; without it splits could share a patient")
    people = _published(df)
    position = positions(people["person"], str(seed))
    people = people.with_columns(hashed=_intervals(position, fractions))
    kept = fractions.get("train", 0.0) + fractions.get("val", 0.0)
    cut = pl.Series(position < fractions.get("val", 0.0) / kept if kept else position < 0)
    given = pl.when(pl.col("cut") & cut).then(pl.lit("val")).otherwise("given")
    people = people.select("person", split=pl.coalesce(given, "hashed"))
    df = df.drop("split", strict=False).with_columns(person=person())
    return df.join(people, on="person", how="left", maintain_order="left").drop("person")


def person() -> pl.Expr:
    """Who is shown: the patient, by NIH's number where a dataset of NIH's images knows it (`<source>:<8 digits>`)."""
    number = pl.col("patient_id").str.extract(rf"^(?:{'|'.join(OF_NIH)}):(\d{{8}})$")
    return pl.coalesce(pl.format("nih:{}", number), "patient_id")


def in_several_splits(df: pl.DataFrame) -> list[str]:
    """The people of Records who are in more than one split, sorted."""
    splits = df.group_by(person=person()).agg(pl.col("split").n_unique())
    return splits.filter(pl.col("split") > 1)["person"].sort().to_list()


def _published(df: pl.DataFrame) -> pl.DataFrame:
    """Each person's published set (`given`, null where none is), and whether validation is to be `cut` from it."""
    source = pl.col("patient_id").str.extract(r"^([^:]+):")
    split = pl.col("split") if "split" in df.columns else pl.lit(None, pl.String)
    listed = pl.col("sets").list.len() > 0 if "sets" in df.columns else pl.lit(False)
    rows = df.select(source=source, person=person(), split=split, listed=listed)
    rows = rows.with_columns(pl.when(pl.col("source").is_in(PUBLISHED)).then("split"))
    rank = {split: i for i, split in enumerate(SPLITS)}
    people = rows.group_by("person", maintain_order=True).agg(
        given=pl.col("split").replace_strict(rank, return_dtype=pl.Int8).max(),
        cut=~pl.col("listed").fill_null(False).any(),
    )
    given = pl.col("given").replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String)
    return people.with_columns(given=given, cut=pl.col("cut") & (pl.col("given") == 0).fill_null(False))


def _intervals(position: pl.Series, fractions: Mapping[str, float]) -> pl.Expr:
    """The split in whose share of [0, 1) each position lies."""
    split, upper = pl.lit(None, pl.String), 0.0
    for name in SPLITS:
        lower, upper = upper, upper + fractions.get(name, 0.0)
        inside = (position >= lower) & (position < upper + 1e-6 * (upper > 1 - 1e-6))
        split = pl.when(inside).then(pl.lit(name)).otherwise(split)
    return split


def positions(patients: pl.Series, salt: str) -> pl.Series:
    """A number in [0, 1) per patient id that depends on it and on `salt` only, on every machine and version.

    It is a cryptographic hash with one call per id: pass each patient once.
    """
    digests = (hashlib.blake2b(f"{salt}:{patient}".encode(), digest_size=8).digest() for patient in patients)
    return pl.Series([int.from_bytes(digest) / 2**64 for digest in digests], dtype=pl.Float64)


def _check_lists(df: pl.DataFrame) -> None:
    """Check what the list columns hold: finding names, sides, severities, boxes and scores."""
    uncertain = df.select("index", "image_id", value="uncertain").explode("value").drop_nulls()
    _forbid(uncertain, ~pl.col("value").is_in(FINDINGS), "uncertain", f"use one of {list(FINDINGS)}", "value")
    details = _rows(df, "details", "labels")
    known = pl.col("finding").is_in(FINDINGS) | pl.col("labels").list.contains(pl.col("finding"))
    remedy = "finding: use one of FINDINGS or of the row's labels"
    _forbid(details, ~known.fill_null(False), "details", remedy, "finding")
    for field, allowed in (("side", SIDES), ("severity", SEVERITIES)):
        remedy = f"{field}: use one of {list(allowed)} or null"
        _forbid(details, ~pl.col(field).is_in(allowed), "details", remedy, field)
    known = pl.col("state").is_in([0.0, 1.0]).fill_null(True) & pl.col("label").is_not_null()
    _forbid(_rows(df, "states"), ~known, "states", "a label and 1 present, 0 absent, null unknown", "element")
    boxes = _rows(df, "boxes")
    edges = [pl.col("x"), pl.col("y"), pl.col("x") + pl.col("w"), pl.col("y") + pl.col("h")]
    inside = pl.all_horizontal(edge.is_between(0, 1 + 1e-5) for edge in edges)
    inside &= pl.min_horizontal("w", "h") > 0
    remedy = "a box needs w, h > 0 and must lie in the image (fractions 0..1 of its width and height)"
    _forbid(boxes, ~inside.fill_null(False), "boxes", remedy, "element")
    scored = pl.col("score").is_between(0, 1).fill_null(False)
    _forbid(_rows(df, "severity"), ~scored, "severity", "score: a number 0..1", "score")


def _rows(df: pl.DataFrame, column: str, *others: str) -> pl.DataFrame:
    """One row per element of a list-of-struct column, with the index of the Record it belongs to."""
    rows = df.select("index", "image_id", *others, element=column)
    rows = rows.filter(pl.col("element").list.len() > 0).explode("element")
    return rows.with_columns(pl.col("element").struct.unnest())


def _forbid(df: pl.DataFrame, wrong: pl.Expr, column: str, remedy: str, value: str | None = None) -> None:
    """Raise RecordError for the first row where `wrong` is true (null is not wrong)."""
    index = df.select(wrong.arg_true()).to_series()
    if index.len():
        row = df.row(index[0], named=True)
        number = row.get("index", index[0])
        raise RecordError(
            f"row {number} (image_id {row['image_id']!r}), column {column!r}: {row[value or column]!r} "
            f"is not allowed ({index.len()} such rows); {remedy}"
        )
