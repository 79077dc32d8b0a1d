"""Each arm is trained with each seed, and what is finished is not trained again."""

import numpy as np

from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig

CONFIG = LearnerConfig(steps=1)


def draw(scale, factor, config):
    return {"value": scale * factor * np.random.default_rng(config.seed).random(3)}


def test_seeds_of_different_runs_differ():
    first, second = (Repeats(3, seed).configs(CONFIG) for seed in (0, 1))
    assert [config.seed for config in first] == [0, 1, 2]
    assert [config.seed for config in second] == [1000, 1001, 1002]


def test_results_are_those_of_each_arm_and_seed(tmp_path):
    repeats = Repeats(2)
    jobs = {arm: [{"factor": f, "config": c} for c in repeats.configs(CONFIG)] for arm, f in (("a", 1), ("b / c", 2))}
    results = repeats.train(draw, {"scale": 10}, jobs, tmp_path)
    expected = [10 * np.random.default_rng(k).random(3) for k in (0, 1)]
    np.testing.assert_allclose([run["value"] for run in results["a"]], expected)
    np.testing.assert_allclose([run["value"] for run in results["b / c"]], 2 * np.array(expected))
    kept = {path.stat().st_mtime_ns for path in tmp_path.glob("*/result.npz")}
    repeats.train(draw, {"scale": 10}, jobs, tmp_path)
    assert {path.stat().st_mtime_ns for path in tmp_path.glob("*/result.npz")} == kept and len(kept) == 4
