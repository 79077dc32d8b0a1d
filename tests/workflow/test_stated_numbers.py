"""Estimates that pages state are those of committed tables: a number typed by hand outlives the run that gave it."""

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import polars as pl
import pytest

NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
# 0.73 [0.70, 0.77], 6.8 % [0, 12.5], 22.4 dB [21.8, 23.1]
ESTIMATE = re.compile(rf"({NUMBER})( %| dB)?\*{{0,2}} \[({NUMBER}), ({NUMBER})\]")
EARLIER = re.compile(r"[Vv]ersion (?!before)|the version before|from nothing")  # says which run it is of, with no table
COLUMNS = [(name, "low", "high") for name in ("value", "gain")]
COLUMNS += [(name, f"{name}_low", f"{name}_high") for name in ("difference", "worth", "beyond")]
PAGES = {
    "README.md": ("figures", "benchmarks"),
    "docs/results.md": ("figures", "runs/laptop", "benchmarks"),
    "docs/foundation.md": ("benchmarks",),
    "docs/counterfactuals.md": ("figures",),
    "docs/privacy.md": ("benchmarks",),
    "figures/nih-mini/README.md": ("figures/nih-mini",),
}
# Of figures/nih-mini: rows of metrics.json, which that run did not leave here
WITHOUT_TABLE = {
    "0.79 [0.72, 0.85]",
    "0.72 [0.60, 0.83]",
    "0.66 [0.60, 0.73]",
    "0.75 [0.67, 0.83]",
    "0.75 [0.58, 1.18]",
    "6.8 % [0, 12.5]",
}


def estimates(folder: Path) -> Iterator[tuple[float, float, float]]:
    """Value, low and high of every estimate in a folder's tables, or in the metrics of a run."""
    for path in folder.glob("*.csv"):
        table = pl.read_csv(path, infer_schema_length=None)
        for columns in COLUMNS:
            if set(columns) <= set(table.columns):
                yield from table.select(pl.col(columns).cast(pl.Float64, strict=False)).drop_nulls().iter_rows()
    for path in folder.glob("*/metrics.json"):
        yield from nested(json.loads(path.read_text()))


def nested(metrics: dict) -> Iterator[tuple[float, float, float]]:
    if {"value", "low", "high"} <= set(metrics):
        yield metrics["value"], metrics["low"], metrics["high"]
    for part in metrics.values():
        yield from nested(part) if isinstance(part, dict) else ()


def stated(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Each estimate in a page as it is printed, its unit and its three numbers, but for those of earlier versions.

    A sentence says which version it is of, or the head of a table's column.
    """
    heads: list[str] = []
    for line in text.splitlines():
        if line.startswith("|"):
            parts = line.split("|")
            heads = heads or parts
        else:
            parts, heads = re.split(r"(?<=[.;]) (?=[A-Z*])", line), []
        for part, head in zip_longest(parts, heads, fillvalue=""):
            for match in ESTIMATE.finditer(part):
                value, unit, low, high = match.groups()
                if not EARLIER.search(part + head):
                    yield match[0], unit or "", [n.replace(",", "") for n in (value, low, high)]


def is_in(numbers: list[str], unit: str, known: np.ndarray) -> bool:
    """Whether some estimate of `known` [N, 3] rounds to these numbers, each at the digits that it is printed with."""
    wanted = np.array([float(n) for n in numbers])
    half = np.array([0.5 * 10.0 ** -len(n.partition(".")[2]) for n in numbers]) + 1e-9
    return bool((np.abs(known * (100 if unit == " %" else 1) - wanted) <= half).all(1).any())


@pytest.mark.parametrize("page", PAGES)
def test_every_estimate_of_a_page_stands_in_a_committed_table(page, root):
    known = np.array([row for folder in PAGES[page] for row in estimates(root / folder)])
    wanted = (estimate for estimate in stated((root / page).read_text()) if estimate[0] not in WITHOUT_TABLE)
    assert [text for text, unit, numbers in wanted if not is_in(numbers, unit, known)] == []


def test_a_number_that_no_table_has_is_found():
    known = np.array([[0.7338, 0.6975, 0.7721], [0.0307, 0.0142, 0.0649]])
    page = "r is 0.73 [0.70, 0.77], 3.1 % [1.4, 6.5]. AUROC 0.74 [0.70, 0.77]. Version 1 had 0.5 [0.4, 0.6]."
    assert [text for text, unit, numbers in stated(page) if not is_in(numbers, unit, known)] == ["0.74 [0.70, 0.77]"]
