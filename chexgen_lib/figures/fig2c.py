"""Figure 2c of a reader study of your own: agreement with the report, beside the paper's readers.

This study's intervals are over cases and, for all readers, over readers too; the paper prints standard deviations. The
paper's cases are others, so only differences between arms compare.
"""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.figures.style import PAPER, THIS_RUN
from chexgen_lib.paper import published

NUMBERS = ("value", "low", "high", "sd")
COLUMNS = {
    **dict.fromkeys(("source", "reader", "arm"), pl.String),
    **dict.fromkeys(NUMBERS, pl.Float64),
    "cases": pl.Int64,
}
COLOURS = (style.GREEN, style.BLUE, style.VERMILION, style.PURPLE, style.ORANGE)


def table(results: pl.DataFrame) -> pl.DataFrame:
    """What the figure plots: source, reader, arm, value, low, high, sd, cases.

    Args:
        results: `readers.analysis.analyse` of a study with the task agreement; all readers come first.
    """
    ours = results.filter(task="agreement", measure="mean score").with_columns(source=pl.lit(THIS_RUN))
    paper = published.load("fig2c").with_columns(
        source=pl.lit(PAPER), reader="category", cases=pl.col("dataset").str.extract(r"n=(\d+)").cast(pl.Int64)
    )
    return pl.concat(style.tidy(part, COLUMNS) for part in (ours, paper))


def draw(plotted: pl.DataFrame) -> Figure:
    """Figure 2c from `table(...)`."""
    style.use()
    widths = [plotted.filter(source=source)["reader"].n_unique() + 1 for source in (THIS_RUN, PAPER)]
    fig = Figure(figsize=(style.PAGE, 2.8), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True, width_ratios=widths)
    titles = "this study, 95 % CI", "the paper's readers (bars: sd)"
    for ax, source, title in zip(panels, (THIS_RUN, PAPER), titles, strict=True):
        _means(ax, plotted.filter(source=source))
        style.panel(ax, title, source)
    panels[0].set_ylabel("agreement with the report, -2 to 2")
    return fig


def _means(ax: Axes, rows: pl.DataFrame) -> None:
    """Means of one source: a group for each reader, in it a marker for each arm."""
    readers, arms = (rows[column].unique(maintain_order=True).to_list() for column in ("reader", "arm"))
    rows = rows.with_columns(low=pl.coalesce("low", pl.col("value") - pl.col("sd")))
    rows = rows.with_columns(high=pl.coalesce("high", pl.col("value") + pl.col("sd")))
    step = 0.6 / len(arms)
    for k, arm in enumerate(arms):
        own = rows.filter(arm=arm)
        at = np.array([readers.index(reader) for reader in own["reader"]]) + step * (k - (len(arms) - 1) / 2)
        look = {"color": COLOURS[k % len(COLOURS)], "marker": "os^Dv"[k % 5], "markersize": 4}
        style.interval(ax, own, at, label=arm, **look)
    ax.axhline(0, color=style.GREY, linewidth=0.6)
    ax.set_xticks(range(len(readers)), readers)
    ax.set_xlim(-0.6, len(readers) - 0.4)
    ax.set_ylim(-2.3, 3.4)  # the legend lies above 2
    ax.set_yticks(range(-2, 3))
    ax.legend(loc="upper left", title=f"{rows['cases'][0]} cases", title_fontsize=7, ncols=3)
