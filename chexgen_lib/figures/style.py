"""The look of every figure: Okabe-Ito colours, page widths, type of 6 to 8 pt, intervals, the paper's panels."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image as Pixels
from PIL import ImageColor

from chexgen_lib.estimates.wording import UNMEASURABLE
from chexgen_lib.storage import replacing

# Okabe and Ito (2008), "Color Universal Design": distinguishable with every common colour blindness.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, BLACK = OKABE_ITO
GREY = "#7F7F7F"

COLUMN = 3.5  # inches, one column of the journal
PAGE = 7.0  # inches, both columns
SMALL = 6  # pt, the smallest type that a journal prints

THIS_RUN, PAPER = "this run", "paper"  # the `source` of a table's rows
WORTH_RANGE = (-1.0, 2.0)  # of the axis; intervals may go beyond
PAPER_SHADE = "#F0F0F0"  # behind the paper's numbers, which are of other data
PAPER_MARK = {"marker": "s", "markersize": 4, "linestyle": "none", "color": GREY, "markerfacecolor": "white"}

RC = {
    "axes.prop_cycle": mpl.cycler(color=OKABE_ITO),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.dpi": 100,
    "figure.figsize": (COLUMN, 2.6),
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "font.size": 8,
    "image.cmap": "gray",
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "savefig.dpi": 200,
    "svg.hashsalt": "chexgen",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


def use() -> None:
    """Set the house style for all figures that follow."""
    mpl.rcParams.update(RC)


def panel(ax: Axes, title: str, source: str = THIS_RUN, **look) -> None:
    """Title a panel in bold at its left edge; shade it if its numbers are the paper's."""
    ax.set_title(title, loc="left", **({"fontsize": 7, "fontweight": "bold"} | look))
    if source == PAPER:
        ax.set_facecolor(PAPER_SHADE)


def empty(ax: Axes, reason: str) -> None:
    """Leave a panel without data and axes, and print the reason in it."""
    ax.text(0.5, 0.5, reason, ha="center", va="center", fontsize=7, transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def picture(ax: Axes, image: np.ndarray, **look) -> None:
    """Show an image [H, W] without ticks or frame, all radiographs in one window: 0 black, 1 white.

    look: Of `Axes.imshow`.
    """
    ax.imshow(image, **({"cmap": "gray", "vmin": 0, "vmax": 1} | look))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the places 0, 1, ... of the y axis, from top to bottom."""
    ax.set_yticks(range(len(names)), names, fontsize=SMALL)
    ax.set_ylim(len(names) - 0.5, -0.5)


def tidy(part: pl.DataFrame, columns: Mapping[str, Any]) -> pl.DataFrame:
    """A part of what a figure plots with the columns and types of all its parts; null where the part has none."""
    missing = (pl.lit(None).alias(name) for name in columns.keys() - set(part.columns))
    return part.with_columns(missing).select(*columns).cast(columns)


def interval(ax: Axes, rows: pl.DataFrame, at: np.ndarray, of: str = "value", horizontal: bool = False, **look) -> None:
    """Draw estimates as markers with their intervals as bars; a missing estimate leaves its place empty.

    Args:
        ax: The axes to draw on.
        rows: Estimates, one a row, with the columns `value`, `low` and `high`; or `difference`, `difference_low` and
            `difference_high`. Without any interval no bars are drawn.
        at: Positions of the rows on the other axis.
        of: "value" or "difference".
        horizontal: Whether the estimates lie along the x axis.
        **look: Passed to `Axes.errorbar`, such as `color`, `marker` and `label`.
    """
    ends = ("low", "high") if of == "value" else (f"{of}_low", f"{of}_high")
    value, low, high = (rows[name].cast(pl.Float64).to_numpy() for name in (of, *ends))
    known = np.isfinite(value)
    bars = None if np.isnan(low).all() else np.maximum([value - low, high - value], 0)[:, known]
    place, value = np.asarray(at)[known], value[known]
    look = {"linestyle": "none", "linewidth": 0.9, "markersize": 3} | look
    if horizontal:
        ax.errorbar(value, place, xerr=bars, **look)
    else:
        ax.errorbar(place, value, yerr=bars, **look)


def worth(ax: Axes, rows: pl.DataFrame, labels: Sequence[str], looks: Sequence[dict]) -> None:
    """Draw how much synthetic images are worth, with intervals, a line for each row; a new real image is worth 1.

    An arrow at the edge of the axis points to what lies beyond it: a small one to an interval's end, a large one with
    the number to the worth itself.

    Args:
        ax: The axes to draw on.
        rows: With the columns of `estimates.worth`, of arms that have an oracle. Where the worth cannot be measured
            the line says so.
        labels, looks: Of each row, the latter as `Axes.errorbar` takes them.
    """
    named = rows.select(value="worth", low="worth_low", high="worth_high")
    for at, look in enumerate(looks):
        interval(ax, named[at : at + 1], np.array([at]), horizontal=True, markersize=4, **look)
        if named["value"][at] is None:
            ax.text(1.04, at, UNMEASURABLE, va="center", fontsize=SMALL, color=look["color"])
        else:
            _beyond(ax, at, named.row(at, named=True), look["color"])
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.axvline(1, color=GREEN, linewidth=0.9, linestyle="--")
    ax.set_xlim(*WORTH_RANGE)
    ax.set_yticks(range(len(labels)), labels, fontsize=SMALL)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlabel("worth of a synthetic image (1, dashed: a new real image), 95 % CI", fontsize=7)


def _beyond(ax: Axes, at: int, row: Mapping[str, float], colour: str) -> None:
    """Arrows to what lies beyond `WORTH_RANGE` in line `at`."""
    for edge, side, marker in zip(WORTH_RANGE, (-1, 1), "<>", strict=True):
        if side * (row["low" if side < 0 else "high"] - edge) > 0:
            outside = side * (row["value"] - edge) > 0
            look = {"color": colour, "marker": marker, "markersize": 6 if outside else 3, "clip_on": False}
            ax.plot(edge, at, linestyle="none", **look)
            if outside:
                place = {"textcoords": "offset points", "ha": "left" if side < 0 else "right", "va": "bottom"}
                ax.annotate(f"{row['value']:.1f}", (edge, at), (-6 * side, 0), fontsize=SMALL, color=colour, **place)


def save(fig: Figure, table: pl.DataFrame, path: str | Path) -> Path:
    """Write the figure as PNG (200 dpi) and what it plots as CSV beside it, both atomically.

    The bytes depend on the figure and the table alone: no date and no program version is stored.

    Returns:
        The path of the PNG.

    Raises:
        ValueError: If `path` does not end in .png, or a text is smaller than a journal prints.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path}: a figure is saved as .png; its CSV is written beside it")
    for text in fig.findobj(Text):
        if text.get_text() and text.get_visible() and text.get_fontsize() < SMALL:
            raise ValueError(
                f"{path.name}: {text.get_text()!r} is set in {text.get_fontsize():g} pt; use {SMALL} or more"
            )
    with replacing(path) as png, replacing(path.with_suffix(".csv")) as csv:
        fig.savefig(png, format="png", dpi=200, metadata={"Software": None})
        table.write_csv(csv)
    return path


def preview(path: str | Path, width: int = 640, largest: int = 150_000) -> Image:
    """Reduce a saved figure to `width` pixels and 256 colours, so that notebooks stay small.

    A sheet of many radiographs that still has more than `largest` bytes becomes narrower until it has not.
    """
    with Pixels.open(path) as image:
        full = image.convert("RGB")
    while len(data := _reduced(full, width)) > largest:
        width = width * 4 // 5
    return Image(data)


def _reduced(image: Pixels.Image, width: int) -> bytes:
    """PNG in 256 colours. The house colours are among them: chosen by frequency alone, small marks turn grey."""
    small = image.copy()
    small.thumbnail((width, 4 * width))
    fixed = [channel for colour in (*OKABE_ITO, GREY, PAPER_SHADE, "#FFFFFF") for channel in ImageColor.getrgb(colour)]
    frequent = small.quantize(256 - len(fixed) // 3, method=Pixels.Quantize.FASTOCTREE).getpalette()
    palette = Pixels.new("P", (1, 1))
    palette.putpalette(fixed + frequent)
    buffer = io.BytesIO()
    small.quantize(palette=palette, dither=Pixels.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
