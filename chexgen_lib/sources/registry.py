"""All datasets at a glance: what each is, what of it lies on this disk, and its counts beside the paper's."""

from pathlib import Path

import polars as pl
from tqdm import tqdm

from chexgen_lib import sources
from chexgen_lib.paper import published
from chexgen_lib.records import RecordError
from chexgen_lib.sources.datasheet import EMPTY, MISSING, PRESENT, ROLES, Datasheet

SHIPPED = "ships with torchxrayvision"
INTRODUCTION = """Made from the datasheets in `chexgen_lib/sources` by `make docs`.

Put each dataset, or a link to it, into a folder of its source's name below a data root `DATA`;
`chexgen data check --source NAME --root DATA` then says what is missing. Patterns are those of Python's `Path.glob`. A
part that is optional is not needed to read the records, or is one of several forms of the same."""


def overview(root: Path | None = None) -> pl.DataFrame:
    """One row a dataset: source, title, role, cases in the paper (ED Tables 1 and 2), state below a data root."""
    _check_root(root)
    rows = [(s.source, s.title, s.role, paper_cases(s), _state(s, root)) for s in sheets()]
    columns = {"source": pl.String, "title": pl.String, "role": pl.String, "paper": pl.Int64, "state": pl.String}
    return pl.DataFrame(rows, schema=columns, orient="row")


def sheets() -> list[Datasheet]:
    """Every dataset's datasheet, in the order of the roles."""
    found = [sources.module(source).DATASHEET for source in sources.ALL]
    return sorted(found, key=lambda sheet: ROLES.index(sheet.role))


def paper_cases(sheet: Datasheet) -> int | None:
    """Cases of a dataset in the paper's ED Tables 1 and 2, None where they do not list it."""
    tables = pl.concat([published.load("table1"), published.load("table2")])
    values = dict(tables.select("dataset", pl.col("value").cast(pl.Int64)).iter_rows())
    return values.get(sheet.paper_name)


def load_all(root: Path | None = None) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """(records, rejects) of the shipped sources, and of those of stage I that have a folder below the data root.

    A dataset that lies below the root is read from there, and `image` begins with its folder.
    """
    _check_root(root)
    stage1 = [sheet.source for sheet in sheets() if sheet.role == "stage I"]
    loaded = {}
    for source in tqdm([*sources.SOURCES, *(s for s in stage1 if s not in sources.SOURCES)], desc="reading"):
        if root is not None and (root / source).is_dir():
            records, rejects = sources.load(source, root / source)
            if source == "nih":  # its table does not say in which folder an image lies
                records, absent = sources.module("nih").attach_images(records, root / source)
                rejects = pl.concat([rejects, absent])
            loaded[source] = records.with_columns(image=pl.lit(f"{source}/") + pl.col("image")), rejects
        elif source in sources.SOURCES:
            loaded[source] = sources.load(source)
    return loaded


def check(source: str, root: Path | None = None) -> tuple[str, bool]:
    """A report on one dataset in `root / source` (its shipped table without a root), and whether it can be used.

    Raises:
        RecordError: for an unknown source, or one that is not shipped where no root is given.
    """
    sheet = sources.module(source).DATASHEET
    lines = [f"{sheet.title} ({source}): {sheet.size}"]
    if root is None and not sheet.shipped:
        raise RecordError(f"{source}: its table is not shipped; name the data root that holds {source}/ (--root)")
    if root is not None:
        _check_root(root)
        folder = _folder(sheet, root)
        parts = sheet.check(folder)
        lines += [text(parts)]
        wanting = parts.filter(pl.col("state").is_in([MISSING, EMPTY]))
        if not wanting.is_empty():
            first = wanting.row(0, named=True)
            lines += [f"first remedy: {folder / first['part']} ({first['holds']}) is {first['state']}.", _obtain(sheet)]
            return "\n".join(lines), False
    try:
        records, rejects = sources.load(source, None if root is None else folder)
    except RecordError as error:
        return "\n".join([*lines, f"first remedy: {error}"]), False
    paper = paper_cases(sheet)
    beside = "not in ED Tables 1 and 2" if paper is None else f"paper: {paper:,} cases"
    rows = records.height + rejects.height
    lines += [f"{rows:,} rows = {records.height:,} records + {rejects.height:,} rejects ({beside})"]
    reasons = rejects["reason"].value_counts(sort=True).head(5)
    lines += [f"  {n:,} x {reason}" for reason, n in reasons.iter_rows()]
    return "\n".join(lines), not records.is_empty()


def _check_root(root: Path | None) -> None:
    if root is not None and not root.is_dir():
        raise RecordError(f"{root}: no such folder; name the data root, which holds a folder for each dataset")


def _folder(sheet: Datasheet, root: Path) -> Path:
    folder = root / sheet.source
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; put the dataset there, or a link to it. {_obtain(sheet)}")
    return folder


def _obtain(sheet: Datasheet) -> str:
    return f"To obtain it: {sheet.obtain}."


def _state(sheet: Datasheet, root: Path | None) -> str:
    absent = SHIPPED if sheet.shipped else "absent"
    if root is None or not (root / sheet.source).is_dir():
        return absent
    parts = sheet.check(root / sheet.source)
    if not (parts["state"] == PRESENT).any():
        return "empty"
    wanting = parts.filter(pl.col("state").is_in([MISSING, EMPTY])).height
    return f"{wanting} of {len(sheet.parts)} parts missing" if wanting else "present"


def text(table: pl.DataFrame) -> str:
    """A table as plain text."""
    options = dict(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=100, tbl_width_chars=180, tbl_formatting="NOTHING")
    hidden = dict(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True)
    with pl.Config(**options, **hidden):
        return str(table)


def page() -> str:
    """docs/datasets.md: every datasheet, as Markdown."""
    lines = ["# The datasets", "", INTRODUCTION, ""]
    for sheet in sheets():
        paper = paper_cases(sheet)
        lines += [f"## {sheet.title}", "", "| | |", "|---|---|", f"| source | `{sheet.source}` |"]
        lines += [f"| role | {sheet.role} |", f"| size | {sheet.size} |"]
        lines += [f"| cases in the paper | {paper:,} |"] if paper is not None else []
        lines += [f"| licence | {sheet.licence} |", f"| to obtain | {sheet.obtain} |"]
        lines += [f"| comes with torchxrayvision | {'yes' if sheet.shipped else 'no'} |"]
        lines += [f"| cite | {sheet.citation} |", "", f"Expected in `{sheet.source}/` below the data root:", ""]
        lines += [f"- `{p.pattern}`: {p.holds}{'' if p.needed else ' (optional)'}" for p in sheet.parts]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
