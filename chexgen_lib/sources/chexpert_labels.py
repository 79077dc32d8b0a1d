"""Tables that CheXpert's labeller wrote, one column per finding: CheXpert, MIMIC-CXR-JPG, BRAX (Irvin et al. 2019).

A cell is 1 (present), 0 (absent), -1 (uncertain) or blank (not mentioned).
"""

import polars as pl

from chexgen_lib.records import FINDINGS
from chexgen_lib.sources.columns import PATHOLOGIES, cell, no_finding

NAMES = {finding: "Pleural Effusion" if finding == "Effusion" else finding for finding in FINDINGS}
COLUMNS = tuple(NAMES.values())
STATES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0, "": None}


def unknown_state() -> pl.Expr:
    """Reason to reject a row with a cell that is none of 1, 0, -1 and blank; null for the others."""
    wrong = (
        pl.when(~text.is_in(list(STATES))).then(pl.format("unknown state {} '{}'", pl.lit(finding), text))
        for finding, text in _cells().items()
    )
    return pl.coalesce(wrong)


def with_states(table: pl.DataFrame) -> pl.DataFrame:
    """The table with 14 states in place of its cells, `labels` (what is 1, in its words), `uncertain` (what is -1).

    Blank and -1 become null. Where No Finding is 1, a pathology that is not mentioned is 0; where a pathology is 1, No
    Finding is 0. Support Devices decide neither (torchxrayvision's convention).
    """
    cells = [f"cell {name}" for name in COLUMNS]
    table = table.rename(dict(zip(COLUMNS, cells, strict=True)))
    meant = table.select(cells).unique()  # a few thousand combinations, whatever the table's length
    meant = meant.hstack(_meaning(meant.rename(dict(zip(cells, COLUMNS, strict=True)))))
    return table.join(meant, on=cells, how="left", nulls_equal=True, maintain_order="left").drop(cells)


def _meaning(cells: pl.DataFrame) -> pl.DataFrame:
    raw = {f: text.replace_strict(STATES, default=None, return_dtype=pl.Float32) for f, text in _cells().items()}
    present = pl.concat_list(pl.when(state == 1).then(pl.lit(NAMES[f])) for f, state in raw.items())
    uncertain = pl.concat_list(pl.when(state == -1).then(pl.lit(f)) for f, state in raw.items())
    healthy = raw["No Finding"] == 1
    states = {f: pl.when(state >= 0).then(state) for f, state in raw.items()}
    states |= {f: pl.when(healthy & raw[f].is_null()).then(0.0).otherwise(states[f]) for f in PATHOLOGIES}
    found = cells.select(**states, labels=present.list.drop_nulls(), uncertain=uncertain.list.drop_nulls())
    return found.with_columns(no_finding())


def _cells() -> dict[str, pl.Expr]:
    """Finding -> its cell as text."""
    return {finding: cell(pl.col(NAMES[finding])) for finding in FINDINGS}
