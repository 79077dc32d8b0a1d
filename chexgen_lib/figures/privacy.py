"""The page of a privacy audit: its verdict, how alike images are, every measure, and the most alike pairs."""

import textwrap

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.images import from_uint8
from chexgen_lib.privacy.audit import COPIES, LEAK, NOTHING, Audit
from chexgen_lib.privacy.copies import INNOCENT

SHOWN = 7  # pairs
COLOURS = {COPIES: style.VERMILION, LEAK: style.ORANGE, NOTHING: style.GREEN}
POOL, UNSEEN, SAME = "pool", "unseen people", "one patient, two studies"
LIMITS = (
    "What this page cannot show: that the pool is safe. It lists what these attacks find with the images given; there "
    "is no guarantee in the sense of differential privacy, and another attack may find more."
)


def plotted(found: Audit) -> pl.DataFrame:
    """What the page plots, tidy: part ("likeness" or "measure"), name, value, low, high, expected."""
    likeness = {
        POOL: found.images["likeness"].to_numpy(),
        UNSEEN: found.calibration.unseen,
        SAME: found.calibration.same_patient,
    }
    numbers = ("value", "low", "high", "expected")
    columns = {"part": pl.String, "name": pl.String} | dict.fromkeys(numbers, pl.Float64)
    parts = [pl.DataFrame({"part": "likeness", "name": name, "value": r}) for name, r in likeness.items() if len(r)]
    parts.append(_shares(found).select(pl.lit("measure").alias("part"), pl.col("measure").alias("name"), *numbers))
    return pl.concat([style.tidy(part, columns) for part in parts])


def _shares(found: Audit) -> pl.DataFrame:
    """The measures that lie between 0 and 1, without the threshold."""
    return found.measures.filter(pl.col("value").is_not_null(), pl.col("measure") != "threshold")


def draw(found: Audit, excluded: int = 0) -> Figure:
    """One page: verdict and reasons; likeness of the pool beside real images; measures; the `SHOWN` likest pairs."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 8.6), layout="constrained")
    grid = fig.add_gridspec(4, 1, height_ratios=[1.2, 4, 2.5, 0.4])
    _write_verdict(fig.add_subplot(grid[0]), found, excluded)
    middle = grid[1].subgridspec(1, 2, width_ratios=[1, 1])
    _plot_likeness(fig.add_subplot(middle[0]), found)
    _plot_measures(fig.add_subplot(middle[1]), found)
    _show_pairs(fig, grid[2].subgridspec(2, SHOWN), found)
    last = fig.add_subplot(grid[3])
    last.axis("off")
    last.text(0, 0.5, textwrap.fill(LIMITS, 130), va="center", fontsize=7, transform=last.transAxes)
    return fig


def _write_verdict(ax: Axes, found: Audit, excluded: int) -> None:
    ax.axis("off")
    ax.text(0, 1, f"Privacy audit: {found.verdict}", va="top", fontsize=13, fontweight="bold",
            color=COLOURS[found.verdict], transform=ax.transAxes)  # fmt: skip
    counts = ", ".join(f"{len(images)} {name}" for name, images in found.sets.items())
    lines = [f"Images: {counts}; {excluded} excluded", *found.reasons]
    text = "\n".join(textwrap.fill(line, 120, subsequent_indent="   ") for line in lines)
    ax.text(0, 0.74, text, va="top", fontsize=7, transform=ax.transAxes)


def _plot_likeness(ax: Axes, found: Audit) -> None:
    """The share of each set that is at least as alike as r, with the threshold of an alarm and the level of a copy."""
    values = plotted(found).filter(part="likeness")
    for name, colour in ((UNSEEN, style.GREY), (SAME, style.ORANGE), (POOL, style.BLUE)):
        own = values.filter(name=name)["value"].to_numpy()
        if len(own):
            ax.ecdf(own, complementary=True, color=colour, label=f"{name} ({len(own)})")
    ax.axvline(found.calibration.threshold, color=style.BLACK, linestyle="--", linewidth=0.9, label="alarm")
    if found.calibration.copy_level is not None:
        ax.axvline(found.calibration.copy_level, color=style.VERMILION, linestyle=":", linewidth=0.9, label="copy")
    ax.set(xlabel="likeness r to the most alike training image", ylabel="share that is at least as alike")
    ax.set_xlim(min(0.0, values["value"].min()), 1.02)
    ax.legend(loc="lower left", fontsize=style.SMALL)
    style.panel(ax, "a  Likeness")


def _plot_measures(ax: Axes, found: Audit) -> None:
    rows = _shares(found)
    at = np.arange(len(rows))
    style.interval(ax, rows, at, horizontal=True, fmt="o", color=style.BLUE)
    ax.plot(rows["expected"].to_numpy(), at, "|", color=style.GREY, markersize=9, label="an innocent pool")
    ax.axvline(1, color=style.GREY, linewidth=0.4)
    style.name_rows(ax, rows["measure"].to_list())
    ax.set_xlabel("value, 95 % CI")
    ax.set_xlim(-0.03, max(1.03, *rows["high"].drop_nulls()))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=style.SMALL)
    style.panel(ax, "b  Measures")


def _show_pairs(fig: Figure, grid, found: Audit) -> None:
    """Pool image above, most alike training image below (mirrored where that is how they agree)."""
    rows, pairs = found.images.head(SHOWN), (images[:SHOWN] for images in found.pairs)
    for k, (row, own, near) in enumerate(zip(rows.iter_rows(named=True), *pairs, strict=True)):
        top, bottom = (fig.add_subplot(grid[line, k]) for line in (0, 1))
        style.picture(top, from_uint8(own))
        style.picture(bottom, from_uint8(near[:, ::-1] if row["mirrored"] else near))
        top.set_title(row["call"] or "no alarm", fontsize=7, color=_colour(row["call"]))
        mirrored = ", mirrored" if row["mirrored"] else ""
        bottom.set_xlabel(f"r = {row['likeness']:.2f}{mirrored}\np = {row['p']:.2g}", fontsize=7, labelpad=1)
        if k == 0:
            top.set_ylabel("c  pool", fontsize=7, fontweight="bold")
            bottom.set_ylabel("training", fontsize=7, fontweight="bold")


def _colour(call: str) -> str:
    return style.BLACK if call == INNOCENT else style.VERMILION
