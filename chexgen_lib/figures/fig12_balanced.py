"""A balanced synthetic cohort beside the real one: F1 by group, agreement of their order, one factor changed."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.figures import style


def draw(surface: pl.DataFrame, ranks: pl.DataFrame, stressed: pl.DataFrame) -> Figure:
    """a: F1 by group on the balanced and on the real cohort; b: agreement of their order; c: one factor changed.

    Args:
        surface: `balanced_cohort.single_attributes` of both cohorts, with the column `cohort`.
        ranks: Rank correlations of the groups' F1 between the cohorts, by attribute.
        stressed: Change of F1 when one factor of the cohort is changed, by arm.
    """
    style.use()
    fig = Figure(figsize=(style.PAGE, 3.3), layout="constrained")
    a, b, c = fig.subplots(1, 3, width_ratios=(1.2, 1, 1))
    _surface(a, surface)
    _ranks(b, ranks.drop_nulls("value"))  # two groups have no order to agree on
    moved = stressed.drop_nulls("difference")
    style.interval(c, moved, np.arange(len(moved)), "difference", horizontal=True, marker="o", color=style.BLUE)
    style.name_rows(c, moved["arm"].to_list())
    c.axvline(0, color=style.GREY, linestyle=":", linewidth=0.8)
    c.set_xlabel(f"change of weighted F1,\n95 % CI (n = {stressed['n'][0]} each)")
    style.panel(c, "c  one factor changed")
    return fig


def _surface(ax: Axes, surface: pl.DataFrame) -> None:
    groups = surface.select("attribute", "group").unique(maintain_order=True).rows()
    looks = {"balanced": (style.ORANGE, "^"), "real": (style.BLUE, "o")}
    for shift, (cohort, (colour, marker)) in zip((-0.16, 0.16), looks.items(), strict=True):
        own = surface.filter(cohort=cohort).drop_nulls("f1").rename({"f1": "value"})
        at = np.array([groups.index(key) for key in own.select("attribute", "group").rows()]) + shift
        sizes = own["n_patients"]
        label = f"{cohort}, n = {sizes.min()} to {sizes.max()}" if len(sizes) else cohort
        style.interval(ax, own, at, horizontal=True, marker=marker, color=colour, label=label)
    style.name_rows(ax, [group for _, group in groups])
    ax.set_xlabel("weighted F1, 95 % CI (n = patients)")
    style.panel(ax, "a  performance surface")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _ranks(ax: Axes, ranks: pl.DataFrame) -> None:
    attributes = ranks["attribute"].unique(maintain_order=True).to_list()
    looks = {"Spearman rho": (style.GREEN, "o"), "Kendall tau": (style.PURPLE, "s")}
    for shift, (measure, (colour, marker)) in zip((-0.16, 0.16), looks.items(), strict=True):
        own = ranks.filter(measure=measure)
        at = np.array([attributes.index(name) for name in own["attribute"]]) + shift
        style.interval(ax, own, at, horizontal=True, marker=marker, color=colour, label=measure)
    n = dict(ranks.select("attribute", "n").iter_rows())
    style.name_rows(ax, [f"{name} ({n[name]})" for name in attributes])
    ax.axvline(0, color=style.GREY, linestyle=":", linewidth=0.8)
    ax.set(xlabel="agreement of the order,\n95 % CI (groups in brackets)", xlim=(-1.05, 1.05))
    style.panel(ax, "b  balanced against real")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24))
