"""How long the descriptions of each source are."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.figures.fig1b import COLOURS
from chexgen_lib.sources.registry import figure_names

STYLES = ("-", "--", ":", "-.")


def figure(lengths: pl.DataFrame) -> Figure:
    """Share of each source's descriptions by their number of words, from `counts.lengths`."""
    style.use()
    names = figure_names(lengths["source"])
    many = len(names) > len(STYLES)  # too many to name within the axes
    fig = Figure(figsize=(style.PAGE, 0.27 * len(names)) if many else (style.COLUMN, 2.6), layout="constrained")
    ax = fig.subplots()
    for k, (source, name) in enumerate(names.items()):
        rows = lengths.filter(source=source)
        total, vocabulary = rows["n"].sum(), rows["vocabulary"][0]
        edges = np.arange(0, rows["words"].max() + 10, 5)
        share, _ = np.histogram(rows["words"], bins=edges, weights=100 * rows["n"] / total)
        label = f"{name}\nn = {total:,}, {vocabulary:,} different words"
        ax.stairs(
            share, edges, label=label, color=COLOURS[k % len(COLOURS)], linestyle=STYLES[k % len(STYLES)], linewidth=1.2
        )
    ax.set(
        xlabel="words in a description (bins of 5)", ylabel="share of the source's\ndescriptions (%)", xlim=(0, None)
    )
    fig.legend(fontsize=6, loc="outside right upper") if many else ax.legend(fontsize=6)
    return fig
