"""Every kind of patient is asked for equally often, one factor is changed at a time, and orders are compared."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments.fairness import ALL_GROUPS
from chexgen_lib.experiments.fairness.scores import GroupScores, evaluate
from chexgen_lib.experiments.rectified_flow import balanced_cohort
from chexgen_lib.experiments.rectified_flow.requests import ControlError
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.pools.groups import age_group, groups
from chexgen_lib.records import FINDINGS

SOURCES = ("here", "there")
REQUESTED = ["No Finding", "Effusion", "Support Devices"]


def test_every_combination_is_requested_equally_often():
    table, metadata = balanced_cohort.balanced(SOURCES, REQUESTED, 2)
    assert len(table) == len(metadata) == 2 * 3 * 2 * 2 * 3 * 2 and table["image_id"].is_unique().all()
    assert table.group_by("sex", "age group", "view", "source", "finding").len()["len"].unique().to_list() == [2]
    encode_metadata(metadata, SOURCES)  # nothing contradicts
    asked = pl.DataFrame({"age": [m["age"] for m in metadata]})
    assert age_group(asked["age"]).to_list() == table["age group"].to_list()
    labels = balanced_cohort.labels(table)
    place = [FINDINGS.index(f) for f in table["finding"]]
    assert (labels[np.arange(len(labels)), place] == 1).all()
    assert np.isnan(labels[table["finding"] == "Effusion"][:, FINDINGS.index("Lung Opacity")]).all()
    assert (labels[table["finding"] == "No Finding"].sum(1) == 1).all()


def test_the_stress_set_changes_one_factor_for_the_same_patients():
    arms = balanced_cohort.stress(SOURCES, REQUESTED, 4)
    assert set(arms) == {
        "base", "sex: F", "age group: 19-40", "age group: 66+", "view: PA", "source: there",
    }  # fmt: skip
    base, asked = arms.pop("base")
    for arm, (table, metadata) in arms.items():
        assert table["image_id"].equals(base["image_id"]) and table["finding"].equals(base["finding"])
        changed = {k for one, other in zip(asked, metadata, strict=True) for k in one if one[k] != other[k]}
        assert changed == {arm.split(": ")[0].replace("age group", "age")}


def test_findings_that_do_not_exist_are_named():
    with pytest.raises(ControlError, match="unknown finding 'Cough'"):
        balanced_cohort.balanced(SOURCES, ["Cough"], 1)
    with pytest.raises(ControlError, match="0 copies of 3 findings"):
        balanced_cohort.balanced(SOURCES, REQUESTED, 0)


def cohort(good: dict[str, float], seed: int, prefix: str) -> GroupScores:
    """300 patients of three ages; a classifier is right in the share `good` of each age's patients."""
    rng = np.random.default_rng(seed)
    ages = rng.choice(list(good), 300)
    labels = np.zeros((300, len(FINDINGS)))
    labels[:, 0] = rng.integers(0, 2, 300)
    scores = labels.copy()
    wrong = rng.random(300) > np.vectorize(good.get)(ages)
    scores[wrong, 0] = 1 - scores[wrong, 0]
    table = pl.DataFrame({"patient_id": [f"{prefix}{k}" for k in range(300)], "age": ages.tolist()})
    formed = groups(table, ["age"], combine=1)
    return evaluate(formed, labels, scores, np.full(len(FINDINGS), 0.5), n_resamples=50)


def test_the_order_of_groups_is_compared_between_other_patients():
    real = cohort({"a": 0.95, "b": 0.8, "c": 0.6}, 0, "r")
    same = balanced_cohort.rank_agreement(real, cohort({"a": 0.9, "b": 0.7, "c": 0.5}, 1, "s"))
    turned = balanced_cohort.rank_agreement(real, cohort({"a": 0.5, "b": 0.7, "c": 0.9}, 2, "s"))
    assert same["value"].to_list() == [1, 1, 1, 1] and turned["value"].to_list() == [-1, -1, -1, -1]
    assert set(same["attribute"]) == {"age", ALL_GROUPS} and same["n"].to_list() == [3] * 4
    assert (same["low"] <= same["value"]).all() and same["high"].max() <= 1
    few = balanced_cohort.rank_agreement(real, cohort({"a": 0.9, "b": 0.7}, 3, "s"))
    assert few["value"].is_null().all() and few["note"].str.contains("fewer than 3").all()


def test_stress_is_paired_with_the_base():
    labels = np.zeros((40, len(FINDINGS)))
    labels[:20, 0] = 1
    worse = labels.copy()
    worse[:10, 0] = 0  # half of the positives are missed
    found = balanced_cohort.stress_table(
        labels, {"base": labels, "same": labels, "worse": worse}, np.full(len(FINDINGS), 0.5), 100
    )
    base, same, worse = found.rows(named=True)
    assert base["value"] == 1 and base["difference"] is None and same["difference"] == 0
    assert worse["difference"] == pytest.approx(2 / 3 - 1) and worse["difference_high"] < 0
