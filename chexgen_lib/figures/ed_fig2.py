"""Extended Data Figure 2: quality against the number of training pairs, and against the model's size at equal compute.

The paper prints no numbers for its figure, so none of the paper's can be shown beside this run's.
"""

from itertools import pairwise

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chexgen_lib.experiments.scaling import HELD_OUT, SEEN
from chexgen_lib.figures import style

MARKERS = "os^D"  # one a seed
MEAN = {"color": style.BLUE, "marker": "o", "markersize": 4, "linewidth": 0.9}
HOLLOW = {"markerfacecolor": "none"}
UNITS = {"MS-SSIM": "MS-SSIM", HELD_OUT: "noise error (MSE)"}


def draw(runs: pl.DataFrame, means: pl.DataFrame, fits: pl.DataFrame, measured_on: str) -> Figure:
    """Above: the first model on parts of the data with its power laws; below: all models on all pairs.

    Args:
        runs: One row per run and number, see `scaling.measures.tables`.
        means: Means over seeds with their intervals, likewise.
        fits: See `scaling.power_law.fits`.
        measured_on: What the measures are taken on: "n = 100 prompts x 4 samples".
    """
    style.use()
    measures, first = fits["measure"].to_list(), runs["model"][0]
    fig = Figure(figsize=(style.PAGE, 4.4), layout="constrained")
    grid = fig.subplots(2, len(measures), squeeze=False)
    whole = runs["pairs"].max()
    for column, measure in enumerate(measures):
        above, below = grid[:, column]
        _points(above, runs.filter(model=first), means.filter(model=first), measure, "pairs")
        _law(above, fits.row(by_predicate=pl.col("measure") == measure, named=True), runs["pairs"].unique())
        at_all = [table.filter(pl.col("pairs") == whole) for table in (runs, means)]
        _points(below, *at_all, measure, "parameters")
        for ax in (above, below):
            ax.set_ylabel(UNITS.get(measure, measure), fontsize=7)
    fig.suptitle(f"this run, lower is better; {measured_on}; error bars: 95 % CI of the mean over seeds", fontsize=7)
    entries = (
        Line2D([], [], **MEAN, linestyle="none", label="mean over seeds"),
        Line2D([], [], color=style.SKY, marker="o", markersize=2.5, linestyle="none", label="one run"),
        Line2D([], [], **MEAN | HOLLOW, linestyle="none", label="mean on seen pairs"),
        Line2D([], [], color=style.VERMILION, linewidth=0.9, label="power law"),
        Line2D([], [], color=style.VERMILION, linewidth=0.9, linestyle="--", label="not supported by the runs"),
    )
    fig.legend(handles=entries, loc="outside lower center", ncols=len(entries), fontsize=6.5)
    titles = f"a  {first}, equal steps: training pairs D", f"b  all {whole:,} pairs, equal training FLOPs: model size"
    for row, (title, label) in enumerate(zip(titles, ("training pairs D", "parameters"), strict=True)):
        style.panel(grid[row][0], title)
        for ax in grid[row]:
            ax.set_xlabel(label, fontsize=7)
    return fig


def _points(ax: Axes, runs: pl.DataFrame, means: pl.DataFrame, measure: str, x: str) -> None:
    """Runs as small markers, their means with intervals; of the noise error also that on seen pairs, hollow."""
    for seed, own in runs.filter(measure=measure).group_by("seed", maintain_order=True):
        ax.plot(own[x], own["value"], MARKERS[seed[0] % 4], color=style.SKY, markersize=2.5)
    looks = {measure: {}} | ({SEEN: HOLLOW} if measure == HELD_OUT else {})
    for name, look in looks.items():
        own = means.filter(measure=name).sort(x)
        style.interval(ax, own, own[x].to_numpy(), **MEAN, **look)
    places = means.filter(measure=measure)[x].sort().to_list()
    ax.set(xscale="log", yscale="log")
    apart = [right > 2.5 * left for left, right in pairwise(places)] + [True]  # half of the pairs is too near to all
    ax.set_xticks(places, [_plain(place) if own else "" for place, own in zip(places, apart, strict=True)])
    drawn = means.filter(pl.col("measure").is_in(list(looks)))
    ends = [drawn["low"].fill_null(drawn["value"]).min(), drawn["high"].fill_null(drawn["value"]).max()]
    # a decade's ticks would leave most panels one or none, and values below them
    ticks = sorted({float(f"{tick:.2g}") for tick in np.geomspace(max(ends[0], ends[1] / 1000), ends[1], 4)})
    ax.set_yticks(ticks, [_plain(tick) for tick in ticks])
    ax.minorticks_off()
    ax.tick_params(labelsize=6)
    ax.margins(x=0.15, y=0.2)


def _plain(value: float) -> str:
    """20400 -> "20k"."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{float(f'{value / factor:.2g}'):g}{letter}"
    return f"{value:.3g}"


def _law(ax: Axes, law: dict, pairs: pl.Series) -> None:
    """The fitted line, dashed where the data do not support it, with its exponent."""
    x = np.geomspace(pairs.min(), pairs.max(), 50)
    supported = law["verdict"] == "supported"
    ax.plot(x, law["a"] * x ** law["b"], "-" if supported else "--", color=style.VERMILION, linewidth=0.9)
    text = f"b = {law['b']:.2f} [{law['low']:.2f}, {law['high']:.2f}]\n$R^2$ = {law['r2']:.2f}"
    text += "" if supported else "\n" + law["verdict"].partition(":")[0].replace(", ", ",\n")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high * (high / low) ** 0.6)  # room for the text
    ax.text(0.97, 0.97, text, transform=ax.transAxes, ha="right", va="top", fontsize=6, color=style.VERMILION)
