"""The worth of a synthetic image is a ratio of two gains, and nothing where real images gain nothing either."""

import numpy as np
import pytest

from chexgen_lib.estimates import comparison as c
from chexgen_lib.estimates import worth as w
from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling, SeedsMean
from chexgen_lib.estimates.worth import Against

BOTH = Against(oracle="more real", control="shuffled")


def measured(shifts, against=BOTH, metric="AUROC", seed=0, n=300, seeds=3, noise=0.05):
    """Rows by arm: N images of one difficulty each, an arm's mean shifted, and noise of images and seeds."""
    rng = np.random.default_rng(seed)
    images, resampling = rng.normal(size=n), Resampling(np.arange(n), 400, seed)
    arms = {}
    for arm, shift in {"real": 0.0, **shifts}.items():
        values = images + shift + noise * rng.normal(size=(seeds, n)) + 0.1 * noise * rng.normal(size=(seeds, 1))
        arms[arm] = np.stack([mean(v, resampling.weights)[:, None] for v in values])
    table = c.compare(arms, [{"metric": metric, "n": n}], resampling, "real", {"synthetic": against})
    return {row["arm"]: row for row in table.iter_rows(named=True)}


def test_half_the_gain_is_half_the_worth():
    row = measured({"synthetic": 0.05, "more real": 0.1, "shuffled": -0.02})["synthetic"]
    assert row["worth_low"] < 0.5 < row["worth_high"] and row["worth"] == pytest.approx(0.5, abs=0.1)
    assert row["oracle"] == "more real" and row["control"] == "shuffled"
    assert row["beyond"] == pytest.approx(0.07, abs=0.01) and row["beyond_low"] < 0.07 < row["beyond_high"]


def test_it_is_the_ratio_of_the_tables_own_differences():
    rows = measured({"synthetic": 0.05, "more real": 0.1})
    assert rows["synthetic"]["worth"] == pytest.approx(
        rows["synthetic"]["difference"] / rows["more real"]["difference"]
    )
    assert rows["more real"]["oracle"] is None and rows["more real"]["worth"] is None


def test_intervals_cover_the_true_worth():
    found = [
        measured({"synthetic": 0.04, "more real": 0.08}, seed=k, noise=0.3, seeds=5)["synthetic"] for k in range(40)
    ]
    known = [row for row in found if row["worth"] is not None]
    assert len(known) > 25
    assert np.mean([row["worth_low"] <= 0.5 <= row["worth_high"] for row in known]) > 0.9


@pytest.mark.parametrize("real_gain", [0.0, 0.002, -0.1])
def test_without_a_gain_from_real_images_it_cannot_be_measured(real_gain):
    row = measured({"synthetic": 0.1, "more real": real_gain})["synthetic"]
    assert row["oracle"] == "more real"
    assert (row["worth"], row["worth_low"], row["worth_high"]) == (None, None, None)


def test_a_gain_of_an_error_is_a_decrease():
    shifts = {"synthetic": -0.05, "more real": -0.1}
    assert measured(shifts, metric="MAE")["synthetic"]["worth"] == pytest.approx(0.5, abs=0.1)
    assert measured(shifts)["synthetic"]["worth"] is None


def test_gains_may_be_taken_from_a_base():
    shifts = {"synthetic": 0.1, "more real": 0.2, "longer": 0.08}
    row = measured(shifts, Against(oracle="more real", base="longer"))["synthetic"]
    assert row["worth"] == pytest.approx(0.02 / 0.12, abs=0.05)
    del shifts["longer"]
    row = measured(shifts, Against(oracle="more real", base="longer"))["synthetic"]
    assert row["worth"] == pytest.approx(0.5, abs=0.1)  # the reference stands in


def test_arms_that_are_missing_leave_no_number():
    row = measured({"synthetic": 0.1})["synthetic"]
    assert all(row[name] is None for name in w.COLUMNS)


def seeds_mean(values):
    """A measure [1 + B] whose seeds all agree."""
    return SeedsMean(values, np.full(3, values[0]))


def test_resamples_without_a_real_gain_are_left_out():
    gain, real_gain = np.full(1001, 0.1), np.full(1001, 0.2)
    real_gain[1:11] = -1e-9  # one in a hundred: the quotient would be huge
    found = w.worth(seeds_mean(gain), seeds_mean(real_gain))
    assert (found["worth"], found["worth_low"], found["worth_high"]) == pytest.approx((0.5, 0.5, 0.5))
    real_gain[1:31] = 0.0
    assert w.worth(seeds_mean(gain), seeds_mean(real_gain)) == {}


def studies(seeds, n=150):
    """Gains of studies in which only trainings differ: half of the real images' gain of 1."""
    rng = np.random.default_rng(0)
    for seed in range(n):
        resampling = Resampling(np.arange(20), 200, seed)
        for_real, own = 1 + 0.25 * rng.normal(size=seeds), 0.5 + 0.25 * rng.normal(size=seeds)
        yield [resampling.seeds_mean(np.broadcast_to(gain[:, None], (seeds, 201))) for gain in (own, for_real)]


def test_few_trainings_widen_a_worth():
    """By their resamples alone three trainings would cover three quarters of the time."""
    found = [w.worth(*gains) for gains in studies(3)]
    known = [one for one in found if one]
    assert len(known) > 75
    assert np.mean([one["worth_low"] <= 0.5 <= one["worth_high"] for one in known]) > 0.9


def test_few_trainings_widen_the_difference_from_a_control():
    held = []
    for own, control in studies(3):
        row = w.columns(own, {"shuffled": control}, Against(control="shuffled"), "real")
        held.append(row["beyond_low"] <= -0.5 <= row["beyond_high"])
    assert np.mean(held) > 0.88
