"""Extended Data Figures 6 to 8: supervised pretraining by finding, and where the networks attend.

The paper's text does not include the captions. Here 6 is each finding's AUROC against the real images of this cohort, 7
the same at another site and with few shots, 8 the attention inside the findings' masks.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from chexgen_lib.experiments.arms import AS_MANY_STEPS, reference_among
from chexgen_lib.figures import style
from chexgen_lib.figures.fig4 import NO_EXTERNAL, NO_MASKS, look_of
from chexgen_lib.paper import published

COLUMNS = 5  # of panels
PAPER = {"internal": "fig4c", "few-shot": "fig4d"}  # what the paper prints by finding
NAMES = {"Pleural Effusion": "Effusion"}  # the paper's -> ours


def table(curves: pl.DataFrame, groups: Sequence[str]) -> pl.DataFrame:
    """What Extended Data Figures 6 and 7 plot: findings with an estimate in `groups`, and the paper's numbers of them.

    Args:
        curves: See `pretraining.curves`.
        groups: Which of its groups.

    Returns:
        The columns of `curves` and `source`, "this run" or "paper". Of the paper's rows only group, set, arm, finding
        and value (a fraction) are known.
    """
    own = curves.filter(pl.col("group").is_in(groups), pl.col("finding") != "Average").drop_nulls("value")
    theirs = [_published(group) for group in groups if group in PAPER]
    rows = [own.with_columns(source=pl.lit(style.THIS_RUN)), *theirs]
    known = pl.concat(rows, how="diagonal_relaxed").select("source", *curves.columns)
    return known.join(own, on=["group", "finding"], how="semi", maintain_order="left")


def _published(group: str) -> pl.DataFrame:
    parts = pl.col("category").str.split(", ").list
    return published.load(PAPER[group]).select(
        "arm",
        finding=parts.get(0).replace(NAMES),
        set=parts.get(1),
        value=pl.col("value") / 100,
        group=pl.lit(group),
        source=pl.lit(style.PAPER),
    )


def draw_findings(rows: pl.DataFrame, groups: Sequence[str], most: str) -> Figure:
    """For each of `groups` a panel for each finding: AUROC of every initialisation against the real images.

    Bands are 95 % intervals of the reference and of `most`; those of the others are in the table.

    Args:
        rows: See `table`.
        groups: One to three of "internal", "external" and "few-shot".
        most: The initialisation with the most synthetic images.
    """
    style.use()
    shown = {group: rows.filter(group=group) for group in groups}
    lines = [max(1, -(-own["finding"].n_unique() // COLUMNS)) for own in shown.values()]
    fig = Figure(figsize=(style.PAGE, 1.35 * sum(lines) + 0.75 * len(groups) + 0.5), layout="constrained")
    parts = fig.subfigures(len(groups), 1, height_ratios=lines, squeeze=False)[:, 0]
    for part, letter, (group, own) in zip(parts, "abc", shown.items(), strict=False):
        part.suptitle(f"{letter}  {group}" if len(groups) > 1 else "", x=0.01, ha="left", fontsize=8, weight="bold")
        if own.is_empty():
            style.empty(part.subplots(), NO_EXTERNAL)
        else:
            _panels(part, own, most)
    entries: dict[str, Artist] = {}
    for ax in (ax for part in parts for ax in part.axes):
        lines, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, lines, strict=True))
    fig.legend(entries.values(), entries, loc="outside lower center", ncols=4, fontsize=6.5)
    return fig


def _panels(part: SubFigure, rows: pl.DataFrame, most: str) -> None:
    findings = rows.filter(source=style.THIS_RUN)["finding"].unique(maintain_order=True).to_list()
    axes = part.subplots(-(-len(findings) // COLUMNS), COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, finding in zip(axes, findings, strict=False):
        _panel(ax, rows.filter(finding=finding), most)
    for ax in axes[len(findings) :]:
        ax.set_axis_off()
    for ax in axes[max(0, len(findings) - COLUMNS) : len(findings)]:
        ax.tick_params(labelbottom=True)
    first = rows.filter(source=style.THIS_RUN).row(0, named=True)
    shots = first["group"] == "few-shot"
    part.supxlabel(f"real images {'of each finding ' if shots else ''}to fine-tune on", fontsize=7)
    part.supylabel(f"AUROC (bands: 95 % CI, {first['seeds']} seeds)", fontsize=7)


def _panel(ax: Axes, rows: pl.DataFrame, most: str) -> None:
    own, theirs = rows.filter(source=style.THIS_RUN), rows.filter(source=style.PAPER)
    shots = own["group"][0] == "few-shot"
    sets = own.select("set", "images").unique(maintain_order=True)
    places = dict(zip(sets["set"], range(len(sets)) if shots else sets["images"], strict=True))
    arms = own["arm"].unique(maintain_order=True).to_list()
    for arm in arms:
        line, (marker, colour) = own.filter(arm=arm), look_of(arm)
        x = [places[name] for name in line["set"]]
        style_of = {"linestyle": "-" if len(line) == len(sets) else ":", "marker": marker, "markersize": 2}
        ax.plot(x, line["value"], color=colour, linewidth=0.8, label=arm, **style_of)
        if arm in (reference_among(arms), most):
            ax.fill_between(x, line["low"], line["high"], color=colour, alpha=0.18, linewidth=0)
    where = ", other data" if shots else ", 1 % of other data"
    for k, arm in enumerate(theirs["arm"].unique(maintain_order=True)):
        points = theirs.filter(arm=arm)
        x = [places.get(name, min(places.values())) - (0.25 if shots else 0) for name in points["set"]]
        filled = style.GREY if k else "white"
        ax.plot(np.array(x) if shots else 0.75 * np.array(x), points["value"], "os"[k % 2], markersize=4,
                color=style.GREY, markerfacecolor=filled, label=f"paper{where}: {arm}")  # fmt: skip
    ax.axhline(0.5, color=style.GREY, linestyle="--", linewidth=0.6)
    ax.set_title(f"{own['finding'][0].replace('Enlarged Cardio', 'Enl. Cardio')}\n"
                 f"({own['positives'][0]} of {own['n'][0]} positive)", fontsize=6)  # fmt: skip
    if not shots:
        ax.set_xscale("log")
        ax.minorticks_off()
    # among close places only the first and last are labelled
    ticks = list(places.items()) if shots else [next(iter(places.items())), list(places.items())[-1]]
    ax.set_xticks([at for _, at in ticks], [name.removesuffix("-shot") if shots else f"{at:.0f}" for name, at in ticks])
    ax.tick_params(labelsize=6)


def draw_attention(attention: pl.DataFrame, most: str) -> Figure:
    """a: share of the attention inside the mask by finding, beside chance; b: the change from the reference.

    Args:
        attention: See `attention.table`; findings with too few cases for an estimate have only their n.
        most: The initialisation with the most synthetic images.
    """
    style.use()
    names = attention["finding"].unique(maintain_order=True).to_list()
    fig = Figure(figsize=(style.PAGE, 0.9 + 0.27 * max(4, len(names))), layout="constrained")
    if attention.is_empty():
        style.empty(fig.subplots(), NO_MASKS)
        return fig
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1.4, 1))
    reference = reference_among(attention["start"])
    for k, arm in enumerate((reference, AS_MANY_STEPS[reference], most)):
        own, (marker, colour) = attention.filter(start=arm), look_of(arm)
        at = np.arange(len(names)) + 0.22 * (k - 1)
        style.interval(left, own, at, horizontal=True, color=colour, marker=marker, label=arm)
        if arm != reference:
            style.interval(right, own, at, "difference", horizontal=True, color=colour, marker=marker)
    chance = attention.filter(start=reference)["chance"]
    left.vlines(chance, np.arange(len(names)) - 0.4, np.arange(len(names)) + 0.4, color=style.GREY, linestyle="--",
                label="chance: the mask's share of the image")  # fmt: skip
    named = [f"{name} (n = {n})" for name, n in zip(names, attention.filter(start=reference)["n"], strict=True)]
    left.set_yticks(range(len(names)), named, fontsize=6.5)
    left.set_ylim(len(names) - 0.5, -0.5)
    style.panel(left, "a  share of the attention")
    left.set_xlabel("attention inside the mask, 95 % CI (n = images)", fontsize=7)
    right.locator_params(axis="x", nbins=4)
    right.axvline(0, color=style.GREY, linestyle="--", linewidth=0.8)
    style.panel(right, "b  change by initialisation")
    right.set_xlabel(f"difference from {reference.split()[0]}, 95 % CI", fontsize=7)
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return fig
