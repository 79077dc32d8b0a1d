"""Figure 4: pretraining on synthetic images, then fine-tuning on few or all real ones; the paper's beside it.

`draw` is its panel a with the oracles, the worth of a synthetic image, and the attention's numbers; `draw_maps` is its
panel b; panels c and d, by finding, are in `ed_fig6_8`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.experiments.arms import (
    AS_MANY_STEPS,
    DEFAULT,
    IMAGENET,
    RAD_DINO,
    pretrained,
    pretrained_from,
    pretrained_on_real,
    pretraining_copies,
)
from chexgen_lib.figures import style
from chexgen_lib.paper import published

NO_MASKS = "real radiographs\nhave no masks"
NO_ORACLE = "too few further real images\nto hold synthetic ones against"
NO_EXTERNAL = "no external images\nin this profile"
COPIES = {1: ("D", style.SKY), 2: ("^", style.ORANGE), 3: ("v", style.VERMILION), 5: ("P", style.PURPLE)}
LOOKS = {  # marker and colour of an initialisation, in this run's panels and in the paper's
    DEFAULT: ("o", style.BLACK),
    IMAGENET: ("o", style.BLACK),
    **dict.fromkeys(AS_MANY_STEPS.values(), ("s", style.BLUE)),
    RAD_DINO: ("<", style.GREY),
    **{pretrained_from(RAD_DINO, k): (">", style.YELLOW) for k in COPIES},
    **{pretrained(k): look for k, look in COPIES.items()},
    **{pretrained_on_real(k): (marker, style.GREEN) for k, (marker, _) in COPIES.items()},
}
OTHER = ("X", style.VERMILION)  # another generator's images


def look_of(arm: str) -> tuple[str, str]:
    """Marker and colour of an initialisation; other numbers of copies than `COPIES` share a marker."""
    if arm in LOOKS:
        return LOOKS[arm]
    if arm.endswith("x new real"):
        return "*", style.GREEN
    return ("*", style.PURPLE) if pretraining_copies(arm) else OTHER


def draw(curves: pl.DataFrame, attention: pl.DataFrame) -> Figure:
    """a, b: macro AUROC against real images by initialisation; c: few shots; d: worth; e: attention; f, g: the paper's.

    Args:
        curves: See `pretraining.curves`; an initialisation may lack some sets.
        attention: Rows of "Average" of `attention.table`.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 7.0), layout="constrained")
    axes = fig.subplot_mosaic([["a", "b", "c"], ["d", "d", "e"], ["f", "f", "g"]])
    average = curves.filter(finding="Average")
    titles = {"internal": "a  this run, internal", "external": "b  this run, external",
              "few-shot": "c  this run, few shots"}  # fmt: skip
    for group, title in titles.items():
        ax = axes[title[0]]
        style.panel(ax, title)
        _curves(ax, average.filter(group=group), log=group != "few-shot")
    handles, labels = axes["a"].get_legend_handles_labels()
    fig.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(5, len(labels)),
        title="pretrained on (this run); green: new real images, x: another generator's",
    )
    style.panel(axes["d"], "d  this run, worth over as many steps on the real images")
    _worth(axes["d"], average)
    style.panel(axes["e"], "e  this run, Grad-CAM")
    _attention(axes["e"], attention)
    for letter, kind, title in (("f", "fine-tuning", "MIMIC-CXR"), ("g", "few-shot", "MedFMC")):
        style.panel(axes[letter], f"{letter}  paper (Fig. 4a), {title}", style.PAPER)
        _paper(axes[letter], kind)
    return fig


def draw_maps(images: np.ndarray, masks: np.ndarray, names: Sequence[str], maps: Mapping[str, np.ndarray]) -> Figure:
    """Grad-CAM on a few test images: the finding's true outline, and each network's attention with its share inside.

    Args:
        images: [K, S, S] in [0, 1].
        masks: The findings' masks, bool [K, H, H].
        names: Of the K findings.
        maps: Initialisation of the network -> its attention [K, H, H], at least 0.
    """
    style.use()
    row = 0.9 * style.PAGE / max(4, len(images)) + 0.2  # inches; pictures are square
    fig = Figure(figsize=(style.PAGE, 0.3 + row * (1 + len(maps))), layout="constrained")
    if not len(images):
        style.empty(fig.subplots(), NO_MASKS)
        return fig
    axes = fig.subplots(1 + len(maps), len(images), squeeze=False)
    place = {"extent": (0, masks.shape[2], masks.shape[1], 0)}  # an image may have other pixels than its mask
    for k, (image, mask, name) in enumerate(zip(images, masks, names, strict=True)):
        axes[0, k].set_title(name.replace(" ", "\n", 1), fontsize=6)
        for line, network in enumerate([None, *maps]):
            ax = axes[line, k]
            style.picture(ax, image, **place)
            if network is not None:
                heat = maps[network][k]
                ax.imshow(heat, cmap="inferno", alpha=0.5, vmin=0, **place)
                share = heat[mask].sum() / heat.sum() if heat.sum() > 0 else mask.mean()
                ax.set_xlabel(f"{share:.2f} (even: {mask.mean():.2f})", fontsize=6, labelpad=1)
            ax.contour(mask, [0.5], colors="white", linewidths=0.7, extent=(0, len(mask), 0, len(mask)))
            ax.set(xticks=[], yticks=[])
            if k == 0:
                ax.set_ylabel("image and mask" if network is None else network.replace(" ", "\n", 1), fontsize=6.5)
    return fig


def _curves(ax: Axes, rows: pl.DataFrame, log: bool) -> None:
    """Macro AUROC by real images; initialisations stand a little apart, so that their intervals do."""
    if rows.is_empty():
        style.empty(ax, NO_EXTERNAL)
        return
    sets = rows.select("set", "images").unique(maintain_order=True)
    places = sets["images"].to_numpy() if log else np.arange(len(sets))
    arms = rows["arm"].unique(maintain_order=True).to_list()
    for k, arm in enumerate(arms):
        own, (marker, colour) = rows.filter(arm=arm), look_of(arm)
        line = "-" if len(own) == len(sets) else ":"  # what lies between was not trained
        own_places = places[sets["set"].is_in(own["set"].to_list()).to_numpy()]
        at = own_places * 1.04 ** (k - len(arms) / 2) if log else own_places + 0.1 * (k - len(arms) / 2)
        style.interval(ax, own, at, marker=marker, linestyle=line, color=colour, label=arm)
    if log:
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{n:.0f}" for n in places], fontsize=6, rotation=45)
        ax.minorticks_off()
        ax.set_xlabel("real images to fine-tune on", fontsize=7)
    else:
        ax.set_xticks(places, sets["set"].to_list())
        ax.set_xlabel("external images of each finding", fontsize=7)
    ax.set_ylabel(f"macro AUROC, 95 % CI\n(n = {rows['n'][0]} images x {rows['seeds'][0]} seeds)", fontsize=7)


def _worth(ax: Axes, rows: pl.DataFrame) -> None:
    """The worth of a synthetic image by fine-tuning set and initialisation, where there is an oracle and a control."""
    held = rows.filter(pl.col("oracle").is_not_null())
    if held.is_empty():
        style.empty(ax, NO_ORACLE)
        return
    labels = [f"{name}: {arm}" for name, arm in held.select("set", "arm").iter_rows()]
    looks = [dict(zip(("marker", "color"), look_of(arm), strict=True)) for arm in held["arm"]]
    style.worth(ax, held, labels, looks)


def _attention(ax: Axes, rows: pl.DataFrame) -> None:
    """Share of the attention inside the findings' masks, by initialisation."""
    if rows.is_empty():
        style.empty(ax, NO_MASKS)
        return
    for k, name in enumerate(rows["start"]):
        marker, colour = look_of(name)
        style.interval(ax, rows[k : k + 1], np.array([k]), marker=marker, color=colour, markersize=4)
    ax.axhline(rows["chance"][0], color=style.GREY, linestyle="--")
    ax.set_xticks([])
    ax.set_xlabel("initialisation, as in the legend", fontsize=7)
    ax.set_ylabel(f"attention inside the mask, 95 % CI\n(n = {rows['n'][0]} findings; dashed: chance)", fontsize=7)
    ax.margins(x=0.2)


def _paper(ax: Axes, kind: str) -> None:
    """The paper's numbers of fine-tuning on shares of the data, or of few shots."""
    rows = published.load("fig4a").filter(pl.col("category").str.contains("shot") == (kind == "few-shot"))
    sets = rows["category"].unique(maintain_order=True).to_list()
    for arm in rows["arm"].unique(maintain_order=True):
        own, (marker, colour) = rows.filter(arm=arm), look_of(arm)
        at = [sets.index(c) for c in own["category"]]
        ax.plot(at, own["value"] / 100, f"{marker}-", markersize=4, label=arm, color=colour)
    ax.set_xticks(range(len(sets)), [s.replace(" of real data", "") for s in sets])
    ax.set_xlabel("shots of each finding" if kind == "few-shot" else "share of real images to fine-tune on", fontsize=7)
    ax.set_ylabel("macro AUROC (paper)", fontsize=7)
    ax.margins(x=0.2)
    ax.legend(fontsize=6)
