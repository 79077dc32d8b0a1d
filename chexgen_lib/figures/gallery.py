"""Figure 2d: prompts with their samples, the real image of the prompt and the nearest training image."""

import textwrap

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from chexgen_lib import images as im
from chexgen_lib.figures import style


def draw(rows: pl.DataFrame, real: np.ndarray, samples: np.ndarray, neighbours: np.ndarray) -> Figure:
    """One line per prompt: prompt | real image | S samples | training image nearest to the first sample.

    Args:
        rows: K rows with the columns prompt, distance (of the nearest training image; 0 is the same direction) and
            pixel_r (correlation of its pixels with the first sample's).
        real: [K, H, W] in [0, 1].
        samples: [K, S, H, W] in [0, 1].
        neighbours: [K, H, W] in [0, 1].

    Raises:
        ValueError: If the numbers of rows differ.
    """
    sizes = {len(real), len(samples), len(neighbours), rows.height}
    if len(sizes) != 1 or samples.ndim != 4 or not len(real):
        raise ValueError(f"needs one real, one nearest and S sample images a prompt; lengths are {sorted(sizes)}")
    style.use()
    k, s = samples.shape[:2]
    fig = Figure(figsize=(style.PAGE, 0.35 + 1.02 * k), layout="constrained")
    axes = fig.subplots(k, s + 3, squeeze=False, width_ratios=[1.55] + [1] * (s + 2))
    titles = ["real image", *(f"sample {i + 1}" for i in range(s)), "nearest in training"]
    for i, row in enumerate(rows.iter_rows(named=True)):
        text = textwrap.shorten(row["prompt"], 130, placeholder=" ...")
        axes[i, 0].text(0, 0.5, textwrap.fill(text, 24), va="center", fontsize=7, transform=axes[i, 0].transAxes)
        for ax, image in zip(axes[i, 1:], (real[i], *samples[i], neighbours[i]), strict=True):
            style.picture(ax, im.check(image, "gallery"))
        axes[i, -1].set_xlabel(f"d = {row['distance']:.2f}, r = {row['pixel_r']:.2f}", fontsize=7, labelpad=1)
    for ax, title in zip(axes[0], ["prompt", *titles], strict=True):
        ax.set_title(title, fontsize=7)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    return fig
