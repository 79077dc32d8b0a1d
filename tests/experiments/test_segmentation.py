"""Dice of images with and without a mask is compared between arms; shuffled masks do not help."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments import segmentation as sg
from chexgen_lib.experiments.arms import REAL
from chexgen_lib.experiments.augmentation import arm_jobs
from chexgen_lib.experiments.augmentation_tasks import TaskResult
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from tests.builders import masked_discs

PATIENTS = [f"p{k}" for k in range(40)]
MORE, SHUFFLED = "real + 1x", "real + 1x, shuffled"


def row(table, **about):
    return table.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in about.items()), named=True)


def test_dice_of_images_with_and_without():
    masks = np.zeros((60, 4, 4), bool)
    masks[:10, 0] = True
    dice = np.where(np.arange(40) < 10, 0.6, 1.0)
    results = {
        REAL: [{"test": dice, "external test": np.zeros(20)}] * 2,
        MORE: [{"test": dice / 2, "external test": np.ones(20)}] * 2,
    }
    patients = {"test": PATIENTS, "external test": PATIENTS[:20]}
    truth = {"test": masks[:40], "external test": masks[40:]}
    table = sg.segmentation_table(results, truth, patients, Repeats(2, n_resamples=50))
    values = {(r["test"], r["metric"], r["arm"]): r["value"] for r in table.iter_rows(named=True)}
    assert values["test", "Positive Dice", REAL] == pytest.approx(0.6)
    assert values["test", "Negative Dice", MORE] == pytest.approx(0.5)
    assert values["external test", "Negative Dice", MORE] == 1
    assert values["external test", "Positive Dice", REAL] is None  # nobody has it
    assert row(table, test="test", metric="Positive Dice", arm=MORE)["n"] == 10
    shown = TaskResult(table, pl.DataFrame()).summary()
    assert row(shown, test="test", metric="Positive Dice", arm=MORE)["difference"].startswith("-0.300 [-0.300, -0.300]")
    assert row(shown, test="external test", metric="Positive Dice", arm=MORE)["value"] == "no estimate"
    everyone = sg.segmentation_table(results, {"test": masks[:1].repeat(40, 0)}, patients, Repeats(2, n_resamples=50))
    assert everyone["metric"].unique().to_list() == ["Dice"]


@pytest.fixture(scope="module")
def controls():
    """Dice with few real images, and beside them with a faithful pool and with one of shuffled masks."""
    images, masks = masked_discs(128)
    masks = masks[:, 0]
    shuffled = np.roll(masks[8:56], 7, axis=0)  # each image of the pool has another's
    images, masks = np.concatenate([images, images[8:56]]), np.concatenate([masks, shuffled])
    arms = {REAL: np.arange(8), MORE: np.arange(56), SHUFFLED: np.r_[0:8, 128:176]}
    config = LearnerConfig(steps=60, size="ci", batch_size=8, checks=3)
    repeats = Repeats(2, n_resamples=200)
    jobs = arm_jobs(arms, config, repeats, val=np.arange(56, 72), tests={"test": np.arange(72, 128)})
    results = {arm: [sg.train_and_segment(images, masks, **job) for job in own] for arm, own in jobs.items()}
    patients = {"test": [f"p{k}" for k in range(56)]}
    table = sg.segmentation_table(results, {"test": masks[72:128]}, patients, repeats)
    return {r["arm"]: r for r in table.iter_rows(named=True)}


def test_a_run_learns(controls):
    assert controls[MORE]["value"] > 0.5


def test_shuffled_masks_are_worth_less_than_true_ones_and_do_not_help(controls):
    assert controls[SHUFFLED]["difference_low"] < 0
    assert controls[MORE]["value"] - controls[SHUFFLED]["value"] > 0.05
