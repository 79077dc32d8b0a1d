"""Reading a dataset's table without losing a row: what is damaged, rejected or repaired is listed."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from chexgen_lib.records import RecordError
from chexgen_lib.sources.columns import ABSENT
from chexgen_lib.sources.files import read_text

_QUOTED = re.compile(rb'"[^"]*"')
_NAMELESS = re.compile(r"(?:Unnamed: \d+(?:\.\d+)?)?")  # of row names that were saved, and what pandas calls them then
_ROUNDED = r":\d+(\.\d+)?[eE]\+\d+$"  # an id with many digits, as spreadsheets and pandas save it
_ROW = re.compile(rb'(?:"[^"]*"|[^"\n]+)++(?=\n|\Z)')
REJECTS = {"source": pl.String, "row": pl.String, "image_id": pl.String, "reason": pl.String}
REPAIRS = {
    "source": pl.String,
    "row": pl.String,
    "image_id": pl.String,
    "field": pl.String,
    "value": pl.String,
}


def shipped(name: str) -> Path:
    """A file of torchxrayvision's data folder, found without importing the package (that takes seconds)."""
    spec = find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise RecordError("torchxrayvision is not installed: pip install torchxrayvision, or give a path")
    return Path(spec.origin).parent / "data" / name


def read_table(
    path: str | Path, columns: tuple[str, ...], optional: tuple[str, ...] = (), other_names: Mapping[str, str] = {}
) -> pl.DataFrame:
    """Read a CSV as text columns, plus `row` (1-based) and `broken`.

    It may be packed (`files.read_text`), or as spreadsheets save it (`_plain`).
    A row with too many or too few fields is kept as `broken` (all its columns null), never guessed at. Of the columns
    `optional` those are read that are there. Numbers with a comma in place of the point (2,5), as programs of some
    countries write them between semicolons, get the point.

    Args:
        other_names: of columns in other releases -> the name in `columns`, by which they are returned.

    Raises:
        RecordError: if the file is missing, damaged, empty, or lacks one of `columns`; it names the file.
    """
    path = Path(path)
    raw = read_text(path)
    raw = raw if b"\n" in raw else raw.replace(b"\r", b"\n")
    try:
        raw, header, delimiter = _plain(raw, [c for c in columns if c not in other_names.values()])
    except csv.Error as error:
        raise RecordError(f"{path}: not a readable CSV ({error}); fetch it again") from error
    named = {name: other for other, name in other_names.items() if other in header and name not in header}
    if missing := [c for c in columns if named.get(c, c) not in header]:
        raise RecordError(f"{path}: columns {missing} are missing; the file has {header[:12]}")
    wanted = (*(named.get(c, c) for c in columns), *(c for c in optional if c in header))
    try:
        table = _parse(raw, wanted, delimiter).rename({other: name for name, other in named.items()})
        return _with_points(table) if delimiter == ";" else table
    except pa.ArrowException as error:
        raise RecordError(f"{path}: not a readable CSV ({error}); fetch it again") from error


def read_given(path: str | Path, needed: str, texts: Sequence[str] | None = None) -> pl.DataFrame:
    """A table that a user wrote, as `parse_given` reads it; packed or not, in any encoding of `files.read_text`.

    Raises:
        RecordError: if the file is missing, a folder, damaged or no table; it names the file.
    """
    try:
        return parse_given(read_text(Path(path)).decode(), needed, texts)
    except (csv.Error, pl.exceptions.PolarsError) as error:
        reason = next(iter(str(error).splitlines()), "no columns")
        raise RecordError(f"{path} cannot be read as a table ({reason})") from error


def parse_given(text: str, needed: str, texts: Sequence[str] | None = None) -> pl.DataFrame:
    """A table, also as spreadsheets save it (`_plain`; empty rows at its end), without pandas' and R's numbers of rows.

    Args:
        needed: a column that the table has if it is read rightly.
        texts: the columns that stay as they are written; None: all.

    Raises:
        csv.Error, PolarsError: for another text, or a row with other fields than the head's; it names the line.
    """
    given = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    plain, header, separator = _plain(given, (needed,))
    options = dict(infer_schema=False) if texts is None else dict(infer_schema_length=None)
    options["schema_overrides"] = dict.fromkeys(texts or (), pl.String)
    rows = csv.reader(io.StringIO(plain.decode()), delimiter=separator)
    other = next((row for row in rows if row and len(row) != len(header)), None)  # polars fills a short one with null
    if other and needed not in header:
        raise csv.Error(f"its first line, {separator.join(header)[:60]!r}, names no column {needed}")
    if other:
        line, mark = rows.line_num + given.startswith(b"sep="), "a tab" if separator == "\t" else f"'{separator}'"
        remedy = f"; put a text that holds {mark} into quotes" * (len(other) > len(header))
        raise csv.Error(f"line {line} has {len(other)} of the head's {len(header)} fields{remedy}")
    table = pl.read_csv(plain, separator=separator, glob=False, **options)
    filled = table.select(row=pl.any_horizontal(pl.all().is_not_null()))["row"].arg_true()
    table = table.head(filled[-1] + 1 if len(filled) else 0)
    nameless = [name for name in table.columns if _NAMELESS.fullmatch(name)]
    table = table.drop(name for name in nameless if table[name].cast(pl.String).str.contains(r"^\d+$").all())
    return _with_points(table, texts) if separator == ";" else table


def _plain(raw: bytes, needed: Sequence[str]) -> tuple[bytes, list[str], str]:
    """A table's text, the names of its columns, and what separates them: the mark by which it has those `needed`.

    Without what spreadsheets add: a line `sep=;`, last columns without a name, spaces around the names.
    """
    raw = re.sub(rb"\Asep=.\r?\n", b"", raw)
    head, end, body = raw.partition(b"\n")
    last = head.rstrip(b" \r")[-1:]
    if last and last in b",;\t":
        head, body = _without_nameless(head, body, last)
    headers = {mark: next(csv.reader([head.decode()], delimiter=mark), []) for mark in ",;\t"}
    names = {mark: [name.strip() for name in header] for mark, header in headers.items()}
    mark = next((mark for mark in names if set(needed) <= set(names[mark])), ",")
    if names[mark] != headers[mark]:
        quoted = (name.replace('"', '""') for name in names[mark])
        head = mark.join(f'"{name}"' for name in quoted).encode()
    return head + end + body, names[mark], mark


def _without_nameless(head: bytes, body: bytes, mark: bytes) -> tuple[bytes, bytes]:
    """A table without a spreadsheet's last columns, empty and without a name; not every row has them."""
    bare = head.rstrip(mark + b" \t\r")
    named, nameless = _marks(bare, mark), head.count(mark, len(bare))

    def shorter(row: re.Match) -> bytes:
        surplus = min(_marks(row[0], mark) - named, nameless)  # others are of empty fields with a name
        return re.sub(rb"%b{1,%d}\r?$" % (mark, surplus), b"", row[0]) if surplus > 0 else row[0]

    return bare, _ROW.sub(shorter, body)


def _marks(row: bytes, mark: bytes) -> int:
    """How many marks of a row separate its fields."""
    return _QUOTED.sub(b"", row).count(mark)


def _parse(raw: bytes, columns: tuple[str, ...], delimiter: str) -> pl.DataFrame:
    """The columns as text; a row with the wrong number of fields becomes null, with `broken` true."""
    broken: list[int] = []

    def note(row: pa_csv.InvalidRow) -> str:
        broken.append(row.number - 1)  # pyarrow counts the header
        return "skip"

    table = pa_csv.read_csv(
        io.BytesIO(raw),
        pa_csv.ReadOptions(use_threads=False),  # with threads the handler does not get the row's number
        pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
        pa_csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string())),
    )
    whole = pl.DataFrame(pl.from_arrow(table)).with_columns(broken=pl.lit(False))
    if not broken:
        return whole.with_row_index("row", offset=1)
    numbers = sorted(set(range(1, len(whole) + len(broken) + 1)) - set(broken))
    kept = whole.with_columns(row=pl.Series(numbers, dtype=pl.UInt32))
    lost = pl.DataFrame({"row": pl.Series(broken, dtype=pl.UInt32), "broken": [True] * len(broken)})
    return pl.concat([kept, lost], how="diagonal").sort("row").select("row", pl.exclude("row"))


def _with_points(table: pl.DataFrame, texts: Sequence[str] | None = None) -> pl.DataFrame:
    """A table of a country that separates columns by semicolons, since it writes 2.5 as 2,5: with the points of others.

    A column is one of numbers if every cell of it that is not empty is one.

    Args:
        texts: as for `parse_given`.
    """
    written = table.select(pl.col(pl.String).exclude(texts or ()).str.strip_chars().replace("", None))
    numbers = [
        column.name
        for column in written
        if column.str.contains(r"^-?\d+,\d+$").any() and column.str.contains(r"^-?\d+(,\d+)?$").all()
    ]
    pointed = pl.col(numbers).str.strip_chars().str.replace(",", ".", literal=True)
    return table.with_columns(pointed if texts is None else pointed.replace("", None).cast(pl.Float64))


def require_same_form(path: Path, given: pl.Series, wanted: pl.Series) -> None:
    """RecordError if a table that is joined by an id has `given` ids of which none is written as one of `wanted`.

    Such ids were changed (s50414267, 50414267.0): joined, the table would give nothing. One of other images, whose ids
    have the same letters and as many digits, may rightly give nothing.
    """
    given, wanted = given.drop_nulls(), wanted.drop_nulls()
    forms = [ids.str.replace_all(r"\d", "0") for ids in (given, wanted)]
    if len(given) and len(wanted) and not forms[0].is_in(forms[1].implode()).any():
        raise RecordError(
            f"{path}: its ids are not written as the dataset's, {given[0]!r} here, {wanted[0]!r} in its first table; "
            "give the publisher's table, as it was"
        )


def separate(table: pl.DataFrame, source: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a prepared table into the rows to keep and the rejects.

    If the kept rows of one patient give both sexes, `sex` becomes null in all of them: the right one is not known.

    Args:
        table: row, image_id, broken, reason, and the Record's columns. To `reason` the causes common to all sources are
            added: broken row, no image id, image id seen before.
        source: its name.

    Raises:
        RecordError: if ids are numbers that a program rounded (2.05367E+37): those of several patients would be one.
    """
    for column in ("image_id", "patient_id", "study_id"):
        rounded = table.filter(pl.col(column).str.contains(_ROUNDED)) if column in table.columns else table.clear()
        if rounded.height:
            row, given = rounded["row"][0], rounded[column][0].partition(":")[2]
            raise RecordError(
                f"{source}, row {row}: {column} {given!r} is a number that a program rounded ({rounded.height} such "
                "rows); give the publisher's table, as it was"
            )
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


def unread(table: pl.DataFrame, source: str, fields: dict[str, str]) -> pl.DataFrame:
    """One row per value that was given in the raw column but could not be used.

    Words that mean "not known" (nan, None, Unknown) do not count as values.

    Args:
        table: the rows that are kept.
        source: its name.
        fields: column of the Record -> raw column.
    """
    unknown = [*ABSENT, "unknown", "unk", "o"]
    where = [pl.lit(source).alias("source"), pl.col("row").cast(pl.String), "image_id"]
    frames = [pl.DataFrame(schema=REPAIRS)]
    for field, raw in fields.items():
        given = ~pl.col(raw).str.strip_chars().str.to_lowercase().is_in(unknown)
        rows = table.filter(pl.col(field).is_null() & given)
        frames.append(rows.select(*where, pl.lit(field).alias("field"), pl.col(raw).alias("value")))
    return pl.concat(frames)
