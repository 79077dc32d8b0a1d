"""Adherence measures what the samples show of their requests."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments import adherence as a2i
from chexgen_lib.figures import adherence
from chexgen_lib.sampling.conditions import CLASSES
from tests.builders import annotated_images

SIZE = 32


class Reader:
    """Stands in for a segmenter: grey values say whether a sample shows the requested masks (255) or nothing (0)."""

    classes = CLASSES

    def __init__(self, truth):
        self.truth = truth

    def predict(self, images):
        return np.stack([self.truth[i[0, 0] // 2] & (i[0, 1] > 0) for i in images])


def test_adherence_is_one_for_what_was_requested_and_none_for_nothing():
    truth = annotated_images()
    requests = pl.DataFrame({"row": [0, 0, 1], "kind": ["pneumothorax", "boxes", "lungs"]})
    samples = np.zeros((3, 2, SIZE, SIZE), np.uint8)
    samples[:, :, 0, 0] = 2 * np.array([0, 0, 1])[:, None]
    reader = Reader(truth.masks)
    np.testing.assert_array_equal(a2i.adherence(truth, requests, samples, reader), [0, 0, 0])
    samples[:, :, 0, 1] = 1
    np.testing.assert_array_equal(a2i.adherence(truth, requests, samples, reader), [1, 1, 1])
    samples[:, 1, 0, 1] = 0
    np.testing.assert_array_equal(a2i.adherence(truth, requests, samples, reader), [0.5, 0.5, 0.5])


def test_table_compares_arms_request_by_request():
    requests = pl.DataFrame({"kind": ["lungs"] * 8 + ["boxes"]})
    scores = {a2i.CONTROLLED: np.linspace(0.8, 0.9, 9), a2i.FREE: np.linspace(0.3, 0.5, 9)}
    requests = requests.with_columns(patient_id=pl.int_range(pl.len()))
    table = a2i.table(requests, scores, 100)
    assert table["kind"].to_list() == ["lungs"] * 2 + ["boxes"] * 2
    assert table["n"].to_list() == [8, 8, 1, 1] and table["metric"].to_list() == ["Dice"] * 2 + ["box recall"] * 2
    controlled, free, *_ = table.iter_rows(named=True)
    assert controlled["p"] is None and free["p"] < 0.05 and free["high"] < controlled["low"]
    assert a2i.written(table)["mean [95 % CI]"][0].startswith("0.84 [0.8")  # not "0.8 [0.8, 0.9]": 0.96 would read 1.0
    scores[a2i.FREE][:3] = scores[a2i.CONTROLLED][:3]  # five pairs that differ cannot have a p below 0.05
    assert a2i.table(requests, scores, 100)["p"].is_null().all()


def test_a_kind_of_one_patient_is_listed_without_an_interval():
    requests = pl.DataFrame({"kind": ["ribs"] * 7, "patient_id": ["p"] * 7})
    scores = {a2i.CONTROLLED: np.linspace(0.8, 0.9, 7), a2i.FREE: np.linspace(0.3, 0.5, 7)}
    table = a2i.table(requests, scores, 100)
    assert table["value"].to_list() == pytest.approx([0.85, 0.4]) and table["n"].to_list() == [7, 7]
    assert table["low"].is_null().all() and table["p"].is_null().all()
    assert a2i.written(table)["mean [95 % CI]"].to_list() == ["0.85", "0.40"]
    assert a2i.numbers(table)["Dice, ribs"][a2i.FREE] == {"value": 0.4, "n": 7}
    adherence.draw(table)
