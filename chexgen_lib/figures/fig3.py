"""Figure 3: what four tasks gain from synthetic images added to real ones, with the paper's gains on separate axes.

ChexGen's arms are discs, other generators' (RoentGen's in the paper) triangles, and the oracles, as
many new real images in place of synthetic ones, open green diamonds.
"""

import textwrap

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from chexgen_lib.experiments.arms import CHEXGEN, REAL, Role, arm
from chexgen_lib.experiments.augmentation_tasks import FOREIGN_OBJECT
from chexgen_lib.figures import ed_tables, style
from chexgen_lib.figures.style import PAPER, THIS_RUN

PANELS = (  # task, category, metric
    ("pneumothorax", "all", "Positive Dice"),
    ("pneumothorax", "all", "Negative Dice"),
    ("ribs", "all", "Dice"),
    ("lungs", "all", "Dice"),  # of real radiographs; the paper has none
    ("detection", "Overall", "mAP50"),
    ("detection", FOREIGN_OBJECT, "mAP50"),
    ("severity", "all", "MAE"),
    ("severity", "all", "Pearson r"),
)
MAE_SCALES = {THIS_RUN: " (of 1)", PAPER: " (of 8)"}
CAPTION = (
    "x: synthetic images for each real one. Discs: ChexGen. Open diamonds: as many new real images instead.\n"
    "Triangles: other generators, given text alone, so that they have no arm in segmentation and detection\n"
    "(the paper shows no other generator in any of these tasks)"
)
INTERNAL = "this run is tested internally only: its cohort has no external images"
LEFT_OUT = "left out, because these images come without masks, boxes or scores: {}"
MARKERS = {CHEXGEN: "o", "other": "^", "new real": "D"}
NO_ORACLE = "too few further real images to hold synthetic ones against"
TEST_COLOURS = (style.BLUE, style.ORANGE)


def table(auroc: dict[str, pl.DataFrame], measured: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All that is plotted and more: rows of this run and of the paper, with `ed_tables.COLUMNS` and `positives`.

    Args:
        auroc: Test set -> its table of AUROCs by finding.
        measured: Task -> a table of `augmentation_tasks`; empty if left out.
    """
    positives = [t.select("finding", "positives").unique().with_columns(test=pl.lit(k)) for k, t in auroc.items()]
    rows = pl.concat([ed_tables.run_rows(auroc, measured), ed_tables.paper_rows()], how="diagonal_relaxed")
    return rows.join(
        pl.concat(positives).rename({"finding": "category"}).with_columns(source=pl.lit(THIS_RUN)),
        on=["category", "test", "source"],
        how="left",
        maintain_order="left",
    )


def draw(plotted: pl.DataFrame) -> Figure:
    """From above: average AUROC by arm and test set, ours and the paper's; our change by finding; the worth of a
    synthetic image in every task; the other tasks.

    A task that this run left out has no panel; the lowest lines name it.
    """
    style.use()
    sources, held = _sources(plotted), _held(plotted)
    heights = (2.7, 2.9, 0.6 + 0.17 * max(3, len(held)), 0.4 + 1.75 * len(sources))
    fig = Figure(figsize=(style.PAGE, sum(heights)), layout="constrained")
    top, middle, lower, bottom = fig.subfigures(4, 1, height_ratios=heights)
    auroc = plotted.filter(task="classification")
    sets = [
        (source, test)
        for source in (THIS_RUN, PAPER)
        for test in auroc.filter(source=source)["test"].unique(maintain_order=True)
    ]
    shown = ""
    for ax, (source, test) in zip(np.atleast_1d(top.subplots(1, len(sets))), sets, strict=True):
        rows = auroc.filter(source=source, test=test, category="Average")
        _averages(ax, rows, source, test, labels=source != shown)  # the arms of a source are the same on all sets
        shown = source
    _by_finding(middle.subplots(), auroc.filter(source=THIS_RUN, test=sets[0][1]), sets[0][1])
    _worth(lower.subplots(), held)
    _other_tasks(bottom, plotted, sources)
    return fig


def _held(plotted: pl.DataFrame) -> pl.DataFrame:
    """This run's rows that have an oracle, of the classification's average and of the other tasks' panels."""
    shown = pl.DataFrame(
        [("classification", "Average", "AUROC"), *PANELS], ["task", "category", "metric"], orient="row"
    )
    own = plotted.filter(pl.col("oracle").is_not_null(), source=THIS_RUN)
    return own.join(shown, on=shown.columns, how="semi", maintain_order="left")


def _worth(ax: Axes, held: pl.DataFrame) -> None:
    """The worth of a synthetic image, a line for each task, number and test set."""
    style.panel(ax, "this run: gain from synthetic images / gain from as many new real images")
    if held.is_empty():
        style.empty(ax, NO_ORACLE)
        return
    about = held.select("task", "category", "metric", "test", "arm").iter_rows()
    labels = [", ".join(text for text in texts if text not in ("all", "Average", "Overall", "test")) for texts in about]
    looks = [dict(zip(("color", "marker"), arm_style(name), strict=True)) for name in held["arm"]]
    style.worth(ax, held, labels, looks)


def _panels(plotted: pl.DataFrame) -> list[tuple[str, str, str]]:
    """The panels of tasks that have rows of this run."""
    tasks = plotted.filter(source=THIS_RUN)["task"].unique().to_list()
    return [panel for panel in PANELS if panel[0] in tasks]


def _sources(plotted: pl.DataFrame) -> list[str]:
    """Whose rows of panels there are: this run's, and the paper's where it has the tasks."""
    tasks = [task for task, _, _ in _panels(plotted)]
    return [s for s in (THIS_RUN, PAPER) if not plotted.filter(pl.col("task").is_in(tasks), source=s).is_empty()]


def _other_tasks(part: SubFigure, plotted: pl.DataFrame, sources: list[str]) -> None:
    """A panel for each number of segmentation, severity and detection: above this run's, below the paper's."""
    panels = _panels(plotted)
    grid = part.subplots(len(sources), len(panels), squeeze=False) if panels else []
    for row, source in zip(grid, sources, strict=True):
        row[0].set_ylabel(f"{source}, {'95 % CI' if source == THIS_RUN else 'sd'}", fontsize=7, fontweight="bold")
        for ax, (task, category, metric) in zip(row, panels, strict=True):
            rows = plotted.filter(source=source, task=task, category=category, metric=metric)
            name = category if category == FOREIGN_OBJECT else task
            scale = MAE_SCALES[source] if metric == "MAE" else ""
            _arms(ax, rows, source, f"{name}\n{metric}{scale}")
    left_out = sorted({task for task, _, _ in PANELS} - {task for task, _, _ in panels} - {"lungs"})
    internal = plotted.filter(source=THIS_RUN, test="external test").is_empty()
    notes = {CAPTION: panels, LEFT_OUT.format(", ".join(left_out)): left_out, INTERNAL: internal}
    part.supxlabel("\n".join(line for line, applies in notes.items() if applies), fontsize=7)


def arm_style(name: str) -> tuple[str, str]:
    """Colour and marker of an arm: of its generator, darker for two copies."""
    shown = arm(name)
    of_role = {Role.REAL: style.BLACK, Role.SYNTHETIC: style.PURPLE, Role.SHUFFLED: style.GREY}
    if shown.role in of_role:
        return of_role[shown.role], "o"
    if shown.role == Role.ORACLE:
        return style.GREEN, "D" if shown.copies > 1 else "d"
    if shown.other_generator:
        return (style.VERMILION if shown.copies > 1 else style.ORANGE), "^"
    return (style.BLUE if shown.copies > 1 else style.SKY), "o"


def _kind(name: str) -> str:
    """Whose images an arm has beside the real ones, a key of `MARKERS`; real images alone count as ChexGen's."""
    shown = arm(name)
    return "new real" if shown.role == Role.ORACLE else "other" if shown.other_generator else CHEXGEN


def _arms(ax: Axes, rows: pl.DataFrame, source: str, title: str) -> None:
    """One number by synthetic images for each real one: a colour for each test set, a marker for each generator."""
    style.panel(ax, "", source)
    ax.set_title(title, fontsize=6.5)
    most = max([2, *(arm(name).copies for name in rows["arm"])])
    ax.set_xticks(range(most + 1), ["0", *(f"{k}x" for k in range(1, most + 1))], fontsize=6)
    ax.set_xlim(-0.5, most + 0.5)
    ax.tick_params(axis="y", labelsize=6)
    known = rows.drop_nulls("value")
    if known.is_empty():
        ax.text(0.5, 0.5, "no number", ha="center", fontsize=6, transform=ax.transAxes)
        return
    if source == PAPER:
        known = known.with_columns(low=pl.col("value") - pl.col("sd"), high=pl.col("value") + pl.col("sd"))
    known = known.with_columns(marker=pl.col("arm").map_elements(lambda name: MARKERS[_kind(name)], pl.String))
    width = 112 // ax.get_gridspec().ncols  # characters below a panel
    tests = known["test"].unique(maintain_order=True).to_list()
    for (test, marker), own in known.group_by("test", "marker", maintain_order=True):
        shown = [arm(name) for name in own["arm"]]
        generators = list(dict.fromkeys(one.generator for one in shown))
        copies = np.array([one.copies + 0.06 * generators.index(one.generator) * (marker == "^") for one in shown])
        label = test if source == PAPER else f"{test}, n = {own['n'][0]}"
        label = textwrap.fill(label.replace("n = ", "n\u00a0=\u00a0"), width).replace("\u00a0", " ")
        style.interval(
            ax,
            own,
            copies + 0.12 * (2 * tests.index(test) - 1) + 0.15 * "o^D".index(marker),
            color=TEST_COLOURS[tests.index(test)],
            marker=marker,
            markerfacecolor="white" if marker == "D" else TEST_COLOURS[tests.index(test)],
            label=label if marker == "o" else None,
        )
    ax.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.4, 0), borderaxespad=2.6, handletextpad=0.1)


def _averages(ax: Axes, rows: pl.DataFrame, source: str, test: str, labels: bool) -> None:
    """The macro AUROC of each arm on one test set."""
    style.panel(ax, f"{source}:\n{test}", source)
    if source == PAPER:
        rows = rows.with_columns(low=pl.col("value") - pl.col("sd"), high=pl.col("value") + pl.col("sd"))
    for at, row in enumerate(rows.iter_rows(named=True)):
        colour, marker = arm_style(row["arm"])
        line = "-" if source == THIS_RUN else ":"
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [at, at], color=colour, linestyle=line)
        ax.plot(row["value"], at, marker, color=colour, markersize=4)
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 6}
        ax.annotate(f"{row['value']:.3f}", (row["value"], at), (0, 4), **place)
    ax.set_yticks(range(len(rows)), rows["arm"].to_list() if labels else [], fontsize=6)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.margins(x=0.3)
    n = f"n = {rows['n'][0]} x {rows['seeds'][0]} seeds, 95 % CI" if source == THIS_RUN else "dotted: sd"
    ax.set_xlabel(f"macro AUROC\n({n})", fontsize=6)


def _by_finding(ax: Axes, rows: pl.DataFrame, test: str) -> None:
    """The change of each finding's AUROC by each arm."""
    changed = rows.filter(pl.col("arm") != REAL, pl.col("difference").is_not_null())
    findings = changed["category"].unique(maintain_order=True).to_list()
    arms = changed["arm"].unique(maintain_order=True).to_list()
    for k, name in enumerate(arms):
        own = changed.filter(arm=name)
        at = np.array([findings.index(f) for f in own["category"]]) + 0.7 * ((k + 0.5) / len(arms) - 0.5)
        colour, marker = arm_style(name)
        style.interval(ax, own, at, "difference", color=colour, marker=marker, label=name)
    ax.axhline(0, color=style.BLACK, linewidth=0.7)
    positives = {r["category"]: r["positives"] for r in rows.iter_rows(named=True)}
    names = [f if f == "Average" else f"{f} ({positives[f]})" for f in findings]
    ax.set_xticks(range(len(findings)), names, rotation=30, ha="right", rotation_mode="anchor", fontsize=6)
    ax.set_ylabel(f"change of AUROC from real images alone\n({test}, 95 % CI)", fontsize=7)
    ax.set_xlabel("finding (positive test images)", fontsize=7)
    ax.legend(ncols=min(5, len(arms)), loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=6, columnspacing=1)
