"""Severity is scipy's; images without a score are left out; networks of real images score the synthetic ones."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from chexgen_lib.experiments import severity as sv
from chexgen_lib.experiments.arms import CHEXGEN, REAL
from chexgen_lib.experiments.augmentation import arm_jobs
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.pools.labelled import LabelledSet, Splits
from chexgen_lib.records import FINDINGS, SCHEMA
from tests.builders import graded_discs

PATIENTS = [f"p{k}" for k in range(40)]
MORE, SHUFFLED = "real + 1x", "real + 1x, shuffled"


def row(table, **about):
    return table.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in about.items()), named=True)


SETTINGS = {"size": "ci", "steps": 2, "batch_size": 4, "learning_rate": 3e-3, "checks": 1}


def test_severity_is_scipys():
    rng = np.random.default_rng(0)
    scores = rng.random(40)
    near = np.clip(scores + rng.normal(0, 0.1, 40), 0, 1)
    results = {REAL: [{"test": near}], MORE: [{"test": np.full(40, 0.5)}]}
    table = sv.severity_table(results, {"test": scores}, {"test": PATIENTS}, Repeats(1, n_resamples=50))
    assert row(table, metric="MAE", arm=REAL)["value"] == pytest.approx(np.abs(near - scores).mean())
    assert row(table, metric="MSE", arm=REAL)["value"] == pytest.approx(((near - scores) ** 2).mean())
    assert row(table, metric="Pearson r", arm=REAL)["value"] == pytest.approx(stats.pearsonr(near, scores).statistic)
    assert row(table, metric="Pearson r", arm=MORE)["value"] is None  # a constant has none
    assert row(table, metric="MAE", arm=MORE)["difference"] > 0


@pytest.fixture
def graded():
    """100 real images of as many patients; of the first 40 an image by each of two generators; cohort and scores."""
    ids = [f"i{k}" for k in range(100)] + [f"i{k}" for k in range(40)] * 2
    about = {"image_id": ids, "patient_id": [i.replace("i", "p") for i in ids], "copy": [0] * 180}
    about |= dict.fromkeys(FINDINGS, [0.0] * 180)
    table = pl.DataFrame(about | dict.fromkeys(("split", "source", "view", "age", "sex", "race"), [None] * 180))
    images, scores = graded_discs(100)
    images = np.concatenate([images, images[:40], images[:40]])
    rows = {"train": np.arange(40), "val": np.arange(40, 52), "test": np.arange(52, 100), "external test": np.arange(0)}
    rows["further train"] = np.arange(0)
    own = Splits(LabelledSet(table[:140], images[:140]), rows, np.arange(100, 140))
    severity = pl.Series("severity", [[{"finding": "Edema", "score": x}] for x in scores], SCHEMA["severity"])
    cohort = table[:100].with_columns(severity, split=pl.lit("train"), stage2=pl.lit(True))
    return {CHEXGEN: own, "baseline": own.with_pool(LabelledSet(table[140:], images[140:]))}, cohort, scores


def test_networks_of_real_images_score_the_synthetic_ones(graded, tmp_path):
    sets, cohort, scores = graded
    repeats = Repeats(1, n_resamples=20)
    result = sv.grade(sets, cohort, [1, 2], tmp_path, SETTINGS, repeats)
    read = result.readings
    assert result.table["n"].unique().to_list() == [48] and result.table["arm"].n_unique() == 3
    assert result.images.row(0) == ("train", 40, 40, 0)
    assert read.group_by("set", maintain_order=True).len().rows() == [("test", 48), (CHEXGEN, 40), ("baseline", 40)]
    rival = read.filter(set="baseline")
    assert rival["row"].to_list() == list(range(140, 180)) and rival["real"].to_list() == list(range(40))
    assert rival["asked"].to_list() == pytest.approx(scores[:40].tolist())
    assert set(rival["grade"]) == {"mild", "moderate", "severe"}
    # The same images, so the same network predicts the same; another arm's would not.
    assert read.filter(set=CHEXGEN)["read"].to_list() == pytest.approx(rival["read"].to_list())
    data = {"images": sets["baseline"].everything.images, "scores": np.r_[scores, scores[:40], scores[:40]]}
    rows = {"val": np.arange(40, 52), "tests": {CHEXGEN: np.arange(100, 140)}}
    (job,) = arm_jobs({REAL: np.arange(40)}, LearnerConfig(**SETTINGS), repeats, **rows)[REAL]
    alone = sv.train_and_grade(**data, **job)[CHEXGEN]
    assert read.filter(set=CHEXGEN)["read"].to_list() == pytest.approx(alone.tolist(), abs=1e-5)


def test_images_without_a_score_are_counted_and_left_out(graded, tmp_path):
    sets, cohort, _ = graded
    severity = cohort["severity"].to_list()
    unknown = pl.Series("severity", [None, *severity[1:60], None, *severity[61:]], SCHEMA["severity"])
    result = sv.grade(sets, cohort.with_columns(unknown), [1, 2], tmp_path, SETTINGS, Repeats(1, n_resamples=20))
    counts = {name: (images, missing) for name, images, _, missing in result.images.iter_rows()}
    sets_ = {"train": (39, 1), "val": (12, 0), "further train": (0, 0), "test": (47, 1), "external test": (0, 0)}
    assert counts == sets_
    assert result.readings.group_by("set", maintain_order=True).len()["len"].to_list() == [47, 39, 39]


@pytest.mark.parametrize(("unscored", "oracle"), [([0], "real + 1x new real"), ([0, 40, 41], None)])
def test_only_new_real_images_with_a_score_count(graded, tmp_path, unscored, oracle):
    """39 training images have one; new are 40, of which two may have none: then they are too few."""
    sets, cohort, _ = graded
    severity = [None if k in unscored else own for k, own in enumerate(cohort["severity"].to_list())]
    more = {"further train": np.arange(40, 80), "val": np.arange(80, 88), "test": np.arange(88, 100)}
    sets = {name: Splits(own.everything, own.rows | more, own.synthetic) for name, own in sets.items()}
    cohort = cohort.with_columns(pl.Series("severity", severity, SCHEMA["severity"]))
    result = sv.grade(sets, cohort, [1, 2], tmp_path, SETTINGS, Repeats(1, n_resamples=20))
    assert row(result.table, metric="MAE", arm=MORE)["oracle"] == oracle


def test_a_cohort_without_cases_is_left_out(graded, tmp_path):
    sets, cohort, _ = graded
    nowhere = pl.Series("severity", [[]] * 100, SCHEMA["severity"])
    result = sv.grade(sets, cohort.with_columns(nowhere), [1, 2], tmp_path, {}, Repeats(1))
    assert result.left_out == "no positive case in train (40 images) and val (12 images)"
    assert result.table.is_empty() and sv.agreement(result.readings, Repeats(1)).is_empty()
    assert sv.load(tmp_path, cohort.with_columns(nowhere), {}, 64, {}) is None
    assert sv.grade(None, cohort, [1, 2], tmp_path, {}, Repeats(1)).left_out == "the cohort has no scores"


def test_agreement_is_scipys():
    rng = np.random.default_rng(0)
    asked = rng.random(40)
    sets = {CHEXGEN: asked + rng.normal(0, 0.1, 40), "baseline": rng.random(40)}
    read = pl.concat(
        pl.DataFrame({"set": [name] * 40, "patient_id": PATIENTS, "asked": asked, "read": values})
        for name, values in sets.items()
    )
    agreed = sv.agreement(read, Repeats(1, n_resamples=200))
    for metric, scipys in {"Pearson r": stats.pearsonr, "Spearman rho": stats.spearmanr}.items():
        faithful, deaf = (row(agreed, set=name, metric=metric) for name in sets)
        assert faithful["value"] == pytest.approx(scipys(asked, sets[CHEXGEN]).statistic)
        assert 0.6 < faithful["low"] < faithful["value"] < faithful["high"] and deaf["low"] < 0 < deaf["high"]
        assert (faithful["n"], faithful["patients"]) == (40, 40)


def test_copies_of_a_patient_are_resampled_together():
    one = pl.DataFrame({"set": [CHEXGEN] * 12, "patient_id": [f"p{k}" for k in range(12)]})
    one = one.with_columns(asked=pl.Series(np.arange(12.0)), read=pl.Series(np.arange(12.0) % 5))
    once, copied = (sv.agreement(read, Repeats(1, n_resamples=300)) for read in (one, pl.concat([one] * 4)))
    assert copied["n"][0] == 48 and copied["patients"][0] == 12
    assert copied.select("value", "low", "high").row(0) == pytest.approx(once.select("value", "low", "high").row(0))
    constant = sv.agreement(one.with_columns(read=pl.lit(0.5)), Repeats(1, n_resamples=50))
    assert constant["value"].to_list() == [None, None]


@pytest.fixture(scope="module")
def controls():
    """MAE with few real images, and beside them with a faithful pool and with one of shuffled scores."""
    images, scores = graded_discs(128)
    shuffled = np.roll(scores[8:56], 7)  # each image of the pool has another's
    images, scores = np.concatenate([images, images[8:56]]), np.concatenate([scores, shuffled])
    arms = {REAL: np.arange(8), MORE: np.arange(56), SHUFFLED: np.r_[0:8, 128:176]}
    config = LearnerConfig(steps=60, size="ci", batch_size=16, checks=3)
    repeats = Repeats(2, n_resamples=200)
    jobs = arm_jobs(arms, config, repeats, val=np.arange(56, 72), tests={"test": np.arange(72, 128)})
    results = {arm: [sv.train_and_grade(images, scores, **job) for job in own] for arm, own in jobs.items()}
    patients = {"test": [f"p{k}" for k in range(56)]}
    table = sv.severity_table(results, {"test": scores[72:128]}, patients, repeats)
    return {(r["arm"], r["metric"]): r for r in table.iter_rows(named=True)}


def test_a_run_learns(controls):
    assert controls[MORE, "Pearson r"]["value"] > 0.6


def test_shuffled_scores_are_worth_less_than_true_ones_and_do_not_help(controls):
    assert controls[SHUFFLED, "MAE"]["difference_high"] > 0  # an error: less is better
    assert controls[SHUFFLED, "MAE"]["value"] - controls[MORE, "MAE"]["value"] > 0.05
