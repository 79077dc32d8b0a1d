"""A detection table is the detector's measures on each test set, with foreign objects apart from findings."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments import detection as dt
from chexgen_lib.experiments.arms import REAL
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners import detector
from chexgen_lib.learners.base import LearnerConfig
from tests.builders import BOX_CLASSES, boxed_squares, guessed_boxes

PATIENTS = [f"p{k}" for k in range(40)]
MORE = "real + 1x"


def row(table, **about):
    return table.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in about.items()), named=True)


def stored(boxes, classes):
    return {f"test/{key}": array for key, array in detector.to_arrays(boxes, classes).items()}


def test_it_is_the_detectors_table_and_keeps_foreign_objects_apart():
    names = {"bright": "Effusion", "dark": dt.FOREIGN}
    truth, predicted = (
        [[b | {"class": names[b["class"]]} for b in one] for one in boxes] for boxes in guessed_boxes(40, 0)
    )
    classes = ["Effusion", dt.FOREIGN, "Edema"]
    results = {REAL: [stored(predicted, classes)], MORE: [stored([[] for _ in predicted], classes)]}
    table = dt.detection_table(results, {"test": truth}, classes, {"test": PATIENTS}, Repeats(1, n_resamples=50))
    expected = detector.evaluate(truth, predicted, tuple(classes[:2]))
    for c, ours in enumerate(("Effusion", "Foreign Object")):
        for metric, kind in (("mAP50", "map"), ("mAR50", "mar_100")):
            value = expected[f"{kind}_per_class"][c].item()
            assert row(table, category=ours, metric=metric, arm=REAL)["value"] == pytest.approx(value, abs=1e-5)
            assert row(table, category=ours, metric=metric, arm=MORE)["value"] == 0
    overall, effusion = (row(table, category=c, metric="mAP50", arm=REAL) for c in ("Overall", "Effusion"))
    assert overall["value"] == effusion["value"]  # edema has no boxes, foreign objects are no finding
    assert row(table, category="Edema", metric="mAP50", arm=REAL)["value"] is None


def test_a_training_stores_the_predicted_boxes_of_each_test_set():
    images, boxes = boxed_squares(64)
    sets = {"test": np.arange(52, 60), "external test": np.arange(60, 64)}
    config = LearnerConfig(steps=2, size="ci", batch_size=8, checks=2)
    run = dt.train_and_detect(images, detector.to_arrays(boxes, BOX_CLASSES), classes=list(BOX_CLASSES),
                              train=np.arange(40), val=np.arange(40, 52), tests=sets, config=config)  # fmt: skip
    given = [(images[rows], [boxes[row] for row in rows]) for rows in (np.arange(40), np.arange(40, 52))]
    model = detector.train_detector(*given[0], BOX_CLASSES, config, val=given[1])
    for name, rows in sets.items():
        predicted, expected = dt.predicted_boxes(run, name, len(rows), BOX_CLASSES), model.predict(images[rows])
        assert [len(own) for own in predicted] == [len(own) for own in expected]
        scores = ([box["score"] for own in boxes for box in own] for boxes in (predicted, expected))
        np.testing.assert_allclose(*scores, atol=1e-4)
