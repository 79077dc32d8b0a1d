"""The network recognises the patients that it never saw, and films that differ are further apart than equal ones."""

import numpy as np
import pytest
import torch

from chexgen_lib.experiments.counterfactuals import recognition
from chexgen_lib.experiments.counterfactuals.films import Films
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.phantom.counterfactual_benchmark import benchmark
from tests.experiments.counterfactuals.drawn import SIZE

PATIENTS = 48


def bodies(seed: int, study: int) -> np.ndarray:
    """Films of patients who are smooth patterns, in noise of each study."""
    body = np.random.default_rng(seed).normal(size=(PATIENTS, 4, 4)).repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)
    noise = np.random.default_rng([seed, study]).normal(size=body.shape)
    return (128 + 30 * body + 15 * noise).clip(0, 255).astype(np.uint8)


def films(seed: int) -> Films:
    return Films(benchmark(PATIENTS, seed), bodies(seed, 0), bodies(seed, 1))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    config = LearnerConfig(60, size="ci", batch_size=24)
    recognition.train(folder, films(1), bodies(1, 2), config)
    return recognition.load(folder, config)


def test_patients_are_recognised_and_others_are_not(network):
    bench = films(0)
    known = recognition.RecognisedFilms(bench, network, np.stack([bodies(2, 0), bodies(2, 1)]))
    described = dict(known.described().iter_rows())
    assert described["patients"] == PATIENTS and described["AUROC, same patient or not"] > 0.9
    assert 0.9 < described["second studies recognised"] <= 1 and described["others taken for the patient"] < 0.4
    assert known.recognised(bench.before).all()
    assert known.recognised(bench.after).mean() > 0.8
    assert known.recognised(np.roll(bench.before, 1, axis=0)).mean() < 0.4


def test_distances_are_none_between_equal_films_and_grow(network):
    bench = films(0)
    known = recognition.RecognisedFilms(bench, network, np.stack([bodies(2, 0), bodies(2, 1)]))
    near, far = known.distance(bench.before), known.distance(np.roll(bench.after, 1, axis=0))
    assert known.distance(bench.after) == pytest.approx(0, abs=1e-6) and (near > 0).all()
    assert far.mean() > near.mean() and near.shape == (PATIENTS,)


def test_a_training_repeats(network, tmp_path):
    config = LearnerConfig(2, size="ci", batch_size=8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        recognition.train(tmp_path / name, films(1), bodies(1, 2), config)
    a, b = ((tmp_path / name / recognition.NETWORK).read_bytes() for name in "ab")
    assert a == b


def test_another_study_is_of_the_same_body_on_another_day():
    records = [pair.record for pair in benchmark(40)]
    again = [recognition.another_study(record) for record in records]
    assert again == [recognition.another_study(record) for record in records]
    for one, two in zip(records, again, strict=True):
        changed = {key for key in one if one[key] != two[key]}
        assert "image_id" in changed and changed <= {"image_id", "view", "site"}
    assert 10 < sum(one["view"] != two["view"] for one, two in zip(records, again, strict=True)) < 30


def test_the_loss_is_least_where_studies_agree():
    first = torch.nn.functional.one_hot(torch.arange(6), 8).float()
    right = recognition.contrast(torch.cat([first, first]))
    assert right < recognition.contrast(torch.cat([first, first.roll(1, 0)]))
    assert right < recognition.contrast(torch.ones(12, 8))
