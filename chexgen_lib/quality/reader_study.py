"""Scores of a reader study as Figure 2c and notebook 07 read them (paper: two radiologists, 150 cases, -2 to 2).

`chexgen readers make` writes the forms of a study, `chexgen readers score` checks the answers and writes `FILE` into
its folder; see docs/reader_study.md.
"""

from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import estimate, paired_wilcoxon
from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling

ANCHORS = {  # paper, Methods, "Quality Assessment of Generated Images"
    -2: "complete mismatch between image and report",
    -1: "key pathological findings are missing",
    0: "major findings are present, details are missing",
    1: "good alignment with most aspects of the report",
    2: "perfect correspondence with all reported findings",
}
FILE = "agreement.csv"
COLUMNS = ("reader", "case", "arm", "score")


def read(folder: str | Path) -> pl.DataFrame:
    """Agreement scores of a study: reader, case, arm, score (Int64, -2 to 2).

    Raises:
        FileNotFoundError: if the study has not been scored, or had no task "agreement".
        ValueError: naming the row of a score that is missing, repeated or not one of -2 to 2.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `chexgen readers score {folder}` (a study with agreement)")
    table = pl.read_csv(path, infer_schema=False, glob=False)
    if missing := [c for c in COLUMNS if c not in table.columns]:
        raise ValueError(f"{path}: columns {missing} are missing; run `chexgen readers score {folder}` again")
    table = table.select(COLUMNS).with_columns(value=pl.col("score").cast(pl.Int64, strict=False))
    wrong = ~pl.col("value").is_in(list(ANCHORS)).fill_null(False) | ~pl.struct("reader", "case", "arm").is_unique()
    if bad := table.with_row_index("row", offset=1).filter(wrong).rows():
        raise ValueError(f"{path}, row {bad[0][0]} {bad[0][1:5]}: needs one score of -2, -1, 0, 1 or 2 for each image")
    expected = np.prod([table[column].n_unique() for column in ("reader", "case", "arm")])
    if len(table) != expected:
        raise ValueError(
            f"{path}: {len(table)} scores, expected {expected}: every reader scores every case of each arm"
        )
    return table.select("reader", "case", "arm", score="value").sort("reader", "case", "arm")


def summarise(scores: pl.DataFrame, *, baseline: str, n_resamples: int = 1000, seed: int = 0) -> pl.DataFrame:
    """Each reader's mean of each arm with its interval over cases, and the paired test against `baseline`.

    Returns:
        reader, arm, value, sd (over cases), low, high, n (cases), p_wilcoxon (None for the baseline).
    """
    if baseline not in scores["arm"].to_list():
        raise ValueError(f"baseline {baseline!r} is not among the arms {sorted(set(scores['arm']))}")
    rows = []
    for (reader, arm), group in scores.sort("case").group_by("reader", "arm", maintain_order=True):
        own = group["score"].to_numpy()
        other = scores.filter(pl.col("reader") == reader, pl.col("arm") == baseline).sort("case")["score"].to_numpy()
        numbers = estimate(mean(own, Resampling(group["case"], n_resamples, seed).weights))
        p = None if arm == baseline else paired_wilcoxon(own, other)
        rows.append(
            {"reader": reader, "arm": arm} | numbers | {"sd": group["score"].std(), "n": len(own), "p_wilcoxon": p}
        )
    columns = ["reader", "arm", "value", "sd", "low", "high", "n", "p_wilcoxon"]
    return pl.DataFrame(rows, infer_schema_length=None).select(columns).sort("reader", "arm")
