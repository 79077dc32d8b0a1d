"""ED Figs 11 to 14: requested masks and boxes, samples conditioned on them, and their outlines over a sample."""

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from chexgen_lib.figures import style
from chexgen_lib.sampling.conditions import LEGEND

COLOURS = (style.SKY, style.ORANGE, style.GREEN, style.VERMILION, style.PURPLE, style.YELLOW)  # seen on black and grey


def draw(conditions: np.ndarray, samples: np.ndarray, prompts: list[str]) -> Figure:
    """One request per row: its condition image, its samples, and the condition's outline over the first of them.

    The first classes have the colours of the house: those of `LEGEND`, which the adapter sees, are alike to an eye.

    Args:
        conditions: uint8 [R, H, W, 3] in the colours of `LEGEND`.
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
    shown = [name for name, colour in LEGEND.items() if (conditions == colour).all(axis=-1).any()]
    colours = {name: to_hex(np.array(LEGEND[name]) / 255) for name in shown} | dict(zip(shown, COLOURS, strict=False))
    for line, condition, images, prompt in zip(axes, conditions, samples, prompts, strict=True):
        line[0].imshow(_coloured(condition, colours))
        line[0].set_xlabel(textwrap.fill(textwrap.shorten(prompt, 72, placeholder=" ..."), 27), fontsize=6)
        for ax, image in zip(line[1:], [*images, images[0]], strict=True):
            style.picture(ax, image)
        _outline(line[-1], condition, colours)
    for ax in axes[:, 0]:
        ax.set(xticks=[], yticks=[], frame_on=False)
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    fig.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)))
    return fig


def _coloured(condition: np.ndarray, colours: Mapping[str, str]) -> np.ndarray:
    """A condition [H, W, 3] with the colours of the figure in place of those of `LEGEND`."""
    image = np.zeros(condition.shape)
    for name, colour in colours.items():
        image[(condition == LEGEND[name]).all(axis=-1)] = to_rgb(colour)
    return image


def _outline(ax: Axes, condition: np.ndarray, colours: Mapping[str, str]) -> None:
    for name, colour in colours.items():
        inside = (condition == LEGEND[name]).all(axis=-1)
        if inside.any():
            ax.contour(inside, levels=[0.5], colors=[colour], linewidths=0.9)
