"""Figure 2 from synthetic numbers: what is plotted is what is saved, and the paper's numbers stay apart."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.figures import fig2, gallery, style
from chexgen_lib.paper import published
from chexgen_lib.quality.arms import FLOOR, GENERATOR, IGNORES, NOISE

KIND = {
    "FID-classifier": {"better": "lower", "axis": "log"},
    "FID-radiomics": {"better": "lower", "axis": "log"},
    "MS-SSIM": {"better": "lower", "axis": "linear"},
    "Pearson r": {"better": "higher", "axis": "linear"},
}


def metrics():
    values = {
        "FID-classifier": {GENERATOR: 1.2, FLOOR: 0.3, NOISE: 40.0},
        "FID-radiomics": {GENERATOR: 30.0, FLOOR: 6.0, NOISE: 1e6},
        "FID-radiomics, all images": {GENERATOR: 28.0},
        "MS-SSIM": {GENERATOR: 0.4, IGNORES: 0.3, FLOOR: 0.3, NOISE: 0.1},
        "Pearson r": {GENERATOR: 0.5, IGNORES: 0.2, FLOOR: 0.7},
    }
    rows = [
        {"metric": m, "arm": a, "value": v, "low": 0.9 * v, "high": 1.1 * v, "n": 300, **KIND.get(m, {"axis": None})}
        for m, arms in values.items()
        for a, v in arms.items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture(scope="module")
def plotted():
    rng = np.random.default_rng(0)
    return fig2.table(
        metrics(), fig2.tsne({"real": rng.normal(size=(20, 5)), "synthetic": rng.normal(size=(30, 5))}, "toy")
    )


def test_table_keeps_paper_and_run_apart(plotted):
    a = plotted.filter(pl.col("panel") == "a")
    assert set(a.filter(pl.col("source") == "paper")["metric"]) == {
        "FID-CLIP",
        "FID-XRV",
        "MS-SSIM",
        "Pearson r",
    }
    assert set(a.filter(pl.col("source") == "paper")["n"]) == {3500}
    assert a.filter(pl.col("source") == GENERATOR).height == 13  # all but the full-n row
    assert plotted.filter(pl.col("panel") == "b")["arm"].value_counts().sort("count")["count"].to_list() == [
        20,
        30,
    ]
    c = plotted.filter(pl.col("panel") == "c")
    assert set(c["source"]) == {"paper"} and set(c["n"]) == {150} and c.height == 4


def test_readers_of_this_run_replace_the_papers(plotted):
    readers = pl.DataFrame(
        {
            "reader": ["r1"],
            "arm": ["ours"],
            "value": [1.0],
            "sd": [0.5],
            "low": [0.8],
            "high": [1.2],
            "n": [9],
        }
    )
    points = plotted.filter(pl.col("panel") == "b").select("arm", "x", "y")
    table = fig2.table(metrics(), points, readers)
    assert set(table.filter(pl.col("panel") == "c")["source"]) == {GENERATOR}
    axes = fig2.draw(table).findobj(lambda o: hasattr(o, "get_xlabel"))
    assert any("this run's readers" in ax.get_title(loc="left") for ax in axes)


def test_drawn_values_are_the_tables_and_bytes_repeat(plotted, tmp_path):
    first = style.save(fig2.draw(plotted), plotted, tmp_path / "a" / "fig2.png")
    second = style.save(fig2.draw(plotted), plotted, tmp_path / "b" / "fig2.png")
    assert first.read_bytes() == second.read_bytes() and len(first.read_bytes()) > 20_000
    assert b"Software" not in first.read_bytes()
    assert pl.read_csv(first.with_suffix(".csv")).height == plotted.height
    assert sorted(p.name for p in first.parent.iterdir()) == ["fig2.csv", "fig2.png"]
    axes = fig2.draw(plotted).findobj(lambda o: hasattr(o, "get_xlabel"))
    labels = [ax.get_xlabel() for ax in axes]
    assert sum("n = 300" in text for text in labels) == 4 and sum("n = 3500" in text for text in labels) == 4
    titles = [ax.get_title(loc="left") for ax in axes]
    assert any("this run: none" in t for t in titles)


def test_text_is_at_least_7_points(plotted):
    fig = fig2.draw(plotted)
    fig.canvas.draw()
    texts = [t for t in fig.findobj(lambda o: hasattr(o, "get_fontsize")) if t.get_text() and t.get_visible()]
    sizes = {t.get_fontsize() for t in texts if "mathdefault" not in t.get_text()}
    assert min(sizes) >= 7


def test_tsne_is_seeded_and_takes_at_most():
    x = {"real": np.random.default_rng(0).normal(size=(40, 6)), "synthetic": np.ones((10, 6))}
    a = fig2.tsne(x, "toy", at_most=15, seed=2)
    assert a.equals(fig2.tsne(x, "toy", at_most=15, seed=2)) and a.height == 25
    with pytest.raises(ValueError, match="at least 8"):
        fig2.tsne({"real": np.zeros((3, 2)), "synthetic": np.zeros((3, 2))}, "toy")


def test_a_metric_more_or_less_is_a_panel_more_or_less(plotted):
    points = plotted.filter(pl.col("panel") == "b").select("arm", "x", "y")
    new = metrics().filter(metric="Pearson r").with_columns(metric=pl.lit("new metric"))
    for table, panels in ((pl.concat([metrics(), new]), 5), (metrics().filter(pl.col("metric") != "MS-SSIM"), 3)):
        axes = fig2.draw(fig2.table(table, points)).findobj(lambda o: hasattr(o, "get_xlabel"))
        assert sum("n = 300" in ax.get_xlabel() for ax in axes) == panels
        assert sum("n = 3500" in ax.get_xlabel() for ax in axes) == 4


def test_gallery():
    x = np.random.default_rng(0).random((2, 6, 16, 16)).astype(np.float32)
    rows = pl.DataFrame({"prompt": ["a long report " * 30, "short"], "distance": [0.1, 0.2], "pixel_r": [0.5, 0.6]})
    fig = gallery.draw(rows, x[:, 0], x[:, 1:5], x[:, 5])
    assert len(fig.axes) == 14 and sum(len(ax.images) for ax in fig.axes) == 12
    np.testing.assert_array_equal(fig.axes[6].images[0].get_array(), x[0, 5])
    with pytest.raises(ValueError, match="lengths"):
        gallery.draw(rows, x[:1, 0], x[:, 1:5], x[:, 5])


def test_published_numbers():
    table = published.load("fig2a")
    assert table.height == 12 and table.filter(arm="ChexGen", metric="FID-CLIP")["value"].item() == 0.89
    with pytest.raises(ValueError, match="known items: fig2a"):
        published.load("fig99")
