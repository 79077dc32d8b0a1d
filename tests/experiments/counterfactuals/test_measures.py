"""Measures of edits: the truth is best, the film itself arrives nowhere, and both bound what lies between."""

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals import measures
from chexgen_lib.experiments.counterfactuals.measures import (
    ALL,
    BOUND,
    COMPOSITION,
    DRIFT,
    EFFECTIVENESS,
    ERRORS,
    IDENTITY,
    MOST,
    PERCEPTUAL,
    REVERSIBILITY,
    psnr,
    ssim,
)
from tests.experiments.counterfactuals.drawn import Known, drawn_films

PAIRS = 102  # three of each kind


@pytest.fixture(scope="module")
def bench():
    return drawn_films(PAIRS)


@pytest.fixture(scope="module")
def probed(bench):
    return measures.ProbedFilms(bench, drawn_films(PAIRS, seed=1))


@pytest.fixture(scope="module")
def table(bench, probed):
    half = ((bench.before.astype(int) + bench.after) // 2).astype(np.uint8)
    noisy = bench.before.astype(int) + np.where(bench.region, 0, 30)  # right nowhere, wrong elsewhere
    arms = {"identity": bench.before, "half": half, "truth": bench.after, BOUND: bench.after}
    arms["noisy"] = np.clip(noisy, 0, 255).astype(np.uint8)
    arms["other patients"] = bench.before[::-1]
    return measures.table(arms, bench, probed, Known(bench), "identity", 50)


def value(table, metric, arm, attribute=ALL):
    return table.filter(metric=metric, arm=arm, attribute=attribute)["value"][0]


def test_the_truth_is_best_and_the_film_itself_arrives_nowhere(table):
    for metric in ERRORS[:2]:
        assert value(table, metric, "truth") == pytest.approx(MOST)
    assert value(table, "SSIM inside", "truth") == pytest.approx(1, abs=1e-3)
    assert value(table, EFFECTIVENESS, "truth") == 1 and value(table, EFFECTIVENESS, "identity") == 0
    assert value(table, DRIFT, "truth") == 0 < value(table, DRIFT, "noisy")
    assert value(table, PERCEPTUAL, "truth") == 0 < value(table, PERCEPTUAL, "identity")
    assert value(table, IDENTITY, "identity") == 1 > value(table, IDENTITY, "other patients")


def test_half_the_way_lies_between(table):
    inside, outside = ERRORS[:2]
    assert value(table, inside, "half") == pytest.approx(value(table, inside, "identity") + 6.0, abs=0.3)
    assert 0.2 < value(table, EFFECTIVENESS, "half") < 0.9
    assert value(table, outside, "noisy") < value(table, outside, "identity")
    assert value(table, EFFECTIVENESS, "half", "Effusion") > 0.2


def test_every_attribute_has_its_rows_and_those_without_a_probe_no_effectiveness(table, bench):
    assert set(table["attribute"]) == {ALL, *bench.attributes} and table["patients"][0] == PAIRS
    own = dict(table.select("attribute", "patients").unique().iter_rows())
    assert all(own[name] == (bench.attributes == name).sum() for name in bench.attributes)
    for attribute in ("side", "severity"):
        assert value(table, EFFECTIVENESS, "truth", attribute) is None
    row = table.filter(metric=ERRORS[0], arm="half", attribute=ALL).row(0, named=True)
    assert row["low"] < row["value"] < row["high"] and 0 < row["difference_low"] < row["difference"]


def test_probes_see_what_is_drawn(probed):
    answered = dict(probed.answered().iter_rows())
    assert answered["sex"] > 0.9 and answered["Effusion"] > 0.7 and answered["age"] > 0.7


def test_errors_are_of_the_region_alone():
    truth = np.zeros((2, 32, 32), np.uint8)
    image, where = truth.copy(), np.zeros(truth.shape, bool)
    where[:, :8] = True
    image[0, :8] = 255 // 5
    assert psnr(image, truth, where) == pytest.approx([20 * np.log10(5), MOST], abs=1e-3)
    assert psnr(image, truth, ~where) == pytest.approx([MOST, MOST])
    assert np.isnan(psnr(image, truth, np.zeros_like(where))).all()
    (alike,) = ssim(image, truth, where)
    assert alike[0] < alike[1] == pytest.approx(1)


def test_films_that_should_be_the_same(bench):
    films = bench.before[:6]
    table = measures.same_films({(COMPOSITION, "a"): films, (REVERSIBILITY, BOUND): films ^ 1}, films, 20)
    assert value(table, COMPOSITION, "a") == pytest.approx(MOST)
    assert value(table, REVERSIBILITY, BOUND) == pytest.approx(20 * np.log10(255), abs=1e-3)


def test_steps_are_told_apart(bench):
    few = bench.first(6)
    table = measures.step_table({("a", 4, 13): few.before, ("a", 8, 25): few.after}, few, 20)
    assert table.filter(metric=ERRORS[0])["value"].to_list()[1] == pytest.approx(MOST)
    assert table["calls"].unique().sort().to_list() == [13, 25]


def test_goals_are_reached_by_the_truth_and_missed_by_the_film_itself(table, bench):
    films = bench.before[:6]
    same = measures.same_films({(REVERSIBILITY, arm): films for arm in ("truth", "identity", BOUND)}, films, 20)
    reached = measures.goals(table, same, "truth", ["Effusion", "side"])
    assert reached["reached"].to_list() == [None, None, True, None, True, True, True, True], "three pairs are too few"
    missed = measures.goals(table, same, "identity", ["Effusion"])
    assert not missed["reached"][:3].any() and missed["reached"].to_list()[3:] == [True, False, True, True]
    numbers = measures.metrics(table, same, reached)
    assert numbers["goals reached"] == 5 and numbers[EFFECTIVENESS]["truth"]["value"] == 1


def test_the_largest_findings_are_findings(bench):
    found = measures.largest_findings(bench, 3)
    assert len(found) == 3 and not {"No Finding", "side", "sex"} & set(found)
