"""Two training objectives in few sampling steps: each metric over the number of steps."""

import polars as pl
from matplotlib.figure import Figure

from chexgen_lib.figures import style

LOOKS = {"ddpm": (style.VERMILION, "s"), "rectified_flow": (style.BLUE, "o")}
NAMES = {"ddpm": "ChexGen's objective, DDIM", "rectified_flow": "rectified flow, Euler"}


def draw(table: pl.DataFrame, bounds: dict[str, float]) -> Figure:
    """One panel for each metric, one line for each objective.

    Args:
        table: Rows of `experiments.rectified_flow.comparison.compare`.
        bounds: Metric -> its value on real images after the autoencoder, which no sample can pass; dashed.
    """
    style.use()
    metrics = table["metric"].unique(maintain_order=True).to_list()
    columns = 3
    fig = Figure(figsize=(style.PAGE, 1.9 * -(-len(metrics) // columns) + 0.4), layout="constrained")
    axes = fig.subplots(-(-len(metrics) // columns), columns, squeeze=False).flat
    steps = sorted(table["steps"].unique())
    for metric, ax in zip(metrics, axes, strict=False):
        for k, (objective, (colour, marker)) in enumerate(LOOKS.items()):
            own = table.filter(objective=objective, metric=metric).sort("steps")
            at = own["steps"].to_numpy() * 1.04 ** (2 * k - 1)
            style.interval(ax, own, at, marker=marker, linestyle="-", linewidth=1.2, color=colour,
                           label=NAMES[objective])  # fmt: skip
        if metric in bounds:
            ax.axhline(bounds[metric], color=style.GREY, linestyle="--", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xticks(steps, [str(n) for n in steps])
        ax.minorticks_off()
        ax.set(xlabel="sampling steps", ylabel=metric)
    for ax in axes:  # panels without a metric
        ax.set_axis_off()
    handles, labels = fig.axes[0].get_legend_handles_labels()
    n, seeds = table["n"][0], table["seeds"][0]
    title = f"n = {n} images x {seeds} trainings, 95 % CI; dashed: real images after the autoencoder"
    fig.legend(handles, labels, loc="outside lower center", ncols=2, title=title)
    return fig
