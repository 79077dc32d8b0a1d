"""Edits of films beside their true counterfactuals, and how right each editor is."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.experiments.counterfactuals.films import Films
from chexgen_lib.figures import style
from chexgen_lib.phantom.counterfactual_benchmark import Pair
from chexgen_lib.records import FINDINGS

COLOURS = (style.BLUE, *(colour for colour in style.OKABE_ITO if colour != style.BLUE))
MARKERS = "os^D"  # of editors, so that no colour stands alone
SHOWN = ("PSNR inside (dB)", "PSNR outside (dB)", "perceptual distance", "effectiveness", "drift (sd)", "identity kept")


def draw_editors(table: pl.DataFrame) -> Figure:
    """Six measures over all pairs, an editor a line, with intervals.

    Args:
        table: of `experiments.counterfactuals.measures.table`.
    """
    style.use()
    arms = table["arm"].unique(maintain_order=True).to_list()
    fig = Figure(figsize=(style.PAGE, 1.2 + 0.34 * len(arms)), layout="constrained")
    axes = fig.subplots(2, len(SHOWN) // 2, sharey=True)
    for ax, metric in zip(axes.flat, SHOWN, strict=True):
        own = table.filter(metric=metric, attribute="all")
        at = np.array([arms.index(arm) for arm in own["arm"]], float)
        style.interval(ax, own, at, horizontal=True, marker="o", color=style.BLUE)
        style.panel(ax, metric)
    for ax in axes[:, 0]:
        style.name_rows(ax, arms)
    fig.supxlabel(f"mean and 95 % CI over {table['patients'][0]} pairs", fontsize=7)
    return fig


def draw_attributes(table: pl.DataFrame, arms: Sequence[str]) -> Figure:
    """Effectiveness, and the error inside, by what is changed, for some editors, with intervals and numbers of pairs.

    Args:
        table: of `experiments.counterfactuals.measures.table`.
        arms: the editors that are shown.
    """
    style.use()
    pairs = dict(table.select("attribute", "patients").unique("attribute", maintain_order=True).iter_rows())
    names = list(pairs)
    fig = Figure(figsize=(style.PAGE, 0.8 + 0.2 * len(names)), layout="constrained")
    for ax, metric in zip(fig.subplots(1, 2, sharey=True), ("effectiveness", "PSNR inside (dB)"), strict=True):
        for k, arm in enumerate(arms):
            own = table.filter(metric=metric, arm=arm)
            at = np.array([names.index(name) for name in own["attribute"]]) + 0.6 * ((k + 0.5) / len(arms) - 0.5)
            label = {"label": arm} if metric == "effectiveness" else {}
            style.interval(ax, own, at, horizontal=True, marker=MARKERS[k % 4], color=COLOURS[k], **label)
        style.panel(ax, metric)
    fig.axes[0].axvline(1, color=style.GREY, linestyle=":", linewidth=0.8)
    style.name_rows(fig.axes[0], [f"{name} ({n})" for name, n in pairs.items()])
    legend = "mean and 95 % CI (pairs in brackets); dotted: as far as the truth; empty: no probe reads it"
    fig.supxlabel(legend, fontsize=7)
    fig.legend(loc="outside upper center", ncols=4)
    return fig


def lines(
    films: Films, arms: Mapping[str, np.ndarray], without: Sequence[str] = (), most: int = 6
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """For `draw_films`: the pair of each attribute whose film changes most; as many attributes as there is room for."""
    share = films.region.mean((1, 2))
    best = {name: int(np.where(films.attributes == name, share, -1).argmax()) for name in films.attributes}
    chosen = sorted((best[name] for name in best if name not in without), key=lambda k: -share[k])[:most]
    every = {"film": films.before} | dict(arms)
    return [(_asked(films.pairs[k]), {name: images[k] / 255 for name, images in every.items()}) for k in chosen]


def _asked(pair: Pair) -> str:
    """A change in a few words: `Effusion: left, severe`."""
    (name, value), *_ = pair.change.items()
    if isinstance(value, Mapping):
        value = ", ".join(str(v) for v in value.values() if v is not None)
    elif name in FINDINGS:
        value = "gone" if value == 0 else "alone"
    return f"{name}: {value}"


def draw_films(rows: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Films in lines: what is asked, then the film, its truth and its edits by name, each [S, S] in 0..1."""
    style.use()
    names = list(rows[0][1])
    side = style.PAGE / (len(names) + 1)
    fig = Figure(figsize=(style.PAGE, side * len(rows) + 0.3), layout="constrained")
    axes = fig.subplots(len(rows), len(names), squeeze=False)
    for line, (asked, pictures) in zip(axes, rows, strict=True):
        for ax, name in zip(line, names, strict=True):
            style.picture(ax, pictures[name])
        line[0].set_ylabel(textwrap.fill(asked, 18), fontsize=6)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=7)
    return fig
