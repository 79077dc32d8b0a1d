"""Which figures and tables of the paper a run has made, and why not the others.

`items.csv` has a row for each, with the paper's number: what it shows, the stage and the file (below the run's folder
of figures; with ../ below the run's own) that make it here, rows that the file must hold (`column=value`, joined by ;),
the setting without which a profile does not make it (`setting=value` of a list: without that value in it), and why no
run makes it alone.
"""

import functools
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

MADE, MISSING = "made", "MISSING"


def table(place: Path, params: Mapping[str, Any], stages: Collection[str]) -> pl.DataFrame:
    """A row for each item: item, shows, stage, file (null where there is none), state (`MADE` or the reason).

    Args:
        place: the repository, or a copy of it, in which the profile ran.
        params: the run's, by which an item is none of its profile.
        stages: that ran.

    Returns:
        A state begins with `MISSING` where one of these stages should have made the item.
    """
    with (files(__package__) / "items.csv").open("rb") as stream:
        listed = pl.read_csv(stream, glob=False)
    states = [_state(row, place, params, stages) for row in listed.to_dicts()]
    return listed.select("item", "shows", "stage", "file", state=pl.Series(states))


def missing(found: pl.DataFrame) -> pl.DataFrame:
    """The rows of a `table` whose items should have been made."""
    return found.filter(pl.col("state").str.starts_with(MISSING))


def page(found: pl.DataFrame) -> str:
    """The table as text: a line for each item, and how many are made."""
    lines = [f"{'item':<13} {'shows':<50} {'file':<30} state"]
    for row in found.iter_rows(named=True):
        file = (row["file"] or "").removeprefix("../")
        lines.append(f"{row['item']:<13} {row['shows']:<50} {file:<30} {row['state']}")
    made = int((found["state"] == MADE).sum())
    return "\n".join([*lines, f"{made} of {len(found)} items made"])


def _state(row: dict[str, str | None], place: Path, params: Mapping[str, Any], stages: Collection[str]) -> str:
    if row["file"] is None:
        return row["otherwise"] or ""
    if row["stage"] not in stages:
        return f"not asked for: {row['stage']}"
    if row["needs"] and not _is_set(params, *row["needs"].split("=")):
        return f"not in this profile: {row['needs']} is not set"
    below = params["root"] if row["file"].startswith("../") else params["figures_dir"]
    path = place / below / row["file"].removeprefix("../")
    if not path.is_file():
        return f"{MISSING}: {row['stage']} did not write it"
    if row["rows"] is None or _holds(path, dict(pair.split("=", 1) for pair in row["rows"].split(";"))):
        return MADE
    return row["otherwise"] or f"{MISSING}: no row with {row['rows']}"


def _is_set(params: Mapping[str, Any], name: str, among: str | None = None) -> bool:
    """Whether a setting ("cohort.few_shot_sources") holds anything, or a value among others."""
    found = functools.reduce(lambda level, key: (level or {}).get(key), name.split("."), params)
    return bool(found) if among is None else among in (found or ())


def _holds(path: Path, wanted: dict[str, str]) -> bool:
    """Whether a CSV file has a row of these values, with a `value` where it has such a column."""
    content = pl.read_csv(path, infer_schema=False, glob=False)
    if not set(wanted) <= set(content.columns):
        return False
    keep = [pl.col(column) == value for column, value in wanted.items()]
    if "value" in content.columns and "x" not in content.columns:
        keep.append(pl.col("value").is_not_null())
    return content.filter(*keep).height > 0
