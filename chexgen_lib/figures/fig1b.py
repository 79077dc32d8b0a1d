"""Figure 1b: what the curated cohort consists of, by dataset, finding, view, age and sex."""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from chexgen_lib.descriptions.counts import AGE_BANDS, UNKNOWN
from chexgen_lib.figures import style
from chexgen_lib.figures.style import BLUE, GREEN, ORANGE, PAGE, PURPLE, SKY, VERMILION

NAMES = {"nih": "NIH ChestX-ray14", "chexpert": "CheXpert", "padchest": "PadChest", "openi": "Open-i"}
COLOURS = {"nih": BLUE, "chexpert": ORANGE, "padchest": GREEN, "openi": PURPLE}


def figure(composition: pl.DataFrame) -> Figure:
    """Stacked bars from `chexgen_lib.descriptions.counts.composition` (source, attribute, value, n)."""
    style.use()
    present = composition["source"].unique().to_list()
    sources = [s for s in NAMES if s in present] + sorted(set(present) - set(NAMES))
    colours = COLOURS | dict(zip([s for s in sources if s not in NAMES], (SKY, VERMILION), strict=False))
    fig = Figure(figsize=(PAGE, 5.2), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(1.12, 1), wspace=0.02)
    _bars(left.subplots(), composition, "finding", sources, colours, "Finding present", horizontal=True)
    panels = right.subplots(2, 2)
    _bars(panels[0, 0], composition, "dataset", sources, colours, "Dataset")
    _bars(panels[0, 1], composition, "sex", sources, colours, "Sex")
    _bars(panels[1, 0], composition, "view", sources, colours, "View")
    _bars(panels[1, 1], composition, "age", sources, colours, "Age (years)")
    total = composition.filter(pl.col("attribute") == "dataset")["n"].sum()
    handles = [(left.axes[0].containers[i], NAMES.get(s, s)) for i, s in enumerate(sources)]
    left.axes[0].legend(*zip(*handles, strict=True), loc="lower right", title=f"n = {total:,} radiographs",
                        title_fontsize=7)  # fmt: skip
    return fig


def _bars(
    ax: Axes,
    table: pl.DataFrame,
    attribute: str,
    sources: list[str],
    colours: dict,
    label: str,
    horizontal: bool = False,
) -> None:
    """One stacked bar per value of `attribute`, coloured by source."""
    rows = table.filter(pl.col("attribute") == attribute)
    values = _order(rows, attribute, sources)
    base = [0] * len(values)
    counts = dict(zip(rows.select("source", "value").iter_rows(), rows["n"], strict=True))
    for source in sources:
        n = [counts.get((source, value), 0) for value in values]
        if horizontal:
            ax.barh(range(len(values)), n, left=base, color=colours.get(source), height=0.8)
        else:
            ax.bar(range(len(values)), n, bottom=base, color=colours.get(source), width=0.8)
        base = [b + x for b, x in zip(base, n, strict=True)]
    names = [NAMES.get(v, v).split()[0] if attribute == "dataset" else v for v in values]
    thousands = FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x else "0")
    if horizontal:
        ax.set_yticks(range(len(values)), names)
        ax.invert_yaxis()
        ax.xaxis.set_major_formatter(thousands)
        ax.set(xlabel="Radiographs", title=label)
    else:
        turned = sum(map(len, names)) > 10
        ax.set_xticks(range(len(values)), names)
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
