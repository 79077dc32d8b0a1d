"""ED Figs 11 to 14: what was asked, samples that follow it, and the asked outline over a sample; and the adherence."""

import textwrap

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from chexgen_lib.figures import style
from chexgen_lib.sampling.conditions import LEGEND

LABELS = {"pneumothorax": "pneumothorax\nmasks", "lungs": "lung masks", "ribs": "rib masks", "boxes": "boxes"}


def draw(conditions: np.ndarray, samples: np.ndarray, prompts: list[str]) -> Figure:
    """One request a row: its drawing, its samples, and the drawing's outline over the first of them.

    conditions: uint8 [R, H, W, 3]; samples: [R, S, H, W] in [0, 1]. Raises ValueError when lengths differ.
    """
    if not len(conditions) == len(samples) == len(prompts) or not len(prompts):
        raise ValueError(f"{len(conditions)} drawings, {len(samples)} samples, {len(prompts)} prompts: give one each")
    style.use()
    columns = samples.shape[1] + 2
    fig = Figure(figsize=(style.PAGE, style.PAGE / columns * len(prompts) * 1.13 + 0.5), layout="constrained")
    axes = fig.subplots(len(prompts), columns, squeeze=False)
    titles = ["asked", *(f"sample {k + 1}" for k in range(columns - 2)), "asked over sample 1"]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for line, condition, images, prompt in zip(axes, conditions, samples, prompts, strict=True):
        line[0].imshow(condition)
        line[0].set_xlabel(textwrap.fill(textwrap.shorten(prompt, 60, placeholder=" ..."), 30), fontsize=5)
        for ax, image in zip(line[1:], [*images, images[0]], strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        _outline(line[-1], condition)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    shown = [name for name, colour in LEGEND.items() if (conditions == colour).all(axis=-1).any()]
    patches = [Patch(color=np.array(LEGEND[name]) / 255, label=name) for name in shown]
    fig.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)))
    return fig


def _outline(ax, condition: np.ndarray) -> None:
    for colour in LEGEND.values():
        inside = (condition == colour).all(axis=-1)
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=[np.array(colour) / 255], linewidths=0.7)


def draw_adherence(table: pl.DataFrame) -> Figure:
    """Dice and box recall of each arm with their 95 % intervals (`experiments.annotation_to_image.table`)."""
    style.use()
    kinds = table["kind"].unique(maintain_order=True).to_list()
    arms = table["arm"].unique(maintain_order=True).to_list()
    fig = Figure(figsize=(style.COLUMN, 2.4), layout="constrained")
    ax = fig.subplots()
    for k, (arm, marker) in enumerate(zip(arms, "osD", strict=False)):
        rows = table.filter(arm=arm)
        x = np.array([kinds.index(kind) for kind in rows["kind"]]) + 0.18 * (k - (len(arms) - 1) / 2)
        value, low, high = (rows[name].to_numpy() for name in ("value", "low", "high"))
        error = np.maximum([value - low, high - value], 0)
        ax.errorbar(x, value, error, fmt=marker, markersize=4, capsize=2, linewidth=1, label=arm)
    counts = [table.filter(kind=kind)["n"][0] for kind in kinds]
    ax.set_xticks(range(len(kinds)), [f"{LABELS[kind]}\nn = {n}" for kind, n in zip(kinds, counts, strict=True)])
    ax.set(ylim=(0, 1), xlim=(-0.5, len(kinds) - 0.5), ylabel="Dice (boxes: recall)")
    fig.legend(loc="outside upper center", ncols=len(arms), handletextpad=0.2, columnspacing=1.0)
    return fig
