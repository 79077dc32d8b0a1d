"""A difference shows, no difference does not, and no patient is known again."""

import numpy as np
import pytest

from chexgen_lib.estimates.measures import auroc
from chexgen_lib.quality import told_apart


def told(shift: float, patients: np.ndarray | None = None, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    real, samples = rng.standard_normal((60, 40)), rng.standard_normal((60, 3, 40))
    samples[..., 0] += shift
    patients = np.arange(120) if patients is None else patients
    found = told_apart.scores(real, samples, patients)
    return auroc((np.arange(len(found)) >= 60).astype(float), found)[0]


def test_a_difference_shows_and_none_does_not():
    assert told(3.0) > 0.9
    alike = [told(0.0, seed=seed) for seed in range(8)]
    assert abs(np.mean(alike) - 0.5) < 0.05
    assert 0.55 < told(1.0) < told(2.0) < told(3.0)


def test_a_patient_who_is_held_out_is_not_known_again():
    """Each patient's images share a fingerprint, which tells nothing of another's."""
    rng = np.random.default_rng(1)
    marks = 5 * rng.standard_normal((20, 40))
    real, samples = marks[np.arange(60) % 10], marks[10 + np.arange(60) % 10][:, None].repeat(2, axis=1)
    patients = np.concatenate([np.arange(60) % 10, 10 + np.arange(60) % 10])
    found = told_apart.scores(real, samples, patients)
    within = auroc((np.arange(len(found)) >= 60).astype(float), found)[0]
    assert within < 0.9  # of 20 patients in 40 dimensions a classifier tells all that it has seen
    with pytest.raises(ValueError, match="fewer than 5 patients"):
        told_apart.scores(real, samples, np.concatenate([np.arange(60) % 4, patients[60:]]))
