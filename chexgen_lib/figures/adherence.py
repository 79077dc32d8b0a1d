"""How closely samples follow the masks and boxes that they were conditioned on: Dice and recall of each arm."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style

LABELS = {"pneumothorax": "pneumothorax\nmasks", "lungs": "lung masks", "ribs": "rib masks", "boxes": "boxes"}


def draw(table: pl.DataFrame) -> Figure:
    """Dice and box recall of each arm with their 95 % intervals (`experiments.adherence.table`)."""
    style.use()
    kinds = table["kind"].unique(maintain_order=True).to_list()
    arms = table["arm"].unique(maintain_order=True).to_list()
    fig = Figure(figsize=(style.COLUMN, 2.4), layout="constrained")
    ax = fig.subplots()
    for k, (arm, marker) in enumerate(zip(arms, "osD", strict=False)):
        rows = table.filter(arm=arm)
        at = np.array([kinds.index(kind) for kind in rows["kind"]]) + 0.18 * (k - (len(arms) - 1) / 2)
        style.interval(ax, rows, at, marker=marker, markersize=4, capsize=2, linewidth=1, label=arm)
    counts = [table.filter(kind=kind)["n"][0] for kind in kinds]
    ax.set_xticks(range(len(kinds)), [f"{LABELS[kind]}\nn = {n}" for kind, n in zip(kinds, counts, strict=True)])
    ax.set(ylim=(0, 1), xlim=(-0.5, len(kinds) - 0.5), ylabel="Dice (boxes: recall), 95 % CI")
    fig.legend(loc="outside upper center", ncols=len(arms), handletextpad=0.2, columnspacing=1.0)
    return fig
