"""A network is trained for its steps and left with the checkpoint that its measure prefers."""

import numpy as np
import pytest
import torch

from chexgen_lib.learners.base import Check, Learner, LearnerConfig, augment, fit, random_rows

CONFIG = LearnerConfig(steps=10, checks=5, learning_rate=0.1)


class Weight(Learner):
    """A single weight that grows as its loss falls."""

    def __init__(self):
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(net.weight)
        super().__init__(net, size=None, device="cpu")

    @property
    def value(self):
        return self.net.weight.item()

    def trained(self, check=None, config=CONFIG):
        fit(self, lambda: -self.net.weight.sum(), config, check)
        return self


def measuring(values, **options):
    """A check that measures these values in turn."""
    waiting = iter(values)
    return Check(lambda: next(waiting), "score", **options)


def reached():
    """The weight at each check of a training."""
    learner, weights = Weight(), []
    learner.trained(Check(lambda: weights.append(learner.value) or 0.0, "score"))
    return weights


def test_the_checkpoint_with_the_best_measure_is_kept():
    assert Weight().trained(measuring([0, 3, 1, 2, 0])).value == reached()[1]
    assert Weight().trained(measuring([3, 3, 1, 2, 3], lower_is_better=True)).value == reached()[2]
    assert Weight().trained().value == reached()[-1]


def test_of_equal_measures_the_last_or_the_first_checkpoint_is_kept():
    assert Weight().trained(measuring([1, 2, 2, 1, 1])).value == reached()[2]
    assert Weight().trained(measuring([1, 2, 2, 1, 1], keep_first=True)).value == reached()[1]


def test_an_undefined_measure_is_never_the_best():
    assert Weight().trained(measuring([np.nan, 1, np.nan, 0, np.nan])).value == reached()[1]
    assert Weight().trained(measuring([np.nan] * 5)).value == reached()[-1]


def test_the_history_has_the_steps_of_the_checks():
    history = Weight().trained(measuring([1, 2, 3, 4, 5])).history
    assert [check["step"] for check in history] == [2, 4, 6, 8, 10]
    assert [check["score"] for check in history] == [1, 2, 3, 4, 5]
    assert history[0]["loss"] > history[-1]["loss"]


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="at least checks; got 3 and 8"):
        Weight().trained(measuring([]), LearnerConfig(steps=3))
    with pytest.raises(ValueError, match="size 'huge': use one of ci, paper"):
        LearnerConfig(steps=1, size="huge").size_in({"ci": 1, "paper": 2})


def test_augmentation_moves_images_a_little():
    image = torch.zeros(20, 1, 32, 32)
    image[:, :, 12:20, 12:20] = 1
    moved = augment(image, torch.Generator().manual_seed(0))
    change = (moved - image).abs().mean((1, 2, 3))
    assert (change > 1e-3).all() and (change < 0.05).all() and len(change.unique()) == 20


def test_a_batch_holds_each_row_once():
    rows = random_rows(30, 8, np.random.default_rng(0))
    assert len(set(rows)) == 8 and rows.tolist() == sorted(rows)
    assert random_rows(5, 8, np.random.default_rng(0)).tolist() == [0, 1, 2, 3, 4]


def test_epochs_are_steps_of_the_arm_that_is_trained():
    config = LearnerConfig(None, batch_size=32, checks=40, epochs=40)
    assert config.over(450) == LearnerConfig(563, batch_size=32, checks=40)
    assert config.over(900).steps == 1125 and config.over(1) == LearnerConfig(2, batch_size=32, checks=2)
    assert LearnerConfig(7).over(450) == LearnerConfig(7)
    for steps, epochs in ((None, None), (7, 40)):
        with pytest.raises(ValueError, match="give either steps or epochs"):
            LearnerConfig(steps, epochs=epochs)
