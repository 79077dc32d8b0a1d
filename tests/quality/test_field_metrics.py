"""KID, precision, recall, density, coverage and FID infinity: torchmetrics' numbers, the definitions, known cases."""

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from benchmarks.metric_speed import Features
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.quality.frechet import frechet_distance
from chexgen_lib.quality.frechet_infinity import extrapolated
from chexgen_lib.quality.kernel_distance import kernel_distance, kernel_distances, kernels
from chexgen_lib.quality.manifold import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, manifold


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(24, 24))
    return rng.normal(size=(300, 24)) @ mixing, rng.normal(0.3, 1.4, (260, 24)) @ mixing


def of_torchmetrics(metric, real, generated):
    for features, is_real in ((real, True), (generated, False)):
        metric.update(torch.from_numpy(features), real=is_real)
    return metric.compute()


def test_fid_is_that_of_torchmetrics(sets):
    expected = of_torchmetrics(FrechetInceptionDistance(Features(24)), *sets)
    assert frechet_distance(*sets) == pytest.approx(float(expected), rel=1e-6)


def test_kid_is_that_of_torchmetrics(sets):
    real, generated = sets[0][:260], sets[1]
    whole = KernelInceptionDistance(Features(24), subsets=1, subset_size=260).set_dtype(torch.float64)
    expected, _ = of_torchmetrics(whole, real, generated)
    assert kernel_distance(real, generated) == pytest.approx(float(expected), rel=1e-6)


def test_kid_is_unbiased_at_any_size():
    rng = np.random.default_rng(0)
    small = [kernel_distance(*rng.normal(size=(2, 12, 4))) for _ in range(400)]
    assert abs(np.mean(small)) < 3 * np.std(small) / 20
    assert np.min(small) < 0


def test_resampled_kid_never_pairs_an_image_with_its_own_copy():
    a, b = np.random.default_rng(0).normal(size=(2, 6, 3))
    weights = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 1, 0, 2, 0], [6, 0, 0, 0, 0, 0]])

    def mean(x, y, times, different):
        pairs = [(i, j) for i in range(6) for j in range(6) if not (different and i == j)]
        counts = [times[i] * (times[j] if different else 1) for i, j in pairs]
        return np.average([(x[i] @ y[j] / 3 + 1) ** 3 for i, j in pairs], weights=counts)

    found = kernel_distances(kernels(a, b), weights, np.ones((3, 6)))
    for value, times in zip(found[:2], weights[:2], strict=True):
        expected = mean(a, a, times, True) + mean(b, b, np.ones(6), True) - 2 * mean(a, b, times, False)
        assert value == pytest.approx(expected)
    assert np.isnan(found[2])


def brute_force(real, generated):
    """Both papers' definitions, image by image."""

    def radius(x, others, k):
        return sorted(np.linalg.norm(others - x, axis=1))[k]

    def inside(x, balls, k, strict):
        reach = [(np.linalg.norm(x - c), radius(c, balls, k)) for c in balls]
        return [d < r if strict else d <= r for d, r in reach]

    precision = [any(inside(x, real, PRECISION_NEIGHBOURS, False)) for x in generated]
    recall = [any(inside(x, generated, PRECISION_NEIGHBOURS, False)) for x in real]
    density = [sum(inside(x, real, DENSITY_NEIGHBOURS, True)) / DENSITY_NEIGHBOURS for x in generated]
    coverage = [any(np.linalg.norm(x - g) < radius(x, real, DENSITY_NEIGHBOURS) for g in generated) for x in real]
    return precision, density, recall, coverage


def test_manifolds_follow_the_definitions():
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=(30, 3)), rng.normal(0.5, 1.2, (25, 3))
    found = manifold(real, generated)
    for values, expected in zip(
        (found.precision, found.density, found.recall, found.coverage), brute_force(real, generated), strict=True
    ):
        np.testing.assert_allclose(values, expected)


def test_a_collapsed_and_a_scattered_generator_are_told_apart():
    rng = np.random.default_rng(2)
    real = rng.normal(size=(200, 4))
    collapsed = manifold(real, np.repeat(real[:1], 200, 0) + rng.normal(0, 1e-3, (200, 4)))
    scattered = manifold(real, rng.normal(0, 6, (200, 4)))
    equal = manifold(real, rng.normal(size=(200, 4)))
    assert collapsed.precision.mean() > 0.9 and collapsed.recall.mean() < 0.1 and collapsed.coverage.mean() < 0.1
    assert scattered.precision.mean() < 0.4 < equal.precision.mean()
    assert equal.coverage.mean() > 0.85 and equal.density.mean() == pytest.approx(1, abs=0.2)


def test_too_few_images_for_neighbours_are_refused():
    with pytest.raises(ValueError, match="more than 5 images"):
        manifold(np.zeros((5, 2)), np.zeros((20, 2)))


def test_fid_infinity_removes_the_bias_of_few_images():
    rng = np.random.default_rng(3)
    truth = 8 * 0.5**2  # equal covariances, means 0.5 apart in 8 features
    a, b = rng.normal(size=(150, 8)), rng.normal(0.5, 1, (150, 8))
    patients = np.arange(150), np.arange(150)
    without = [extrapolated(*rng.normal(size=(2, 150, 8)), patients, 2, k)[0] for k in range(6)]
    biased = [frechet_distance(*rng.normal(size=(2, 150, 8))) for _ in range(6)]
    assert abs(np.mean(without)) < 0.3 * np.mean(biased)  # of equal sets: zero, where FID says more
    found = extrapolated(a, b[:, None], patients, 60, 0)
    assert found.shape == (61,) and found[1:].mean() == pytest.approx(found[0])
    low, high = np.quantile(found[1:], [0.025, 0.975])
    assert low < truth < high and found[0] < frechet_distance(a, b)
    with pytest.raises(ValueError, match="at least 20"):
        extrapolated(a[:19], b[:19], patients, 5, 0)


def test_resamples_of_equal_seeds_are_paired():
    rng = np.random.default_rng(4)
    real, near = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    patients = (Resampling(np.arange(60) // 2).patient_of,) * 2
    one, other = (extrapolated(real, near + shift, patients, 40, 7)[1:] for shift in (0.0, 0.5))
    assert np.std(other - one) < np.std(other)
