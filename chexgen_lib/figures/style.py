"""The look of every figure (Okabe-Ito colours, column width, 7 to 8 pt) and the one way to save one."""

import io
from pathlib import Path

import matplotlib as mpl
import polars as pl
from IPython.display import Image
from matplotlib.figure import Figure
from PIL import Image as Pixels

from chexgen_lib.storage import replacing

# Okabe and Ito (2008), "Color Universal Design": distinguishable with every common colour blindness.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, BLACK = OKABE_ITO
GREY = "#7F7F7F"

COLUMN = 3.5  # inches, one column of the journal
PAGE = 7.0  # inches, both columns

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
    """Set the house style for all figures that follow (notebooks call it once, at the top)."""
    mpl.rcParams.update(RC)


def save(fig: Figure, table: pl.DataFrame, path: str | Path) -> Path:
    """Write the figure as PNG (200 dpi) and what it plots as CSV beside it; both atomically; returns the PNG.

    The bytes depend on the figure and the table alone: no date and no program version is stored.
    Raises ValueError when `path` does not end in .png.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path}: a figure is saved as .png; its CSV is written beside it")
    with replacing(path) as png, replacing(path.with_suffix(".csv")) as csv:
        fig.savefig(png, format="png", dpi=200, metadata={"Software": None})
        table.write_csv(csv)
    return path


def preview(path: str | Path, width: int = 640) -> Image:
    """A saved figure for a notebook's output: `width` pixels wide, 32 colours, so that notebooks stay small."""
    with Pixels.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((width, 4 * width))
    buffer = io.BytesIO()
    small.quantize(32).save(buffer, format="PNG", optimize=True)
    return Image(buffer.getvalue())
