"""Weights of guidance by attribute: what arrives half needs twice as much, within bounds."""

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals.calibration import LEAST, MOST, calibrate, weights
from tests.experiments.counterfactuals.drawn import drawn_films


def test_what_arrives_half_needs_twice_the_weight():
    films = drawn_films(68)
    share = np.select([films.attributes == name for name in ("sex", "age", "view")], [0.5, -0.5, 8.0], 1.0)
    before, true = films.before.astype(float), films.after.astype(float) - films.before
    trial = np.clip(before + share[:, None, None] * true, 0, 255).astype(np.uint8)
    table = calibrate(trial, films, 1.5)
    by_name = {row["attribute"]: row for row in table.iter_rows(named=True)}
    assert table["pairs"].sum() == 68 and by_name["sex"]["pairs"] == 2
    assert by_name["sex"]["weight"] == pytest.approx(3, rel=0.02)
    assert by_name["sex"]["agreement"] == pytest.approx(1, abs=0.01)
    assert by_name["Effusion"]["weight"] == pytest.approx(1.5, rel=0.02)
    assert by_name["age"]["weight"] == MOST, "an edit in the wrong direction has no weight with which it arrives"
    assert by_name["view"]["arrived"] > 1 and by_name["view"]["weight"] < 1.5
    assert table["weight"].is_between(LEAST, MOST).all()


def test_what_does_not_change_at_all_gets_the_largest_weight_and_what_was_not_tried_the_default():
    films = drawn_films(4)
    table = calibrate(films.before, films, 1.5)
    assert set(table["weight"]) == {MOST} and set(table["agreement"]) == {0.0}
    assert weights(table, ["sex", "Edema", "age"], 1.5) == (MOST, 1.5, MOST)
