"""Figure 5: bias detection and mitigation with synthetic patients; the paper's numbers shaded or grey, never mixed.

a: the composition of the training set. b1: weighted F1 of each group on the real test cohort and on its synthetic copy;
b2: all groups, also of combined attributes; b3: how well the two cohorts agree. c: worst-group F1 and best-worst gap by
training arm. The paper's numbers are on MIMIC-CXR, with other patients and groups, so they are not comparable in level.
"""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from chexgen_lib.experiments.fairness import GAP, PEARSON, WORST
from chexgen_lib.figures import style
from chexgen_lib.figures.style import PAPER, PAPER_MARK, THIS_RUN
from chexgen_lib.paper import published
from chexgen_lib.pools.groups import EVERYONE, TIMES, Groups

SHARE, F1, UNKNOWN, EQUAL = "share (%)", "weighted F1", "not stated", "equal groups"
COPY, PERMUTED = "matched copy", "scores permuted across patients"  # the latter is the control
COLUMNS = {
    **dict.fromkeys(("panel", "source", "attribute", "group", "arm", "measure"), pl.String),
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    "n": pl.Int64,
    "p": pl.Float64,
    "note": pl.String,
}
# The paper's names -> ours, where the attributes are sex, race and age group in this order.
PAPER_ATTRIBUTES = {
    "gender": "sex",
    "race": "race",
    "age": "age group",
    "gender-race-age": TIMES.join(("sex", "race", "age group")),
}
PAPER_MEASURES = {"worst-group weighted F1": WORST, "best-worst gap (%)": GAP}
COHORTS = {"real": (style.BLUE, "o"), "synthetic": (style.VERMILION, "^")}
SIZES = {  # by number of attributes combined
    1: (style.GREEN, "o", "single"),
    2: (style.PURPLE, "D", "pairs"),
    3: (style.ORANGE, "s", "triples"),
}


def table(
    training: Groups,
    real: pl.DataFrame,
    synthetic: pl.DataFrame,
    agreed: pl.DataFrame,
    unequal: pl.DataFrame,
    compared: pl.DataFrame,
) -> pl.DataFrame:
    """All that Figure 5 plots, one number per row.

    Args:
        training: `groups.groups` of the training set.
        real: `scores.group_table` of the real test cohort.
        synthetic: The same of its synthetic copy.
        agreed: `agreement.agreement` of the two (arm `COPY`), with the copies' scores permuted across patients
            (`PERMUTED`), and of the copies of other generators (by name).
        unequal: `disparity.disparity` of the arm that the others are compared with.
        compared: `mitigation.compare` of the arms.

    Returns:
        Columns panel (a, b, c), source (this run or paper), attribute, group, arm, measure, value, low, high, n, p,
        note. n counts images in panel a, groups for Pearson r and patients elsewhere. Gaps are fractions, also the
        paper's.
    """
    single = [name for name in training.attributes if TIMES not in name]
    unknown = training.unknown.with_columns(group=pl.lit(UNKNOWN))
    sizes = pl.concat([training.table.select(unknown.columns), unknown])
    a = pl.concat([sizes.filter(attribute=name) for name in single])
    share = 100 * pl.col("n_images") / len(training.member)
    a = a.with_columns(measure=pl.lit(SHARE), value=share, n=pl.col("n_images"))
    cohorts = [
        t.with_columns(arm=pl.lit(arm), measure=pl.lit(F1), value=pl.col("f1"), n=pl.col("n_patients"))
        for arm, t in (("real", real), ("synthetic", synthetic))
    ]
    r = agreed.filter(measure=PEARSON).with_columns(n=pl.col("n_groups"))
    c = compared.filter(pl.col("measure").is_in([WORST, GAP])).with_columns(n=pl.col("n_patients"))
    equal = unequal.filter(pl.col("measure").is_in([WORST, GAP])).select(
        "attribute", "measure", "note", value="equal", low="equal_low", high="equal_high", n="n_patients"
    )
    parts = [("a", a), *(("b", part) for part in (*cohorts, r)), ("c", c), ("c", equal.with_columns(arm=pl.lit(EQUAL)))]
    ours = [part.with_columns(panel=pl.lit(panel), source=pl.lit(THIS_RUN)) for panel, part in parts]
    return pl.concat(style.tidy(part, COLUMNS) for part in (*ours, *_published()))


def _published() -> list[pl.DataFrame]:
    """The paper's numbers as parts of `table`."""
    names = {"old": list(PAPER_ATTRIBUTES), "new": list(PAPER_ATTRIBUTES.values())}
    a = published.load("fig5b").select(
        "value", attribute=pl.col("category"), group=pl.col("arm"), measure=pl.col("metric"), note=pl.col("dataset")
    )
    b = published.load("fig5c").select(
        "value", attribute=pl.col("arm"), measure=pl.lit(PEARSON), arm=pl.lit(PAPER), note=pl.col("dataset")
    )
    fraction = pl.when(pl.col("metric").str.contains("%", literal=True)).then(0.01).otherwise(1.0)
    c = published.load("fig5d").select(
        "arm",
        value=pl.col("value") * fraction,
        attribute=pl.col("category"),
        measure=pl.col("metric").replace_strict(PAPER_MEASURES),
        note=pl.col("dataset"),
    )
    return [
        part.with_columns(
            panel=pl.lit(panel), source=pl.lit(PAPER), attribute=pl.col("attribute").replace_strict(**names)
        )
        for panel, part in (("a", a), ("b", b), ("c", c))
    ]


def draw(plotted: pl.DataFrame) -> Figure:
    """Figure 5 from `table(...)`."""
    style.use()
    b, c = plotted.filter(panel="b"), plotted.filter(panel="c")
    attributes = _single_and_largest(c.filter(source=THIS_RUN))
    arms = c["arm"].n_unique()
    fig = Figure(figsize=(style.PAGE, 6.8 + 0.34 * arms), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(5.6, 1.2 + 0.34 * arms))
    axes = top.subplots(2, 2, width_ratios=(1, 1.05))
    _composition(axes[0, 0], plotted.filter(panel="a"))
    _groups(axes[0, 1], b.filter(source=THIS_RUN, measure=F1))
    _scatter(axes[1, 0], b.filter(source=THIS_RUN, measure=F1))
    _correlations(axes[1, 1], b.filter(measure=PEARSON))
    title = "c  by training arm, 95 % CI; filled: differs from the first, p < 0.05; yellow: 95 % range for equal groups"
    bottom.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
    axes = bottom.subplots(2, len(attributes), squeeze=False, sharex="row", sharey=True)
    for line, measure in zip(axes, (WORST, GAP), strict=True):
        for ax, attribute in zip(line, attributes, strict=True):
            _arms(ax, c.filter(measure=measure), attribute)
    return fig


def _single_and_largest(rows: pl.DataFrame) -> list[str]:
    """Each attribute alone, and the last combination, which has the most attributes."""
    every = rows["attribute"].unique(maintain_order=True).to_list()
    return [*(a for a in every if TIMES not in a), *(a for a in every[-1:] if TIMES in a)]


def _places(rows: pl.DataFrame) -> list[float]:
    """One line for each row, with half a line between attributes."""
    new = rows["attribute"] != rows["attribute"].shift(1, fill_value=rows["attribute"][0])
    return [k + 0.5 * gaps for k, gaps in enumerate(new.cast(pl.Int64).cum_sum())]


def _lines(ax: Axes, places: list[float], names: list[str]) -> None:
    """Names at the places, from top to bottom."""
    ax.set_yticks(places, names)
    ax.set_ylim(places[-1] + 0.7, -0.7)
    ax.tick_params("y", length=0)


def _note(ax: Axes, x: float, y: float, text: str, **look) -> None:
    """Small text in line y; x is a fraction of the axis' width, above 1 to the right of it."""
    ax.text(x, y, text, transform=ax.get_yaxis_transform(), fontsize=7, va="center", **look)


def _composition(ax: Axes, rows: pl.DataFrame) -> None:
    ours = rows.filter((pl.col("source") == THIS_RUN) & ((pl.col("group") != UNKNOWN) | (pl.col("n") > 0)))
    paper = {(r["attribute"], r["group"]): r["value"] for r in rows.filter(source=PAPER).iter_rows(named=True)}
    places, names = _places(ours), []
    for at, r in zip(places, ours.iter_rows(named=True), strict=True):
        stated = r["group"] != UNKNOWN
        names.append(r["group"] if stated else f"{r['attribute']} {UNKNOWN}")
        ax.barh(at, r["value"], 0.75, color=style.SKY if stated else style.GREY)
        _note(ax, 1.02, at, f"n = {r['n']:,}")
        if (r["attribute"], r["group"]) in paper:
            ax.plot(paper[r["attribute"], r["group"]], at, **PAPER_MARK)
    _lines(ax, places, names)
    ax.set(xlabel="share of training images (%)", xlim=(0, 100))
    style.panel(ax, "a  training set", fontsize=8)
    if ax.lines:  # the paper states shares of race alone
        handles = [Line2D([], [], **PAPER_MARK, label="paper, MIMIC-CXR")]
        ax.legend(handles=handles, loc="lower right", borderaxespad=0, handletextpad=0.2)


def _groups(ax: Axes, rows: pl.DataFrame) -> None:
    """F1 of everyone and of each single attribute's groups, real above synthetic."""
    rows = rows.filter(~pl.col("attribute").str.contains(TIMES, literal=True))
    real = rows.filter(arm="real")
    places = _places(real)
    for shift, (arm, (colour, marker)) in zip((-0.17, 0.17), COHORTS.items(), strict=True):
        own = rows.filter(arm=arm)
        look = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.2}
        style.interval(ax, own, np.array(places) + shift, horizontal=True, **look)
        for at, r in zip(places, own.iter_rows(named=True), strict=True):
            if r["value"] is None:
                _note(ax, 0.02, at + 1.6 * shift, f"{arm}: {r['note'].split(':')[0]}", color=style.GREY)
    _lines(ax, places, [f"{r['group']}, n = {r['n']:,}" for r in real.iter_rows(named=True)])
    looks = ((arm, colour, marker) for arm, (colour, marker) in COHORTS.items())
    handles = [Line2D([], [], color=c, marker=m, markersize=4, label=arm) for arm, c, m in looks]
    ax.legend(handles=handles, loc="lower right", ncols=2, columnspacing=1.0, bbox_to_anchor=(1, 0.98), borderaxespad=0)
    ax.set(xlabel="weighted F1, 95 % CI (n = patients)")
    style.panel(ax, "b1  this run, F1 by group", fontsize=8, pad=12)


def _scatter(ax: Axes, rows: pl.DataFrame) -> None:
    """Synthetic against real F1 of every group."""
    real, synthetic = (rows.filter(pl.col("attribute") != EVERYONE, arm=arm) for arm in COHORTS)
    pairs = real.join(synthetic, on=["attribute", "group"], suffix="_synthetic", maintain_order="left")
    known = pairs.drop_nulls(["value", "value_synthetic"])
    for size, (colour, marker, words) in SIZES.items():
        own = known.filter(pl.col("attribute").str.count_matches(TIMES, literal=True) == size - 1)
        if own.height:
            x, y = own["value"], own["value_synthetic"]
            error = [(x - own["low"], own["high"] - x), (y - own["low_synthetic"], own["high_synthetic"] - y)]
            across, up = (np.clip(np.stack(side), 0, None) for side in error)
            ax.errorbar(x, y, up, across, fmt="none", ecolor=colour, alpha=0.25, elinewidth=0.8)
            look = {"s": 14, "c": colour, "marker": marker, "linewidths": 0, "zorder": 3}
            ax.scatter(x, y, **look, label=f"{words}, {own.height} groups")
    ax.axline((0, 0), slope=1, color=style.GREY, linewidth=0.8, linestyle=":")
    if known.height:
        edges = known.select("low", "high", "low_synthetic", "high_synthetic").to_numpy()
        span = (edges.min() - 0.02, edges.max() + 0.02)
        ax.set(xlim=span, ylim=span)
        ax.legend(loc="upper left", handletextpad=0.2)
    lost = pairs.height - known.height
    ax.set(xlabel=f"weighted F1, real (of {pairs.height} groups {lost} withheld)", ylabel="weighted F1, synthetic")
    style.panel(ax, "b2  this run, every group", fontsize=8)


def _correlations(ax: Axes, rows: pl.DataFrame) -> None:
    """Pearson r of each attribute with its interval; above it the paper's as grey squares, below it the control's and
    those of other generators' copies."""
    ours, control = (rows.filter(source=THIS_RUN, arm=arm) for arm in (COPY, PERMUTED))
    published_r = dict(rows.filter(source=PAPER).select("attribute", "value").iter_rows())
    for at, r in enumerate(ours.iter_rows(named=True)):
        if r["attribute"] in published_r:
            ax.plot(published_r[r["attribute"]], at - 0.3, **PAPER_MARK, clip_on=False)
        if r["value"] is None:
            _note(ax, 0.02, at, r["note"].split(":")[0], color=style.GREY)
        else:
            _note(ax, 1.04, at, f"{r['value']:.2f}")
    at = np.arange(ours.height)
    style.interval(ax, ours, at, horizontal=True, color=style.BLUE, marker="o", markersize=4, linewidth=1.2)
    control_look = {"color": style.ORANGE, "marker": "D", "markersize": 3, "markerfacecolor": "white", "linewidth": 0.8}
    style.interval(ax, control, at + 0.3, horizontal=True, **control_look)
    rivals = rows.filter(~pl.col("arm").is_in([COPY, PERMUTED]), source=THIS_RUN)
    rival_look = {"color": style.VERMILION, "marker": "^", "markersize": 3, "linewidth": 0.8}
    for k, (_, rival) in enumerate(rivals.group_by("arm", maintain_order=True), 1):
        style.interval(ax, rival, at + 0.3 - 0.3 * k / (k + 1), horizontal=True, **rival_look)
    _lines(ax, list(range(ours.height)), [f"{r['attribute']}, n = {r['n']}" for r in ours.iter_rows(named=True)])
    ax.axvline(0, color=style.GREY, linewidth=0.6, linestyle=":")
    ax.set(xlim=(-1.05, 1.05), xticks=(-1, 0, 1), xlabel="Pearson r, 95 % CI (n = groups)")
    style.panel(ax, "b3  agreement of the cohorts", fontsize=8, pad=16)
    handles = [
        Line2D([], [], **PAPER_MARK, label="paper"),
        Line2D([], [], **control_look | {"linestyle": "none"}, label=PERMUTED),
        *([Line2D([], [], **rival_look | {"linestyle": "none"}, label="other generators")] if len(rivals) else []),
    ]
    ax.legend(handles=handles, loc="lower right", ncols=3, columnspacing=1.0, handletextpad=0.2, borderaxespad=0,
              bbox_to_anchor=(1.2, 0.99))  # fmt: skip


def _arms(ax: Axes, rows: pl.DataFrame, attribute: str) -> None:
    """One measure of one attribute: a row for each arm, below them, shaded, the paper's."""
    theirs, ours = rows.filter(source=PAPER), rows.filter(pl.col("arm") != EQUAL, source=THIS_RUN)
    arms, papers = (part["arm"].unique(maintain_order=True).to_list() for part in (ours, theirs))
    own = ours.filter(attribute=attribute)
    for at, r in enumerate(own.iter_rows(named=True)):
        significant = r["p"] is not None and r["p"] < 0.05
        look = {"color": style.BLUE, "marker": "o", "markersize": 4, "linewidth": 1.2}
        look["markerfacecolor"] = style.BLUE if significant else "white"
        style.interval(ax, own[at : at + 1], np.array([at]), horizontal=True, **look)
        known = r["value"] is not None
        _note(ax, *((1.03, at, f"{r['value']:.3f}") if known else (0.02, at, "no estimate")),
              color=style.BLACK if known else style.GREY)  # fmt: skip
    for r in rows.filter(arm=EQUAL, attribute=attribute).drop_nulls("value").iter_rows(named=True):
        ax.fill_betweenx([-0.6, len(arms) - 0.5], r["low"], r["high"], color=style.YELLOW, alpha=0.45, linewidth=0)
    ax.axhspan(len(arms) - 0.5, len(arms) + len(papers) - 0.4, color=style.PAPER_SHADE)
    for r in theirs.filter(attribute=attribute).iter_rows(named=True):
        at = len(arms) + papers.index(r["arm"])
        ax.plot(r["value"], at, **PAPER_MARK)
        _note(ax, 1.03, at, f"{r['value']:.3f}")
    _lines(ax, list(range(len(arms) + len(papers))), [*arms, *(f"paper: {arm}" for arm in papers)])
    ax.margins(x=0.1)
    ax.set_title(f"{attribute}\nn = {own['n'].max() or 0:,} patients", fontsize=7, loc="left")
    ax.set_xlabel(rows["measure"][0], fontsize=7)
