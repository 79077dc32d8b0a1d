"""Public datasets as Record tables: one module per dataset, each with ``load(path=None) -> (records,
rejects)``.

``path=None`` reads the table that torchxrayvision ships in its ``data`` folder. Every source row ends as a
Record or in ``rejects`` (source, row, image_id, reason; ``row`` is the 1-based data row, or the file's
name), so ``records.height + rejects.height`` is the number of source rows. A single unusable value (an age
of 412) does not lose its row: the value becomes null and ``repairs`` lists it.
"""

import csv
import gzip
import io
import re
import zlib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from chexgen_lib.records import FINDINGS, MAX_AGE, RecordError

SOURCES = ("nih", "chexpert", "padchest", "openi")  # their tables come with torchxrayvision
ALL = (
    *SOURCES,
    *("mimic_cxr", "bimcv_covid", "vindr_pcxr", "brax", "vindr_cxr"),
    *("ranczr_clip", "siim_acr_ptx", "candid_ptx", "vindr_ribcxr", "object_cxr", "chestx_det", "ralo", "chest_dr"),
)
# A radiograph with one of these is not normal; one with a device may be.
PATHOLOGIES = tuple(f for f in FINDINGS if f not in ("No Finding", "Support Devices"))
REJECTS = {"source": pl.String, "row": pl.String, "image_id": pl.String, "reason": pl.String}
REPAIRS = {
    "source": pl.String,
    "row": pl.String,
    "image_id": pl.String,
    "field": pl.String,
    "value": pl.String,
}


def module(source: str) -> ModuleType:
    """The module of a source; RecordError where there is none of that name."""
    if source not in ALL:
        raise RecordError(f"unknown source {source!r}: choose from {', '.join(ALL)}")
    return import_module(f"{__name__}.{source}")


def load(source: str, path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(records, rejects) of a source by name, see the module docstring.

    Raises:
        RecordError: for an unknown source, one whose table is not shipped where no path is given, or an unusable file.
    """
    found = module(source)
    if path is None and not found.DATASHEET.shipped:
        raise RecordError(f"{source}: its table is not shipped; give its folder. To obtain: {found.DATASHEET.obtain}")
    return found.load(path)


def repairs(source: str, path: str | Path | None = None) -> pl.DataFrame:
    """The values of a source that could not be used, one row each: the Record holds null in their place."""
    return module(source).repairs(path)


@cache
def finding_of(label: str) -> str | None:
    """The CheXpert finding that a source's label means, or None where it means none of the 14."""
    if label in FINDINGS:
        return label
    for source in ALL:
        if label in (table := getattr(module(source), "FINDING_OF", {})):
            return table[label]
    return module("openi").finding_of(label)


def shipped(name: str) -> Path:
    """A file of torchxrayvision's data folder, found without importing the package (that takes seconds)."""
    spec = find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise RecordError("torchxrayvision is not installed: pip install torchxrayvision, or give a path")
    return Path(spec.origin).parent / "data" / name


def read_table(path: str | Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a CSV (gzipped or not, UTF-8 or Latin-1) as text columns, plus ``row`` (1-based) and ``broken``.

    A row with too many or too few fields is kept as ``broken`` (all its columns null), never guessed at.
    RecordError names the file where it is missing, damaged, empty, or lacks one of ``columns``.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file; give the path of the dataset's table") from error
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path}: damaged or unreadable ({error}); fetch it again") from error
    raw = _as_utf8(raw)
    if not raw.strip():
        raise RecordError(f"{path}: the file is empty; fetch it again")
    head, end, body = raw.partition(b"\n")
    if head.rstrip().endswith(b","):  # a spreadsheet's columns without a name; not every row has them
        bare = head.rstrip(b", \t\r")
        extra = rb",{1,%d}\r?$" % head.count(b",", len(bare))
        head, body = bare, re.sub(extra, b"", body, flags=re.MULTILINE)
    try:
        header = next(csv.reader([head.decode()]), [])
    except csv.Error as error:
        raise RecordError(f"{path}: not a readable CSV ({error}); fetch it again") from error
    if missing := [c for c in columns if c not in header]:
        raise RecordError(f"{path}: columns {missing} are missing; the file has {header[:12]}")
    try:
        return _parse(head + end + body, columns)
    except pa.ArrowInvalid as error:
        raise RecordError(f"{path}: not a readable CSV ({error}); fetch it again") from error


def _parse(raw: bytes, columns: tuple[str, ...]) -> pl.DataFrame:
    """The columns as text; a row with the wrong number of fields becomes null, with ``broken`` true."""
    broken: list[int] = []

    def note(row: pa_csv.InvalidRow) -> str:
        broken.append(row.number - 1)  # pyarrow counts the header
        return "skip"

    table = pa_csv.read_csv(
        io.BytesIO(raw),
        pa_csv.ReadOptions(use_threads=False),  # with threads the handler is not told the row's number
        pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        pa_csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string())),
    )
    whole = pl.DataFrame(pl.from_arrow(table)).with_columns(broken=pl.lit(False))
    if not broken:
        return whole.with_row_index("row", offset=1)
    numbers = sorted(set(range(1, len(whole) + len(broken) + 1)) - set(broken))
    kept = whole.with_columns(row=pl.Series(numbers, dtype=pl.UInt32))
    lost = pl.DataFrame({"row": pl.Series(broken, dtype=pl.UInt32), "broken": [True] * len(broken)})
    return pl.concat([kept, lost], how="diagonal").sort("row").select("row", pl.exclude("row"))


def _as_utf8(raw: bytes) -> bytes:
    """UTF-8 bytes of a text file that may be Latin-1 or carry a byte order mark."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        raw.decode("utf-8")
        return raw
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode()


def separate(table: pl.DataFrame, source: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a prepared table (row, image_id, broken, reason, ...) into the rows to keep and the rejects.

    To ``reason`` it adds the causes common to all sources: broken row, no image id, image id seen before. Where
    the kept rows of one patient give both sexes, which is right is not known: ``sex`` becomes null in all of them.
    """
    nameless = pl.col("image_id").is_null() | (pl.col("image_id") == f"{source}:")
    reasons = [
        pl.when("broken").then(pl.lit("broken row: wrong number of fields")),
        pl.col("reason"),
        pl.when(nameless).then(pl.lit("no image id")),
        pl.when(~pl.col("image_id").is_first_distinct()).then(pl.lit("duplicate image id")),
    ]
    table = table.with_columns(reason=pl.coalesce(reasons))
    rejects = table.filter(pl.col("reason").is_not_null())
    rejects = rejects.select(pl.lit(source).alias("source"), pl.col("row").cast(pl.String), "image_id", "reason")
    kept = table.filter(pl.col("reason").is_null())
    if {"sex", "patient_id"} <= set(kept.columns):
        one_sex = (pl.col("sex").min() == pl.col("sex").max()).over("patient_id")
        kept = kept.with_columns(pl.when(one_sex).then("sex").alias("sex"))
    return kept, rejects


def no_finding() -> pl.Expr:
    """The column No Finding, 0 where one of PATHOLOGIES is 1: what was seen counts, whatever was called normal."""
    ill = pl.any_horizontal(pl.col(f) == 1 for f in PATHOLOGIES)
    return pl.when(ill).then(0.0).otherwise("No Finding").cast(pl.Float32).alias("No Finding")


def contradicted(table: pl.DataFrame, source: str, normal: pl.Expr, value: str) -> pl.DataFrame:
    """The repairs of rows that are called normal although one of PATHOLOGIES is 1, see ``no_finding``.

    table: with the 14 state columns. normal: whether the source calls the row normal. value: the column to quote.
    """
    rows = table.filter(normal & pl.any_horizontal(pl.col(f) == 1 for f in PATHOLOGIES))
    return rows.select(pl.lit(source).alias("source"), pl.col("row").cast(pl.String), "image_id",
                       pl.lit("No Finding").alias("field"), pl.col(value).alias("value"))  # fmt: skip


def unread(table: pl.DataFrame, source: str, fields: dict[str, str]) -> pl.DataFrame:
    """One row per value that was given in the raw column but could not be used (``fields``: field -> raw
    column).

    Words that mean "not known" (nan, None, Unknown) are no values.
    """
    unknown = ("", "nan", "none", "unknown", "unk", "o")
    where = [pl.lit(source).alias("source"), pl.col("row").cast(pl.String), "image_id"]
    frames = [pl.DataFrame(schema=REPAIRS)]
    for field, raw in fields.items():
        given = ~pl.col(raw).str.strip_chars().str.to_lowercase().is_in(unknown)
        rows = table.filter(pl.col(field).is_null() & given)
        frames.append(rows.select(*where, pl.lit(field).alias("field"), pl.col(raw).alias("value")))
    return pl.concat(frames)


def years(text: pl.Expr) -> pl.Expr:
    """Age in years from ``63``, ``060Y``, ``006M``, ``02W`` or ``010D``; null where empty or implausible."""
    text = text.str.strip_chars().str.to_uppercase()
    parts = text.str.extract_groups(r"^(?<number>\d{1,4}(?:\.\d+)?)\s*(?<unit>[YMWD]?)$").struct
    per_year = parts["unit"].replace_strict({"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}, default=None)
    age = parts["number"].cast(pl.Float64, strict=False) / per_year
    return pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32)


def sex(text: pl.Expr) -> pl.Expr:
    """ "M" or "F" from m, F, male, Female; null for all else."""
    text = text.str.strip_chars().str.to_lowercase()
    return text.replace_strict({"m": "M", "male": "M", "f": "F", "female": "F"}, default=None, return_dtype=pl.String)


def states(present: pl.Expr, unknown: dict[str, pl.Expr], annotated: tuple[str, ...]) -> list[pl.Expr]:
    """The 14 state columns of a source that lists what is present: listed 1, else 0, else null where unknown.

    present: list column of the findings that the row's labels mean. unknown: finding -> condition under
    which a finding that is not listed may still be there. annotated: the findings that the source looks
    for at all.
    """
    columns = []
    for finding in FINDINGS:
        absent = pl.lit(0.0) if finding in annotated else pl.lit(None)
        if finding in unknown:
            absent = pl.when(~unknown[finding]).then(absent)
        state = pl.when(present.list.contains(finding)).then(1.0).otherwise(absent)
        columns.append(state.cast(pl.Float32).alias(finding))
    return columns
