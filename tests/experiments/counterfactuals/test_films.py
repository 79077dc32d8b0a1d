"""Pairs with their truth, and the trivial editor that looks for another film."""

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals import films
from chexgen_lib.experiments.counterfactuals.films import ATTRIBUTES, has, nearest, values
from chexgen_lib.phantom.counterfactual_benchmark import benchmark
from tests.experiments.counterfactuals.drawn import drawn_films


def test_pairs_are_rendered_once_and_kept(tmp_path, monkeypatch):
    first = films.load(tmp_path / "films", 2, 32, workers=0)
    monkeypatch.setattr(films, "counterfactuals", None)
    again = films.load(tmp_path / "films", 2, 32, workers=0)
    assert np.array_equal(first.before, again.before) and first.before.dtype == np.uint8
    assert first.region.any() and not np.array_equal(first.before, first.after)
    assert [pair.name for pair in first.first(1).pairs] == ["0000"] and len(first.first(1).before) == 1


def test_values_are_those_of_the_records():
    pairs = benchmark(40)
    known = dict(zip(ATTRIBUTES, values([pair.record for pair in pairs]).T, strict=True))
    assert known["age"].tolist() == [pair.record["age"] for pair in pairs]
    assert known["sex"].tolist() == [float(pair.record["sex"] == "F") for pair in pairs]
    assert known["Effusion"].tolist() == [pair.record["Effusion"] for pair in pairs]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"age": 52}, True),
        ({"age": 70}, False),
        ({"sex": "F"}, True),
        ({"Effusion": 1}, True),
        ({"Effusion": 0}, False),
        ({"Effusion": {"side": "left", "severity": None}}, True),
        ({"Effusion": {"side": "right"}}, False),
        ({"sex": "F", "Edema": 0}, True),
    ],
)
def test_whether_a_record_is_as_asked(change, fits):
    detail = {"finding": "Effusion", "side": "left", "site": None, "severity": "mild"}
    assert has({"age": 55.0, "sex": "F", "Effusion": 1.0, "details": [detail]}, change) == fits


def test_the_nearest_film_has_what_is_asked_and_is_the_most_similar_of_those():
    bench, others = drawn_films(34), drawn_films(68, seed=1)
    pool, records = others.everything()
    found = nearest(bench, pool, records)
    for edited, pair in zip(found, bench.pairs, strict=True):
        row = next(k for k, one in enumerate(pool) if np.array_equal(one, edited))
        fitting = [has(record, pair.change) for record in records]
        assert fitting[row] or not any(fitting)
    own = np.concatenate([pool, bench.after])
    assert np.array_equal(nearest(bench, own, [*records, *bench.targets])[:1], bench.after[:1])
