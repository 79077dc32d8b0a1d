"""Record columns that many readers derive in the same way: age, sex and the states of the 14 findings."""

import polars as pl

from chexgen_lib.records import FINDINGS, MAX_AGE

# How R, pandas, databases and spreadsheets write an empty cell, in any case.
ABSENT = frozenset({"", "na", "n/a", "<na>", "#n/a", "nan", "null", "none"})
# A radiograph with one of these is not normal; one with a device may be.
PATHOLOGIES = tuple(f for f in FINDINGS if f not in ("No Finding", "Support Devices"))


def years(text: pl.Expr) -> pl.Expr:
    """Age in years from `63`, `060Y`, `006M`, `02W` or `010D`; null where empty or implausible."""
    text = text.str.strip_chars().str.to_uppercase()
    parts = text.str.extract_groups(r"^(?<number>\d{1,4}(?:\.\d+)?)\s*(?<unit>[YMWD]?)$").struct
    per_year = parts["unit"].replace_strict({"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}, default=None)
    age = parts["number"].cast(pl.Float64, strict=False) / per_year
    return pl.when(age.is_between(0, MAX_AGE)).then(age).cast(pl.Float32)


def cell(text: pl.Expr) -> pl.Expr:
    """A cell without spaces around it; "" where a program that wrote the table again says that nothing is there."""
    text = text.str.strip_chars()
    return pl.when(text.str.to_lowercase().is_in(ABSENT)).then(pl.lit("")).otherwise(text).name.keep()


def prose(text: pl.Expr) -> pl.Expr:
    """A report's text without spaces around it; null where it holds no word, or says that nothing is there."""
    return pl.when(cell(text).str.contains(r"\w")).then(text.str.strip_chars())


def without_ending(name: pl.Expr) -> pl.Expr:
    """An image's id where tables write it as a file's name, too: one image must not have two ids."""
    return name.str.strip_chars().str.replace(r"(?i)(\.(png|jpe?g|dcm|dicom))+$", "")


def slashed(path: pl.Expr) -> pl.Expr:
    """A path that a table was given on Windows, as the publisher writes it."""
    return path.str.replace_all("\\", "/", literal=True)


def sex(text: pl.Expr) -> pl.Expr:
    """ "M" or "F" from m, F, male, Female; null for all else."""
    text = text.str.strip_chars().str.to_lowercase()
    return text.replace_strict({"m": "M", "male": "M", "f": "F", "female": "F"}, default=None, return_dtype=pl.String)


def states(present: pl.Expr, unknown: dict[str, pl.Expr], annotated: tuple[str, ...]) -> list[pl.Expr]:
    """The 14 state columns of a source that lists what is present: listed 1, else 0, else null where unknown.

    Args:
        present: list column of the findings that the row's labels mean.
        unknown: finding -> condition under which a finding that is not listed may still be there.
        annotated: the findings that the source looks for at all.
    """
    columns = []
    for finding in FINDINGS:
        absent = pl.lit(0.0) if finding in annotated else pl.lit(None)
        if finding in unknown:
            absent = pl.when(~unknown[finding]).then(absent)
        state = pl.when(present.list.contains(finding)).then(1.0).otherwise(absent)
        columns.append(state.cast(pl.Float32).alias(finding))
    return columns


def own_states(labels: tuple[str, ...], present: pl.Expr, unknown: pl.Expr | None = None) -> pl.Expr:
    """The column `states` of a source with a label set of its own: 1 where listed as present, null as unknown, else 0.

    Args:
        labels: the label set, in the publisher's order.
        present, unknown: list columns of labels.
    """
    parts = []
    for label in labels:
        state = pl.when(present.list.contains(label)).then(1.0)
        if unknown is not None:
            state = state.when(unknown.list.contains(label)).then(None)
        parts.append(pl.struct(label=pl.lit(label), state=state.otherwise(0.0).cast(pl.Float32)))
    return pl.concat_list(parts).alias("states")


def no_finding() -> pl.Expr:
    """The column No Finding, 0 where one of PATHOLOGIES is 1: a reported pathology overrides "normal"."""
    ill = pl.any_horizontal(pl.col(f) == 1 for f in PATHOLOGIES)
    return pl.when(ill).then(0.0).otherwise("No Finding").cast(pl.Float32).alias("No Finding")


def contradicted(table: pl.DataFrame, source: str, normal: pl.Expr, value: str) -> pl.DataFrame:
    """The repairs of rows that are called normal although one of PATHOLOGIES is 1, see `no_finding`.

    Args:
        table: with the 14 state columns.
        source: its name.
        normal: whether the source calls the row normal.
        value: the column to quote.
    """
    rows = table.filter(normal & pl.any_horizontal(pl.col(f) == 1 for f in PATHOLOGIES))
    return rows.select(
        pl.lit(source).alias("source"),
        pl.col("row").cast(pl.String),
        "image_id",
        pl.lit("No Finding").alias("field"),
        pl.col(value).alias("value"),
    )
