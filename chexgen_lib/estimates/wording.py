"""Estimates in words: one form for intervals, p-values and verdicts in every notebook, table and message."""

from collections.abc import Mapping

import polars as pl

NOT_DETECTABLE = "no detectable difference"
# Verdicts on a claim of the paper
SUPPORTED, OPPOSITE, UNMEASURED = "the paper's direction", "the opposite", "not measured"
NOT_SPECIFIC = "no more than its control"
UNMEASURABLE = "cannot be measured here"
VERDICTS = (SUPPORTED, NOT_SPECIFIC, OPPOSITE, NOT_DETECTABLE, UNMEASURABLE, UNMEASURED)


def format_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """`0.41 [0.38, 0.44]`."""
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def format_p(p: float) -> str:
    """`p = 0.034`, or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def over_runs(runs: int) -> str:
    """What the signed-rank test over so many paired runs, the paper's test, can say at best."""
    least = 2 / 2**runs
    return f"Wilcoxon's signed-rank test over {runs} runs of each arm cannot give a p below {least:.2g} (two-sided)" + (
        ", so not the paper's p < 0.001, which is printed for five runs." if least >= 0.001 else "."
    )


def estimate(row: Mapping, value: str = "value", digits: int = 3) -> str:
    """`0.412 [0.350, 0.470]` of a row with `low` and `high`; without an estimate the reason that `note` gives."""
    if row[value] is None:
        return (row.get("note") or "no estimate").partition(":")[0]
    if row["low"] is None:
        return f"{row[value]:.{digits}f}"
    return format_interval(row[value], row["low"], row["high"], digits)


def is_detectable(row: Mapping) -> bool:
    """Whether the interval of a row's difference excludes zero."""
    return row["difference"] is not None and not row["difference_low"] <= 0 <= row["difference_high"]


def verdict(row: Mapping, digits: int = 3) -> str:
    """The difference of a comparison's row in words, empty where there is none.

    `+0.021 [0.004, 0.038], p = 0.01`, or where the interval contains zero `+0.021 [-0.004, 0.046]: no detectable
    difference (minimum detectable: 0.035)`.
    """
    if row["difference"] is None:
        return ""
    if row["difference_low"] == row["difference_high"] == 0:
        return f"{0:+.{digits}f}: the same in every resample"
    span = format_interval(row["difference"], row["difference_low"], row["difference_high"], digits)
    span = span if row["difference"] < 0 else f"+{span}"
    if is_detectable(row):
        return f"{span}, {format_p(row['p'])}"
    return f"{span}: {NOT_DETECTABLE} (minimum detectable: {row['detectable']:.{digits}f})"


def claim_verdict(row: Mapping) -> str:
    """The verdict on a claim of a gain, one of `VERDICTS`.

    A gain whose interval lies above zero has the paper's direction, whatever its size, unless a control has as much:
    then it is no gain of what is claimed. Where the interval contains zero, a study that would have missed an effect of
    the paper's size has measured nothing; where the paper has none, nothing says so.

    Args:
        row: low and high of the gain's interval, better is positive, None: not measured; beyond_low (the lower end of
            its difference from the control's), detectable (the minimum detectable difference) and paper (the paper's
            gain), each None where there is none.
    """
    if row["low"] is None or row["high"] is None:
        return UNMEASURED
    if row["high"] < 0:
        return OPPOSITE
    if row["low"] > 0:
        return SUPPORTED if row["beyond_low"] is None or row["beyond_low"] > 0 else NOT_SPECIFIC
    blind = None not in (row["detectable"], row["paper"]) and row["detectable"] > abs(row["paper"])
    return UNMEASURABLE if blind else NOT_DETECTABLE


def worth(row: Mapping, digits: int = 2) -> str:
    """`0.62 [0.31, 0.95]`, the worth of a row's synthetic images; empty where they stand beside no new real ones."""
    if row["oracle"] is None:
        return ""
    if row["worth"] is None:
        return UNMEASURABLE
    return format_interval(row["worth"], row["worth_low"], row["worth_high"], digits)


def against_bar(value: float, bar: float) -> str:
    """`reached`, or `missed by 0.05`."""
    return "reached" if value >= bar else f"missed by {bar - value:.2f}"


def readable(table: pl.DataFrame, value: str = "value", digits: int = 3) -> pl.DataFrame:
    """A table for display: value and difference with their intervals as one text each, other columns as they are.

    `low`, `high`, `difference_low`, `difference_high`, `p` and `detectable` go into these texts (`estimate`,
    `verdict`), those of `estimates.worth` into `worth` and `beyond its control`; empty columns are dropped.
    """
    rows = table.to_dicts()
    columns = {value: pl.Series(value, [estimate(row, value, digits) for row in rows], pl.String)}
    hidden = {"low", "high", "sd"}
    if "difference" in table.columns:
        columns["difference"] = pl.Series("difference", [verdict(row, digits) for row in rows], pl.String)
        hidden |= {"difference_low", "difference_high", "p", "detectable"}
    if "p_runs" in table.columns:
        tested = [None if row["p_runs"] is None else format_p(row["p_runs"]) for row in rows]
        columns["Wilcoxon over runs"] = pl.Series("Wilcoxon over runs", tested, pl.String)
        hidden.add("p_runs")
    if "worth" in table.columns:
        beyond = [
            "" if r["beyond"] is None else format_interval(r["beyond"], r["beyond_low"], r["beyond_high"], digits)
            for r in rows
        ]
        columns["worth"] = pl.Series("worth", [worth(row) for row in rows], pl.String)
        columns["beyond its control"] = pl.Series("beyond its control", beyond, pl.String)
        hidden |= {"oracle", "control", "worth_low", "worth_high", "beyond", "beyond_low", "beyond_high"}
    shown = table.with_columns(**columns).drop(hidden & set(table.columns))
    kept = [c for c in shown.columns if not len(shown) or any(v not in (None, "") for v in shown[c])]
    return shown.select(kept)
