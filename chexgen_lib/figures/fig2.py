"""Figure 2, a to c: quality of this run's generators, with the paper's numbers beside it on axes of their own.

a: Frechet distances, MS-SSIM and Pearson r with 95 % intervals, for ChexGen, other generators and what bounds them;
below, the paper's generators on MIMIC-CXR p19 (other images, other embedders: not one scale). b: t-SNE of real and
synthetic images. c: the reader study (the paper's, unless this run had readers). Figure 2d is `figures.gallery`.
"""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexgen_lib.figures import style
from chexgen_lib.figures.style import PAPER, PAPER_SHADE
from chexgen_lib.paper import published
from chexgen_lib.quality.arms import DIFFERENCE, FLOOR, GENERATOR, IGNORES, NOISE

COLUMNS = {
    **dict.fromkeys(("panel", "source", "metric", "arm"), pl.String),
    **dict.fromkeys(("value", "low", "high", "sd", *DIFFERENCE), pl.Float64),
    "n": pl.Int64,
    **dict.fromkeys(("x", "y"), pl.Float64),
    **dict.fromkeys(("better", "axis"), pl.String),
}
ARM_COLOURS = {GENERATOR: style.BLUE, IGNORES: style.ORANGE, FLOOR: style.GREEN, NOISE: style.GREY}
RIVAL_COLOURS = (style.VERMILION, style.PURPLE, style.SKY, style.YELLOW)
PAPER_COLOURS = {"ChexGen": style.BLUE, "RoentGen": style.VERMILION, "MINIM-CXR": style.PURPLE}


def tsne(features: dict[str, np.ndarray], embedder: str, *, at_most: int = 500, seed: int = 0) -> pl.DataFrame:
    """Map features to two dimensions by t-SNE (paper, Methods).

    Args:
        features: "real" -> [N, D], "synthetic" -> [M, D]; standardised here.
        embedder: Whose features these are; the `metric` of the rows.
        at_most: Images of each set, chosen at random.
        seed: Of the choice and of t-SNE.

    Returns:
        The columns metric, arm, x and y.

    Raises:
        ValueError: If there are fewer than 8 images.
    """
    from sklearn.manifold import TSNE  # takes a second to import; a drawing needs none

    rng = np.random.default_rng(seed)
    chosen = {k: x[np.sort(rng.permutation(len(x))[:at_most])] for k, x in features.items()}
    stacked = np.concatenate(list(chosen.values())).astype(np.float64)
    if len(stacked) < 8:
        raise ValueError(f"t-SNE needs at least 8 images, got {len(stacked)}")
    stacked = (stacked - stacked.mean(0)) / (stacked.std(0) + 1e-9)
    perplexity = min(30.0, (len(stacked) - 1) / 4)
    xy = TSNE(init="pca", perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(stacked)
    arms = [name for name, x in chosen.items() for _ in range(len(x))]
    points = {"metric": [embedder] * len(arms), "arm": arms, "x": xy[:, 0], "y": xy[:, 1]}
    return pl.DataFrame(points, schema_overrides={"x": pl.Float64, "y": pl.Float64})


def table(metrics: pl.DataFrame, points: pl.DataFrame, readers: pl.DataFrame | None = None) -> pl.DataFrame:
    """All that Figure 2 plots, tidy: panel (a, b, c), source (this run or paper), metric, arm and the numbers.

    Args:
        metrics: Table of `quality.evaluate`, of which panel a shows what has an `axis`.
        points: See `tsne`.
        readers: See `reader_study.summarise`; None shows the paper's readers.
    """
    ours = metrics.drop_nulls("axis").with_columns(panel=pl.lit("a"), source=pl.lit(GENERATOR))
    paper = published.load("fig2a").with_columns(
        panel=pl.lit("a"),
        source=pl.lit(PAPER),
        n=pl.col("dataset").str.extract(r"n=(\d+)").cast(pl.Int64),
        better=pl.when(pl.col("metric") == "Pearson r").then(pl.lit("higher")).otherwise(pl.lit("lower")),
        axis=pl.lit("linear"),
    )
    b = points.with_columns(panel=pl.lit("b"), source=pl.lit(GENERATOR))
    if readers is None:
        c = published.load("fig2c").rename({"metric": "score", "category": "metric"})
        c = c.with_columns(n=pl.col("dataset").str.extract(r"n=(\d+)").cast(pl.Int64), source=pl.lit(PAPER))
    else:
        c = readers.rename({"reader": "metric"}).with_columns(source=pl.lit(GENERATOR))
    return pl.concat(style.tidy(part, COLUMNS) for part in (ours, paper, b, c.with_columns(panel=pl.lit("c"))))


def draw(plotted: pl.DataFrame) -> Figure:
    """Figure 2 from `table(...)`."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 6.6), layout="constrained")
    a = plotted.filter(pl.col("panel") == "a")
    colours = {GENERATOR: _colours(a.filter(source=GENERATOR)["arm"]), PAPER: PAPER_COLOURS}
    top, middle, bottom = fig.subfigures(3, 1, height_ratios=(0.4 + 0.15 * len(colours[GENERATOR]), 0.9, 1.7))
    middle.set_facecolor(PAPER_SHADE)
    titles = (
        "a  this run, 95 % CI",
        "a, continued: the paper's generators, MIMIC-CXR p19 (dotted: sd); other data, other features",
    )
    for part, source, title in zip((top, middle), (GENERATOR, PAPER), titles, strict=True):
        rows = a.filter(pl.col("source") == source)
        part.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        names = rows["metric"].unique(maintain_order=True).to_list()
        for ax, metric in zip(part.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            first = ax.get_subplotspec().is_first_col()
            _dots(ax, rows.filter(pl.col("metric") == metric), source, colours[source], labels=first)
    left, right = bottom.subplots(1, 2)
    _scatter(left, plotted.filter(pl.col("panel") == "b"))
    _readers(right, plotted.filter(pl.col("panel") == "c"))
    return fig


def _colours(arms: pl.Series) -> dict[str, str]:
    """This run's arms with their colours: ChexGen, the other generators, what bounds them."""
    rivals = [arm for arm in arms.unique(maintain_order=True) if arm not in ARM_COLOURS]
    return {GENERATOR: style.BLUE} | dict(zip(rivals, cycle(RIVAL_COLOURS), strict=False)) | ARM_COLOURS


def _dots(ax: Axes, rows: pl.DataFrame, source: str, colours: Mapping[str, str], labels: bool) -> None:
    """One metric: a row of the axis for each arm. All four axes of a source have the same rows."""
    for at, (arm, colour) in enumerate(colours.items()):
        for r in rows.filter(pl.col("arm") == arm).drop_nulls("value").iter_rows(named=True):
            if r["low"] is not None:
                ax.plot([r["low"], r["high"]], [at, at], color=colour)
            elif r["sd"] is not None:
                ax.plot([r["value"] - r["sd"], r["value"] + r["sd"]], [at, at], color=colour, linestyle=":")
            ax.plot(r["value"], at, "o" if source == GENERATOR else "s", color=colour, markersize=4)
            place = {"textcoords": "offset points", "fontsize": 7, "ha": "center"}
            rounded = float(f"{r['value']:.3g}")
            ax.annotate(f"{rounded:,g}", (r["value"], at), (0, 4), **place)
    ax.set_ylim(len(colours) - 0.5, -0.7)
    ax.set_yticks(range(len(colours)), colours if labels else [])
    ax.margins(x=0.25)
    metric = rows["metric"][0]
    ax.set_xscale(rows["axis"][0])
    n = sorted(set(rows["n"].to_list()))
    ax.set_xlabel(f"{metric}\n({rows['better'][0]} is better; n = {', '.join(map(str, n))})", fontsize=7)
    if source == PAPER:
        ax.set_facecolor(PAPER_SHADE)


def _scatter(ax: Axes, rows: pl.DataFrame) -> None:
    for arm, colour, marker in (("real", style.GREEN, "o"), ("synthetic", style.BLUE, "^")):
        own = rows.filter(pl.col("arm") == arm)
        ax.scatter(
            own["x"],
            own["y"],
            s=7,
            c=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0,
            label=f"{arm}, n = {own.height}",
        )
    ax.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
    ax.set_title(f"b  this run, features of {rows['metric'][0]}", loc="left", fontweight="bold")
    ax.legend(loc="best", markerscale=1.6)


def _readers(ax: Axes, rows: pl.DataFrame) -> None:
    from_paper = rows["source"][0] == PAPER
    readers, arms = (rows[c].unique(maintain_order=True).to_list() for c in ("metric", "arm"))
    colours = dict(zip(arms, (style.BLUE, style.VERMILION, style.PURPLE, style.ORANGE), strict=False))
    place = {"textcoords": "offset points", "fontsize": 7}
    for r in rows.iter_rows(named=True):
        at = readers.index(r["metric"]) + 0.3 * (arms.index(r["arm"]) - (len(arms) - 1) / 2)
        first = r["metric"] == readers[0]
        ax.bar(at, r["value"], 0.26, color=colours[r["arm"]], label=r["arm"] if first else None)
        span = (r["value"] - r["sd"], r["value"] + r["sd"]) if from_paper else (r["low"], r["high"])
        ax.plot([at, at], span, color=style.BLACK, linestyle=":" if from_paper else "-")
        ax.annotate(f"{r['value']:.2f}", (at, r["value"]), (5, 3 if r["value"] > 0 else -10), **place)
    ax.axhline(0, color=style.BLACK, linewidth=0.6)
    ax.set_xticks(range(len(readers)), readers)
    ax.set_ylim(-2.2, 3.2)
    ax.set_yticks(range(-2, 3))
    ax.set_ylabel("agreement with the report, -2 to 2")
    title = "c  paper's readers (dotted: sd); this run: none" if from_paper else "c  this run's readers, 95 % CI"
    ax.set_title(title, loc="left", fontweight="bold")
    ax.legend(loc="upper right", title=f"n = {rows['n'][0]} cases", title_fontsize=7, ncols=2)
    if from_paper:
        ax.set_facecolor(PAPER_SHADE)
