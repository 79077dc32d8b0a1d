"""Requests change what they say and contradict nothing; probes and tables read planted truth."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments.rectified_flow import control
from chexgen_lib.experiments.rectified_flow.control import MACRO, ControlError
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.records import FINDINGS

SOURCES = ("here", "there")
N = 60


@pytest.fixture
def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, N)
    states = {f: np.zeros(N) for f in FINDINGS} | {"Effusion": sick, "Lung Opacity": sick, "No Finding": 1 - sick}
    about = {
        "image_id": [f"i{k}" for k in range(N)],
        "age": rng.uniform(20, 90, N),
        "sex": rng.choice(["F", "M"], N).tolist(),
        "view": (["PA", "AP", "LATERAL"] * N)[:N],
        "source": rng.choice(SOURCES, N).tolist(),
    }
    return pl.DataFrame(about | states)


def test_truth_is_poles_years_and_unknown(table):
    values = control.truth(table, ["age", "sex", "view", "Effusion"], SOURCES)
    np.testing.assert_array_equal(values[:, 0], table["age"])
    np.testing.assert_array_equal(values[:, 1], table["sex"] == "M")
    np.testing.assert_array_equal(values[:3, 2], [0, 1, np.nan])
    np.testing.assert_array_equal(values[:, 3], table["Effusion"])
    with pytest.raises(ControlError, match="unknown attribute 'height'"):
        control.truth(table, ["height"], SOURCES)
    with pytest.raises(ControlError, match="needs two to tell apart, got .'here'.; or leave source out"):
        control.truth(table, ["source"], ["here"])


def test_an_attribute_without_both_poles_is_named(table):
    values = control.truth(table, ["sex", "Edema"], SOURCES)
    control.check_truth(values[:, :1], ["sex"], "train")
    with pytest.raises(ControlError, match="Edema: the train images have only 0; leave it out"):
        control.check_truth(values, ["sex", "Edema"], "train")
    values[:2, 1] = 1
    with pytest.raises(ControlError, match="Edema: one pole has 2 of the test images, an interval needs 5"):
        control.check_truth(values, ["sex", "Edema"], "test")


def test_pairs_differ_in_what_is_asked_alone_and_can_be(table):
    names = ["age", "sex", "view", "source", "Effusion", "No Finding", "Lung Opacity", "Edema"]
    requests, low, high = control.pairs(table, names, 6, SOURCES, seed=1)
    assert requests["image_id"].is_unique().all() and len(requests) == len(low) == len(high) == 6 * len(names)
    encode_metadata([*low, *high], SOURCES)  # nothing contradicts
    for name, one, other in zip(requests["attribute"], low, high, strict=True):
        assert {k for k in one | other if one.get(k) != other.get(k)} == {name}
    ages = [(one["age"], other["age"]) for one, other in zip(low[:6], high[:6], strict=True)]
    assert ages[0] == (20, 60) and ages[-1] == (50, 90)
    with pytest.raises(ControlError, match="2 pairs an attribute .* needs 5"):
        control.pairs(table, names, 2, SOURCES)


def test_what_a_change_would_contradict_is_unsaid(table):
    sick = table.filter(Effusion=1).row(0, named=True)
    asked = control.ask(sick, "Effusion", 0)
    assert asked["Effusion"] == 0 and "No Finding" not in asked and "Lung Opacity" not in asked
    assert asked["Edema"] == 0 and asked["sex"] == sick["sex"]
    normal = control.ask(sick, "No Finding", 1)
    assert normal["No Finding"] == 1 and {f for f in FINDINGS if f in normal} == {"No Finding", "Support Devices"}
    assert set(control.ask(sick, "sex", "F")) == set(control.metadata_of(pl.DataFrame([sick]))[0])


def planted(values: np.ndarray, seed: int) -> np.ndarray:
    """Images [N, 32, 32] in which a bright square shows the second value and brightness the first."""
    rng = np.random.default_rng(seed)
    images = (
        0.3 + 0.005 * np.nan_to_num(values[:, 0])[:, None, None] + 0.05 * rng.standard_normal((len(values), 32, 32))
    )
    images[:, 4:12, 20:28] += 0.2 * np.nan_to_num(values[:, 1])[:, None, None]
    return np.clip(images, 0, 1).astype(np.float32)


def test_probes_read_unseen_images_and_skip_unknown_values():
    rng = np.random.default_rng(0)
    values = np.stack([rng.uniform(20, 80, 240), rng.integers(0, 2, 240)], axis=1)
    known = values[:160].copy()
    known[::3, 0] = np.nan
    probes = control.Probes(planted(values[:160], 1), known, components=8)
    read = probes(planted(values[160:], 2))
    assert np.corrcoef(read[:, 0], values[160:, 0])[0, 1] > 0.9
    assert np.abs(read[:, 0] - values[160:, 0]).mean() < 8
    assert np.corrcoef(read[:, 1], values[160:, 1])[0, 1] > 0.8
    whole = control.Probes(planted(values[:160], 1), values[:160], components=8)
    np.testing.assert_allclose(whole(planted(values[160:], 2))[:, 1], read[:, 1], atol=1e-6)  # column by column


def test_tables_find_what_was_planted(table):
    names = ["age", "sex", "Effusion"]
    requests, low, high = control.pairs(table, names, 20, SOURCES)
    real_truth = control.truth(table, names, SOURCES)
    rng = np.random.default_rng(0)
    asked = np.array([[m.get("age"), m["sex"] == "M", m["Effusion"]] for m in low + high], float).reshape(2, -1, 3)
    answers = asked + [20, 0.1, 0.1] * rng.standard_normal(asked.shape) * [0.1, 1, 1]
    answers[:, :, 1] = rng.standard_normal(answers.shape[1])  # the sex that is asked for never shows
    real = real_truth + 0.05 * rng.standard_normal(real_truth.shape)
    found = control.control_table(requests, answers, real, real_truth, names, [str(k) for k in range(len(real))], 100)

    def value(attribute, measure="AUROC", images="samples"):
        row = found.filter(attribute=attribute, measure=measure, images=images).row(0, named=True)
        assert row["low"] <= row["value"] <= row["high"]
        return row["value"]

    assert value("age", "correlation") > 0.95 and 0.5 < value("age", "mean error (years)") < 3
    assert value("sex") == 0.5 and value("sex", images="real") > 0.95
    assert value("Effusion") > 0.95 and value(MACRO) == pytest.approx(value("Effusion"))
    assert found.filter(attribute="sex", images="samples")["n"].item() == 40
    lines = control.against_bars(found)
    assert [line.rpartition(": ")[2] for line in lines] == ["reached", "missed by 0.40", "reached"]
    moved = control.off_target(requests, answers, real, real_truth, names, 100)
    assert len(moved) == 9
    own = {(r["asked"], r["measured"]): r for r in moved.to_dicts()}
    assert own["age", "age"]["value"] == pytest.approx(40 / real[:, 0].std(), rel=0.1)
    assert own["age", "sex"]["value"] == 0 and abs(own["age", "Effusion"]["value"]) < 0.2
    assert own["Effusion", "Effusion"]["low"] > 1 and own["Effusion", "Effusion"]["real"] > 1


def test_walks_take_every_value(table):
    walks = control.walks(table.row(0, named=True), ["age", "view", "Edema"], SOURCES)
    assert [words for _, words, _ in walks] == [
        ["20 years", "35 years", "50 years", "65 years", "80 years"],
        ["PA", "AP"],
        ["absent", "present"],
    ]
    assert [m["age"] for m in walks[0][2]] == [20, 35, 50, 65, 80] and [m["Edema"] for m in walks[2][2]] == [0, 1]
