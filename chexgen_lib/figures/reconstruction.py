"""How well the frozen autoencoder reconstructs radiographs of unseen patients: examples, PSNR and sharpness."""

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style


def draw(originals: np.ndarray, reconstructions: np.ndarray, psnr: pl.DataFrame, sharpness: pl.DataFrame) -> Figure:
    """Columns of original, reconstruction and their difference (x 5), beside PSNR and energy by frequency.

    Args:
        originals: [K, H, W] in [0, 1].
        reconstructions: Likewise.
        psnr: Columns resolution (px) and psnr (dB), one row per image.
        sharpness: as `quality.spectrum.kept_energy` returns it.
    """
    style.use()
    k = len(originals)
    fig = Figure(figsize=(style.PAGE, 3.0), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[3, 1.6])
    axes = left.subplots(3, k, squeeze=False)
    rows = (originals, reconstructions, 0.5 + 5 * (reconstructions - originals))
    for line, images, label in zip(axes, rows, ("original", "reconstruction", "difference x 5"), strict=True):
        line[0].set_ylabel(label, fontsize=7)
        for ax, image in zip(line, images, strict=True):
            style.picture(ax, image)
    ax, below = right.subplots(2, 1)
    for colour, (size, group) in zip(style.OKABE_ITO, psnr.group_by("resolution", maintain_order=True), strict=False):
        values = group["psnr"]
        label = f"{size[0]} px: {values.mean():.1f} dB, n = {len(values)}"
        ax.hist(values, bins=20, alpha=0.6, color=colour, label=label)
    ax.set(xlabel="PSNR (dB)", ylabel="unseen patients")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.45))
    below.bar(sharpness["band"], sharpness["share"], color=style.BLUE)
    below.plot(sharpness["band"], sharpness["median"], "D", color=style.ORANGE, markersize=4)
    below.axhline(1, color=style.GREY, linewidth=0.8)
    below.set(xlabel="cycles an image (diamond: median)", ylabel="energy returned")
    below.tick_params(axis="x", labelsize=6)
    return fig
