"""A generator that copies its training set is caught; one that does not is not accused."""

import numpy as np
import pytest

from chexgen_lib.estimates.resampling import Resampling, percentile_interval
from chexgen_lib.quality import neighbours
from chexgen_lib.quality.neighbours import memorisation, nearest, pixel_correlation


def test_nearest_finds_the_copy():
    train = np.random.default_rng(0).normal(size=(60, 10)) + 5
    found = nearest(train[[7, 31]] + 1e-4, train)
    assert found.index.tolist() == [7, 31] and (found.distance < 1e-6).all()


def test_a_unit_that_is_dead_in_training_hides_no_copy():
    """Divided by a deviation of almost 0, its smallest answer outweighed all others: a copy was 0.99 away."""
    train = np.random.default_rng(0).normal(size=(60, 10))
    train[:, 3] = 0
    copies = train[[7, 31]] + 1e-4
    found = nearest(copies, train)
    assert found.index.tolist() == [7, 31] and (found.distance < 1e-6).all()


def test_many_training_images_are_compared_in_parts(monkeypatch):
    query, train = (np.random.default_rng(n).normal(size=(n, 10)) for n in (25, 60))
    whole = nearest(query, train)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    parts = nearest(query, train)
    assert parts.index.tolist() == whole.index.tolist()
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-12)


def test_copies_are_told_from_new_images():
    rng = np.random.default_rng(0)
    train, held_out, new = (rng.normal(size=(n, 10)) for n in (200, 150, 150))
    copies = train[:150] + 0.01 * rng.normal(size=(150, 10))
    away = nearest(held_out, train).distance
    rows = Resampling(np.arange(150), 200).rows()

    def measure(samples):
        found = memorisation(nearest(samples, train).distance, away, rows)
        return {name: percentile_interval(values) for name, values in found.items()}

    honest, copying = measure(new), measure(copies)
    assert honest["distance ratio"].low < 1 < honest["distance ratio"].high
    assert copying["distance ratio"].high < 0.1
    assert copying["closer than 5 % of real"].value == 1
    assert honest["closer than 5 % of real"].value < 0.15


@pytest.mark.parametrize("n", [19, 25, 60])
def test_samples_as_far_as_held_out_images_are_closer_in_one_of_twenty(n):
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        away, new = rng.normal(size=(2, n))
        found.append(memorisation(new, away, [np.arange(n)])["closer than 5 % of real"][0])
    assert np.mean(found) == pytest.approx(0.05, abs=0.01)
    assert np.isnan(memorisation(new[:18], away[:18], [np.arange(18)])["closer than 5 % of real"]).all()


def test_pixel_correlation_ignores_contrast():
    x = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(pixel_correlation(x, 0.5 * x + 0.2), 1, atol=1e-6)
    assert (np.abs(pixel_correlation(x, x[::-1].copy())[[0, 2]]) < 0.5).all()


def test_bad_input():
    with pytest.raises(ValueError, match="needs features"):
        nearest(np.zeros((3, 4)), np.zeros((3, 5)))
