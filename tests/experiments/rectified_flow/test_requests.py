"""Requests change one attribute of a record and contradict nothing."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments.rectified_flow import requests
from chexgen_lib.experiments.rectified_flow.requests import ControlError
from chexgen_lib.models.metadata import ATTRIBUTES, encode_metadata
from chexgen_lib.records import FINDINGS
from tests.builders import attributed_records

SOURCES = ("here", "there")


@pytest.fixture
def table() -> pl.DataFrame:
    return attributed_records()


def test_truth_is_poles_years_and_unknown(table):
    values = requests.truth(table, ["age", "sex", "view", "Effusion"], SOURCES)
    np.testing.assert_array_equal(values[:, 0], table["age"])
    np.testing.assert_array_equal(values[:, 1], table["sex"] == "M")
    np.testing.assert_array_equal(values[:3, 2], [0, 1, np.nan])
    np.testing.assert_array_equal(values[:, 3], table["Effusion"])
    with pytest.raises(ControlError, match="unknown attribute 'height'"):
        requests.truth(table, ["height"], SOURCES)
    with pytest.raises(ControlError, match="needs two to tell apart, got .'here'.; or leave source out"):
        requests.truth(table, ["source"], ["here"])


def test_an_attribute_without_both_poles_is_named(table):
    values = requests.truth(table, ["sex", "Edema"], SOURCES)
    requests.check_truth(values[:, :1], ["sex"], "train")
    with pytest.raises(ControlError, match="Edema: the train images have only 0; leave it out"):
        requests.check_truth(values, ["sex", "Edema"], "train")
    values[:2, 1] = 1
    with pytest.raises(ControlError, match="Edema: one pole has 2 of the test images, an interval needs 5"):
        requests.check_truth(values, ["sex", "Edema"], "test")


def test_pairs_differ_in_what_is_one_attribute_alone_and_can_be(table):
    names = ["age", "sex", "view", "source", "Effusion", "No Finding", "Lung Opacity", "Edema"]
    listed, low, high = requests.pairs(table, names, 6, SOURCES, seed=1)
    assert listed["image_id"].is_unique().all() and len(listed) == len(low) == len(high) == 6 * len(names)
    encode_metadata([*low, *high], SOURCES)  # nothing contradicts
    for name, one, other in zip(listed["attribute"], low, high, strict=True):
        assert {k for k in one | other if one.get(k) != other.get(k)} == {name}
    ages = [(one["age"], other["age"]) for one, other in zip(low[:6], high[:6], strict=True)]
    assert ages[0] == (20, 60) and ages[-1] == (50, 90)
    with pytest.raises(ControlError, match="2 pairs an attribute .* needs 5"):
        requests.pairs(table, names, 2, SOURCES)


def test_what_a_change_would_contradict_is_omitted(table):
    sick = table.filter(Effusion=1).row(0, named=True)
    metadata = requests.changed(sick, "Effusion", 0)
    assert metadata["Effusion"] == 0 and "No Finding" not in metadata and "Lung Opacity" not in metadata
    assert metadata["Edema"] == 0 and metadata["sex"] == sick["sex"]
    normal = requests.changed(sick, "No Finding", 1)
    assert normal["No Finding"] == 1 and {f for f in FINDINGS if f in normal} == {"No Finding", "Support Devices"}
    assert set(requests.changed(sick, "sex", "F")) == {name for name in ATTRIBUTES if sick.get(name) is not None}


def test_sweeps_take_every_value(table):
    found = requests.sweeps(table.row(0, named=True), ["age", "view", "Edema"], SOURCES)
    assert [words for _, words, _ in found] == [
        ["20 years", "35 years", "50 years", "65 years", "80 years"],
        ["PA", "AP"],
        ["absent", "present"],
    ]
    assert [m["age"] for m in found[0][2]] == [20, 35, 50, 65, 80] and [m["Edema"] for m in found[2][2]] == [0, 1]
