"""The house style: colours survive the preview, intervals keep their places, the paper's panels are shaded."""

import io

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from chexgen_lib.figures import style

ESTIMATES = pl.DataFrame(
    {"value": [0.5, None, 0.7], "low": [0.4, None, 0.8], "high": [0.8, None, 0.9], "difference": [0.1, 0.2, 0.3],
     "difference_low": [0.0, 0.1, 0.2], "difference_high": [0.3, 0.3, 0.3]}
)  # fmt: skip


def axes():
    return Figure().subplots()


@pytest.mark.parametrize("grey_levels", [0, 64], ids=["marks alone", "beside a radiograph"])
def test_every_house_colour_survives_the_preview(tmp_path, grey_levels):
    style.use()
    figure = Figure(figsize=(style.PAGE, 4))
    ax = figure.subplots()
    house = [*style.OKABE_ITO, style.GREY]
    for at, colour in enumerate(house):
        ax.plot(at, at, "o", markersize=4, color=colour)
    if grey_levels:
        ax.imshow(np.linspace(0, 1, grey_levels).reshape(8, -1), cmap="gray", extent=(9, 17, 0, 8))
        ax.set(xlim=(-1, 17), ylim=(-1, 9))
    saved = style.save(figure, pl.DataFrame(), tmp_path / "marks.png")
    with Image.open(io.BytesIO(style.preview(saved).data)) as image:
        pixels = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).astype(float)
    for colour in house:
        distance = np.linalg.norm(pixels - 255 * np.array(to_rgb(colour)), axis=1).min()
        assert distance <= 4, f"{colour} is {distance:.0f} away from the nearest colour of the preview"


def test_a_preview_has_the_width_asked_for(tmp_path):
    saved = style.save(Figure(figsize=(7, 3)), pl.DataFrame(), tmp_path / "wide.png")
    with Image.open(io.BytesIO(style.preview(saved, width=300).data)) as image:
        assert image.width == 300


def test_intervals_leave_out_missing_estimates_and_never_point_inwards():
    ax = axes()
    style.interval(ax, ESTIMATES, np.arange(3), marker="o")
    (bars,) = ax.containers
    assert bars.lines[0].get_xdata().tolist() == [0, 2] and bars.lines[0].get_ydata().tolist() == [0.5, 0.7]
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert np.allclose(ends, [[0.4, 0.8], [0.7, 0.9]])


def test_what_a_worth_has_beyond_its_axis_is_pointed_to():
    ax = axes()
    rows = pl.DataFrame(
        {"worth": [2.13, 1.5, 0.5, -1.4, None], "worth_low": [1.5, 0.9, 0.1, -6.0, None],
         "worth_high": [4.6, 3.7, 0.9, 0.2, None]}
    )  # fmt: skip
    style.worth(ax, rows, list("abcde"), [{"color": style.BLUE, "marker": "o"}] * 5)
    arrows = [(line.get_marker(), line.get_xydata()[0].tolist()) for line in ax.lines if line.get_marker() in "<>"]
    assert arrows == [(">", [2, 0]), (">", [2, 1]), ("<", [-1, 3])]
    assert [text.get_text() for text in ax.texts] == ["2.1", "-1.4", style.UNMEASURABLE]
    sizes = {tuple(x.get_xydata()[0]): x.get_markersize() for x in ax.lines if x.get_marker() in "<>"}
    assert sizes[2, 0] == sizes[-1, 3] > sizes[2, 1]


def test_intervals_of_differences_lie_along_x():
    ax = axes()
    style.interval(ax, ESTIMATES, np.arange(3), "difference", horizontal=True)
    (bars,) = ax.containers
    assert bars.has_xerr and not bars.has_yerr and bars.lines[0].get_xdata().tolist() == [0.1, 0.2, 0.3]


def test_estimates_without_intervals_have_no_bars():
    ax = axes()
    style.interval(ax, ESTIMATES.with_columns(low=None, high=None), np.arange(3))
    assert not ax.containers[0].has_yerr


def test_only_the_papers_panel_is_shaded():
    ours, papers = axes(), axes()
    style.panel(ours, "a  this run")
    style.panel(papers, "b  paper", style.PAPER)
    assert ours.get_facecolor()[:3] == (1, 1, 1) and papers.get_facecolor()[:3] == to_rgb(style.PAPER_SHADE)
    assert papers.get_title(loc="left") == "b  paper"


def test_a_figure_with_type_too_small_to_print_is_refused(tmp_path):
    figure = Figure()
    figure.subplots().set_title("a footnote", fontsize=5)
    with pytest.raises(ValueError, match="'a footnote' is set in 5 pt; use 6 or more"):
        style.save(figure, pl.DataFrame(), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_figures_are_saved_as_png_only(tmp_path):
    with pytest.raises(ValueError, match=".png"):
        style.save(Figure(), pl.DataFrame(), tmp_path / "x.pdf")
