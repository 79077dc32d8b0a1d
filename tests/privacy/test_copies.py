"""The false-alarm rate of the threshold is what it says, and the verdict's p is that of the alarms."""

import numpy as np
import pytest

from chexgen_lib.privacy.copies import ALIKE, COPY, INNOCENT, Calibration, of_units, same_patient_pairs, share
from chexgen_lib.privacy.folders import AuditError
from chexgen_lib.privacy.likeness import Reference
from tests.privacy.films import films, named


def test_the_stated_share_of_unseen_images_raises_an_alarm():
    rng = np.random.default_rng(0)
    rates, alarming = [], 0
    for _ in range(400):
        calibration = Calibration(np.sort(rng.normal(size=150)), np.empty(0))
        alarms = int((rng.normal(size=200) >= calibration.threshold).sum())
        rates.append(alarms / 200)
        alarming += calibration.p_of_alarms(alarms, 200) < 0.05
    assert calibration.rate == 1 / 151
    assert np.mean(rates) == pytest.approx(calibration.rate, abs=0.0015)
    assert alarming / 400 <= 0.07  # p of exchangeable images is below 0.05 in one case in twenty at most


def test_calls_by_threshold_and_by_pairs_of_one_patient():
    pairs = np.sort(np.linspace(0, 0.8, 200))
    calibration = Calibration(np.linspace(0, 0.5, 199), pairs)
    assert calibration.allowed == 2 and calibration.threshold == pytest.approx(0.5, abs=0.01)
    assert calibration.calls(np.array([0.2, 0.6, 0.9])) == [INNOCENT, ALIKE, COPY]
    assert calibration.p_values(np.array([0.9, -1.0])).tolist() == [1 / 200, 1.0]
    few = Calibration(np.linspace(0, 0.5, 199), pairs[:5])
    assert few.copy_level is None and few.calls(np.array([0.6])) == [COPY]


def test_more_copies_are_detectable_in_a_larger_pool():
    calibration = Calibration(np.linspace(0, 0.5, 299), np.empty(0))
    small, large = (calibration.detectable(n, 0.95) for n in (40, 1000))
    assert 0 < large < small < 0.5
    assert calibration.detectable(2, 0.95) > 0.5


def test_too_few_held_out_images_are_refused_with_the_number_needed():
    with pytest.raises(AuditError, match="at least 99, or --false-alarms 0.02"):
        Calibration(np.zeros(60), np.empty(0))
    Calibration(np.zeros(60), np.empty(0), 0.02)
    Calibration(np.zeros(99), np.empty(0))


def test_pairs_are_of_one_patient_and_two_studies():
    pixels = films(30, 0, studies=2)
    images = named(pixels, "t", studies=2)
    r = same_patient_pairs(images, Reference(pixels))
    assert len(r) == 30 and 0.3 < np.median(r) < 0.8
    one_study = type(images)(images.table.with_columns(study_id="patient_id"), pixels)
    assert not len(same_patient_pairs(one_study, Reference(pixels)))


def test_images_of_one_request_are_no_independent_witnesses():
    rng = np.random.default_rng(0)
    alarming = 0
    for _ in range(400):
        calibration = Calibration(np.sort(rng.normal(size=150)), np.empty(0))
        alarms = 5 * int((rng.normal(size=60) >= calibration.threshold).sum())  # five images of each, all alike
        alarming += calibration.p_of_alarms(of_units(alarms, 300, 60), 60) < 0.05
    assert alarming / 400 <= 0.07
    assert share(10, 300, 60).high > share(10, 300).high and share(10, 300, 60).value == 1 / 30


@pytest.mark.parametrize(("patients", "images"), [(100, 5), (50, 10)])
def test_held_out_images_of_one_patient_are_no_independent_witnesses(patients, images):
    rng = np.random.default_rng(0)
    alarming = 0
    for _ in range(400):
        own = 0.95 * rng.normal(size=(patients, 1)) + 0.31 * rng.normal(size=(patients, images))
        calibration = Calibration(np.sort(own.ravel()), np.empty(0), patients=patients)
        alarms = int((rng.normal(size=300) >= calibration.threshold).sum())
        alarming += calibration.p_of_alarms(alarms, 300) < 0.05
    assert alarming / 400 <= 0.07


def test_share_is_exact():
    found = share(0, 100)
    assert found.value == 0 and found.low == 0 and found.high == pytest.approx(0.0362, abs=1e-3)
