"""The numbers that the paper prints, read from one CSV (`published_results.csv`, beside this file)."""

from functools import cache
from pathlib import Path

import polars as pl

COLUMNS = ("item", "dataset", "arm", "category", "metric", "value", "sd", "note")


@cache
def _table() -> pl.DataFrame:
    table = pl.read_csv(Path(__file__).with_name("published_results.csv"), infer_schema_length=None, glob=False)
    if tuple(table.columns) != COLUMNS:
        raise ValueError(f"published_results.csv has the columns {table.columns}, expected {list(COLUMNS)}")
    return table


def items() -> list[str]:
    """Names of the figures and tables that have published numbers."""
    return _table()["item"].unique(maintain_order=True).to_list()


def load(item: str) -> pl.DataFrame:
    """Rows of one figure or table, for example `load("fig2a")`; columns as in `COLUMNS`.

    `value` and `sd` are in the unit that `metric` names; `sd` and `note` are null where the paper has none. Raises
    ValueError, with the known names, when the paper has no such item.
    """
    rows = _table().filter(pl.col("item") == item)
    if rows.is_empty():
        raise ValueError(f"no published numbers for {item!r}; known items: {', '.join(items())}")
    return rows
