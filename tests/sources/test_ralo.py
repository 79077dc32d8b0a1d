"""RALO: the mean of two readers' scores."""

from chexgen_lib import records
from chexgen_lib.sources import ralo
from tests.sources.layouts import RALO, put, reasons


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
