"""Extended Data Figure 1: the words of the curated descriptions, one cloud per dataset."""

import math

import polars as pl
from matplotlib.figure import Figure
from wordcloud import WordCloud

from chexgen_lib.figures import style
from chexgen_lib.figures.style import BLUE, GREEN, ORANGE, PAGE, PURPLE, VERMILION
from chexgen_lib.sources.registry import figure_names

_INKS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)


def figure(words: pl.DataFrame, seed: int = 0) -> Figure:
    """Word clouds from `descriptions.counts.words` (source, word, n); size grows with n.

    The layout is a function of the table and `seed`.
    """
    style.use()
    sources = figure_names(words["source"])
    columns = min(2, len(sources))
    rows = math.ceil(len(sources) / columns)
    fig = Figure(figsize=(PAGE, 0.3 + 2.3 * rows), layout="constrained")
    for ax, source in zip(fig.subplots(rows, columns, squeeze=False).flat, sources, strict=False):
        ax.imshow(_cloud(words.filter(pl.col("source") == source), seed), interpolation="bilinear")
        ax.set_title(sources[source])
    for ax in fig.axes:
        ax.axis("off")
    return fig


def _cloud(words: pl.DataFrame, seed: int):
    """An RGB image [H, W, 3] of one source's words; colours follow a word's rank."""
    rank = {word: i for i, word in enumerate(words["word"])}
    cloud = WordCloud(
        width=1040,
        height=640,
        background_color="white",
        random_state=seed,
        prefer_horizontal=1.0,
        min_font_size=30,  # 7 pt at the printed width
        max_font_size=120,
        relative_scaling=0.4,
        color_func=lambda word, **_: _INKS[rank[word] % len(_INKS)],
    )
    return cloud.generate_from_frequencies(dict(zip(words["word"], words["n"], strict=True))).to_array()
