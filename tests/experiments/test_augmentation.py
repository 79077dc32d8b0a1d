"""Arms differ in what their names say; a faithful pool helps, and the controls do not."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from chexgen_lib.estimates.comparison import auroc_table
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.wording import over_runs
from chexgen_lib.experiments import augmentation as a
from chexgen_lib.experiments import pretraining
from chexgen_lib.experiments.arms import CHEXGEN, REAL
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import ClassifierSize
from chexgen_lib.pools.labelled import ABOUT, LabelledSet, Splits
from chexgen_lib.records import FINDINGS
from tests.builders import finding_squares, labelled_squares

TINY = ClassifierSize(32, 8, 8, (2, 2))
CONFIG = LearnerConfig(steps=40, checks=4, size=TINY, learning_rate=1e-2)


def averages(table):
    return {r["arm"]: r for r in table.filter(finding="Average").iter_rows(named=True)}


def test_each_generator_has_its_arms():
    """A second pool has one image a record only, and so one arm."""
    about = {"image_id": ["a", "b"] * 3, "copy": [0, 0, 0, 0, 1, 1], **{f: [0.0] * 6 for f in FINDINGS}}
    pool = LabelledSet(pl.DataFrame(about), np.zeros((6, 4, 4), np.uint8))
    none = np.zeros(0, int)
    sets = Splits(pool, {"train": np.array([0, 1]), "further train": none}, np.arange(2, 6))
    arms = a.pool_arms({CHEXGEN: sets, "baseline": sets.with_pool(pool[[0, 1]])}, [1, 5])
    assert {name: rows.tolist() for name, rows in arms.items()} == {
        REAL: [0, 1],
        "real + 1x": [0, 1, 2, 3],
        "real + 2x": [0, 1, 2, 3, 4, 5],
        "real + 1x baseline": [0, 1, 6, 7],
    }


def test_an_oracle_has_as_many_new_real_images():
    images, labels = labelled_squares(40, 0)
    own = labelled(images[:4], labels[:4], range(4))
    rows = {"train": np.arange(4), "further train": np.arange(20, 27)}
    sets = Splits(labelled(images, labels, range(40)) + own + own, rows, np.arange(40, 48))
    arms = a.pool_arms({CHEXGEN: sets}, [1, 2])
    assert list(arms) == [REAL, "real + 1x", "real + 1x new real"]  # seven are not twice as many
    assert arms["real + 1x new real"].tolist() == [0, 1, 2, 3, 20, 21, 22, 23]
    patients = {name: set(sets.patients_of(rows)) for name, rows in arms.items()}
    assert not (patients["real + 1x new real"] - patients[REAL]) & patients["real + 1x"]


def labelled(images, labels, ids, copy=0):
    about = {name: [f"{name} {i}" for i in ids] for name in ABOUT if name != "age"} | {"age": [50.0] * len(ids)}
    states = dict(zip(FINDINGS, labels.T.tolist(), strict=True))
    return LabelledSet(pl.DataFrame(about | states | {"copy": [copy] * len(ids)}), (255 * images).astype(np.uint8))


def test_all_arms_are_trained_and_compared(tmp_path):
    images, labels = labelled_squares(80, 0)
    first, second = (labelled(images[:20], labels[:20], range(20), copy) for copy in (0, 1))
    rows = {"train": np.arange(20), "val": np.arange(20, 40), "test": np.arange(40, 80), "external test": np.arange(0)}
    rows["further train"] = np.arange(20, 40)
    everything = labelled(images, labels, range(80)) + first + second
    sets = Splits(everything, rows, np.arange(80, 120))
    config = LearnerConfig(steps=2, checks=1, size=TINY)
    both = {CHEXGEN: sets, "baseline": sets.with_pool(first)}
    results, tables = a.classify(both, [1, 2], config, Repeats(2, n_resamples=20), tmp_path)
    arms = [
        REAL,
        "real + 1x",
        "real + 1x new real",
        "real + 2x",
        "real + 1x baseline",
        "2x alone",
        "real + 2x, shuffled",
    ]
    assert list(results) == arms and list(tables) == ["test"]
    assert [len(a.scores_of(results, "test")[arm]) for arm in arms] == [2] * 7
    average = averages(tables["test"])
    assert list(average) == arms and average[REAL]["difference"] is None
    # the same images under the same labels, whichever generator's they are called
    assert average["real + 1x"]["value"] == average["real + 1x baseline"]["value"]
    assert average["real + 2x"]["value"] != average["real + 2x, shuffled"]["value"]
    numbers = a.metrics(tables, {})["test"]["real + 1x"]
    assert numbers["value"] == pytest.approx(average["real + 1x"]["value"], abs=1e-5) and numbers["n"] == 40
    assert a.summary(tables)["arm"].to_list() == arms
    assert a.set_sizes({CHEXGEN: sets})["images"].to_list() == [20, 20, 40, 0, 20, 40]
    assert average["real + 1x"]["oracle"] == average["real + 1x baseline"]["oracle"] == "real + 1x new real"
    assert average["real + 1x baseline"]["control"] == "real + 1x" and average["real + 1x baseline"]["beyond"] == 0
    assert average["real + 2x"]["control"] == "real + 2x, shuffled" and average["real + 2x"]["oracle"] is None


@pytest.mark.parametrize("seeds", [4, 5])
def test_what_five_runs_cannot_show_is_said_where_they_are_tested(seeds, capsys):
    rng = np.random.default_rng(0)
    scores = {arm: rng.random((seeds, 40, 14)) for arm in (REAL, "real + 1x")}
    table = auroc_table(scores, rng.integers(0, 2, (40, 14)), Resampling(range(40), 20), REAL, against={})
    a.summary({"test": table})
    pretraining.summary(table.with_columns(group=pl.lit("internal"), set=pl.lit("100 %"), images=pl.lit(40.0)))
    assert capsys.readouterr().out == f"{over_runs(seeds)}\n" * (2 if seeds == 5 else 0)


def test_a_run_learns_and_labels_matter():
    images, labels = labelled_squares(260, 0)
    rows = {"val": np.arange(160, 200), "tests": {"test": np.arange(200, 260)}}
    wrong = labels.copy()
    wrong[:160] = labels[np.random.default_rng(0).permutation(160)]
    table = {}
    for name, given in (("right", labels), ("shuffled", wrong)):
        scores = a.train_and_score(images, given, train=np.arange(160), **rows, config=CONFIG)["test"]
        table[name] = np.mean([roc_auc_score(labels[200:, f], scores[:, f]) for f in range(14)])
    assert table["right"] > 0.65 > 0.6 > table["shuffled"]


@pytest.fixture(scope="module")
def pools():
    """Arm -> mean AUROC: few real images, and beside them faithful, prompt-ignoring and mislabelled pools.

    The pools show other records' labels: the same labels once more would add next to nothing.
    """
    images, labels = labelled_squares(480, 0)
    requested = labels[320:]
    samples = finding_squares(requested, np.random.default_rng(1))
    wrong = np.roll(np.arange(len(samples)), 83)  # every image shows another record's prompt
    shuffled = np.random.default_rng(2).permutation(len(samples))
    everything = np.concatenate([images[:320], samples, samples[wrong], samples])
    known = np.concatenate([labels[:320], requested, requested, requested[shuffled]])
    real, first = np.arange(20), 320
    names = ("real + faithful", "real + prompt ignored", "real + shuffled labels")
    arms = {REAL: real} | {
        name: np.r_[real, first + k * len(samples) : first + (k + 1) * len(samples)] for k, name in enumerate(names)
    }
    rows = {"val": np.arange(20, 80), "tests": {"test": np.arange(80, 320)}}
    jobs = a.arm_jobs(arms, CONFIG, Repeats(4), **rows)
    results = {arm: [a.train_and_score(everything, known, **job) for job in own] for arm, own in jobs.items()}
    table = auroc_table(a.scores_of(results, "test"), labels[80:320], Resampling(range(240), 300), REAL)
    return averages(table)


def test_a_faithful_pool_helps(pools):
    """Without this the next two could pass because the experiment detects nothing."""
    assert pools["real + faithful"]["difference_low"] > 0


def test_a_pool_that_ignores_its_prompts_does_not_help(pools):
    assert pools["real + prompt ignored"]["difference_low"] <= 0


def test_shuffled_labels_hurt(pools):
    assert pools["real + shuffled labels"]["difference_high"] < 0
