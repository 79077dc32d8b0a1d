"""Intervals cover what they claim, whole patients and seeds are drawn, and equal seeds draw the same."""

import numpy as np
import pytest

from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling, centre, percentile_interval


def interval(x, seed=0, n_resamples=200, patients=None):
    resampling = Resampling(np.arange(len(x)) if patients is None else patients, n_resamples, seed)
    return percentile_interval(mean(x, resampling.weights))


def test_the_interval_of_a_mean_is_seeded_and_close_to_theory():
    x = np.random.default_rng(0).normal(3, 2, 400)
    a, b = (interval(x, 1, 2000) for _ in range(2))
    assert a == b and a.value == pytest.approx(x.mean())
    half = 1.96 * x.std(ddof=1) / 20
    assert (a.low, a.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.04)
    assert a != interval(x, 2, 2000)


def test_coverage_is_about_95_percent_also_where_patients_have_several_images():
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    for seed in range(200):
        x = rng.normal(0, 1, 60)
        repeated, patients = np.repeat(x, 4), np.repeat(np.arange(60), 4)
        found = interval(x, seed), interval(repeated, seed, patients=patients), interval(repeated, seed)
        hits += [i.low <= 0 <= i.high for i in found]
    assert 0.88 <= hits[0] / 200 <= 0.99 and hits[0] == hits[1]
    assert hits[2] / 200 < 0.8  # as if the images of a patient were independent


def test_intervals_of_five_patients_leave_the_truth_out_one_time_in_six():
    """Notebook 14 says so of its stress test."""
    x = np.random.default_rng(0).normal(size=(400, 5))
    found = [interval(own, seed) for seed, own in enumerate(x)]
    assert np.mean([i.low > 0 or i.high < 0 for i in found]) == pytest.approx(1 / 6, abs=0.05)


def test_whole_patients_are_drawn_and_the_first_row_is_the_data():
    resampling = Resampling(["b", "a", "b", "c"], 50)
    assert (resampling.weights[0] == 1).all() and resampling.patients == 3 and len(resampling) == 50
    assert (resampling.weights[:, 0] == resampling.weights[:, 2]).all()
    assert (resampling.weights[:, [0, 1, 3]].sum(1) == 3).all() and resampling.weights[1:, 0].std() > 0
    rows = resampling.rows(10)
    assert len(rows) == 11 and rows[0].tolist() == [0, 1, 2, 3]
    assert np.bincount(rows[5], minlength=4).tolist() == resampling.weights[5].tolist()


def test_seeds_are_drawn_alike_for_all_arms():
    resampling = Resampling(np.arange(9), 400)
    values = np.random.default_rng(0).normal(size=(3, 401, 2))
    assert np.array_equal(resampling.over_seeds(values), resampling.over_seeds(values.copy()))
    constant = np.broadcast_to(np.array([1.0, 2.0, 6.0])[:, None], (3, 401))
    mixed = resampling.over_seeds(constant)
    assert mixed[0] == 3 and mixed[1:].var() == pytest.approx(constant[:, 0].var(ddof=1) / 3, rel=0.15)
    single = resampling.seeds_mean(values[:1]).widened()
    np.testing.assert_allclose(single, values[0], err_msg="of one training there is no spread")


def test_few_seeds_have_intervals_that_cover():
    """Percentiles over three trainings that are resampled cover three quarters of the time."""
    rng, hits = np.random.default_rng(0), []
    for seed in range(200):
        trainings = rng.normal(size=3)
        resampling = Resampling(np.arange(20), 200, seed)
        values = np.broadcast_to(trainings[:, None], (3, 201))
        found = [
            percentile_interval(drawn)
            for drawn in (resampling.seeds_mean(values).widened(), resampling.over_seeds(values))
        ]
        hits.append([interval.low <= 0 <= interval.high for interval in found])
    assert np.mean(hits, 0)[0] > 0.88 > np.mean(hits, 0)[1]


def test_t_changes_nothing_where_patients_differ_more_than_seeds():
    resampling = Resampling(np.arange(50), 300)
    x = np.random.default_rng(0).normal(size=50)
    values = np.stack([mean(x + shift, resampling.weights) for shift in (-1e-3, 0, 1e-3)])
    np.testing.assert_allclose(resampling.seeds_mean(values).widened(), resampling.over_seeds(values), atol=1e-3)


def test_a_biased_measure_is_centred_on_its_estimate():
    resampled = np.array([1.0, 2, 3, np.nan, 4])
    assert np.nanmean(centre(resampled)[1:]) == centre(resampled)[0] == 1
    found = percentile_interval(resampled, centred=True)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(1.95)
    assert np.isnan(percentile_interval(np.array([np.nan, 1, 2])).low)


def test_a_bootstrap_needs_two_patients_and_two_resamples():
    for patients, n in ((["a", "a"], 9), (["a", "b"], 1)):
        with pytest.raises(ValueError, match="at least 2 patients and 2 resamples"):
            Resampling(patients, n)
