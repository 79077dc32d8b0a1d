"""What has too few cases gets no estimate, and a task without cases is left out."""

import numpy as np
import pytest

from chexgen_lib.experiments import augmentation_tasks as at
from chexgen_lib.experiments.arms import REAL
from chexgen_lib.experiments.detection import detect
from chexgen_lib.experiments.repeats import Repeats, of_one_patient
from chexgen_lib.experiments.segmentation import segment
from chexgen_lib.pools.annotated import Task


def test_a_set_without_a_case_is_named():
    rows = {"train": np.arange(4), "val": np.arange(4, 8), "test": np.arange(8, 10), "external test": np.arange(0)}
    positive = np.zeros(10, bool)
    positive[[0, 9]] = True
    assert at.missing(rows, positive) == "no positive case in val (4 images)"
    positive[5] = True
    assert at.missing(rows, positive) is None
    assert at.missing(rows | {"test": np.arange(0)}, positive) == "no image to test on"
    assert at.set_sizes(rows, positive).rows() == [
        ("train", 4, 1),
        ("val", 4, 1),
        ("test", 2, 1),
        ("external test", 0, 0),
    ]


def test_a_test_set_of_one_patient_is_named():
    patients = {"test": ["a", "b"], "external test": ["a", "a"]}
    assert of_one_patient(patients) == "all images in external test are of one patient, and an interval needs two"
    assert of_one_patient(patients | {"external test": ["a", "c"]}) is None


def test_arms_hold_the_copies_of_their_training_images():
    copies, further = np.array([[4, 5], [6, 7]]), np.array([[2, 3]])
    task = Task(np.zeros((8, 8, 8)), np.array([0, 1, 2, 3, 0, 1, 0, 1]), {"train": np.arange(2)}, copies, further)
    arms = {arm: rows.tolist() for arm, rows in at.task_arms(task, [1, 3]).items()}
    assert arms == {
        REAL: [0, 1],
        "real + 1x": [0, 1, 4, 5],
        "real + 2x": [0, 1, 4, 5, 6, 7],
        "real + 1x new real": [0, 1, 2, 3],
    }


def test_a_mean_counts_resampled_images_and_needs_enough_of_them():
    values, weights = np.arange(5.0), np.array([[1, 1, 1, 1, 1], [0, 0, 3, 0, 1]])
    np.testing.assert_allclose(at.case_mean(values, weights), [2.0, 2.5])
    assert np.isnan(at.case_mean(values, 0 * weights)).all()
    assert np.isnan(at.case_mean(values[:4], weights[:, :4])).all()


@pytest.mark.parametrize(
    "task", [lambda *rest: segment(None, "ribs", [1], *rest), lambda *rest: detect(None, [1], *rest)]
)
def test_a_task_without_annotations_is_left_out(task, tmp_path):
    result = task(tmp_path, {}, Repeats(1))
    assert result.left_out.startswith("the cohort has no ") and result.table.is_empty()
    assert result.summary().row(0) == (result.left_out,)
