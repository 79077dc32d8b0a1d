"""Every lung is tested once, by a network that saw nothing of its patient; and no adapter's images where it did."""

import numpy as np
import pytest

from chexgen_lib.experiments import lungs as experiment
from chexgen_lib.experiments.arms import REAL
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.experiments.segmentation import segmentation_table
from chexgen_lib.pools import lungs
from tests.builders import lung_folder, lung_pool

SIZE, PATIENTS = 16, 10
ARMS = [REAL, "real + 1x", "real + 2x"]
SETTINGS = {"size": "ci", "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "checks": 2}
REPEATS = Repeats(2, n_resamples=20)


@pytest.fixture
def folder(tmp_path):
    return lung_folder(tmp_path)


@pytest.fixture
def pool(folder):
    return lung_pool(folder, SIZE)


def test_nothing_of_a_tested_patient_is_trained_on(folder, pool):
    sets = lungs.load(folder, pool, SIZE)
    task, fold = sets.task("lungs", SIZE), lungs.folds(sets.data)
    patients = sets.data.table["patient_id"].to_numpy()[task.origin]
    for k in range(lungs.FOLDS):
        arms = experiment.fold_arms(task, fold, k, [1, 2])
        assert list(arms) == (ARMS if k == lungs.UNSEEN else [REAL])
        for rows in arms.values():
            kept_back = np.isin(fold, [k, (k + 1) % lungs.FOLDS])
            assert not set(patients[rows]) & set(patients[: len(fold)][kept_back])
    real, once, twice = (len(rows) for rows in experiment.fold_arms(task, fold, lungs.UNSEEN, [1, 2]).values())
    assert (once, twice) == (2 * real, 3 * real)


def test_every_image_counts_once(folder, pool):
    sets = lungs.load(folder, pool, SIZE)
    fold = lungs.folds(sets.data)
    dice = np.random.default_rng(0).random(len(fold))
    runs = {(REAL, k): [dice[fold == k]] * 2 for k in range(lungs.FOLDS)}
    runs["real + 1x", lungs.UNSEEN] = [dice[fold == 0] + 0.1] * 2
    patients = sets.data.table["patient_id"].to_list()
    everyone, held_out, more = experiment.lungs_table(runs, fold, patients, REPEATS).rows(named=True)
    assert (everyone["test"], everyone["n"]) == (experiment.EVERYONE, len(fold))
    assert everyone["note"] == f"{PATIENTS} patients"
    direct = segmentation_table(  # images in the folder's order, not the folds'
        {REAL: [{"all": dice}] * 2}, {"all": np.ones((len(fold), 1, 1), bool)}, {"all": patients}, REPEATS
    ).row(0, named=True)
    for key in ("value", "low", "high"):
        assert everyone[key] == pytest.approx(direct[key])
    assert held_out["test"] == more["test"] == experiment.HELD_OUT and held_out["n"] == (fold == 0).sum()
    assert held_out["value"] == pytest.approx(dice[fold == 0].mean())
    assert more["difference"] == pytest.approx(0.1)


def test_all_arms_are_trained(folder, pool, tmp_path):
    result = experiment.segment(lungs.load(folder, pool, SIZE), [1, 2], tmp_path / "runs", SETTINGS, REPEATS)
    assert result.images["images"].sum() == 19 and len(result.images) == lungs.FOLDS
    assert result.table["arm"].to_list() == [REAL, *ARMS] and result.table["seeds"].unique().to_list() == [2]
    assert result.table["value"].is_between(0, 1).all()
    assert len(list((tmp_path / "runs").glob("*/result.npz"))) == 2 * (5 + 2)
