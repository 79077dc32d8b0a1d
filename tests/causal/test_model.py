"""A causal model recovers the answer of a simulated table in which age confounds a device with an outcome."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.causal.graph import CausalError, make_graph
from chexgen_lib.causal.model import CausalModel

KINDS = {"age": "number", "sex": "choice", "device": "choice", "edema": "choice"}
ARROWS = [
    {"from": ["age"], "to": ["device", "edema"], "because": "simulated"},
    {"from": ["sex"], "to": ["edema"], "because": "simulated"},
    {"from": ["device"], "to": ["edema"], "because": "simulated"},
]
GRAPH = make_graph(KINDS, ARROWS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def simulated(n, seed=0, device=None):
    """The old have devices and edema; a device itself prevents edema."""
    random = np.random.default_rng(seed)
    age = 20 + 70 * random.beta(2, 2, n)
    sex = random.choice(["F", "M"], n)
    own = (random.random(n) < sigmoid((age - 55) / 8)).astype(int)
    own = own if device is None else np.full(n, device)
    edema = (random.random(n) < sigmoid((age - 60) / 8 - 1.0 * own + 0.3 * (sex == "M"))).astype(int)
    return pl.DataFrame({"age": age, "sex": sex, "device": own, "edema": edema})


@pytest.fixture(scope="module")
def table():
    return simulated(4000)


@pytest.fixture(scope="module")
def model(table):
    return CausalModel.fit(table, GRAPH)


def effect(drawn, value):
    """Difference of the outcome's mean between two ways to draw rows with and without a device."""
    return drawn(1)[value].mean() - drawn(0)[value].mean()


def test_an_intervention_has_the_known_answer_and_conditioning_the_opposite_sign(model, table):
    true = effect(lambda device: simulated(100_000, 1, device), "edema")
    ours = effect(lambda device: model.sample(20_000, {"device": device}, 2), "edema")
    conditioned = effect(lambda device: table.filter(device=device), "edema")
    assert true < -0.1 < 0.1 < conditioned
    assert ours == pytest.approx(true, abs=0.04)


def test_small_tables_keep_no_part_of_the_confounding():
    """A penalty that matters at 1,000 rows left the effect of the device at three quarters, on average over tables."""
    noise = pl.DataFrame(np.random.default_rng(0).uniform(0, 1, (3000, 4)), schema=GRAPH.order)
    found = []
    for seed in range(5):
        model = CausalModel.fit(simulated(1000, 1 + seed), GRAPH)
        found.append(effect(lambda device, model=model: model.predict(noise, {"device": device}), "edema"))
    true = effect(lambda device: simulated(200_000, 1, device), "edema")
    assert np.mean(found) == pytest.approx(true, abs=0.02)


def test_marginals_and_pairs_are_those_of_the_table(model, table):
    drawn = model.sample(20_000, seed=3)
    for name in ("device", "edema"):
        assert drawn[name].mean() == pytest.approx(table[name].mean(), abs=0.025)
    ages = [[t.filter(device=d)["age"].quantile(q) for d in (0, 1) for q in (0.1, 0.5, 0.9)] for t in (drawn, table)]
    assert np.abs(np.subtract(*ages)).max() < 3


def test_abduction_is_exact(model, table):
    rows = table.head(500)
    back = model.predict(model.abduct(rows))
    assert np.allclose(back["age"], rows["age"]) and back.select("sex", "device", "edema").equals(
        rows.select("sex", "device", "edema")
    )


def test_abducted_noise_is_uniform_and_independent_of_the_causes(model, table):
    noise = model.abduct(table, seed=1)
    for name in noise.columns:
        assert np.abs(np.histogram(noise[name], 5, (0, 1))[0] / len(table) - 0.2).max() < 0.04, name
        assert abs(np.corrcoef(noise[name], table["age"])[0, 1]) < 0.08 or name == "age"


def test_a_counterfactual_changes_what_the_intervention_causes_and_nothing_else(model, table):
    rows = table.head(500)
    other = model.counterfactual(rows, {"device": 1})
    assert np.allclose(other["age"], rows["age"]) and other["sex"].equals(rows["sex"])
    assert (other["device"] == 1).all()
    had = rows["device"] == 1
    assert other.filter(had)["edema"].equals(rows.filter(had)["edema"]), "nothing changed for those who had one"
    assert (other["edema"] <= rows["edema"]).all(), "a device prevents edema in everyone"


def test_those_who_share_a_value_differ_in_what_would_have_been():
    """Seven in ten never smoked: had they, they would have smoked as differently as smokers did; none smokes 0.01."""
    random = np.random.default_rng(0)
    smoker = np.arange(3000) % 10 < 3
    years = np.where(smoker, random.normal(40, 10, 3000).clip(1), 0.0)
    children = random.poisson(np.where(smoker, 1.0, 2.0)).clip(max=4)
    table = pl.DataFrame({"smoker": smoker, "years": years, "children": children})
    kinds = {"smoker": "choice", "years": "number", "children": "number"}
    graph = make_graph(kinds, [{"from": "smoker", "to": ["years", "children"], "because": "assumption"}])
    model = CausalModel.fit(table, graph)
    as_smokers = model.counterfactual(table.filter(~pl.col("smoker")), {"smoker": True})["years"]
    assert as_smokers.mean() == pytest.approx(40, abs=4) and as_smokers.std() == pytest.approx(10, abs=4)
    drawn = model.sample(5000)
    assert (drawn["years"] == 0).mean() == pytest.approx(0.7, abs=0.03)
    assert set(drawn["children"]) == {0, 1, 2, 3, 4}
    again = model.predict(model.abduct(table))
    assert np.abs(again["years"] - table["years"]).max() < 1e-3 and (again["children"] == table["children"]).all()


def test_what_is_not_caused_stays_to_the_last_digit_and_in_its_type():
    """Ages came back as 61.99999999999999, which a description cuts to 61."""
    rows = simulated(500).with_columns(pl.col("age").round().cast(pl.Float32))
    graph = make_graph(KINDS, [{"from": ["sex"], "to": ["age"], "because": "simulated"}, *ARROWS])
    other = CausalModel.fit(rows, graph).counterfactual(rows, {"device": 1})
    assert other["age"].equals(rows["age"]) and other["age"].dtype == pl.Float32 and other.columns == rows.columns


def test_a_single_patient_can_be_asked_about(model, table):
    one = table.filter(device=0)[:1]
    changed = model.counterfactual(one, {"device": 1})
    assert changed["device"].item() == 1
    assert changed["age"].item() == pytest.approx(one["age"].item(), abs=1e-6)
    assert changed["sex"].item() == one["sex"].item()
    for broken, words in ((one.drop("sex"), "lacks sex"), (one.with_columns(age=pl.lit("old")), "age: is String")):
        with pytest.raises(CausalError, match=words):
            model.counterfactual(broken, {"device": 1})


def test_rows_with_unknown_values_take_no_part_in_a_fit():
    table = simulated(2000).with_columns(edema=pl.when(pl.int_range(2000) < 500).then(None).otherwise("edema"))
    model = CausalModel.fit(table, GRAPH)
    assert model.rows == {"age": 2000, "sex": 2000, "device": 2000, "edema": 1500}
    with pytest.raises(CausalError, match="edema is unknown in 500 rows"):
        model.abduct(table)


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ({"race": "White"}, "'race' is no variable"),
        ({"device": 2}, "device = 2: fitted on 0, 1 alone"),
        ({"age": 130}, "age = 130: fitted on"),
        ({"age": "old"}, "age = 'old': fitted on"),
        ({"age": None}, "age = None: fitted on"),
    ],
)
def test_interventions_beyond_the_table_are_refused(model, do, words):
    with pytest.raises(CausalError, match=words):
        model.sample(5, do)
