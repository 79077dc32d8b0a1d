"""Notebook 12: two objectives in few steps, what control reaches and what it moves besides, balanced cohorts."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.figures import style

LOOKS = {"ddpm": (style.VERMILION, "s"), "rectified_flow": (style.BLUE, "o")}
NAMES = {"ddpm": "ChexGen's objective, DDIM", "rectified_flow": "rectified flow, Euler"}


def draw_comparison(table: pl.DataFrame, bounds: dict[str, float]) -> Figure:
    """Each metric of `flow_comparison.compare` over the number of steps, a line an objective.

    bounds: metric -> the same on the real images after the autoencoder, which no sample passes; dashed.
    """
    style.use()
    metrics = table["metric"].unique(maintain_order=True).to_list()
    columns = 3
    fig = Figure(figsize=(style.PAGE, 1.9 * -(-len(metrics) // columns) + 0.4), layout="constrained")
    axes = fig.subplots(-(-len(metrics) // columns), columns, squeeze=False).flat
    steps = sorted(table["steps"].unique())
    for metric, ax in zip(metrics, axes, strict=False):
        for k, (objective, (colour, marker)) in enumerate(LOOKS.items()):
            own = table.filter(objective=objective, metric=metric).sort("steps")
            x = own["steps"].to_numpy() * 1.04 ** (2 * k - 1)
            value, low, high = (own[c].cast(pl.Float64).to_numpy() for c in ("value", "low", "high"))
            error = None if np.isnan(low).all() else np.maximum([value - low, high - value], 0)
            ax.errorbar(x, value, error, fmt=f"{marker}-", markersize=3, color=colour, label=NAMES[objective])
        if metric in bounds:
            ax.axhline(bounds[metric], color=style.GREY, linestyle="--", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xticks(steps, [str(n) for n in steps])
        ax.minorticks_off()
        ax.set(xlabel="sampling steps", ylabel=metric)
    for ax in axes:  # what no metric has taken
        ax.set_axis_off()
    handles, labels = fig.axes[0].get_legend_handles_labels()
    n, seeds = table["n"][0], table["seeds"][0]
    title = f"n = {n} images x {seeds} trainings, 95 % CI; dashed: real images after the autoencoder"
    fig.legend(handles, labels, loc="outside lower center", ncols=2, title=title)
    return fig


def draw_control(table: pl.DataFrame) -> Figure:
    """Each attribute's AUROC on samples and on real images (`control.control_table`), age's correlation above them."""
    style.use()
    shown = table.filter(pl.col("measure") != "mean error (years)")
    names = shown["attribute"].unique(maintain_order=True).to_list()
    fig = Figure(figsize=(style.COLUMN, 0.5 + 0.19 * len(names)), layout="constrained")
    ax = fig.subplots()
    looks = {"samples": (style.BLUE, "o", "samples: asked for"), "real": (style.GREY, "D", "real, held out")}
    for shift, (images, (colour, marker, label)) in zip((-0.15, 0.15), looks.items(), strict=True):
        own = shown.filter(images=images)
        y = np.array([names.index(name) for name in own["attribute"]]) + shift
        value, low, high = (own[c].to_numpy() for c in ("value", "low", "high"))
        ax.errorbar(value, y, xerr=np.maximum([value - low, high - value], 0), fmt=marker, markersize=3, color=colour,
                    linewidth=0.9, label=label)  # fmt: skip
    counts = [dict(shown.filter(images=images).select("attribute", "n").rows()) for images in looks]
    said = [f"{'age, r' if a == 'age' else a} ({', '.join(str(n.get(a, 0)) for n in counts)})" for a in names]
    ax.set_yticks(range(len(names)), said, fontsize=6)
    ax.set_ylabel("attribute (n of samples, of real images)", fontsize=7)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.axvline(0.5, color=style.GREY, linestyle=":", linewidth=0.8)
    ax.set_xlabel("AUROC (age: Pearson r), 95 % CI", fontsize=7)
    fig.legend(loc="outside upper center", ncols=2)
    return fig


def draw_off_target(table: pl.DataFrame) -> Figure:
    """How far each probe moves (columns) for what is asked (rows), in sd; a dot where the interval excludes 0."""
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
    ax.set(xlabel="measured by the probe of", ylabel=f"asked for (n = {table['n'][0]} pairs each)")
    bar = fig.colorbar(shown, ax=ax, shrink=0.7)
    bar.set_label(
        "move from low to high pole, sd of real answers\n(dot: 95 % CI off the diagonal excludes 0)", fontsize=7
    )
    return fig


def draw_walks(walks: Sequence[tuple[str, Sequence[str], np.ndarray]], columns: int = 6) -> Figure:
    """One attribute changed at a fixed seed: its images side by side, then the last minus the first.

    walks: attribute, what is asked for in each image, images [K, H, W] in [0, 1], K below `columns`; as many as fit
    share a line.
    """
    style.use()
    places, line, column = [], 0, 0
    for _, values, _ in walks:
        if column + len(values) + 1 > columns:
            line, column = line + 1, 0
        places.append((line, column))
        column += len(values) + 1
    fig = Figure(figsize=(style.PAGE, 1.36 * (line + 1)), layout="constrained")
    axes = fig.subplots(line + 1, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for (line, column), (name, values, images) in zip(places, walks, strict=True):
        for ax, value, image in zip(axes[line, column:], values, images, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_title(value, fontsize=6, pad=2)
        axes[line, column].set_ylabel(name, fontsize=7)
        last = axes[line, column + len(values)]
        last.imshow(images[-1] - images[0], cmap="PuOr_r", vmin=-0.4, vmax=0.4)
        last.set_title("difference, -0.4 to 0.4", fontsize=6, pad=2)
    return fig


def draw_balanced(surface: pl.DataFrame, ranks: pl.DataFrame, stressed: pl.DataFrame) -> Figure:
    """a: F1 by group on the balanced and on the real cohort; b: agreement of the order; c: one factor changed.

    surface: `fairness.group_table` of both with the column `cohort`, of single attributes.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 3.3), layout="constrained")
    a, b, c = fig.subplots(1, 3, width_ratios=(1.2, 1, 1))
    groups = surface.select("attribute", "group").unique(maintain_order=True).rows()
    looks = {"balanced": (style.ORANGE, "^"), "real": (style.BLUE, "o")}
    for shift, (cohort, (colour, marker)) in zip((-0.16, 0.16), looks.items(), strict=True):
        own = surface.filter(cohort=cohort).drop_nulls("f1")
        y = np.array([groups.index(key) for key in own.select("attribute", "group").rows()]) + shift
        sizes = own["n_patients"]
        label = f"{cohort}, n = {sizes.min()} to {sizes.max()}" if len(sizes) else cohort
        _across(a, own["f1"], own["low"], own["high"], y, colour, marker, label)
    _names(a, [group for _, group in groups])
    a.set_xlabel("weighted F1, 95 % CI (n = patients)")
    a.set_title("a  performance surface", loc="left", fontweight="bold")
    a.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ranks = ranks.drop_nulls("value")  # two groups have no order to agree on
    attributes = ranks["attribute"].unique(maintain_order=True).to_list()
    for shift, (measure, colour, marker) in zip(
        (-0.16, 0.16), (("Spearman rho", style.GREEN, "o"), ("Kendall tau", style.PURPLE, "s")), strict=True
    ):
        own = ranks.filter(measure=measure)
        y = np.array([attributes.index(name) for name in own["attribute"]]) + shift
        _across(b, own["value"], own["low"], own["high"], y, colour, marker, measure)
    n = dict(ranks.select("attribute", "n").iter_rows())
    _names(b, [f"{name} ({n[name]})" for name in attributes])
    b.axvline(0, color=style.GREY, linestyle=":", linewidth=0.8)
    b.set(xlabel="agreement of the order,\n95 % CI (groups in brackets)", xlim=(-1.05, 1.05))
    b.set_title("b  balanced against real", loc="left", fontweight="bold")
    b.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24))
    moved = stressed.drop_nulls("difference")
    change = (moved[f"difference{end}"] for end in ("", "_low", "_high"))
    _across(c, *change, np.arange(len(moved)), style.BLUE, "o", None)
    _names(c, moved["arm"].to_list())
    c.axvline(0, color=style.GREY, linestyle=":", linewidth=0.8)
    c.set_xlabel(f"change of weighted F1,\n95 % CI (n = {stressed['n'][0]} each)")
    c.set_title("c  one factor changed", loc="left", fontweight="bold")
    return fig


def _across(ax: Axes, value, low, high, y: np.ndarray, colour: str, marker: str, label: str | None) -> None:
    value, low, high = (np.asarray(x, np.float64) for x in (value, low, high))
    error = np.maximum([value - low, high - value], 0)
    ax.errorbar(value, y, xerr=error, fmt=marker, markersize=3.5, color=colour, linewidth=0.9, label=label)


def _names(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names, fontsize=6)
    ax.set_ylim(len(names) - 0.5, -0.5)
