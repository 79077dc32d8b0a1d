"""A judging on one page: sets, prompts, what was asked and shown, and a look at the images."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from chexgen_lib.figures import style
from chexgen_lib.images import from_uint8
from chexgen_lib.quality.arms import FLOOR, IGNORES, NOISE, REAL

COLOURS = (style.BLUE, style.VERMILION, style.PURPLE, style.ORANGE, style.SKY, style.YELLOW)
BOUNDS = {FLOOR: style.GREEN, REAL: style.GREEN, NOISE: style.GREY}
WHOLE = "all"  # the group of everyone
SHARES = ("precision", "recall", "density", "coverage")
GALLERY = 3  # prompts


def draw(
    metrics: pl.DataFrame,
    shown: pl.DataFrame,
    records: pl.DataFrame,
    real: np.ndarray,
    samples: Mapping[str, np.ndarray],
) -> Figure:
    """Draw a page.

    Args:
        metrics: Of `experiments.judge.metrics.table`.
        shown: Of `experiments.judge.asked_and_shown.table`.
        records: Of some prompts, with the column prompt.
        real: Their radiographs, uint8 [K, R, R].
        samples: Generator -> images for them, uint8 [K, R, R].
    """
    style.use()
    whole, names = metrics.filter(group=WHOLE), list(samples)
    embedders = [m.removeprefix("FID-") for m in whole["metric"].unique(maintain_order=True) if m.startswith("FID-")]
    fig = Figure(figsize=(style.PAGE, 5.6 + 1.05 * min(GALLERY, len(records))), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=[5.6, 1.05 * min(GALLERY, len(records))])
    axes = top.subplots(2, 3)
    for ax, embedder, letter in zip(axes[0], embedders[:2], "ab", strict=False):
        _arms(ax, whole.filter(metric=f"FID-{embedder}"), names, f"{letter}  FID, {embedder}")
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=4))
        ax.xaxis.set_minor_formatter(NullFormatter())
    for ax in axes[0, len(embedders[:2]) : 2]:
        style.empty(ax, "no second embedder")
    _shares(axes[0, 2], whole, embedders[0], names)
    _arms(axes[1, 0], whole.filter(metric="MS-SSIM"), names, "d  MS-SSIM within a prompt")
    _arms(axes[1, 1], whole.filter(metric="Pearson r, within findings"), names, "e  Pearson r with the prompt")
    _shown(axes[1, 2], shown, names)
    marks = [Line2D([], [], color=_colour(arm, names), marker="o", label=arm) for arm in (REAL, *names, NOISE)]
    top.legend(handles=marks, loc="outside upper center", ncols=min(len(marks), 4))
    _gallery(bottom, records[:GALLERY], real[:GALLERY], {name: x[:GALLERY] for name, x in samples.items()})
    return fig


def _colour(arm: str, names: Sequence[str]) -> str:
    name = arm.removesuffix(f", {IGNORES}")
    return BOUNDS.get(arm) or COLOURS[names.index(name) % len(COLOURS)]


def _arms(ax: Axes, rows: pl.DataFrame, names: Sequence[str], title: str) -> None:
    """One line for each arm; an arm that ignores its prompt is hollow."""
    for at, row in enumerate(rows.iter_rows(named=True)):
        hollow = {"markerfacecolor": "white"} if IGNORES in row["arm"] else {}
        look = {"color": _colour(row["arm"], names), "marker": "o", "markersize": 4, **hollow}
        style.interval(ax, rows[at : at + 1], np.array([at]), horizontal=True, **look)
    style.name_rows(ax, ["\n".join(textwrap.wrap(arm, 18)) for arm in rows["arm"]])
    style.panel(ax, title)


def _shares(ax: Axes, rows: pl.DataFrame, embedder: str, names: Sequence[str]) -> None:
    arms = rows.filter(metric=f"precision-{embedder}")["arm"].to_list()
    for k, arm in enumerate(arms):
        own = pl.concat(rows.filter(metric=f"{share}-{embedder}", arm=arm) for share in SHARES)
        at = np.arange(len(SHARES)) + 0.6 * (k / max(len(arms) - 1, 1) - 0.5)
        style.interval(ax, own, at, horizontal=True, color=_colour(arm, names), marker="o", markersize=3)
    style.name_rows(ax, SHARES)
    ax.set_xlim(0, None)
    style.panel(ax, f"c  Shares, {embedder}")


def _shown(ax: Axes, shown: pl.DataFrame, names: Sequence[str]) -> None:
    rows = shown.filter(pl.col("bar").is_not_null())
    attributes = rows["attribute"].unique(maintain_order=True).to_list()
    arms = [REAL, *names]
    for k, arm in enumerate(arms):
        own = rows.filter(arm=arm)
        at = np.arange(len(attributes)) + 0.5 * (k / max(len(arms) - 1, 1) - 0.5)
        style.interval(ax, own, at, horizontal=True, color=_colour(arm, names), marker="o", markersize=3)
    bars = rows.filter(arm=REAL)["bar"]
    ax.plot(bars, range(len(attributes)), "|", color=style.BLACK, markersize=9)
    style.name_rows(ax, attributes)
    style.panel(ax, "f  Shown (line: bar)")


def _gallery(fig, records: pl.DataFrame, real: np.ndarray, samples: Mapping[str, np.ndarray]) -> None:
    """A line for each prompt: its words, its radiograph, a sample of each generator."""
    axes = fig.subplots(len(records), 2 + len(samples), squeeze=False, width_ratios=[2, *[1] * (1 + len(samples))])
    for k, prompt in enumerate(records["prompt"]):
        text = textwrap.fill(textwrap.shorten(prompt, 150, placeholder=" ..."), 34)
        axes[k, 0].text(0, 0.5, text, va="center", fontsize=7, transform=axes[k, 0].transAxes)
        for ax, image in zip(axes[k, 1:], (real[k], *(x[k] for x in samples.values())), strict=True):
            style.picture(ax, from_uint8(image))
    for ax, title in zip(axes[0], ["prompt", REAL, *samples], strict=True):
        ax.set_title(textwrap.shorten(title, 24, placeholder="..."), fontsize=7)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
