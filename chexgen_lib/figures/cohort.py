"""The embedded cohort at a glance: radiographs of the run with their masks and boxes (ED Tables 2 and 3)."""

import textwrap

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from chexgen_lib.figures import style

COLOURS = {"lungs": style.BLUE, "heart": style.VERMILION, "ribs": style.YELLOW}


def draw(rows: pl.DataFrame, images: np.ndarray, anatomy: np.ndarray | None) -> Figure:
    """One radiograph each: as it is, and below with the outlines of lungs, heart and ribs and the findings' boxes.

    Args:
        rows: Records with `prompt`.
        images: [K, H, W] in [0, 1].
        anatomy: Masks of lungs, heart and ribs, bool [K, 3, H, W]; None for real radiographs.
    """
    style.use()
    k, size = len(images), images.shape[1]
    lines = 1 if anatomy is None else 2
    fig = Figure(figsize=(style.PAGE, 0.6 + 1.15 * lines), layout="constrained")
    axes = fig.subplots(lines, k, squeeze=False)
    for i, row in enumerate(rows.iter_rows(named=True)):
        axes[0, i].set_title(textwrap.fill(textwrap.shorten(row["prompt"], 60, placeholder=" ..."), 20), fontsize=6)
        for ax in axes[:, i]:
            style.picture(ax, images[i])
        if anatomy is None:
            continue
        for mask, colour in zip(anatomy[i], COLOURS.values(), strict=True):
            if mask.any():
                axes[1, i].contour(mask, [0.5], colors=[colour], linewidths=0.5)
        for box in row["boxes"]:
            corner = (box["x"] * size, box["y"] * size)
            axes[1, i].add_patch(Rectangle(corner, box["w"] * size, box["h"] * size, fill=False, ec=style.GREEN, lw=1))
    if anatomy is not None:
        handles = [Patch(color=colour, label=name) for name, colour in (*COLOURS.items(), ("findings", style.GREEN))]
        fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return fig
