"""Likeness finds a copy through what a copier may do to it, and tells another chest from it."""

import numpy as np
import pytest

from chexgen_lib.privacy import planted
from chexgen_lib.privacy.likeness import SHORTLIST, Reference
from tests.privacy.films import films


@pytest.fixture(scope="module")
def reference():
    return Reference(films(60, 0))


@pytest.mark.parametrize("kind", planted.KINDS)
def test_a_copy_leads_to_its_original(reference, kind):
    copied = planted.copies(films(60, 0)[:12], kind, np.random.default_rng(1))
    found = reference.search(copied)
    assert found.index[:, 0].tolist() == list(range(12))
    assert (found.r[:, 0] > found.r[:, 1] + 0.2).all()
    if kind in (planted.EXACT, planted.MIRRORED):
        assert (found.r[:, 0] > 0.999).all() and (found.mirrored[:, 0] == (kind == planted.MIRRORED)).all()


def test_new_images_are_like_none(reference):
    assert (reference.search(films(12, 1)).r[:, 0] < 0.5).all()


def test_pairs_apart_are_not_compared(reference):
    found = reference.search(films(60, 0)[:3], apart=np.arange(3)[:, None] == np.arange(60))
    assert (found.index[:, 0] != np.arange(3)).all() and (found.r[:, 0] < 0.5).all()


def test_fewer_reference_images_than_matches():
    found = Reference(films(2, 0)).search(films(2, 0))
    assert found.index.shape == (2, SHORTLIST) and found.index[:, :2].tolist() == [[0, 1], [1, 0]]
    assert (found.index[:, 2:] == -1).all() and (found.r[:, 2:] == -1).all()


def test_compare_takes_the_pairs_that_are_given(reference):
    pixels = films(60, 0)
    r = reference.compare(pixels[[4, 5]], np.array([4, 6]))
    assert r[0] > 0.999 and r[1] < 0.5
