"""Kappa and signal detection are the textbook's, and readers with a known bias are found to have it."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from chexgen_lib.quality.readers import design
from chexgen_lib.quality.readers.analysis import EVERYONE, analyse
from chexgen_lib.quality.readers.kappa import kappa
from chexgen_lib.quality.readers.material import Material
from chexgen_lib.records import FINDINGS

N = 120  # cases of each task


@pytest.fixture(scope="module")
def big() -> Material:
    rng, n = np.random.default_rng(1), 3 * N
    labels = rng.random((n, len(FINDINGS))) < 0.3
    labels[:, 0] = ~labels[:, 1:].any(1)
    table = {"image_id": [f"i{k:03d}" for k in range(n)], "patient_id": [f"p{k}" for k in range(n)]}
    table |= {"prompt": ["Report."] * n} | dict(zip(FINDINGS, labels.T.astype(float).tolist(), strict=True))
    blank = np.zeros((n, 2, 2), np.uint8)
    return Material(pl.DataFrame(table), {"real": blank, "good": blank, "poor": blank})


@pytest.fixture(scope="module")
def key(big) -> dict:
    made = design.make(big, design.TASKS, ["A", "B", "C"], N, seed=0)
    return {"tasks": list(made.tasks), "arms": list(made.arms), "cases": made.cases.to_dicts(), "items": made.items}


def read_by(key, answer: Callable, seed: int) -> pl.DataFrame:
    """The table of `answers.read` when `answer(item, reader, rng)` says what each reader says."""
    rng, rows = np.random.default_rng(seed), []
    for reader, items in key["items"].items():
        for item in items:
            films = [arm for arm, _ in item.images] if item.task == "pairs" else None
            row = {"reader": reader, "task": item.task, "pass": item.number, "item": item.item, "case": item.record}
            row |= {"arm": item.arm, "films": films, "answer": answer(item, reader, rng), "seconds": 1.0}
            rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"films": pl.List(pl.String)}, infer_schema_length=None)


SCORES = {"real": 1.5, "good": 0.8, "poor": -0.4}  # before each reader's bias
BIAS = {"A": 0.3, "B": 0.0, "C": -0.3}  # also of the criterion: above 0, more is called real
SHARPNESS = {"good": 0.4, "poor": 1.5}  # d'
SENSITIVITY = {"alone": 0.6, "good": 0.8, "poor": 0.6}
FALSE_POSITIVES = 0.1


def biased(key) -> Callable:
    truth = {case["image_id"]: case for case in key["cases"]}

    def answer(item, reader, rng):
        if item.task == "agreement":
            return str(int(np.clip(np.rint(SCORES[item.arm] + BIAS[reader] + rng.normal(0, 0.5)), -2, 2)))
        if item.task == "realism":
            seems = rng.normal(SHARPNESS.get(item.arm, 0))
            return "synthetic" if seems > SHARPNESS["poor"] / 2 + BIAS[reader] else "real"
        if item.task == "pairs":
            seems = [rng.normal(SHARPNESS.get(arm, 0)) for arm, _ in item.images]
            return "AB"[int(np.argmin(seems))]
        share = {1: SENSITIVITY[item.arm], 0: FALSE_POSITIVES}
        said = [f for f in FINDINGS[1:] if rng.random() < share[int(truth[item.record][f])]]
        return ";".join(said or [FINDINGS[0]])

    return answer


@pytest.fixture(scope="module")
def results(key):
    return analyse(read_by(key, biased(key), 0), key, resamples=300)


def row(results, **wanted) -> dict:
    return results.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in wanted.items()), named=True)


def contains(r: dict, value: float) -> bool:
    return r["low"] <= value <= r["high"]


def test_kappa_is_sklearns():
    rng = np.random.default_rng(0)
    a = rng.integers(-2, 3, 80)
    b = np.clip(a + rng.integers(-1, 2, 80), -2, 2)
    weights = np.stack([np.ones(80, int), rng.integers(0, 4, 80)])
    expected = [cohen_kappa_score(a, b, weights="quadratic", sample_weight=w) for w in weights]
    np.testing.assert_allclose(kappa(a, b, weights, range(-2, 3)), expected)
    expected = [cohen_kappa_score(a > 0, b > 0, sample_weight=w) for w in weights]
    np.testing.assert_allclose(kappa(a > 0, b > 0, weights, [0, 1]), expected)
    assert np.isnan(kappa(np.ones(5), np.ones(5), np.ones((1, 5)), [0, 1])[0])
    with pytest.raises(ValueError, match="among"):
        kappa([3], [0], np.ones((1, 1)), [0, 1])


def test_mean_scores_and_their_differences(results):
    for reader, bias in BIAS.items():
        own = row(results, task="agreement", measure="mean score", reader=reader, arm="good")
        assert own["value"] == pytest.approx(SCORES["good"] + bias, abs=0.15) and own["readers"] == 1
    every = row(results, task="agreement", measure="mean score", reader=EVERYONE, arm="poor")
    assert contains(every, SCORES["poor"]) and every["readers"] == 3 and every["cases"] == N
    one = row(results, task="agreement", measure="mean score", reader="B", arm="poor")
    assert every["high"] - every["low"] > one["high"] - one["low"]  # readers differ, and are resampled
    assert every["difference_high"] < -1.2 and every["p"] < 0.05  # from the real images
    assert row(results, task="agreement", measure="mean score", reader="B", arm="real")["difference"] is None


def test_signal_detection_finds_sharpness_and_bias(results):
    for arm, sharpness in SHARPNESS.items():
        for reader, bias in BIAS.items():
            about = {"task": "realism", "reader": reader, "arm": arm}
            found = row(results, **about, measure="d'")
            assert found["value"] == pytest.approx(sharpness, abs=0.35)
            criterion = SHARPNESS["poor"] / 2 + bias
            expected = criterion - sharpness / 2  # from the middle between the two distributions
            assert row(results, **about, measure="bias c")["value"] == pytest.approx(expected, abs=0.2)
            right = (norm.cdf(criterion) + norm.cdf(sharpness - criterion)) / 2
            assert row(results, **about, measure="accuracy")["value"] == pytest.approx(right, abs=0.06)
    seen = row(results, task="realism", measure="accuracy", reader=EVERYONE, arm="poor")
    assert seen["p"] < 0.05 and seen["difference_low"] > 0


def test_pairs_have_the_same_sharpness(results):
    for arm, sharpness in SHARPNESS.items():
        found = row(results, task="pairs", measure="d'", reader=EVERYONE, arm=arm)
        assert contains(found, sharpness)
        right = row(results, task="pairs", measure="accuracy", reader=EVERYONE, arm=arm)["value"]
        assert right == pytest.approx(norm.cdf(sharpness / np.sqrt(2)), abs=0.06)


def test_a_sample_beside_is_seen_to_help_or_not(results):
    about = {"task": "assisted", "reader": EVERYONE}
    for arm, share in SENSITIVITY.items():
        assert row(results, **about, measure="sensitivity", arm=arm)["value"] == pytest.approx(share, abs=0.06)
        found = row(results, **about, measure="specificity", arm=arm)
        assert found["value"] == pytest.approx(1 - FALSE_POSITIVES, abs=0.05)
    helped = row(results, **about, measure="sensitivity", arm="good")
    assert helped["difference_low"] <= 0.2 <= helped["difference_high"] and helped["p"] < 0.05
    assert row(results, **about, measure="sensitivity", arm="poor")["p"] > 0.05


def test_readers_who_are_always_right_are_no_more_certain_than_their_cases(big):
    for cases, low, p in ((3, 0.292, 0.25), (60, 0.940, None)):
        made = design.make(big, ["realism"], ["A"], cases, seed=0)
        few = {"tasks": ["realism"], "arms": list(made.arms), "cases": made.cases.to_dicts(), "items": made.items}
        right = read_by(few, lambda item, *_: "real" if item.arm == "real" else "synthetic", 0)
        found = row(analyse(right, few, resamples=100), measure="accuracy", arm="good")
        assert (found["value"], found["high"], found["low"]) == pytest.approx((1, 1, low), abs=1e-3)
        assert found["difference_low"] == pytest.approx(low - 0.5, abs=1e-3)
        assert found["p"] == p if p else found["p"] < 0.05
        found = row(analyse(right, few, resamples=100), measure="real called synthetic", arm="good")
        assert (found["value"], found["high"]) == pytest.approx((0, 1 - low), abs=1e-3)


def test_readers_who_guess_are_at_chance(key):
    def guess(item, reader, rng):
        options = {"realism": ["real", "synthetic"], "pairs": ["A", "B"], "agreement": ["-2", "-1", "0", "1", "2"]}
        return str(rng.choice(options.get(item.task, list(FINDINGS))))

    results = analyse(read_by(key, guess, 3), key, resamples=300)
    for task in ("realism", "pairs"):
        for arm in ("good", "poor"):
            found = row(results, task=task, measure="accuracy", reader=EVERYONE, arm=arm)
            assert contains(found, 0.5) and found["p"] > 0.05
    for measure in ("kappa between readers", "kappa within reader"):
        assert abs(row(results, task="realism", measure=measure, reader=EVERYONE)["value"]) < 0.1


def test_kappa_between_and_within_readers(key):
    """A and B say the same; B says something else the second time, A does not."""

    def answer(item, reader, rng):
        number = int(item.record[1:]) + len(item.arm)
        if item.task == "agreement":
            return str(number % 5 - 2 if reader != "C" else 2 - number % 5)
        if item.task == "realism":
            again = item.number == 2 and reader == "B"
            return ["real", "synthetic"][(number + again) % 2]
        return "A" if item.task == "pairs" else "Edema"

    results = analyse(read_by(key, answer, 0), key, resamples=50)
    between = {"task": "agreement", "measure": "kappa between readers"}
    assert row(results, **between, reader="A, B")["value"] == pytest.approx(1)
    assert row(results, **between, reader="A, C")["value"] < -0.9
    within = {"task": "realism", "measure": "kappa within reader"}
    assert row(results, **within, reader="A")["value"] == 1
    assert row(results, **within, reader="B")["value"] < -0.99
    assert not results.filter(task="agreement", measure="kappa within reader").height


def test_intervals_cover_what_was_simulated(key):
    """d' of one reader in 40 studies; 95 % are expected, and fewer than 34 of 40 happen once in 10,000 times."""
    own = key | {"tasks": ["realism"], "items": {"B": [i for i in key["items"]["B"] if i.task == "realism"]}}
    covered = [
        contains(row(analyse(read_by(own, biased(key), s), own, resamples=200), measure="d'", arm="poor"), 1.5)
        for s in range(40)
    ]
    assert sum(covered) >= 34


def test_one_reader_and_an_unknown_baseline(key):
    own = key | {"items": {"B": key["items"]["B"]}}
    results = analyse(read_by(own, biased(key), 0), own, baseline="poor", resamples=50)
    assert EVERYONE not in results["reader"].to_list()
    assert row(results, measure="mean score", arm="good")["difference"] > 1
    with pytest.raises(ValueError, match="'best'.*'real', 'good', 'poor'"):
        analyse(read_by(own, biased(key), 0), own, baseline="best")
