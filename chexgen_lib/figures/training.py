"""Loss curves of a training run (ED Fig 4 shows the two stages)."""

import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style


def draw(history: pl.DataFrame, title: str) -> Figure:
    """Loss and gradient norm against the optimiser step.

    Args:
        history: Of the trainer: step, loss, grad_norm, learning_rate.
        title: The training's name.

    Raises:
        ValueError: If the history is empty.
    """
    if history.is_empty():
        raise ValueError("the training history is empty: nothing was logged")
    style.use()
    fig = Figure(figsize=(style.PAGE, 2.4), layout="constrained")
    window = max(1, len(history) // 20)
    panels = [("loss", "weighted squared error"), ("grad_norm", "gradient norm before clipping")]
    axes = fig.subplots(1, 2)
    for ax, (column, label) in zip(axes, panels, strict=True):
        mean = history[column].rolling_mean(window, min_samples=1)
        ax.plot(history["step"], history[column], color=style.SKY, lw=0.5, label="one batch")
        ax.plot(history["step"], mean, color=style.BLUE, label=f"mean of {window} logged batches")
        ax.set(xlabel="optimiser step", ylabel=label, yscale="log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    fig.suptitle(f"{title}, {history['step'].max() + 1} steps", fontsize=8)
    return fig


def not_trained(weights: str) -> Figure:
    """A placeholder for the curves of a model that was loaded, not trained."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 0.5))
    fig.text(0.5, 0.5, f"not trained here: the weights are those of {weights}", ha="center", va="center")
    return fig
