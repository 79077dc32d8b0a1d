"""A generator that obeys, one that does not and one that collapsed are told apart, beside floor and ceilings."""

from copy import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.estimates.measures import auroc_interval
from chexgen_lib.experiments.judge import asked_and_shown, metrics, report
from chexgen_lib.experiments.judge.bench import GENERATOR, Bench
from chexgen_lib.experiments.judge.reference import load_reference
from chexgen_lib.experiments.rectified_flow.control import MACRO
from chexgen_lib.images import from_uint8
from chexgen_lib.quality.arms import FLOOR, IGNORES, NOISE, REAL
from tests.experiments.judge import toy

ENDS = ("low", "value", "high")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return load_reference(toy.cohort(tmp_path_factory.mktemp("cohort")), 60)


@pytest.fixture(scope="module")
def bench(reference):
    prompted = reference.prompted.table
    samples = {
        "obeys": np.stack([toy.films(prompted, 20 + s) for s in range(2)], 1),
        "wanders": np.stack([toy.films(prompted, 30 + s, obey=False) for s in range(2)], 1),
        "collapsed": np.repeat(toy.films(prompted, 40)[:1, None], 60, 0).repeat(2, 1),
    }
    return Bench(reference, samples, toy.instruments(reference.train.table), n_resamples=80, seed=1)


@pytest.fixture(scope="module")
def found(bench):
    return metrics.table(bench)


@pytest.fixture(scope="module")
def shown(bench):
    return asked_and_shown.table(bench)


def test_halves_of_the_held_out_share_no_patient(reference, tmp_path):
    sets = [set(getattr(reference, name).table["patient_id"]) for name in ("prompted", "others", "train", "val")]
    assert [len(s) for s in sets] == [60, 60, 60, 30] and len(set.union(*sets)) == 210
    fewer = load_reference(toy.cohort(tmp_path / "again"), 25)
    assert fewer.prompted.table["image_id"].to_list() == reference.prompted.table["image_id"].to_list()[:25]
    with pytest.raises(CohortError, match="10 frontal patients to prompt for .* judging needs 20"):
        load_reference(toy.cohort(tmp_path / "small", test=20), 40)
    with pytest.raises(CohortError, match=r"images of \[64\] px, not 32: run 02_cohort"):
        load_reference(tmp_path / "again", 40, 32)


def test_every_metric_stands_beside_its_floor_and_ceilings_at_one_n(found):
    whole = found.filter(group="all")
    assert set(whole["n"]) == {60}
    for (metric,), rows in whole.group_by("metric"):
        assert {FLOOR, NOISE, "obeys", "wanders", "collapsed"} <= set(rows["arm"]), metric
    known = whole.drop_nulls("value")
    assert (known["low"] <= known["value"]).all() and (known["value"] <= known["high"]).all()
    assert known.filter(pl.col("arm") == "wanders")["difference"].null_count() == 0
    assert known.filter(pl.col("arm") == "obeys")["difference"].null_count() == len(known.filter(arm="obeys"))


def test_who_obeys_is_nearer_to_the_floor_than_who_does_not(found):
    def value(metric, arm):
        return metrics.beside(found, metric)[arm]["value"]

    for metric in ("FID-squares", "FID infinity-squares", "KID-squares"):
        assert value(metric, "obeys") < value(metric, "collapsed") and value(metric, FLOOR) < value(metric, NOISE)
    assert value("recall-squares", "collapsed") < 0.1 < value("recall-squares", "obeys")
    assert value("coverage-squares", "collapsed") < 0.5 * value("coverage-squares", "obeys")
    for metric in ("Pearson r, within findings", "AUROC of requested findings"):
        assert value(metric, "obeys") > value(metric, "wanders") + 0.3
        assert metrics.beside(found, metric)["wanders"]["difference_high"] < 0
        assert abs(value(metric, f"obeys, {IGNORES}") - value(metric, "wanders")) < 0.2
    assert value("FID infinity-squares", FLOOR) < value("FID-squares", FLOOR)
    assert value("MS-SSIM", "obeys") > value("MS-SSIM", f"obeys, {IGNORES}")
    for metric in ("told from real, squares", "told from real, spectrum"):
        assert value(metric, FLOOR) < 0.6 < value(metric, NOISE)
        assert value(metric, "obeys") < value(metric, "collapsed")
    assert value("told from real, spectrum", NOISE) > 0.95
    energies = {metric for metric in found["metric"].unique() if metric.startswith("energy, ")}
    assert energies and all(0.5 < value(metric, FLOOR) < 2 for metric in energies)


def test_what_cannot_be_measured_is_a_row_that_says_why(found, bench, reference):
    row = metrics.beside(found, "Pearson r, within findings")["collapsed"]
    assert row["value"] is None and "undefined" in row["note"]
    groups = found.filter(pl.col("metric") == "KID-squares", pl.col("group") != "all")
    assert {"sex: F", "sex: M", "view: AP", "view: PA"} < set(groups["group"])
    small = groups.filter(pl.col("n") < metrics.LEAST_GROUP)
    assert len(small) and small["value"].null_count() == len(small) and "fewer than 20 patients are" in small["note"][0]
    single = Bench(reference, {"one": toy.films(reference.prompted.table, 1)[:, None]}, bench.instruments, 20)
    rows = metrics.beside(metrics.table(single), "MS-SSIM")
    assert rows["one"]["value"] is None and "two images of a prompt" in rows["one"]["note"]
    assert rows[FLOOR]["value"] is not None


def test_subgroups_are_measured_on_their_own_patients(found, bench):
    females = metrics.beside(found, "Pearson r, within findings", "sex: F")["obeys"]
    assert females["n"] == (bench.reference.prompted.table["sex"] == "F").sum()
    wrong = dict(bench.generators)
    rows = np.flatnonzero((bench.reference.prompted.table["sex"] == "M").to_numpy())
    order = np.arange(bench.n)
    order[rows] = rows[np.roll(np.arange(len(rows)), 1)]  # wrong for men alone
    bench.generators["obeys"] = wrong["obeys"].dealt(order, GENERATOR)
    try:
        again = metrics.table(bench)
    finally:
        bench.generators["obeys"] = wrong["obeys"]
    for group, kept in (("sex: F", True), ("sex: M", False)):
        before, after = (
            metrics.beside(t, "AUROC of requested findings", group)["obeys"]["value"] for t in (found, again)
        )
        assert (after == pytest.approx(before)) == kept


def test_asked_and_shown_stands_beside_real_images(shown):
    def row(attribute, arm):
        return shown.row(by_predicate=(pl.col("attribute") == attribute) & (pl.col("arm") == arm), named=True)

    for attribute in ("sex", "side", MACRO):
        assert row(attribute, REAL)["value"] > 0.9 and row(attribute, "obeys")["verdict"] == "reached"
        assert row(attribute, f"obeys, {IGNORES}")["value"] < 0.75
        assert row(attribute, f"obeys, {IGNORES}")["verdict"] == ""
    assert row(MACRO, "wanders")["verdict"].startswith("missed by")
    assert row(MACRO, "wanders")["difference_high"] < 0 and row(MACRO, REAL)["difference"] is None
    assert row("age", "obeys")["verdict"].startswith("cannot be measured here")  # this probe misses it on real images
    assert row("sex", "obeys")["positives"] < row("sex", "obeys")["n"] == 60
    missed, unknown = asked_and_shown.unfit(shown)["wanders"]
    assert MACRO in missed and unknown == ["age", "view"]
    assert asked_and_shown.unfit(shown)["obeys"] == ([], ["age", "view"])
    assert "severity" not in set(shown["attribute"])  # all are mild


def test_three_prompts_that_say_an_age_do_not_make_a_correlation(bench):
    few, films = copy(bench), bench.reference.prompted
    told = films.table.with_columns(age=pl.when(pl.int_range(pl.len()) < 3).then("age"))
    few.reference = replace(bench.reference, prompted=replace(films, table=told))
    shown = asked_and_shown.table(few)
    rows = shown.filter(attribute="age")
    assert set(rows["n"]) == {3} and rows["value"].is_null().all() and set(rows["verdict"]) == {""}
    assert "age" in asked_and_shown.unfit(shown)["obeys"][1]


def test_who_is_always_told_from_radiographs_is_so_by_as_many_patients(found, bench):
    rows = found.filter(pl.col("metric").str.starts_with("told from real")).rows(named=True)
    for row in rows:
        low, high = auroc_interval(row["value"], bench.n, len(bench.reference.others))
        assert row["low"] <= low < high <= row["high"]
    assert max(row["value"] for row in rows) > 0.99 > max(row["low"] for row in rows)


def test_severity_and_side_are_what_details_say():
    def detail(finding, side, severity):
        return {"finding": finding, "side": side, "site": None, "severity": severity}

    table = toy.records(4, "test", 0)
    details = [
        [detail("Effusion", "left", "mild"), detail("Edema", None, "severe")],
        [detail("Effusion", "left", None), detail("Pneumothorax", "right", None)],
        [detail("Lung Lesion", "right", None), detail("Cardiomegaly", None, "severe")],
        [],
    ]
    values = asked_and_shown.requested(table.with_columns(details=pl.Series(details, dtype=table["details"].dtype)))
    severity, side = (asked_and_shown.ATTRIBUTES.index(name) for name in ("severity", "side"))
    np.testing.assert_array_equal(values[:, severity], [3, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(values[:, side], [1, np.nan, 0, np.nan])
    assert values[0, asked_and_shown.ATTRIBUTES.index("age")] == pytest.approx(table["age"][0])


def test_the_words_follow_the_intervals(found, shown):
    lines = {line.split("**")[1]: line for line in report.verdicts(found, shown)}
    assert "Follows its prompts: yes" in lines["obeys"]
    assert "no more than dealt to other prompts" in lines["wanders"]
    assert "Follows its prompts: undefined" in lines["collapsed"]
    assert f"it is told from {FLOOR} by squares; told from {NOISE} by squares" in lines["collapsed"]
    assert f"it is not told from {FLOOR} by squares" in lines["obeys"]
    assert "asked and not shown: none; not measurable here: age, view" in lines["obeys"]
    value = metrics.beside(found, "FID infinity-squares")["obeys"]["value"]
    assert f"{value:.3f}" in lines["obeys"]


def test_who_shows_the_opposite_of_its_prompts_does_not_follow_them(found, shown):
    own = (pl.col("metric") == "Pearson r, within findings") & (pl.col("arm") == "obeys")
    turned = [pl.when(own).then(-pl.col(b)).otherwise(a).alias(a) for a, b in zip(ENDS, ENDS[::-1], strict=True)]
    lines = report.verdicts(found.with_columns(turned), shown)
    assert "Follows its prompts: no, less than dealt to other prompts" in next(x for x in lines if "**obeys**" in x)


class Reader(toy.Squares):
    """An encoder of images and texts that knows by heart what each prompt asks for."""

    name = "reader"

    def __init__(self, table: pl.DataFrame):
        self.asked = dict(zip(table["prompt"], super().__call__(from_uint8(toy.films(table, 50))), strict=True))
        self.mean = np.mean(list(self.asked.values()), 0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._unit(super().__call__(images))

    def texts(self, texts: list[str]) -> np.ndarray:
        return self._unit(np.array([self.asked[text] for text in texts]))

    def _unit(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / np.linalg.norm(x - self.mean, axis=1, keepdims=True)


def test_a_reader_of_texts_finds_the_prompts_of_who_obeys(bench, reference):
    prompted = reference.prompted.table
    with_reader = replace(bench.instruments, embedders=[*bench.instruments.embedders, Reader(prompted)])
    samples = {name: toy.films(prompted, 7, obey)[:, None] for name, obey in (("a", True), ("b", False))}
    found = metrics.table(Bench(reference, samples, with_reader, n_resamples=20, seed=1))
    recalls = {k: metrics.beside(found, f"R@{k}, reader") for k in (1, 5, 10)}
    assert recalls[5]["a"]["value"] > 0.9 and recalls[5]["b"]["value"] < 0.4
    for arm in ("a", "b", f"a, {IGNORES}"):
        assert recalls[1][arm]["value"] <= recalls[5][arm]["value"] <= recalls[10][arm]["value"], arm
    assert recalls[10][f"a, {IGNORES}"]["value"] < 0.5
    assert not [m for m in metrics.table(bench)["metric"].unique() if m.startswith("R@")], "no encoder was given"
