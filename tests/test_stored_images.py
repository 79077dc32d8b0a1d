"""Images on the disk stand in for the array that they are, and are read only where they are asked for."""

import pickle
import tracemalloc

import numpy as np
import pytest

from chexgen_lib.images import reduced
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import ClassifierSize, train_classifier
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import digest
from chexgen_lib.stored_images import StoredImages


def pixels(n, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), np.uint8)


@pytest.fixture
def both(tmp_path):
    """Images of two files, some of them twice and out of order, as an array and as they are stored."""
    first, second = pixels(9), pixels(5, seed=1)
    for name, images in (("a", first), ("b", second)):
        np.save(tmp_path / f"{name}.npy", images)
    rows = np.array([13, 0, 8, 9, 0, 4])
    stored = StoredImages.of(tmp_path / "a.npy").followed_by(StoredImages.of(tmp_path / "b.npy"))
    return np.concatenate([first, second])[rows], stored[rows]


@pytest.mark.parametrize(
    "at",
    [3, -1, slice(1, 4), [5, 0, 0], [], np.array([True, False, False, True, True, False]), np.arange(6)[::-1]],
)
def test_what_is_asked_for_is_what_the_array_has(both, at):
    array, stored = both
    np.testing.assert_array_equal(np.asarray(stored[at]), array[at])
    assert stored[at].shape == array[at].shape


@pytest.mark.parametrize("at", [(slice(None), 0, 0), (2, 3), (None,), (..., 1), ([1, 4], slice(2), slice(2))])
def test_places_within_images(both, at):
    np.testing.assert_array_equal(both[1][at], both[0][at])


def test_numbers_are_computed_as_with_an_array(both):
    array, stored = both
    np.testing.assert_array_equal(stored / 255, array / 255)
    assert (stored[1:3] == array[1:3]).all() and np.maximum(stored, 9).min() >= 9


def test_nothing_is_read_before_it_is_asked_for(both):
    view = both[1][[0, 2]][[1]]
    assert isinstance(view, StoredImages) and all(isinstance(part, np.memmap) for part in view.parts)


def test_the_key_of_what_is_kept_of_them_is_that_of_the_array(both):
    array, stored = both
    assert digest(stored) == digest(array) and digest(stored[:3]) != digest(array)
    assert digest({"images": stored[[0]]}) == digest({"images": array[[0]]})


def test_they_are_reduced_when_they_are_read(both):
    array, stored = both
    small = StoredImages.of(stored, 8)
    np.testing.assert_array_equal(np.asarray(small), reduced(array, 8))
    np.testing.assert_array_equal(small[4], reduced(array, 8)[4])
    assert small.shape == (6, 8, 8) and digest(small) == digest(reduced(array, 8))
    with pytest.raises(ValueError, match="of 8 and of 16 px"):
        small.followed_by(stored)


def test_another_process_reads_the_same(both):
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(both[1]))), both[0])


def training(images, n):
    """A classifier trained on the first n images, and the most memory that arrays took meanwhile."""
    labels = np.tile(np.eye(2, len(FINDINGS), dtype=np.float32), (n // 2, 1))
    rows, config = np.arange(n), LearnerConfig(3, size=ClassifierSize(32, 4, 4, (1, 1)), batch_size=8, checks=1)
    tracemalloc.start()
    model = train_classifier(images[rows], labels, config, val=(images[rows[:8]], labels[:8]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return model, peak


def test_a_training_takes_no_more_memory_for_more_images(tmp_path):
    images = pixels(6000, 32)
    np.save(tmp_path / "images.npy", images)
    stored = StoredImages.of(tmp_path / "images.npy")
    training(stored, 8)  # what the first call imports
    few, many = (training(stored, n)[1] for n in (600, 6000))
    assert (
        many - few < 1.5e6 < training(images, 6000)[1] - few
    )  # labels and order of 5,400 more; their pixels are 5.5 MB


def test_a_training_on_them_ends_with_the_same_bytes(tmp_path):
    images = pixels(40, 32)
    np.save(tmp_path / "images.npy", images)
    one, other = (training(x, 40)[0].net.state_dict() for x in (images, StoredImages.of(tmp_path / "images.npy")))
    assert all(np.array_equal(one[name], other[name]) for name in one)
