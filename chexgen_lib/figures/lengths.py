"""How long the descriptions of each source are."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.figures.fig1b import COLOURS, NAMES

STYLES = ("-", "--", ":", "-.")


def figure(lengths: pl.DataFrame) -> Figure:
    """Share of each source's descriptions by their number of words, from `counts.lengths`."""
    style.use()
    present = lengths["source"].unique().to_list()
    fig = Figure(figsize=(style.COLUMN, 2.6), layout="constrained")
    ax = fig.subplots()
    for k, source in enumerate([s for s in NAMES if s in present] + sorted(set(present) - set(NAMES))):
        rows = lengths.filter(source=source)
        total, vocabulary = rows["n"].sum(), rows["vocabulary"][0]
        edges = np.arange(0, rows["words"].max() + 10, 5)
        share, _ = np.histogram(rows["words"], bins=edges, weights=100 * rows["n"] / total)
        colour = COLOURS.get(source, style.GREY)
        label = f"{NAMES.get(source, source)}\nn = {total:,}, {vocabulary:,} different words"
        ax.stairs(share, edges, label=label, color=colour, linestyle=STYLES[k % len(STYLES)], linewidth=1.2)
    ax.set(xlabel="words in a description (bins of 5)", xlim=(0, None))
    ax.set_ylabel("share of the source's\ndescriptions (%)")
    ax.legend(fontsize=6)
    return fig
