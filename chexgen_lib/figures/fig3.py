"""Figure 3: what synthetic images beside the real ones give a classifier, with the paper's gain on axes of its own."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.experiments.augmentation import REAL
from chexgen_lib.figures import published, style

THIS_RUN, PAPER = "this run", "paper"
COLOURS = (style.BLACK, style.BLUE, style.SKY, style.ORANGE, style.VERMILION, style.GREY, style.PURPLE)


def table(tests: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All that is plotted: source (this run or paper), test set, and the columns of `augmentation.auroc_table`.

    tests: name of the test set -> its table. The paper's numbers are those of ED Table 6, per cent made shares.
    """
    ours = [t.with_columns(pl.lit(name).alias("test"), pl.lit(THIS_RUN).alias("source")) for name, t in tests.items()]
    paper = published.load("table6").with_columns(
        pl.lit(PAPER).alias("source"), value=pl.col("value") / 100, sd=pl.col("sd") / 100
    )
    paper = paper.rename({"category": "finding", "dataset": "test"}).select(
        "source", "test", "arm", "finding", "value", "sd"
    )
    return pl.concat([*ours, paper], how="diagonal_relaxed")


def draw(plotted: pl.DataFrame) -> Figure:
    """Above, the average of each arm on each test set, ours and the paper's; below, our change by finding."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 5.2), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 1.5))
    sets = [
        (source, test)
        for source in (THIS_RUN, PAPER)
        for test in plotted.filter(source=source)["test"].unique(maintain_order=True)
    ]
    shown = ""
    for ax, (source, test) in zip(np.atleast_1d(top.subplots(1, len(sets))), sets, strict=True):
        rows = plotted.filter(source=source, test=test, finding="Average")
        _averages(ax, rows, source, test, labels=source != shown)  # the arms of a source are the same on all sets
        shown = source
    _by_finding(bottom.subplots(), plotted.filter(source=THIS_RUN, test=sets[0][1]), sets[0][1])
    return fig


def _averages(ax: Axes, rows: pl.DataFrame, source: str, test: str, labels: bool) -> None:
    for at, row in enumerate(rows.iter_rows(named=True)):
        colour = COLOURS[at % len(COLOURS)]
        if source == THIS_RUN:
            ax.plot([row["low"], row["high"]], [at, at], color=colour)
        elif row["sd"] is not None:
            ax.plot([row["value"] - row["sd"], row["value"] + row["sd"]], [at, at], color=colour, linestyle=":")
        ax.plot(row["value"], at, "o" if source == THIS_RUN else "s", color=colour, markersize=4)
        ax.annotate(
            f"{row['value']:.3f}", (row["value"], at), (0, 4), textcoords="offset points", ha="center", fontsize=6
        )
    ax.set_yticks(range(len(rows)), rows["arm"].to_list() if labels else [], fontsize=6)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.margins(x=0.3)
    n = f"n = {rows['n'][0]} x {rows['seeds'][0]} seeds, 95 % CI" if source == THIS_RUN else "dotted: sd"
    ax.set_xlabel(f"macro AUROC\n({n})", fontsize=6)
    ax.set_title(f"{source}:\n{test}", fontsize=7, loc="left", fontweight="bold")
    if source == PAPER:
        ax.set_facecolor("#F0F0F0")


def _by_finding(ax: Axes, rows: pl.DataFrame, test: str) -> None:
    changed = rows.filter(pl.col("arm") != REAL, pl.col("difference").is_not_null())
    findings = changed["finding"].unique(maintain_order=True).to_list()
    arms = changed["arm"].unique(maintain_order=True).to_list()
    for k, arm in enumerate(arms):
        own = changed.filter(arm=arm)
        x = np.array([findings.index(f) for f in own["finding"]]) + 0.7 * ((k + 0.5) / len(arms) - 0.5)
        value, low, high = (own[c].to_numpy() for c in ("difference", "difference_low", "difference_high"))
        ax.errorbar(x, value, np.maximum([value - low, high - value], 0), fmt="o", markersize=3, linewidth=0.9,
                    color=COLOURS[(k + 1) % len(COLOURS)], label=arm)  # fmt: skip
    ax.axhline(0, color=style.BLACK, linewidth=0.7)
    positives = {r["finding"]: r["positives"] for r in rows.iter_rows(named=True)}
    names = [f if f == "Average" else f"{f} ({positives[f]})" for f in findings]
    ax.set_xticks(range(len(findings)), names, rotation=30, ha="right", fontsize=6)
    ax.set_ylabel(f"change of AUROC from real images alone\n({test}, 95 % CI)")
    ax.set_xlabel("finding (positive test images)")
    ax.legend(ncols=len(arms), loc="best", fontsize=6)
