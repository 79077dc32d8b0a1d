"""Arms of a task are compared on its own measures; what has too few cases gets no number, what has none is left out."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from chexgen_lib.experiments import augmentation_tasks as at
from chexgen_lib.experiments.augmentation import BASELINE, REAL, compare
from chexgen_lib.learners import detector as detection
from chexgen_lib.pools.annotated import Task
from chexgen_lib.pools.labelled import Labelled, Sets
from chexgen_lib.records import FINDINGS, SCHEMA
from tests.builders import BOX_CLASSES, boxed_squares, graded_discs, guessed_boxes, masked_discs

MORE = "real + 1x"
PATIENTS = [f"p{k}" for k in range(40)]


def row(table, **about):
    return table.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in about.items()), named=True)


def runs(key, arms):
    return {f"{arm} / seed {k}": {key: values} for arm, seeds in arms.items() for k, values in enumerate(seeds)}


def test_a_gain_is_seen_and_an_equal_arm_is_not():
    rng = np.random.default_rng(0)
    base = [rng.random(40) for _ in range(3)]
    arms = {REAL: base, "better": [v + 0.2 for v in base], "other": [rng.permutation(v) for v in base]}

    def measure(found, counts):
        return (counts @ found / counts.sum(1))[:, None]

    table = compare(arms, measure, [{"metric": "mean"}], PATIENTS, n_resamples=300)
    better, other = row(table, arm="better"), row(table, arm="other")
    assert better["difference"] == pytest.approx(0.2) and better["difference_low"] == pytest.approx(0.2)
    assert better["value"] == pytest.approx(np.mean(base) + 0.2) and better["low"] < better["value"] < better["high"]
    assert other["difference_low"] < 0 < other["difference_high"] and other["visible"] > 0
    assert row(table, arm=REAL)["difference"] is None
    with pytest.raises(ValueError, match="one of them 'real'"):
        compare({"better": base}, measure, [{}], PATIENTS)


def test_dice_of_images_with_and_without():
    masks = np.zeros((60, 4, 4), bool)
    masks[:10, 0] = True
    found = np.where(np.arange(40) < 10, 0.6, 1.0)
    tests = {"test": np.arange(40), "external test": np.arange(40, 60)}
    results = runs("dice", {REAL: [np.r_[found, np.zeros(20)]] * 2, MORE: [np.r_[found / 2, np.ones(20)]] * 2})
    patients = {"test": PATIENTS, "external test": PATIENTS[:20]}
    table = at.segmentation_table(results, tests, masks, patients, n_resamples=50)
    values = {(r["test"], r["metric"], r["arm"]): r["value"] for r in table.iter_rows(named=True)}
    assert values["test", "Positive Dice", REAL] == pytest.approx(0.6)
    assert values["test", "Negative Dice", MORE] == pytest.approx(0.5)
    assert values["external test", "Negative Dice", MORE] == 1
    assert values["external test", "Positive Dice", REAL] is None  # nobody has it
    assert row(table, test="test", metric="Positive Dice", arm=MORE)["n"] == 10
    shown = at.report(table)
    assert "no number: fewer than 5 cases" in shown and "-0.300 [-0.300, -0.300]" in shown
    everyone = at.segmentation_table(results, {"test": np.zeros(40, int)}, masks, patients, n_resamples=50)
    assert everyone["metric"].unique().to_list() == ["Dice"]


def test_severity_is_scipys():
    rng = np.random.default_rng(0)
    scores = rng.random(40)
    near = np.clip(scores + rng.normal(0, 0.1, 40), 0, 1)
    results = runs("predicted", {REAL: [near], MORE: [np.full(40, 0.5)]})
    table = at.severity_table(results, {"test": np.arange(40)}, scores, {"test": PATIENTS}, n_resamples=50)
    assert row(table, metric="MAE", arm=REAL)["value"] == pytest.approx(np.abs(near - scores).mean())
    assert row(table, metric="MSE", arm=REAL)["value"] == pytest.approx(((near - scores) ** 2).mean())
    assert row(table, metric="Pearson r", arm=REAL)["value"] == pytest.approx(stats.pearsonr(near, scores).statistic)
    assert row(table, metric="Pearson r", arm=MORE)["value"] is None  # a constant has none
    assert row(table, metric="MAE", arm=MORE)["difference"] > 0


def test_detection_is_the_detectors_table_and_keeps_foreign_objects_apart():
    asked, found = guessed_boxes(40, 0)
    names = {"bright": "Effusion", "dark": at.FOREIGN}
    asked, found = ([[b | {"class": names[b["class"]]} for b in one] for one in boxes] for boxes in (asked, found))
    classes = ["Effusion", at.FOREIGN, "Edema"]
    nothing = [[] for _ in found]
    results = {
        f"{REAL} / seed 0": detection.to_arrays(found, classes),
        f"{MORE} / seed 0": detection.to_arrays(nothing, classes),
    }
    table = at.detection_table(results, {"test": np.arange(40)}, asked, classes, {"test": PATIENTS}, n_resamples=50)
    expected = detection.evaluate(asked, found, tuple(classes[:2]))
    for c, ours in enumerate(("Effusion", "Foreign Object")):
        for metric, kind in (("mAP50", "map"), ("mAR50", "mar_100")):
            value = expected[f"{kind}_per_class"][c].item()
            assert row(table, category=ours, metric=metric, arm=REAL)["value"] == pytest.approx(value, abs=1e-5)
            assert row(table, category=ours, metric=metric, arm=MORE)["value"] == 0
    overall, effusion = (row(table, category=c, metric="mAP50", arm=REAL) for c in ("Overall", "Effusion"))
    assert overall["value"] == effusion["value"]  # edema has no boxes, foreign objects are no finding
    assert row(table, category="Edema", metric="mAP50", arm=REAL)["value"] is None


def test_a_set_without_a_case_is_named():
    rows = {"train": np.arange(4), "val": np.arange(4, 8), "test": np.arange(8, 10)}
    positive = np.zeros(10, bool)
    positive[[0, 9]] = True
    assert at.missing(rows, positive) == "no positive case in val (4 images)"
    positive[5] = True
    assert at.missing(rows, positive) is None


def test_images_without_a_score_are_counted_and_left_out():
    ids = ["a", "b", "c", "d", "a", "b"]
    about = {"image_id": ids, "patient_id": ids, "copy": [0] * 6, **{f: [0.0] * 6 for f in FINDINGS}}
    about |= {c: [None] * 6 for c in ("split", "source", "view", "age", "sex", "race")}
    images = np.zeros((6, 8, 8), np.uint8)
    rows = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3]), "external test": np.array([], int)}
    severity = [[{"finding": "Edema", "score": 0.4}], None, [], [{"finding": "Edema", "score": 0.2}]]
    cohort = pl.DataFrame({"image_id": ids[:4]}).with_columns(pl.Series("severity", severity, SCHEMA["severity"]))
    sets = Sets(Labelled(pl.DataFrame(about), images), rows, np.array([4, 5]))
    other = Labelled(sets.everything.table[[1, 0]], images[:2])  # the baseline's images of the same two records
    task, scores, left_out = at.severity_task({"": sets, BASELINE: sets.with_pool(other)}, cohort)
    assert left_out == {"train": 1, "val": 0, "test": 0, "external test": 0}
    arms = {arm: own.tolist() for arm, own in task.arms.items()}
    assert arms == {REAL: [0], MORE: [0, 4], "real + 1x baseline": [0, 7]}
    assert scores[[0, 4]].tolist() == pytest.approx([0.4, 0.4]) and list(task.tests) == ["test"]


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
    own = Sets(Labelled(table[:140], images[:140]), rows, np.arange(100, 140))
    severity = pl.Series("severity", [[{"finding": "Edema", "score": x}] for x in scores], SCHEMA["severity"])
    cohort = table[:100].with_columns(severity, split=pl.lit("train"), stage2=pl.lit(True))
    return {"": own, BASELINE: own.with_pool(Labelled(table[140:], images[140:]))}, cohort, scores


def test_networks_of_real_images_read_the_synthetic_ones(graded, tmp_path):
    sets, cohort, scores = graded
    settings = {"size": "ci", "steps": 2, "batch_size": 4, "learning_rate": 3e-3, "checks": 1}
    plan = {"seeds": 1, "seed": 0, "workers": 0, "n_resamples": 20}
    note, measured, read = at.grade(sets, cohort, tmp_path, settings, **plan)
    assert measured["n"].unique().to_list() == [48] and "train 40" in note
    assert read.group_by("set", maintain_order=True).len().rows() == [("test", 48), ("", 40), (BASELINE, 40)]
    rival = read.filter(set=BASELINE)
    assert rival["row"].to_list() == list(range(140, 180)) and rival["real"].to_list() == list(range(40))
    assert rival["asked"].to_list() == pytest.approx(scores[:40].tolist())
    assert set(rival["grade"]) == {"mild", "moderate", "severe"}
    # The same images, so the same network reads the same; another arm's would not.
    assert read.filter(set="")["read"].to_list() == pytest.approx(rival["read"].to_list())
    real = {
        k: job for k, job in at.task_jobs(at.severity_task(sets, cohort)[0], 1, 0, range(100, 140)).items() if REAL in k
    }
    data = {"images": sets[BASELINE].everything.images, "scores": np.r_[scores, scores[:40], scores[:40]]}
    alone = at.train_and_grade(**data, **real[f"{REAL} / seed 0"] | settings)["predicted"]
    assert read.filter(set="")["read"].to_list() == pytest.approx(alone[48:].tolist(), abs=1e-5)


def test_agreement_is_scipys():
    rng = np.random.default_rng(0)
    asked = rng.random(40)
    sets = {"": asked + rng.normal(0, 0.1, 40), BASELINE: rng.random(40)}
    read = pl.concat(
        pl.DataFrame({"set": [name] * 40, "patient_id": PATIENTS, "asked": asked, "read": values})
        for name, values in sets.items()
    )
    agreed = at.agreement(read, 200)
    for metric, scipys in {"Pearson r": stats.pearsonr, "Spearman rho": stats.spearmanr}.items():
        faithful, deaf = (row(agreed, set=name, metric=metric) for name in sets)
        assert faithful["value"] == pytest.approx(scipys(asked, sets[""]).statistic)
        assert 0.6 < faithful["low"] < faithful["value"] < faithful["high"] and deaf["low"] < 0 < deaf["high"]
        assert (faithful["n"], faithful["patients"]) == (40, 40)


def test_copies_of_a_patient_are_resampled_together():
    one = pl.DataFrame({"set": [""] * 12, "patient_id": [f"p{k}" for k in range(12)]})
    one = one.with_columns(asked=pl.Series(np.arange(12.0)), read=pl.Series(np.arange(12.0) % 5))
    once, copied = at.agreement(one, 300), at.agreement(pl.concat([one] * 4), 300)
    assert copied["n"][0] == 48 and copied["patients"][0] == 12
    assert copied.select("value", "low", "high").row(0) == pytest.approx(once.select("value", "low", "high").row(0))
    assert at.agreement(one.with_columns(read=pl.lit(0.5)), 50)["value"].to_list() == [None, None]


def test_a_task_that_was_left_out_has_nothing_to_report(graded, tmp_path):
    sets, cohort, _ = graded
    nowhere = pl.Series("severity", [[]] * 100, SCHEMA["severity"])
    note, table, read = at.grade(sets, cohort.with_columns(nowhere), tmp_path, {}, seeds=1, seed=0, workers=0)
    assert "no positive case in train (40 images) and val (12 images)" in note
    assert at.report(table) == "" and table.drop_nulls("value").is_empty() and at.agreement(read).is_empty()


@pytest.mark.parametrize("kind", ["segmentation", "severity", "detection"])
def test_one_run_of_each_learns(kind, tmp_path):
    """The function that `run_all` calls, on images that show what is asked."""
    rows = {"train": np.arange(40), "val": np.arange(40, 52), "test": np.arange(52, 64)}
    rows["external test"] = np.arange(0)
    task = Task(np.zeros((64, 8, 8), np.uint8), np.arange(64), rows, {REAL: rows["train"]})
    jobs = at.task_jobs(task, 2, 0, size="ci", steps=40, checks=2, batch_size=8, learning_rate=3e-3)
    assert list(jobs) == ["real / seed 0", "real / seed 1"] and jobs["real / seed 1"]["test"].tolist() == list(
        range(52, 64)
    )
    job = jobs["real / seed 0"]
    if kind == "segmentation":
        images, masks = masked_discs(64)
        assert at.train_and_segment(images, masks[:, 0], **job)["dice"].mean() > 0.5
    elif kind == "severity":
        images, scores = graded_discs(64)
        assert np.corrcoef(at.train_and_grade(images, scores, **job)["predicted"], scores[52:])[0, 1] > 0.6
    else:
        images, boxes = boxed_squares(64)
        found = at.train_and_detect(images, **detection.to_arrays(boxes, BOX_CLASSES), **job | {"steps": 2},
                                    classes=list(BOX_CLASSES))  # fmt: skip
        assert found.keys() == {"image", "label", "place", "score"} and found["image"].max(initial=0) < 12


@pytest.fixture(scope="module", params=["segmentation", "severity"])
def controls(request):
    """How the main measure changes beside few real images, with a faithful pool and with one of shuffled labels."""
    make, options = {
        "segmentation": (masked_discs, {"steps": 60, "batch_size": 8, "learning_rate": 3e-3}),
        "severity": (graded_discs, {"steps": 60, "batch_size": 16, "learning_rate": 3e-3}),
    }[request.param]
    images, labels = make(128)
    shuffled = np.roll(labels[8:56], 7, axis=0)  # each image of the pool has another's
    images, labels = np.concatenate([images, images[8:56]]), np.concatenate([labels, shuffled])
    arms = {REAL: np.arange(8), "faithful": np.arange(56), "shuffled": np.r_[0:8, 128:176]}
    rows = {"val": np.arange(56, 72), "test": np.arange(72, 128), "external test": np.arange(0)}
    task = Task(images, np.arange(len(images)), rows, arms)
    jobs = at.task_jobs(task, 2, 0, size="ci", checks=3, **options)
    patients = {"test": [f"p{k}" for k in range(56)]}
    if request.param == "segmentation":
        results = {k: at.train_and_segment(images, labels[:, 0], **job) for k, job in jobs.items()}
        table = at.segmentation_table(results, task.tests, labels[:, 0], patients, n_resamples=200)
        return {r["arm"]: r for r in table.iter_rows(named=True)}, 1
    results = {k: at.train_and_grade(images, labels, **job) for k, job in jobs.items()}
    table = at.severity_table(results, task.tests, labels, patients, n_resamples=200)
    return {r["arm"]: r for r in table.filter(metric="MAE").iter_rows(named=True)}, -1  # an error: less is better


def test_shuffled_labels_are_worth_less_than_true_ones_and_do_not_help(controls):
    arms, sign = controls
    gain = [sign * arms["shuffled"][end] for end in ("difference_low", "difference_high")]
    assert min(gain) < 0 and sign * (arms["faithful"]["value"] - arms["shuffled"]["value"]) > 0.05
