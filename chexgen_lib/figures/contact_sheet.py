"""The embedded cohort's contact sheet: each finding at three severities beside the patient without it."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.phantom.contact_sheet import BOTH_SIDES


def draw(pictures: dict[str, np.ndarray], table: pl.DataFrame) -> Figure:
    """A row per finding, its mask outlined.

    Args:
        pictures, table: as `phantom.contact_sheet.load_sheet` returns them.
    """
    style.use()
    images, masks = pictures["images"], pictures["masks"]
    fig = Figure(figsize=(style.PAGE, 1.02 * len(images) + 0.3), layout="constrained")
    axes = fig.subplots(len(images), images.shape[1] + 1)
    cells = table.rows(named=True)
    for number, row in enumerate(axes):
        _show(row[0], pictures["without"][number])
        row[0].set_ylabel(cells[number * images.shape[1]]["finding"].replace(" ", "\n", 1), fontsize=7)
        for k, ax in enumerate(row[1:]):
            cell = cells[number * images.shape[1] + k]
            _show(ax, images[number, k], masks[number, k])
            front = {"PA": "front", "LATERAL": "lateral"}[cell["view"]]
            place = front if cell["finding"] in BOTH_SIDES else cell["side"]
            ax.set_title(f"{place}, {cell['severity']}", fontsize=7, pad=2)
    axes[0, 0].set_title("without", fontsize=7, pad=2)
    return fig


def _show(ax, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    style.picture(ax, image)
    if mask is not None and mask.any() and not mask.all():
        ax.contour(mask, levels=[0.5], colors=style.ORANGE, linewidths=0.5)
    ax.set_frame_on(False)
