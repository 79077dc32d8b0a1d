"""RALO: the mean of two readers' scores."""

import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import ralo
from tests.sources.layouts import RALO, picture, put, reasons


def test_scores_are_the_mean_of_two_readers_as_a_share(tmp_path):
    table, rejects = ralo.load(put(tmp_path, {"ralo-dataset-metadata.csv": RALO}))
    ill, well, doubtful = records.validate(table).to_dicts()
    assert ill["severity"] == [
        {"finding": "Lung Opacity", "score": 0.375},
        {"finding": "geographic extent", "score": 0.625},
    ]
    assert (ill["image"], ill["patient_id"], ill["view"]) == ("CXR_images_scored/0.jpg", "ralo:A1", "AP")
    assert [row["Lung Opacity"] for row in (ill, well, doubtful)] == [1, 0, None]
    assert doubtful["uncertain"] == ["Lung Opacity"] and doubtful["image"] == "CXR_images_scored/2.jpg"
    assert reasons(rejects) == {"4": "a score is missing or not in 0 to 8"}


def test_scores_with_a_decimal_comma_are_read(tmp_path):
    table = RALO.replace('"subtle,\nleft"', "subtle").replace(",", ";").replace(";4;2;;", ";4,0;2,0;;")
    assert "4,0;2,0" in table
    ill = ralo.load(put(tmp_path, {"ralo-dataset-metadata.csv": table}))[0].row(0, named=True)
    assert ill["severity"][1] == {"finding": "geographic extent", "score": 0.625}


def test_a_table_without_the_row_of_an_image_is_refused(tmp_path):
    put(
        tmp_path,
        {"ralo-dataset-metadata.csv": RALO.replace("A1,20200402_101500,0,0,0,0,0,0,,0,0,0,0,0,0,clear,0,0\n", "")},
    )
    picture(tmp_path / "CXR_images_scored/2.jpg")
    assert ralo.load(tmp_path)[0].height == 2  # images may be missing
    put(tmp_path, {"CXR_images_scored/20210401.csv": "", "2021": ""})  # no images
    assert ralo.load(tmp_path)[0].height == 2
    picture(tmp_path / "CXR_images_scored/3.jpg")
    (tmp_path / "CXR_images_scored").rename(tmp_path / "images")
    with pytest.raises(RecordError, match="has 3 rows, and the folder the image 3 of row 4"):
        ralo.load(tmp_path)


def test_a_table_that_seems_sorted_is_read_with_a_warning(tmp_path):
    """No column names the image: in another order images would get the scores of others."""
    head = RALO.partition("A1,")[0]
    rows = [f"A{n // 4},2020040{n % 4}_101500,{n % 5},0,0,0,{n % 5},0,,0,0,0,0,0,0,,0,0\n" for n in range(24)]
    assert ralo.load(put(tmp_path, {"ralo-dataset-metadata.csv": head + "".join(rows)}))[0].height == 24
    rows.sort(key=lambda row: row.split(",")[6])
    with pytest.warns(UserWarning, match="ralo-dataset-metadata.csv: the rows of a patient are scattered; if"):
        assert ralo.load(put(tmp_path, {"ralo-dataset-metadata.csv": head + "".join(rows)}))[0].height == 24
