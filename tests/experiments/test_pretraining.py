"""Fine-tuning starts where pretraining ended; shares are nested whole patients."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.estimates.measures import macro_auroc
from chexgen_lib.experiments import fine_tuning as ft
from chexgen_lib.experiments import pretraining as p
from chexgen_lib.experiments.arms import CHEXGEN, DEFAULT, IMAGENET, LONGER, RAD_DINO
from chexgen_lib.experiments.attention import Cases
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import ClassifierSize
from chexgen_lib.paper import published
from chexgen_lib.pools.labelled import ABOUT, LabelledSet, Splits
from chexgen_lib.records import FINDINGS, SCHEMA
from tests.builders import labelled_squares

TINY = ClassifierSize(32, 8, 8, (2, 2))
CONFIG = LearnerConfig(steps=2, size=TINY, batch_size=16, checks=1)
FIVE, REAL = "5x synthetic", "5x new real"
NO_CASES = Cases(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 8, 8), bool))
PROTOCOL = ft.Protocol([1], [1], [0.5, 1.0], [1, 2], 2, LearnerConfig(steps=9), LearnerConfig(steps=3))


def labelled(n=40):
    images, labels = labelled_squares(n, 0)
    about = {c: [f"{c}{i // 2}" for i in range(n)] for c in ABOUT if c != "age"} | {"age": [50.0] * n}
    states = dict(zip(FINDINGS, labels.T.tolist(), strict=True))
    return LabelledSet(pl.DataFrame(about | states | {"copy": [0] * n}), (images * 255).astype(np.uint8))


def test_shares_are_nested_whole_patients():
    train = labelled()
    found = ft.fractions(train, [0.1, 0.5, 1], seed=3)
    assert list(found) == ["10 %", "50 %", "100 %"] and [len(rows) for rows in found.values()] == [4, 20, 40]
    assert set(found["10 %"]) < set(found["50 %"]) < set(found["100 %"])
    kept = set(train.table["patient_id"].gather(found["10 %"]))
    assert not kept & set(train.table["patient_id"].gather(np.setdiff1d(np.arange(40), found["10 %"])))
    assert found["50 %"].tolist() == ft.fractions(train, [0.5], seed=3)["50 %"].tolist()
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 0"):
        ft.fractions(train, [0.0], seed=0)


def test_shots_give_each_finding_its_images():
    train = labelled(200)
    rows = ft.shots(train.labels, 5, draw=0, seed=1)
    assert (train.labels[rows].sum(0) >= 5).all() and len(rows) <= 70
    assert rows.tolist() == ft.shots(train.labels, 5, 0, 1).tolist() != ft.shots(train.labels, 5, 1, 1).tolist()


def own_labels(sets, prefix, labels, published=()):
    """The sets with a label set of their own for the images of a prefix: each label is in turn present and absent."""
    own = {int(row) for name in ("train", "val", "test") for row in sets.rows[prefix + name]}
    states = [
        [{"label": label, "state": float((i + k) % 2)} for k, label in enumerate(labels)] if i in own else []
        for i in range(len(sets.everything))
    ]
    named = [list(published) if i in own else [] for i in range(len(sets.everything))]
    columns = {"states": pl.Series(states, dtype=SCHEMA["states"]), "sets": pl.Series(named, dtype=SCHEMA["sets"])}
    return replace(sets, everything=replace(sets.everything, table=sets.everything.table.with_columns(**columns)))


def sets_of(n=120):
    rows = np.split(np.arange(n), [n // 3, n // 3 + 10, n // 2, n - 20, n - 10])
    names = [prefix + name for prefix in ("", "external ") for name in ("train", "val", "test")]
    rows = dict(zip(names, rows, strict=True)) | {"further train": np.arange(0)}
    return Splits(labelled(n), rows, np.arange(0))


def test_pretraining_on_right_labels_helps_few_images(tmp_path):
    images, labels = labelled_squares(460, 0)
    images, given = (
        (images * 255).astype(np.uint8),
        dict.fromkeys((ft.INTERNAL, ft.FEW_SHOT), ft.Labels(FINDINGS, labels)),
    )
    train, val, test = np.arange(300, 306), np.arange(306, 346), np.arange(346, 460)
    config = LearnerConfig(steps=6, size=TINY, batch_size=16, learning_rate=1e-4, checks=1)
    few = {"few": ft.Tuning("few-shot", "few", train, val, test, config, measure_attention=True)}
    cases = Cases(np.array([346]), np.array([2]), np.ones((1, 32, 32), bool))
    longer = LearnerConfig(steps=60, size=TINY, batch_size=16, learning_rate=1e-2, checks=1)
    auroc = {}
    for name, synthetic in (("none", np.arange(0)), ("synthetic", np.arange(300))):
        result = p.pretrain_and_fine_tune(
            images, given, val, cases, pretrained_on=synthetic, pretraining=longer, tunings=few, folder=tmp_path / name
        )
        assert result["attention"] == pytest.approx([1.0])
        auroc[name] = macro_auroc(labels[346:], result["few"])
    assert auroc["synthetic"] > auroc["none"] + 0.1


def test_fine_tunings_of_each_seed():
    sets = sets_of()
    first, second = (ft.tunings(sets, PROTOCOL, seed) for seed in (0, 1))
    shares = [f"{group} {share} %" for group in ("internal", "external") for share in (50, 100)]
    assert sorted(first) == sorted([*shares, "1-shot 0", "1-shot 1", "2-shot 0", "2-shot 1"])
    assert [name for name, t in first.items() if t.measure_attention] == ["internal 100 %"]
    assert set(first["external 50 %"].train) <= set(range(60, 100)) and first["1-shot 0"].config.steps == 3
    assert first["internal 50 %"].train.tolist() != second["internal 50 %"].train.tolist()
    assert {t.config.seed for t in second.values()} == {1}
    alone = Splits(sets.everything, sets.rows | {"external train": np.arange(0)}, np.arange(0))
    assert {t.group for t in ft.tunings(alone, PROTOCOL, 0).values()} == {ft.INTERNAL}
    assert ft.sizes(first).filter(pl.col("fine-tuning") == "internal 100 %")["real images"].to_list() == [40]


def test_a_control_has_the_first_and_the_last_set_of_each_group():
    sets = {"internal": ["3 %", "10 %", "100 %"], "external": ["100 %"], "few-shot": ["1-shot", "5-shot", "10-shot"]}
    none = np.arange(0)
    tunings = {
        f"{group} {name} {draw}": ft.Tuning(group, name, none, none, none, CONFIG)
        for group, names in sets.items()
        for name in names
        for draw in (0, 1)
    }
    chosen = ft.controlled(tunings)
    assert [t.set for t in chosen.values()] == [name for k in ("3 %", "100 %", "1-shot", "10-shot") for name in (k, k)]
    assert {t.group for t in chosen.values()} == {"internal", "few-shot"}


def few_shot_sets(labels=("a", "b", "c"), published=("1-shot 1", "1-shot 2", "2-shot 1", "2-shot 2")):
    """As `sets_of`, with fewer internal images and a few-shot dataset of another label set."""
    sets = sets_of()
    rows = {"train": np.arange(20), "val": np.arange(60, 62), "test": np.arange(62, 64)}
    rows |= {"few-shot train": np.arange(20, 40), "few-shot val": np.arange(40, 50), "few-shot test": np.arange(50, 60)}
    sets = replace(sets, rows=sets.rows | rows)
    return own_labels(sets, "few-shot ", labels, published)


def test_each_group_has_the_label_set_of_its_dataset():
    labels = ft.labels_of(few_shot_sets())
    assert {group: own.names for group, own in labels.items()} == {
        ft.INTERNAL: FINDINGS, ft.EXTERNAL: FINDINGS, ft.FEW_SHOT: ("a", "b", "c")
    }  # fmt: skip
    assert labels[ft.FEW_SHOT].states.shape == (120, 3) and np.isfinite(labels[ft.FEW_SHOT].states[20:60]).all()
    assert np.isnan(labels[ft.FEW_SHOT].states[:20]).all()


def test_few_shot_sets_are_the_publishers():
    sets = few_shot_sets()
    found = {name: t for name, t in ft.tunings(sets, PROTOCOL, 0).items() if t.group == ft.FEW_SHOT}
    assert list(found) == ["1-shot 1", "1-shot 2", "2-shot 1", "2-shot 2"]
    assert found["2-shot 1"].set == "2-shot" and found["2-shot 1"].train.tolist() == list(range(20, 40))
    assert found["1-shot 1"].test.tolist() == list(range(50, 60))
    with pytest.raises(CohortError, match="no published few-shot set '1-shot 3' among 1-shot 1, .*lower"):
        ft.tunings(sets, replace(PROTOCOL, draws=3), 0)
    drawn = ft.tunings(few_shot_sets(published=()), PROTOCOL, 0)["1-shot 0"].train  # nobody published any
    assert 1 <= len(drawn) <= 3 and set(drawn) <= set(range(20, 40))


def test_a_fine_tuning_that_fails_loses_neither_the_pretraining_nor_those_before_it(tmp_path, monkeypatch):
    images, labels = labelled_squares(40, 0)
    rows, trained = np.arange(40), []
    tuning = ft.Tuning(ft.INTERNAL, "all", rows, rows, rows, CONFIG)
    tunings = {"first": tuning, "second": replace(tuning, measure_attention=True), "third": tuning}
    given = (images * 255).astype(np.uint8), {ft.INTERNAL: ft.Labels(FINDINGS, labels)}, rows
    cases = Cases(rows[:1], np.array([2]), np.ones((1, 32, 32), bool))
    train = p.train_classifier
    monkeypatch.setattr(p, "train_classifier", lambda *a, **k: trained.append(k["initial"]) or train(*a, **k))

    def result(folder):
        options = dict(pretrained_on=rows, pretraining=CONFIG, tunings=tunings)
        return p.pretrain_and_fine_tune(*given, cases, **options, folder=folder)

    expected = result(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(p.attention, "maps", None)
        with pytest.raises(TypeError):
            result(tmp_path / "stopped")
    trained.clear()
    found = result(tmp_path / "stopped")
    assert len(trained) == 2  # the second, whose attention failed, and the third
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


def test_fine_tuning_on_another_label_set_goes_through(tmp_path):
    sets = few_shot_sets()
    tiny = ft.Protocol([1], [], [1.0], [1], 1, CONFIG, CONFIG)
    pool = LabelledSet(sets.everything.table[:20], sets.everything.images[:20])
    sets = Splits(sets.everything + pool, sets.rows, np.arange(120, 140))
    names = {name: t for name, t in ft.tunings(sets, tiny, 0).items() if t.group == ft.FEW_SHOT}
    data = sets.everything.images, ft.labels_of(sets), sets.rows["external val"], NO_CASES
    options = dict(pretrained_on=sets.synthetic, pretraining=CONFIG, tunings=names, folder=tmp_path)
    result = p.pretrain_and_fine_tune(*data, **options)
    assert result["1-shot 1"].shape == (10, 3)


def test_epochs_are_of_each_share_and_each_pretraining():
    sets = Splits(labelled(120) + labelled(120)[np.arange(40)], sets_of().rows, np.arange(120, 160))
    epochs = LearnerConfig(None, batch_size=10, checks=1, epochs=4)
    protocol = replace(PROTOCOL, shares=[0.5, 1.0], oracles=[], fine_tuning=epochs)
    jobs = p.pretrain_all({CHEXGEN: sets}, NO_CASES, replace(epochs, epochs=6), protocol, Recorded(1), None)
    steps = {name: {key: t.config.steps for key, t in own[0]["tunings"].items()} for name, own in jobs.items()}
    assert (steps[DEFAULT]["internal 50 %"], steps[DEFAULT]["internal 100 %"]) == (8, 16)
    assert steps[LONGER]["internal 100 %"] == 16 + 24  # as many as 6 epochs of 40 synthetic images


class Recorded(Repeats):
    """Keeps the jobs instead of training them."""

    def train(self, function, data, jobs, folder):
        return jobs


def test_every_initialisation_is_fine_tuned_on_the_same_images():
    rows = sets_of().rows | {"further train": np.arange(50, 95)}
    sets = Splits(labelled(120) + labelled(120)[np.arange(40)], rows, np.arange(120, 160))
    pretraining = LearnerConfig(steps=7, learning_rate=0.5)
    protocol = replace(PROTOCOL, shares=[0.2, 0.5, 1.0], oracles=[1, 2])
    jobs = p.pretrain_all({CHEXGEN: sets}, NO_CASES, pretraining, protocol, Recorded(2), None)
    starts = [DEFAULT, LONGER, "1x synthetic", "1x new real"]  # 45 new ones are not twice as many as 40
    assert list(jobs) == starts and {len(own) for own in jobs.values()} == {2}
    default, longer, synthetic, real = (own[1]["tunings"] for own in jobs.values())
    assert {t.config.learning_rate for t in real.values()} == {LearnerConfig(1).learning_rate}
    assert jobs["1x new real"][0]["pretrained_on"].tolist() == list(range(50, 90))
    assert {t.config.learning_rate for t in (*default.values(), *longer.values())} == {0.5}
    assert {t.config.learning_rate for t in synthetic.values()} == {LearnerConfig(1).learning_rate}
    assert list(default) == list(synthetic) and set(longer) == {
        name for name in default if not name.startswith("external") and name != "internal 50 %"
    }
    for name, tuning in longer.items():
        assert tuning.config.steps == default[name].config.steps + 7 == synthetic[name].config.steps + 7
        assert tuning.train.tolist() == default[name].train.tolist() == synthetic[name].train.tolist()
    assert [len(own[0]["pretrained_on"]) for own in jobs.values()] == [0, 0, 40, 40]


def test_another_generator_has_the_most_copies_that_its_pool_holds():
    sets = Splits(labelled(120) + labelled(120)[np.arange(40)], sets_of().rows, np.arange(120, 160))
    own = labelled(120)[np.arange(40)]
    rival = sets.with_pool(own + LabelledSet(own.table.with_columns(copy=pl.lit(1, pl.Int64)), own.images))
    protocol = replace(PROTOCOL, copies=[1], oracles=[])
    jobs = p.pretrain_all({CHEXGEN: sets, "RoentGen": rival}, NO_CASES, CONFIG, protocol, Recorded(1), None)
    assert list(jobs) == [DEFAULT, LONGER, "1x synthetic", "1x RoentGen"]
    assert jobs["1x RoentGen"][0]["pretrained_on"].tolist() == list(
        range(160, 200)
    )  # 06 made two, the protocol has one
    assert list(jobs["1x RoentGen"][0]["tunings"]) == list(jobs["1x synthetic"][0]["tunings"])


def test_curves_average_the_draws_and_leave_out_what_an_initialisation_lacks():
    sets, rng = sets_of(180), np.random.default_rng(0)
    tests = {"test": np.arange(60), "external test": np.arange(60, 120)}
    sets = Splits(sets.everything, sets.rows | tests, sets.synthetic)
    protocol = ft.Protocol([5], [5], [1.0], [1], 2, CONFIG, CONFIG)
    names = ["internal 100 %", "external 100 %", "1-shot 0", "1-shot 1"]
    results = {start: [{name: rng.random((60, 14)) for name in names} for _ in (0, 1)] for start in (DEFAULT, FIVE)}
    results[REAL] = results[FIVE]
    results[LONGER] = [{names[0]: run[names[0]]} for run in results[DEFAULT]]
    curves = p.curves(results, sets, protocol, Repeats(2, n_resamples=50))
    average = curves.filter(finding="Average")
    assert average.select("set", "arm").rows()[:4] == [("100 %", arm) for arm in (DEFAULT, FIVE, REAL, LONGER)]
    assert average["group"].to_list()[-3:] == ["few-shot"] * 3
    assert average["arm"].to_list()[-3:] == [DEFAULT, FIVE, REAL]
    internal, few = average.row(1, named=True), average.row(-2, named=True)
    assert (internal["oracle"], internal["control"]) == (REAL, LONGER)
    assert internal["beyond"] == pytest.approx(average["value"][1] - average["value"][3])
    assert few["oracle"] is None and few["arm"] == FIVE  # without a control no gain is the images' alone
    assert average["images"].to_list()[0] == 60 and set(average["seeds"]) == {2}
    assert average["difference"].to_list()[3] == 0  # the same scores
    labels = sets.everything.labels[60:120]
    five = [macro_auroc(labels, run[f"1-shot {d}"]) for run in results[FIVE] for d in (0, 1)]
    assert average["value"].to_list()[-1] == pytest.approx(np.mean(five))
    numbers = p.metrics(curves, pl.DataFrame({"start": [FIVE], "value": [0.25]}))
    assert numbers["few-shot"]["1-shot"][FIVE] == pytest.approx(np.mean(five), abs=1e-5)
    assert numbers["attention"] == {FIVE: 0.25}
    assert len(p.summary(curves)) == len(average)


def test_imagenet_is_the_reference_and_rad_dino_stands_beside():
    sets = Splits(labelled(120) + labelled(120)[np.arange(40)], sets_of().rows, np.arange(120, 160))
    protocol = replace(PROTOCOL, oracles=[], starts={IMAGENET: "grey", RAD_DINO: "vit"})
    pretraining = LearnerConfig(steps=7, learning_rate=0.5)
    jobs = p.pretrain_all({CHEXGEN: sets}, NO_CASES, pretraining, protocol, Recorded(1), None)
    assert list(jobs) == [IMAGENET, "ImageNet, as many steps", "1x synthetic", RAD_DINO, "RAD-DINO + 1x synthetic"]
    sizes = {name: {t.config.size for t in own[0]["tunings"].values()} for name, own in jobs.items()}
    assert sizes == {name: {"vit" if RAD_DINO in name else "grey"} for name in jobs}
    assert jobs["RAD-DINO + 1x synthetic"][0]["pretraining"].size == "vit"
    rates = {t.config.learning_rate for own in jobs.values() for t in own[0]["tunings"].values()}
    assert rates == {LearnerConfig(1).learning_rate}  # weights that have learnt something are fine-tuned gently
    beside = jobs[RAD_DINO][0]["tunings"]
    assert {t.group for t in beside.values()} == {ft.INTERNAL} and not any(t.measure_attention for t in beside.values())
    with pytest.raises(ValueError, match="the first of starts .* random or imagenet"):
        replace(protocol, starts={RAD_DINO: "vit"})


@pytest.mark.parametrize("start", [RAD_DINO, IMAGENET])
def test_the_papers_rad_dino_stands_beside_ours(start):
    curves = pl.DataFrame(
        {"finding": ["Average"], "arm": [start], "set": ["100 %"], "group": ["internal"], "value": [0.8]}
    )
    beside = p.beside_paper(curves, published.load("fig4a"))
    rows = beside.filter(pl.col("initialisation").str.contains(RAD_DINO), source="paper")["AUROC"].to_list()
    assert rows == ([0.791, 0.824] if start == RAD_DINO else [])
    assert beside.filter(source="this run")["AUROC"].to_list() == [0.8]
