"""Cases are spread over findings and patients, tasks cannot give each other away, every reader has an own order."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from chexgen_lib.quality.readers import design
from chexgen_lib.quality.readers.design import StudyError
from chexgen_lib.records import FINDINGS


@pytest.fixture(scope="module")
def study(shown):
    return design.make(shown, design.TASKS, ["A", "B"], 12, seed=3)


def items(study, task, number=1, reader="A"):
    return [item for item in study.items[reader] if (item.task, item.number) == (task, number)]


@pytest.mark.parametrize(("detect", "power"), [(0.3, 0.8), (0.5, 0.9)])
def test_the_number_of_cases_has_the_stated_power(detect, power):
    n = design.cases_needed(detect, power)
    assert design.detectable(n, power) <= detect < design.detectable(n - 1, power)
    differences = np.random.default_rng(0).normal(detect, 1, (4000, n))
    found = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(power, abs=0.03)


@pytest.mark.parametrize(("detect", "power"), [(0, 0.8), (-1, 0.8), (1e-300, 0.8), (0.3, 1), (0.3, 0)])
def test_an_impossible_power_is_refused(detect, power):
    with pytest.raises(StudyError, match="power"):
        design.cases_needed(detect, power)


def test_rare_findings_occur_as_often_as_common_ones():
    n = 200
    labels = {f: [0.0] * n for f in FINDINGS} | {"No Finding": [1.0] * 190 + [0.0] * 10}
    labels |= {"Edema": [0.0] * 190 + [1.0] * 10, "Effusion": [0.0] * 196 + [1.0] * 4}
    ids = {"image_id": [f"i{k}" for k in range(n)], "patient_id": [f"p{k}" for k in range(n)]}
    records = pl.DataFrame(ids | {"prompt": [""] * n} | labels)
    chosen = design.choose_cases(records, 6, ["films", "assisted"], np.random.default_rng(0))
    assert Counter(chosen["stratum"]) == {"Effusion": 4, "Edema": 4, "No Finding": 4}
    per_group = chosen.group_by("group", "stratum").len()
    assert set(per_group["len"]) == {2} and len(per_group) == 6


def test_one_case_a_patient(shown):
    records = shown.records.with_columns(patient_id=pl.col("patient_id").str.head(6))  # src:p1, src:p2, ...
    assert records["patient_id"].n_unique() == 10
    chosen = design.choose_cases(records, 5, ["films", "pairs"], np.random.default_rng(0))
    assert chosen["patient_id"].is_unique().all() and len(chosen) == 10
    with pytest.raises(StudyError, match=r"6 cases for each of 2 groups.*10 patients.*--cases 5, which detects 1.25"):
        design.choose_cases(records, 6, ["films", "pairs"], np.random.default_rng(0))


def test_only_agreement_and_realism_share_cases(study):
    cases = {task: {item.record for item in items(study, task)} for task in design.TASKS}
    assert cases["agreement"] == cases["realism"] and len(cases["agreement"]) == 12
    assert not cases["pairs"] & cases["realism"] and not cases["assisted"] & (cases["pairs"] | cases["realism"])


def test_what_each_task_shows(study):
    arms = {"real", "ours", "other"}
    for task in ("agreement", "realism"):
        shown = [(item.record, item.arm) for item in items(study, task)]
        assert len(shown) == len(set(shown)) == 36 and {arm for _, arm in shown} == arms
        assert all(item.images == ((item.arm, item.record),) for item in items(study, task))
    assert items(study, "agreement", 2) == []
    pairs = items(study, "pairs")
    assert Counter(item.arm for item in pairs) == {"ours": 6, "other": 6}
    assert all({("real", item.record), (item.arm, item.record)} == set(item.images) for item in pairs)
    assert {item.images[0][0] == "real" for item in pairs} == {True, False}


def test_assisted_reading_is_crossed_and_comes_last(study):
    passes = [items(study, "assisted", number) for number in (1, 2, 3)]
    for one in passes:
        assert Counter(item.arm for item in one) == {"alone": 4, "ours": 4, "other": 4}
    conditions = Counter((item.record, item.arm) for one in passes for item in one)
    assert len(conditions) == 36 and set(conditions.values()) == {1}
    assert all(item.images[0][0] == "real" for one in passes for item in one)
    order = list(dict.fromkeys((item.task, item.number) for item in study.items["A"]))
    assert order[:5] == [("realism", 1), ("pairs", 1), ("agreement", 1), ("realism", 2), ("pairs", 2)]


def test_orders_are_random_for_reader_and_pass_and_made_again_by_the_seed(study, shown):
    orders = [[(i.record, i.arm) for i in items(study, "realism", n, r)] for r in "AB" for n in (1, 2)]
    assert len({tuple(order) for order in orders}) == 4 and len({frozenset(order) for order in orders}) == 1
    again = design.make(shown, design.TASKS, ["A", "B"], 12, seed=3)
    assert again.items == study.items and again.study == study.study
    other = design.make(shown, design.TASKS, ["A", "B"], 12, seed=4)
    assert other.study != study.study and other.items["A"] != study.items["A"]
    ids = [item.item for reader in study.items.values() for item in reader]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("tasks", "readers", "message"),
    [
        (["realism", "realism"], ["A"], "each once"),
        (["quality"], ["A"], "realism, pairs, agreement, assisted"),
        ([], ["A"], "one or more"),
        (["realism"], [], "distinct names"),
        (["realism"], ["A", "a"], "distinct names"),
        (["realism"], ["../A"], "letters, digits"),
    ],
)
def test_unusable_tasks_and_readers(shown, tasks, readers, message):
    with pytest.raises(StudyError, match=message):
        design.make(shown, tasks, readers, 5, seed=0)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("agreement", {"prompt": pl.lit(" ")}, "63 of 63 records have no prompt to agree with, first 'src:000'"),
        ("assisted", {f: pl.lit(None, pl.Float32) for f in FINDINGS}, "known to be present, .* has no sensitivity"),
        ("assisted", {f: pl.col(f).replace(0, None) for f in FINDINGS}, "known to be absent, .* has no specificity"),
    ],
)
def test_cases_that_cannot_be_scored_are_refused_before_anybody_reads(shown, task, change, message):
    given = replace(shown, records=shown.records.with_columns(**change))
    with pytest.raises(StudyError, match=f"{message}.*leave {task} out of --tasks"):
        design.make(given, [task], ["A"], 4, seed=0)
    design.make(given, ["realism"], ["A"], 4, seed=0)
