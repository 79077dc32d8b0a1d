"""Weights of guidance by attribute: what arrives half needs more, within bounds, and only where a probe can tell."""

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals.calibration import LEAST, MOST, calibrate, weights
from chexgen_lib.experiments.counterfactuals.measures import ProbedFilms
from tests.experiments.counterfactuals.drawn import drawn_films


@pytest.fixture(scope="module")
def probed():
    return ProbedFilms(drawn_films(68), drawn_films(136, seed=1))


def test_what_arrives_half_needs_more_weight(probed):
    films = probed.films
    share = np.select([films.attributes == name for name in ("sex", "view")], [0.5, -0.5], 1.0)
    before, true = films.before.astype(float), films.after.astype(float) - films.before
    trial = np.clip(before + share[:, None, None] * true, 0, 255).astype(np.uint8)
    table = calibrate(trial, probed, 1.5)
    by_name = {row["attribute"]: row for row in table.iter_rows(named=True)}
    assert by_name["sex"]["pairs"] == 2 and 1.8 < by_name["sex"]["weight"] <= MOST
    assert by_name["sex"]["agreement"] == pytest.approx(1, abs=0.01)
    assert by_name["Effusion"]["weight"] == pytest.approx(1.5, rel=0.02)
    assert by_name["view"]["weight"] == MOST, "the wrong way, no weight is enough"
    assert table["weight"].is_between(LEAST, MOST).all() and not {"side", "device"} & by_name.keys()


def test_edits_that_do_nothing_get_the_largest_weight_and_what_was_not_tried_the_default(probed):
    table = calibrate(probed.films.before, probed, 1.5)
    assert set(table["agreement"]) == {0.0}
    seen = dict(table.select("attribute", "weight").iter_rows())
    assert seen["sex"] == MOST
    assert weights(table, ["sex", "side"], 1.5) == (MOST, 1.5)
