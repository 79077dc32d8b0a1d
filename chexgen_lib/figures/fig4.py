"""Figure 4: pretraining on synthetic images, then fine-tuning on few or all real ones; the paper's beside it.

`draw` is its panel a with the attention's numbers, `draw_maps` its panel b; panels c and d, by finding, are in
`ed_fig6_8`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.experiments.pretraining import DEFAULT, LONGER
from chexgen_lib.figures import style
from chexgen_lib.paper import published

NO_MASKS = "real radiographs\nhave no masks"
NO_EXTERNAL = "no external images\nin this profile"
LOOKS = {  # marker and colour of a start, in this run's panels and in the paper's
    DEFAULT: ("o", style.BLACK),
    "ImageNet": ("o", style.BLACK),
    LONGER: ("s", style.BLUE),
    "1x synthetic": ("D", style.SKY),
    "2x synthetic": ("^", style.ORANGE),
    "3x synthetic": ("v", style.VERMILION),
    "5x synthetic": ("P", style.PURPLE),
}
OTHER = ("X", style.GREEN)


def draw(curves: pl.DataFrame, attention: pl.DataFrame) -> Figure:
    """a, b: macro AUROC against real images for each start; c: few shots; d: attention; e, f: the paper's numbers.

    curves: see `pretraining.curves`; a start may lack some sets. attention: rows of "Average", see
    `pretraining.attention_table`.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 5.0), layout="constrained")
    grid = fig.subplots(2, 3)
    average = curves.filter(finding="Average")
    titles = {"internal": "a  this run, internal test", "external": "b  this run, external test",
              "few-shot": "c  this run, few shots, external"}  # fmt: skip
    for ax, (group, title) in zip(grid[0], titles.items(), strict=True):
        _curves(ax, average.filter(group=group), title, log=group != "few-shot")
    handles, labels = grid[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), title="pretrained on (this run)")
    _attention(grid[1][0], attention)
    _paper(grid[1][1], "fine-tuning", "e  paper (Fig. 4a), MIMIC-CXR")
    _paper(grid[1][2], "few-shot", "f  paper (Fig. 4a), MedFMC")
    return fig


def draw_maps(images: np.ndarray, masks: np.ndarray, names: Sequence[str], maps: Mapping[str, np.ndarray]) -> Figure:
    """Grad-CAM on a few test images: the finding's true outline, and the attention of each start with its share inside.

    images: [K, S, S] in [0, 1]; masks: bool [K, H, H]; names: of the findings; maps: start -> [K, H, H].
    """
    style.use()
    row = 0.9 * style.PAGE / max(4, len(images)) + 0.2  # inches; pictures are square
    fig = Figure(figsize=(style.PAGE, 0.3 + row * (1 + len(maps))), layout="constrained")
    if not len(images):
        nothing(fig.subplots(), NO_MASKS)
        return fig
    axes = fig.subplots(1 + len(maps), len(images), squeeze=False)
    place = {"extent": (0, masks.shape[2], masks.shape[1], 0)}  # an image may have other pixels than its mask
    for k, (image, mask, name) in enumerate(zip(images, masks, names, strict=True)):
        axes[0, k].set_title(name.replace(" ", "\n", 1), fontsize=7)
        for line, start in enumerate([None, *maps]):
            ax = axes[line, k]
            ax.imshow(image, vmin=0, vmax=1, cmap="gray", **place)
            if start is not None:
                heat = maps[start][k]
                ax.imshow(heat, cmap="inferno", alpha=0.5, vmin=0, **place)
                share = heat[mask].sum() / heat.sum() if heat.sum() > 0 else mask.mean()
                ax.set_xlabel(f"{share:.2f} (even: {mask.mean():.2f})", fontsize=6, labelpad=1)
            ax.contour(mask, [0.5], colors="white", linewidths=0.7, extent=(0, len(mask), 0, len(mask)))
            ax.set(xticks=[], yticks=[])
            if k == 0:
                ax.set_ylabel("image and mask" if start is None else start.replace(" ", "\n", 1), fontsize=6.5)
    return fig


def _title(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=7, fontweight="bold")


def _curves(ax: Axes, rows: pl.DataFrame, title: str, log: bool) -> None:
    _title(ax, title)
    if rows.is_empty():
        nothing(ax, NO_EXTERNAL)
        return
    sets = rows.select("set", "images").unique(maintain_order=True)
    places = sets["images"].to_numpy() if log else np.arange(len(sets))
    arms = rows["arm"].unique(maintain_order=True).to_list()
    for k, arm in enumerate(arms):
        own, (marker, colour) = rows.filter(arm=arm), LOOKS.get(arm, OTHER)
        line = "-" if len(own) == len(sets) else ":"  # what lies between was not trained
        value, low, high = (own[c].to_numpy() for c in ("value", "low", "high"))
        own_places = places[sets["set"].is_in(own["set"].to_list()).to_numpy()]
        x = own_places * 1.04 ** (k - len(arms) / 2) if log else own_places + 0.1 * (k - len(arms) / 2)
        ax.errorbar(x, value, np.maximum([value - low, high - value], 0), fmt=f"{marker}{line}", markersize=3,
                    linewidth=0.9, color=colour, label=arm)  # fmt: skip
    if log:
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{n:.0f}" for n in places], fontsize=6, rotation=45)
        ax.minorticks_off()
        ax.set_xlabel("real images to fine-tune on")
    else:
        ax.set_xticks(places, sets["set"].to_list())
        ax.set_xlabel("real images a finding")
    ax.set_ylabel(f"macro AUROC, 95 % CI\n(n = {rows['n'][0]} images x {rows['seeds'][0]} seeds)", fontsize=7)


def _attention(ax: Axes, rows: pl.DataFrame) -> None:
    _title(ax, "d  this run, Grad-CAM")
    if rows.is_empty():
        nothing(ax, NO_MASKS)
        return
    value, low, high = (rows[c].to_numpy() for c in ("value", "low", "high"))
    x = np.arange(len(rows))
    ax.errorbar(x, value, np.maximum([value - low, high - value], 0), fmt="o", color=style.BLUE, markersize=4)
    ax.axhline(rows["chance"][0], color=style.GREY, linestyle="--")
    ax.set_xticks(x, rows["start"].to_list(), fontsize=6, rotation=30, ha="right")
    ax.set_ylabel(f"attention inside the mask, 95 % CI\n(n = {rows['n'][0]} findings; dashed: chance)", fontsize=7)
    ax.margins(x=0.2)


def nothing(ax: Axes, why: str) -> None:
    """An empty panel that says why."""
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])


def _paper(ax: Axes, kind: str, title: str) -> None:
    rows = published.load("fig4a").filter(pl.col("category").str.contains("shot") == (kind == "few-shot"))
    _title(ax, title)
    ax.set_facecolor("#F0F0F0")
    sets = rows["category"].unique(maintain_order=True).to_list()
    for arm in rows["arm"].unique(maintain_order=True):
        own, (marker, colour) = rows.filter(arm=arm), LOOKS.get(arm, OTHER)
        x = [sets.index(c) for c in own["category"]]
        ax.plot(x, own["value"] / 100, f"{marker}-", markersize=4, label=arm, color=colour)
    ax.set_xticks(range(len(sets)), [s.replace(" of real data", "\nof real data") for s in sets])
    ax.set_ylabel("macro AUROC (paper)")
    ax.margins(x=0.2)
    ax.legend(fontsize=6)
