"""Figure 1b: what the curated cohort consists of, by dataset, finding, view, age and sex."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from chexgen_lib.descriptions.counts import AGE_BANDS, UNKNOWN
from chexgen_lib.figures import style
from chexgen_lib.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PAGE, PURPLE, SKY, VERMILION, YELLOW
from chexgen_lib.sources.registry import figure_names

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY, BLACK)  # of the sources, in their order
HATCHES = ("", "//////", "......")  # of the first nine sources, of the next nine, ...


def figure(composition: pl.DataFrame) -> Figure:
    """Stacked bars from `descriptions.counts.composition` (source, attribute, value, n)."""
    style.use()
    names = figure_names(composition["source"])
    fig = Figure(figsize=(PAGE, 5.2), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(1.12, 1), wspace=0.02)
    _bars(left.subplots(), composition, "finding", names, "Finding present", horizontal=True)
    panels = right.subplots(2, 2)
    _bars(panels[0, 0], composition, "dataset", names, "Dataset")
    _bars(panels[0, 1], composition, "sex", names, "Sex")
    _bars(panels[1, 0], composition, "view", names, "View")
    _bars(panels[1, 1], composition, "age", names, "Age (years)")
    total = composition.filter(pl.col("attribute") == "dataset")["n"].sum()
    handles = [(left.axes[0].containers[i], names[s]) for i, s in enumerate(names)]
    title = f"n = {total:,} radiographs"
    left.axes[0].legend(*zip(*handles, strict=True), loc="lower right", title=title, title_fontsize=7)
    return fig


def _bars(
    ax: Axes, table: pl.DataFrame, attribute: str, names: dict[str, str], label: str, horizontal: bool = False
) -> None:
    """One stacked bar per value of `attribute`, coloured by source; names: of the sources, in their order."""
    rows = table.filter(pl.col("attribute") == attribute)
    values = _order(rows, attribute, list(names))
    base = [0] * len(values)
    counts = dict(zip(rows.select("source", "value").iter_rows(), rows["n"], strict=True))
    for k, source in enumerate(names):
        look = {"color": COLOURS[k % len(COLOURS)], "hatch": HATCHES[k // len(COLOURS)], "hatchcolor": "white"}
        n = [counts.get((source, value), 0) for value in values]
        if horizontal:
            ax.barh(range(len(values)), n, left=base, height=0.8, **look)
        else:
            ax.bar(range(len(values)), n, bottom=base, width=0.8, **look)
        base = [b + x for b, x in zip(base, n, strict=True)]
    ticks = [names[v].split()[0] if attribute == "dataset" else v for v in values]
    if attribute == "dataset" and len(values) > len(COLOURS):  # too close for names: the legend has them
        ticks = [""] * len(values)
    thousands = FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    if horizontal:
        ax.set_yticks(range(len(values)), ticks)
        ax.invert_yaxis()
        ax.xaxis.set_major_formatter(thousands)
        ax.set(xlabel="Radiographs", title=label)
    else:
        turned = sum(map(len, ticks)) > 10
        ax.set_xticks(range(len(values)), ticks)
        if turned:
            ax.tick_params("x", labelrotation=90, labelsize=6)
        ax.yaxis.set_major_formatter(thousands)
        ax.set(ylabel="Radiographs", title=label)


def _order(rows: pl.DataFrame, attribute: str, sources: list[str]) -> list[str]:
    """Datasets and ages in their own order, all else by frequency; "not stated" last."""
    fixed = {"dataset": sources, "age": [*AGE_BANDS, UNKNOWN]}.get(attribute)
    totals = rows.group_by("value").agg(pl.col("n").sum()).sort("n", "value", descending=[True, False])
    values = totals["value"].to_list()
    if fixed:
        return [v for v in fixed if v in values]
    return sorted(values, key=lambda v: v == UNKNOWN)
