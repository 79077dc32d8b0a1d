"""The checks find an arrow that is left out, and a model that draws something else."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.causal import checks
from chexgen_lib.causal.graph import make_graph
from chexgen_lib.causal.model import CausalModel

KINDS = {"age": "number", "sex": "choice", "device": "choice", "edema": "choice"}


def graph(*arrows):
    return make_graph(KINDS, [{"from": [a], "to": [b], "because": "simulated"} for a, b in arrows])


RIGHT = graph(("age", "device"), ("device", "edema"))


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    age, sex = random.uniform(20, 90, 3000), random.choice(["F", "M"], 3000)
    device = (random.random(3000) < 1 / (1 + np.exp((55 - age) / 10))).astype(int)
    edema = (random.random(3000) < 0.2 + 0.5 * device).astype(int)
    return pl.DataFrame({"age": age, "sex": sex, "device": device, "edema": edema})


def test_the_right_graph_holds_and_a_missing_arrow_is_named(table):
    held = checks.independences(table, RIGHT)
    assert not held["violated"].any() and len(held) == 4
    wrong = checks.independences(table, graph(("age", "device"), ("age", "edema")))
    worst = wrong.row(0, named=True)
    assert {worst["variable"], worst["other"]} == {"edema", "device"} and worst["violated"] and worst["gain"] > 10
    assert wrong["violated"].sum() == 1


def test_p_values_are_uniform_where_nothing_is_wrong():
    random, tests = np.random.default_rng(1), []
    for _ in range(20):
        free = {name: random.integers(0, 2, 200) for name in ("sex", "device", "edema")}
        tests.append(checks.independences(pl.DataFrame({"age": random.uniform(20, 90, 200)} | free), graph()))
    tests = pl.concat(tests)
    assert 0.0 < tests["p"].min() and not tests["p"].is_nan().any()
    for of_choices in (True, False):  # one choice tested by another has no splines that contain the constant
        p = tests.filter((pl.col("other") != "age") == of_choices)["p"]
        assert 0.02 < (p < 0.1).mean() < 0.2


def test_two_choices_without_causes_are_tested(table):
    missed = checks.independences(table, graph())
    assert {("device", "edema"), ("edema", "device")} & set(
        missed.filter("violated").select("variable", "other").rows()
    )


def test_a_graph_with_every_arrow_leaves_nothing_to_test(table):
    names = list(KINDS)
    full = graph(*((a, b) for k, a in enumerate(names) for b in names[k + 1 :]))
    tests = checks.independences(table, full)
    assert len(tests) == 0 and tests.columns == ["variable", "other", "given", "n", "gain", "p", "violated"]


def test_whole_years_are_numbers_and_each_of_three_values_is_compared(table):
    whole = table.with_columns(pl.col("age").round().cast(pl.Int64), sex=pl.Series(["F", "M", "?"] * 1000))
    found = checks.reproduced(CausalModel.fit(whole, RIGHT), whole, 20)["measure"].to_list()
    assert {"age, quantile 0.1", "sex = ?", "sex = F", "sex = M", "sex = F and edema", "device = 1"} <= set(found)
    assert "device = 0" not in found and "sex = F and sex = M" not in found


def test_what_is_drawn_is_what_was_observed_unless_the_model_misses_a_pair(table):
    right = checks.reproduced(CausalModel.fit(table, RIGHT), table, 100)
    assert right["inside"].mean() > 0.8 and {"age, quantile 0.5", "device = 1", "device and edema"} <= set(
        right["measure"]
    )
    wrong = checks.reproduced(CausalModel.fit(table, graph(("age", "device"))), table, 100)
    missed = wrong.filter(~pl.col("inside"))["measure"].to_list()
    assert "device and edema" in missed and "edema = 1" not in missed
