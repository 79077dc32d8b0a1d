"""Frechet distance: exact on Gaussians, symmetric, sound with few images; intervals hold the estimate."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from chexgen_lib.estimates.resampling import Resampling, percentile_interval
from chexgen_lib.quality.frechet import frechet_distance, halves, moments, resampled_distances


def textbook(a, b):
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)


def test_equals_the_textbook_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 12)), rng.normal(0.4, 1.7, (250, 12)) @ rng.normal(size=(12, 12))
    assert frechet_distance(a, b) == pytest.approx(textbook(a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


@pytest.mark.parametrize(
    ("least", "exact_to"),
    [(1, 1e-12), (1e-2, 1e-12), (1e-3, 1e-11), (1e-5, 1e-9), (1e-6, 1e-9), (1e-7, 1e-12), (1e-9, 1e-12), (0, 1e-12)],
)
@pytest.mark.parametrize("other", [[3, 1, 2], [1, 1, 1]])
def test_is_exact_however_close_features_are_to_collinear(least, exact_to, other):
    """Cholesky and eigenvalues take squares, which loses what is small: then QR and SVD must take over."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        a, b = rng.normal(size=(2, 60, 3))
        a, b = (np.linalg.qr(x - x.mean(0))[0] * np.sqrt(59) for x in (a, b))  # the covariance is exactly 1
        scale = np.array([3, 1, least]), np.array(other) * np.array([1, least, 1])
        expected = ((scale[0] - scale[1]) ** 2).sum()
        assert frechet_distance(a * scale[0] @ turn, b * scale[1] @ turn) == pytest.approx(expected, rel=exact_to)


def test_one_dimension_by_hand():
    # N(0, 1) and N(3, 2^2): 3^2 + (2 - 1)^2 = 10
    z = np.random.default_rng(0).normal(size=(500, 1))
    z = (z - z.mean()) / z.std(ddof=1)
    assert frechet_distance(z, 3 + 2 * z) == pytest.approx(10, abs=1e-9)


def test_fewer_images_than_features():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 400)), rng.normal(size=(20, 400))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(frechet_distance(a, b)) and frechet_distance(a, b) > 0
    # orthogonal spans share nothing: the cross term vanishes and the traces add up
    left, right = np.zeros((2, 10, 40))
    left[:, :20], right[:, 20:] = rng.normal(size=(2, 10, 20))
    left, right = left - left.mean(0), right - right.mean(0)
    total = (left**2).sum() / 9 + (right**2).sum() / 9
    assert frechet_distance(left, right) == pytest.approx(total, rel=1e-9)


def test_a_shift_is_the_squared_distance():
    x = np.random.default_rng(0).normal(size=(50, 5))
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 5, rel=1e-9)


def test_intervals_hold_the_estimate_and_order_the_arms():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(150, 8))
    arms = {"floor": rng.normal(size=(150, 8)), "far": rng.normal(1, 1, (150, 4, 8))}
    weights = Resampling(np.arange(150), 60).weights
    resampled = resampled_distances(real, arms, weights)
    found = {arm: percentile_interval(values) for arm, values in resampled.items()}
    for arm, values in resampled.items():
        assert 0 < found[arm].low <= found[arm].value <= found[arm].high and len(values) == 61
        assert values[1:].mean() == pytest.approx(values[0])
    assert found["floor"].high < found["far"].low
    assert found["floor"].value == pytest.approx(frechet_distance(real, arms["floor"]))
    each = [frechet_distance(real, arms["far"][:, s]) for s in range(4)]
    assert found["far"].value == pytest.approx(np.mean(each))


def test_unequal_n_is_refused_because_the_bias_depends_on_n():
    with pytest.raises(ValueError, match="equal n"):
        resampled_distances(np.zeros((10, 2)), {"arm": np.zeros((11, 2))}, np.ones((2, 10), int))


def test_weights_repeat_images():
    x, weights = np.random.default_rng(0).normal(size=(8, 3)), np.array([0, 1, 3, 0, 2, 1, 1, 0])
    one, other = moments(x, weights), moments(np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(one.mean, other.mean)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-12)
    np.testing.assert_allclose(one.covariance, np.cov(x.T, fweights=weights), atol=1e-12)


def test_halves_share_no_patient_and_are_equal():
    a, b = halves(range(11), seed=3)
    assert len(a) == len(b) == 5 and not set(a) & set(b)
    patients = np.random.default_rng(0).integers(0, 9, 40)
    a, b = halves(patients, seed=3)
    assert len(a) == len(b) > 12 and not set(patients[a]) & set(patients[b])
    with pytest.raises(ValueError, match="one of 2 patients has more than half"):
        halves(["a"] * 9 + ["b"], seed=0)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.zeros(5), np.full((4, 2), np.nan)])
def test_bad_features(bad):
    with pytest.raises(ValueError):
        frechet_distance(bad, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="one embedder"):
        frechet_distance(np.zeros((4, 3)), np.zeros((4, 2)))
