"""Prompts and their samples, side by side."""

import textwrap

import numpy as np
from matplotlib.figure import Figure

from chexgen_lib.figures import style


def draw(prompts: list[str], images: np.ndarray) -> Figure:
    """One sample for each prompt, the prompt below it.

    Args:
        prompts: K texts.
        images: [K, H, W] in [0, 1].

    Raises:
        ValueError: If the numbers of prompts and images differ, or there is none.
    """
    if len(prompts) != len(images) or not len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {len(images)} images: needs one image a prompt")
    style.use()
    columns = min(4, len(prompts))
    lines = -(-len(prompts) // columns)
    fig = Figure(figsize=(style.PAGE, 2.3 * lines), layout="constrained")
    axes = fig.subplots(lines, columns, squeeze=False).flat
    for ax in axes:
        ax.set(xticks=[], yticks=[], frame_on=False, anchor="N")
    for ax, prompt, image in zip(fig.axes, prompts, images, strict=False):
        style.picture(ax, image)
        ax.set_xlabel(textwrap.fill(textwrap.shorten(prompt, 100, placeholder=" ..."), 30), fontsize=6)
    return fig
