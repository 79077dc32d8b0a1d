"""The same noise and prompts, sampled in many steps and in few."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from chexgen_lib.figures import style


def draw(images: Mapping[str, np.ndarray]) -> Figure:
    """A row of images for each way of sampling, a column for each prompt.

    Args:
        images: way of sampling -> [K, H, W] in [0, 1].
    """
    style.use()
    columns = len(next(iter(images.values())))
    fig = Figure(figsize=(style.PAGE, style.PAGE / columns * len(images) + 0.1), layout="constrained")
    axes = fig.subplots(len(images), columns, squeeze=False)
    for line, (name, row) in zip(axes, images.items(), strict=True):
        line[0].set_ylabel(name, fontsize=7)
        for ax, image in zip(line, row, strict=True):
            style.picture(ax, image)
    return fig
