"""What probes recover from pools is what was planted there; what cannot be measured has no row."""

import numpy as np
import pytest

from chexgen_lib.experiments.rectified_flow import pools
from chexgen_lib.experiments.rectified_flow.control import MACRO, Answers

NAMES = ["age", "sex", "Effusion", "Fracture"]


def asked(n: int = 400) -> np.ndarray:
    truth = np.random.default_rng(0).integers(0, 2, (n, 4)).astype(float)
    truth[:, 0] = 20 + np.arange(n) / 8
    truth[:, 3] = np.arange(n) < 3  # too few fractures for an interval
    truth[-4:, 1] = np.nan
    return truth


def test_a_pool_that_shows_what_was_asked_is_told_from_one_that_does_not():
    truth, rng = asked(), np.random.default_rng(1)
    patients = [f"p{k // 2}" for k in range(len(truth))]
    pool = {"follows": Answers(np.nan_to_num(truth), truth, patients)}
    pool["ignores"] = Answers(rng.standard_normal(truth.shape), truth, patients)
    found = pools.recovered(pool, NAMES, 200, 0)
    assert found["attribute"].unique(maintain_order=True).to_list() == ["age", "sex", "Effusion", MACRO]
    follows, ignores = (found.filter(images=name) for name in pool)
    assert follows["value"].to_list() == pytest.approx([1.0] * 4)
    assert ignores["value"].to_list() == pytest.approx([0, 0.5, 0.5, 0.5], abs=0.15)
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    assert follows["n"].to_list() == [400, 396, 400, 400]
    assert follows["measure"].to_list() == ["correlation", *["AUROC"] * 3]
