"""Arms are compared within one resample, on patients; what is not there is not found."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from chexgen_lib.experiments import augmentation as a
from chexgen_lib.learners.classifier import ClassifierSize, auroc, balanced_weights
from chexgen_lib.pools.labelled import Labelled, Sets
from chexgen_lib.records import FINDINGS
from tests.builders import finding_squares, labelled_squares


def arms(n=300, seeds=3, gains=(0.0,)):
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 14)) < 0.4).astype(float)
    shared = rng.normal(0, 1, (n, 14))
    noise = {f"arm {k}": rng.normal(0, 0.3, (seeds, n, 14)) for k in range(len(gains))}
    noise |= {a.REAL: rng.normal(0, 0.3, (seeds, n, 14))}
    gain = dict(zip(noise, (*gains, 0.0), strict=True))
    return labels, {name: labels * (0.8 + gain[name]) + shared + e for name, e in noise.items()}


def test_values_are_scikit_learns_and_differences_are_paired():
    labels, scores = arms(gains=(0.6,))
    patients = [f"p{i // 2}" for i in range(300)]
    table = a.auroc_table(scores, labels, patients, n_resamples=200)
    expected = np.mean([roc_auc_score(labels[:, 2], run[:, 2]) for run in scores["arm 0"]])
    row = table.row(by_predicate=(pl.col("arm") == "arm 0") & (pl.col("finding") == "Cardiomegaly"), named=True)
    assert row["value"] == pytest.approx(expected) and row["low"] < expected < row["high"]
    average = table.row(by_predicate=(pl.col("arm") == "arm 0") & (pl.col("finding") == "Average"), named=True)
    assert average["difference_low"] > 0 and average["p"] < 0.05 and average["p_findings"] < 0.05
    # the arms share most of their noise, so the paired interval is narrower than either arm's own
    assert average["difference_high"] - average["difference_low"] < average["high"] - average["low"]
    assert table.filter(arm=a.REAL)["difference"].null_count() == 15


def test_no_difference_is_called_so():
    labels, scores = arms(gains=(0.0,))
    table = a.auroc_table(scores, labels, [str(i) for i in range(300)], n_resamples=200)
    average = table.row(by_predicate=(pl.col("arm") == "arm 0") & (pl.col("finding") == "Average"), named=True)
    assert average["difference_low"] < 0 < average["difference_high"] and average["p"] > 0.05
    assert "no detectable difference" in a.verdict(average) and average["visible"] > 0


def test_an_arm_that_found_the_same_differs_by_nothing():
    """It is compared: what makes the reference is its name."""
    labels, scores = arms()
    scores["twin"] = scores[a.REAL].copy()
    table = a.auroc_table(scores, labels, [str(i) for i in range(300)], n_resamples=50).filter(finding="Average")
    differences = dict(table.select("arm", "difference").iter_rows())
    assert differences["twin"] == 0 and differences[a.REAL] is None
    assert (
        a.verdict(table.row(by_predicate=pl.col("arm") == "twin", named=True)) == "+0.000: the same in every resample"
    )
    other = a.auroc_table(scores, labels, [str(i) for i in range(300)], reference="arm 0", n_resamples=50)
    assert other.filter(arm="arm 0")["difference"].null_count() == 15
    assert other.filter(arm=a.REAL, finding="Average")["difference"].null_count() == 0


def test_each_generator_has_its_arms():
    """A second pool has one image a record only, and so one arm."""
    about = {"image_id": ["a", "b"] * 3, "copy": [0, 0, 0, 0, 1, 1], **{f: [0.0] * 6 for f in FINDINGS}}
    pool = Labelled(pl.DataFrame(about), np.zeros((6, 4, 4), np.uint8))
    sets = Sets(pool, {"train": np.array([0, 1])}, np.arange(2, 6))
    found = a.pool_arms({"": sets, a.BASELINE: sets.with_pool(pool[[0, 1]])})
    assert {name: rows.tolist() for name, rows in found.items()} == {
        a.REAL: [0, 1],
        "real + 1x": [0, 1, 2, 3],
        "real + 2x": [0, 1, 2, 3, 4, 5],
        "real + 1x baseline": [0, 1, 6, 7],
    }
    assert {run["steps"] for run in a.jobs(found, 2, 0, steps=9).values()} == {9}


def test_images_of_one_patient_are_resampled_together():
    labels, scores = arms(n=100)
    twice = {name: np.concatenate([s, s], 1) for name, s in scores.items()}
    once = a.auroc_table(scores, labels, [str(i) for i in range(100)], n_resamples=400)
    paired = a.auroc_table(twice, np.concatenate([labels] * 2), [str(i % 100) for i in range(200)], n_resamples=400)
    width = [(t["high"] - t["low"]).mean() for t in (once, paired)]
    assert width[1] == pytest.approx(width[0], rel=0.1)  # copies carry no more information than one


def test_draws_of_one_seed_are_resampled_together():
    rng, labels = np.random.default_rng(0), (np.random.default_rng(1).random((100, 14)) < 0.4).astype(float)
    of_seed = [labels * k + rng.standard_normal((100, 14)) for k in (0.2, 2.0)]  # seeds that differ, draws that do not
    scores, people = {a.REAL: np.repeat(of_seed, 3, axis=0)}, [str(i) for i in range(100)]
    tables = [a.auroc_table(scores, labels, people, n_resamples=400, draws=draws) for draws in (3, 1)]
    width = [(t["high"] - t["low"]).mean() for t in tables]
    assert width[0] > 1.3 * width[1] and [t["seeds"][0] for t in tables] == [2, 6]
    assert tables[0]["value"].to_list() == pytest.approx(tables[1]["value"].to_list())
    draws = rng.standard_normal((6, 100, 14)) + labels  # the first seed's differ from each other
    row = a.auroc_table({a.REAL: draws}, labels, people, n_resamples=50, draws=3).row(0, named=True)
    each = [roc_auc_score(labels[:, 0], run[:, 0]) for run in draws]
    assert row["value"] == pytest.approx(np.mean(each))
    assert row["sd"] == pytest.approx(np.std([np.mean(each[:3]), np.mean(each[3:])], ddof=1))
    with pytest.raises(ValueError, match="6 runs are not whole seeds of 4 draws"):
        a.auroc_table({a.REAL: draws}, labels, people, n_resamples=50, draws=4)


def test_resamples_of_all_draws_at_once_equal_those_one_by_one():
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 14)) < 0.4).astype(float)
    labels[rng.random((60, 14)) < 0.1] = np.nan
    scores = np.round(rng.random((2, 3, 60, 14)), 1)  # with ties
    counts, seeds = rng.multinomial(60, np.full(60, 1 / 60), size=20), np.array([[1, 1], [2, 0]] * 10)
    single, mixed = a._estimate(scores, labels, counts, seeds)
    each = np.array(
        [[[auroc(y, s, counts) for y, s in zip(labels.T, run.T, strict=True)] for run in own] for own in scores]
    )
    expected = np.einsum("bs,sfb->bf", seeds / 2, each.mean(1))
    np.testing.assert_allclose(mixed[:, :-1], expected, atol=1e-12)
    assert single[1, 3] == pytest.approx(np.mean([auroc(labels[:, 3], run[:, 3])[0] for run in scores[1]]))


def test_undefined_findings_are_listed_and_bad_input_refused():
    labels, scores = arms()
    labels[:, 5] = 0
    labels[:4, 5] = 1
    table = a.auroc_table(scores, labels, [str(i) for i in range(300)], n_resamples=50)
    assert table.filter(finding="Edema")["value"].null_count() == 2
    scores["arm 0"][1, 7, 3] = np.nan
    with pytest.raises(ValueError, match="arm 'arm 0': scores of run 1"):
        a.auroc_table(scores, labels, [str(i) for i in range(300)])
    with pytest.raises(ValueError, match="one of them 'real'"):
        a.auroc_table({"arm 0": scores[a.REAL]}, labels, [str(i) for i in range(300)])
    with pytest.raises(ValueError, match="no finding has 5 known"):
        a.auroc_table({a.REAL: scores[a.REAL]}, np.zeros((300, 14)), [str(i) for i in range(300)])


def test_a_mean_counts_resampled_images_and_says_nothing_of_few():
    values, counts = np.arange(5.0), np.array([[1, 1, 1, 1, 1], [0, 0, 3, 0, 1]])
    np.testing.assert_allclose(a.weighted_mean(values, counts), [2.0, 2.5])
    assert np.isnan(a.weighted_mean(values, 0 * counts)).all()
    assert np.isnan(a.weighted_mean(values[:4], counts[:, :4])).all()


def test_rare_findings_are_drawn_as_often_as_common_ones():
    labels = np.zeros((1000, 14))
    labels[:300, 2], labels[300:310, 9] = 1, 1
    labels[310:320, 9] = np.nan
    weight = balanced_weights(labels)
    assert weight[:300].sum() == pytest.approx(weight[300:310].sum())
    assert set(weight[310:]) == {weight[0]}


def test_a_run_learns_and_labels_matter():
    images, labels = labelled_squares(260, 0)
    rows = {"val": np.arange(160, 200), "test": np.arange(200, 260)}
    settings = dict(seed=0, steps=40, checks=4, size=ClassifierSize(32, 8, 8, (2, 2)), learning_rate=1e-2)
    wrong = labels.copy()
    wrong[:160] = labels[np.random.default_rng(0).permutation(160)]
    table = {}
    for name, given in (("right", labels), ("shuffled", wrong)):
        scores = a.train_and_score(images, given, train=np.arange(160), **rows, **settings)["scores"]
        table[name] = np.mean([roc_auc_score(labels[200:, f], scores[:, f]) for f in range(14)])
    assert table["right"] > 0.65 > 0.6 > table["shuffled"]


@pytest.fixture(scope="module")
def pools():
    """Arm -> mean AUROC: few real images, and beside them faithful, prompt-ignoring and mislabelled pools.

    The pools are drawn for other records' labels: the same labels once more would add next to nothing.
    """
    images, labels = labelled_squares(480, 0)
    asked = labels[320:]
    drawn = finding_squares(asked, np.random.default_rng(1))
    wrong = np.roll(np.arange(len(drawn)), 83)  # every image drawn for another record's prompt
    shuffled = np.random.default_rng(2).permutation(len(drawn))
    everything = np.concatenate([images[:320], drawn, drawn[wrong], drawn])
    known = np.concatenate([labels[:320], asked, asked, asked[shuffled]])
    real, first = np.arange(20), 320
    names = ("real + faithful", "real + prompt ignored", "real + shuffled labels")
    arms = {a.REAL: real} | {
        name: [*real, *range(first + k * len(drawn), first + (k + 1) * len(drawn))] for k, name in enumerate(names)
    }
    rows = {"val": np.arange(20, 80), "test": np.arange(80, 320)}
    settings = dict(steps=40, checks=4, size=ClassifierSize(32, 8, 8, (2, 2)), learning_rate=1e-2)
    runs = {k: a.train_and_score(everything, known, **v) for k, v in a.jobs(arms, 2, 0, **rows, **settings).items()}
    table = a.auroc_table(a.scores_of(runs), labels[80:320], [str(i) for i in range(240)], n_resamples=300)
    return {r["arm"]: r for r in table.filter(finding="Average").iter_rows(named=True)}


def test_a_faithful_pool_helps(pools):
    """Without this the next two could pass because the experiment sees nothing."""
    assert pools["real + faithful"]["difference_low"] > 0


def test_a_pool_that_ignores_its_prompts_does_not_help(pools):
    assert pools["real + prompt ignored"]["difference_low"] <= 0


def test_shuffled_labels_hurt(pools):
    assert pools["real + shuffled labels"]["difference_high"] < 0
