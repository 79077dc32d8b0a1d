"""Metadata control: how well it works, what else it changes, and one attribute changed at a fixed seed."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style

COLUMNS = 6  # images in a line of `draw_walks`
LOOKS = {  # `images` -> colour, marker, label
    "samples": (style.BLUE, "o", "samples, as requested"),
    "real": (style.GREY, "D", "real, held out"),
}
OTHERS = ((style.SKY, "s"), (style.VERMILION, "^"), (style.PURPLE, "v"), (style.ORANGE, "P"))


def draw(table: pl.DataFrame) -> Figure:
    """Each attribute's AUROC on samples and on real images, age's correlation above them.

    Args:
        table: Rows of `experiments.rectified_flow.control.control_table`, and of `pools.recovered` for the pools of
            generators.
    """
    style.use()
    shown = table.filter(pl.col("measure") != "mean error (years)")
    names = shown["attribute"].unique(maintain_order=True).to_list()
    others = [name for name in shown["images"].unique(maintain_order=True) if name not in LOOKS]
    looks = LOOKS | {name: (*look, f"pool of {name}") for name, look in zip(others, cycle(OTHERS), strict=False)}
    counts = {images: dict(shown.filter(images=images).select("attribute", "n").rows()) for images in looks}
    fig = Figure(figsize=(style.COLUMN, 0.5 + (0.19 + 0.05 * len(others)) * len(names)), layout="constrained")
    ax = fig.subplots()
    shifts = np.linspace(-0.15, 0.15, 2) if not others else np.linspace(-0.33, 0.33, len(looks))
    for shift, (images, (colour, marker, label)) in zip(shifts, looks.items(), strict=True):
        own = shown.filter(images=images)
        at = np.array([names.index(name) for name in own["attribute"]]) + shift
        label += f", n = {max(counts[images].values())}" if images in others else ""
        style.interval(ax, own, at, horizontal=True, marker=marker, color=colour, label=label)
    both = [counts[images] for images in LOOKS]
    labels = [f"{'age, r' if a == 'age' else a} ({', '.join(str(n.get(a, 0)) for n in both)})" for a in names]
    style.name_rows(ax, labels)
    ax.set_ylabel("attribute (n of samples, of real images)", fontsize=7)
    ax.axvline(0.5, color=style.GREY, linestyle=":", linewidth=0.8)
    ax.set_xlabel("AUROC (age: r), 95 % CI", fontsize=7)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def draw_off_target(table: pl.DataFrame) -> Figure:
    """How far the prediction of each probe (columns) moves with the requested attribute (rows), in standard deviations.

    A dot marks where the interval excludes 0.
    """
    style.use()
    names = table["asked"].unique(maintain_order=True).to_list()
    k = len(names)
    value = table["value"].to_numpy().reshape(k, k)
    sure = ((table["low"] > 0) | (table["high"] < 0)).to_numpy().reshape(k, k)
    fig = Figure(figsize=(style.PAGE * 0.75, style.PAGE * 0.68), layout="constrained")
    ax = fig.subplots()
    largest = max(1.0, np.abs(value).max())
    shown = ax.imshow(value, cmap="PuOr_r", vmin=-largest, vmax=largest)
    ax.plot(*np.argwhere(sure & ~np.eye(k, dtype=bool)).T[::-1], ".", color=style.BLACK, markersize=3)
    ax.set_xticks(range(k), names, rotation=90, fontsize=6)
    ax.set_yticks(range(k), names, fontsize=6)
    ax.set(xlabel="predicted by the probe of", ylabel=f"requested attribute (n = {table['n'][0]} pairs each)")
    bar = fig.colorbar(shown, ax=ax, shrink=0.7)
    bar.set_label("shift from low to high, sd on real images\n(dot: 95 % CI off the diagonal excludes 0)", fontsize=7)
    return fig


def draw_walks(walks: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> Figure:
    """One attribute changed at a fixed seed: its images side by side, then the last minus the first.

    Args:
        walks: Attribute, its requested values, and images [K, H, W] in [0, 1], with K below `COLUMNS`. As many as fit
            share a line.
    """
    style.use()
    places, line, column = [], 0, 0
    for _, values, _ in walks:
        if column + len(values) + 1 > COLUMNS:
            line, column = line + 1, 0
        places.append((line, column))
        column += len(values) + 1
    fig = Figure(figsize=(style.PAGE, 1.36 * (line + 1)), layout="constrained")
    axes = fig.subplots(line + 1, COLUMNS, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for (line, column), (name, values, images) in zip(places, walks, strict=True):
        for ax, value, image in zip(axes[line, column:], values, images, strict=False):
            style.picture(ax, image)
            ax.set_title(value, fontsize=6, pad=2)
        axes[line, column].set_ylabel(name, fontsize=7)
        last = axes[line, column + len(values)]
        style.picture(last, images[-1] - images[0], cmap="PuOr_r", vmin=-0.4, vmax=0.4)
        last.set_title("difference, -0.4 to 0.4", fontsize=6, pad=2)
    return fig
