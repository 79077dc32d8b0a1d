"""The contact sheet: complete, and its table tells what its pictures show."""

import polars as pl
import pytest

from chexgen_lib.figures import contact_sheet
from chexgen_lib.phantom.contact_sheet import load_sheet, render_sheet
from chexgen_lib.phantom.render import PhantomError
from chexgen_lib.records import FINDINGS


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheet")
    render_sheet(folder, size=32, seed=1)
    pictures, table = load_sheet(folder)
    return contact_sheet.draw(pictures, table), table


def test_every_finding_has_six_pictures(sheet):
    figure, table = sheet
    assert len(figure.axes) == 13 * 7
    counts = table.group_by("finding").len()
    assert set(counts["finding"]) == set(FINDINGS) - {"No Finding"} and counts["len"].unique().to_list() == [6]


def test_areas_are_shares_of_the_image(sheet):
    table = sheet[1]
    assert table["mask_area"].is_between(0, 0.7).all()
    front = table.filter(pl.col("view") == "PA", pl.col("finding") == "Effusion", pl.col("severity") == "severe")
    assert (front["mean_difference"] > 0.05).all() and front.height == 2


def test_size_is_checked(tmp_path):
    with pytest.raises(PhantomError, match="size 8"):
        render_sheet(tmp_path, size=8)
