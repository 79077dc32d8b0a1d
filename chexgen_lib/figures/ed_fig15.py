"""ED Fig 15: severity-conditioned samples beside the real images of their records, and the severity predicted for them.

The predicting networks were trained on real images alone (notebook 09). ChexGen's samples are blue discs, other
generators' triangles.
"""

from itertools import cycle

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.estimates.wording import format_interval
from chexgen_lib.experiments.arms import CHEXGEN
from chexgen_lib.figures import style
from chexgen_lib.learners.regressor import GRADES
from chexgen_lib.pools.annotated import TESTS

THIRDS = dict(zip(GRADES, ("no opacity", "lowest third", "middle third", "highest third"), strict=True))
RECORDS = 2  # shown of each grade
COPIES = 2  # shown of each record
TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1)
TRUTH = "test"  # the set of real images, which bounds what can be predicted
LOOKS = ((style.BLUE, "o"), (style.ORANGE, "^"), (style.PURPLE, "v"), (style.VERMILION, "<"), (style.SKY, ">"))


def shown(read: pl.DataFrame) -> pl.DataFrame:
    """Predictions of ChexGen's samples that are shown: of each grade the records with scores nearest to its median."""
    own = read.filter(pl.col("set") == CHEXGEN, pl.col("copy") < COPIES)
    records = own.unique("image_id", maintain_order=True).with_columns(
        off=(pl.col("asked") - pl.col("asked").median().over("grade")).abs()
    )
    nearest = records.sort("off", "image_id").group_by("grade", maintain_order=True).head(RECORDS)
    return own.filter(pl.col("image_id").is_in(nearest["image_id"].to_list())).sort("asked", "image_id", "copy")


def draw(read: pl.DataFrame, agreed: pl.DataFrame, images: np.ndarray) -> Figure:
    """Left a row for each third of scores: real image and samples of records; right predicted against requested scores.

    Args:
        read: `severity.readings`; empty where a cohort states no severity.
        agreed: `severity.agreement` of it.
        images: uint8 [N, H, W], indexed by the column `row` of `read`.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 4.0), layout="constrained")
    if read.is_empty():
        fig.text(0.5, 0.5, "the cohort states no severity, so no image was requested with one", ha="center")
        return fig
    pictures, plot = fig.subfigures(1, 2, width_ratios=(1.5, 1))
    axes = pictures.subplots(len(GRADES), RECORDS * (1 + COPIES), squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for line, grade in zip(axes, GRADES, strict=True):
        line[0].set_ylabel(THIRDS[grade], fontsize=7)
        records = shown(read).filter(grade=grade).partition_by("image_id", maintain_order=True)
        for k, record in enumerate(records):
            _record(line[k * (1 + COPIES) : (k + 1) * (1 + COPIES)], record, images)
    pictures.supxlabel(
        "a record's real image with its score, and samples for that score\n(share of the lungs, 0 to 1)",
        fontsize=7,
    )
    _scatter(plot.subplots(), read, agreed)
    return fig


def _record(axes: np.ndarray, record: pl.DataFrame, images: np.ndarray) -> None:
    style.picture(axes[0], images[record["real"][0]], vmax=255)
    axes[0].set_xlabel(f"real: {record['asked'][0]:.2f}", fontsize=6, labelpad=1)
    for ax, row in zip(axes[1:], record.iter_rows(named=True), strict=False):
        style.picture(ax, images[row["row"]], vmax=255)
        ax.set_xlabel(f"request {row['asked']:.2f}\npredicted {row['read']:.2f}", fontsize=6, labelpad=1)


def _scatter(ax: Axes, read: pl.DataFrame, agreed: pl.DataFrame) -> None:
    generators = [name for name in read["set"].unique(maintain_order=True) if name not in TESTS]
    for name, (colour, marker) in zip(generators, cycle(LOOKS), strict=False):
        own = read.filter(set=name)
        look = {"color": colour, "markersize": 2.5, "alpha": 0.6, "clip_on": False}
        ax.plot(own["asked"], own["read"], marker, label=_named(name, agreed, name), **look)
    if TRUTH in agreed["set"]:
        ax.plot([], [], " ", label=_named("real test images", agreed, TRUTH))
    right, top = (1.05 * read.filter(pl.col("set").is_in(generators))[side].max() for side in ("asked", "read"))
    ax.plot([0, right], [0, right], color=style.GREY, linewidth=0.8, linestyle=":", label="predicted as requested")
    ax.set_xscale("function", functions=(np.sqrt, np.square))  # most scores are small
    ax.set_yscale("function", functions=(np.sqrt, np.square))
    ax.set_xlabel("requested score, root scale", fontsize=7)
    ax.set_ylabel("score predicted by networks trained on real images alone", fontsize=7)
    ax.set(xticks=TICKS, yticks=TICKS, xlim=(0, right), ylim=(0, top))
    ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1), fontsize=6)


def _named(label: str, agreed: pl.DataFrame, name: str) -> str:
    rows = agreed.filter(set=name, metric="Pearson r").to_dicts()
    if not rows:
        return f"{label}: no r,\nof one patient"
    (row,) = rows
    n = f"n = {row['n']} of {row['patients']} patients"
    r = "no r" if row["value"] is None else f"r = {format_interval(row['value'], row['low'], row['high'])}"
    return f"{label}: {r},\n{n}"
