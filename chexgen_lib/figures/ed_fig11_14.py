"""ED Figs 11 to 14: requested masks and boxes, samples conditioned on them, and their outlines over a sample."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from chexgen_lib.figures import style
from chexgen_lib.sampling.conditions import LEGEND


def draw(conditions: np.ndarray, samples: np.ndarray, prompts: list[str]) -> Figure:
    """One request per row: its condition image, its samples, and the condition's outline over the first of them.

    Args:
        conditions: uint8 [R, H, W, 3].
        samples: [R, S, H, W] in [0, 1].
        prompts: Texts of the R requests.

    Raises:
        ValueError: If the numbers of conditions, samples and prompts differ.
    """
    if not len(conditions) == len(samples) == len(prompts) or not len(prompts):
        raise ValueError(f"{len(conditions)} conditions, {len(samples)} samples, {len(prompts)} prompts: give one each")
    style.use()
    columns = samples.shape[1] + 2
    fig = Figure(figsize=(style.PAGE, style.PAGE / columns * len(prompts) * 1.13 + 0.5), layout="constrained")
    axes = fig.subplots(len(prompts), columns, squeeze=False)
    titles = ["request", *(f"sample {k + 1}" for k in range(columns - 2)), "request over sample 1"]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for line, condition, images, prompt in zip(axes, conditions, samples, prompts, strict=True):
        line[0].imshow(condition)
        line[0].set_xlabel(textwrap.fill(textwrap.shorten(prompt, 72, placeholder=" ..."), 27), fontsize=6)
        for ax, image in zip(line[1:], [*images, images[0]], strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        _outline(line[-1], condition)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    shown = [name for name, colour in LEGEND.items() if (conditions == colour).all(axis=-1).any()]
    patches = [Patch(color=np.array(LEGEND[name]) / 255, label=name) for name in shown]
    fig.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)))
    return fig


def _outline(ax, condition: np.ndarray) -> None:
    for colour in LEGEND.values():
        inside = (condition == colour).all(axis=-1)
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=[np.array(colour) / 255], linewidths=0.7)
