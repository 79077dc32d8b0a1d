"""All on one page: the paper's claims that a run could test (`figures.claims`), with its verdict on each."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chexgen_lib.estimates.wording import (
    NOT_DETECTABLE,
    NOT_SPECIFIC,
    OPPOSITE,
    SUPPORTED,
    UNMEASURABLE,
    UNMEASURED,
)
from chexgen_lib.figures import style

LOOKS = {  # colour, marker, size
    SUPPORTED: (style.BLUE, "o", 4),
    NOT_SPECIFIC: (style.SKY, "v", 4),
    OPPOSITE: (style.VERMILION, "X", 4),
    NOT_DETECTABLE: (style.GREY, "s", 4),
    UNMEASURABLE: (style.GREY, "$?$", 7),  # a letter looks smaller than a square
}
PANELS = {  # measures on one axis -> its label
    ("AUROC",): "gain of AUROC",
    ("Pearson r",): "gain of Pearson r",
    ("Positive Dice", "Dice", "mAP50"): "gain of Dice or mAP50",
    ("MAE",): "decrease of MAE (score of 1)",
    ("worst-group F1", "best-worst gap of F1"): "gain of F1, decrease of its gap",
}
CONTROL = {"color": style.ORANGE, "marker": "x", "markersize": 5, "linestyle": "none"}
PAPERS = {"color": style.BLACK, "marker": "D", "markersize": 4, "linestyle": "none", "markerfacecolor": "none"}


def draw(table: pl.DataFrame) -> Figure:
    """This run's gains with intervals, their controls, and the paper's gains: a row per claim, an axis per measure."""
    style.use()
    parts = [(label, table.filter(pl.col("measure").is_in(measures))) for measures, label in PANELS.items()]
    parts = [(label, rows) for label, rows in parts if len(rows)]
    fig = Figure(figsize=(style.PAGE, 0.5 + 0.5 * len(parts) + 0.2 * len(table)), layout="constrained")
    axes = fig.subplots(len(parts), 1, squeeze=False, height_ratios=[len(rows) + 0.5 for _, rows in parts])[:, 0]
    for ax, (label, rows) in zip(axes, parts, strict=True):
        _gains(ax, rows)
        ax.set_xlabel(label, fontsize=7, labelpad=1)
    handles = [
        *(Line2D([], [], color=colour, marker=marker, markersize=size, linestyle="none", label=f"this run: {name}")
          for name, (colour, marker, size) in LOOKS.items()),
        Line2D([], [], **CONTROL, label="its control (named in the CSV)"),
        Line2D([], [], **PAPERS, label="the paper's gain"),
    ]  # fmt: skip
    fig.legend(
        handles=handles,
        loc="outside upper center",
        ncols=3,
        title="positive is better; bars: 95 % CI",
        title_fontsize=7,
    )
    return fig


def _gains(ax: Axes, rows: pl.DataFrame) -> None:
    """The claims of one measure, on an axis that holds all their intervals, with zero in the middle."""
    estimates = rows.rename({"gain": "value"})
    for at, row in enumerate(rows.iter_rows(named=True)):
        if row["verdict"] != UNMEASURED:
            colour, marker, size = LOOKS[row["verdict"]]
            look = {"color": colour, "marker": marker, "markersize": size, "capsize": 2, "linewidth": 1.2}
            style.interval(ax, estimates[at : at + 1], np.array([at]), horizontal=True, **look)
        for name, look in (("control", CONTROL), ("paper", PAPERS)):
            if row[name] is not None:
                ax.plot(row[name], at, **look)
    ax.axvline(0, color=style.GREY, linewidth=0.6)
    labels = zip(rows["item"], rows["claim"], rows["measure"], strict=True)
    ax.set_yticks(range(len(rows)), [f"{item}  {claim}, {measure}" for item, claim, measure in labels])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    drawn = rows.select("low", "high", "gain", "control", "paper").cast(pl.Float64).to_numpy()
    reach = np.abs(drawn[np.isfinite(drawn)]).max(initial=0) or 1.0  # nothing was measured, or all gains are 0
    ax.set_xlim(-1.1 * reach, 1.1 * reach)
    ax.locator_params(axis="x", nbins=5)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [UNMEASURED if n is None else f"n = {n:,}" for n in rows["n"]])
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
