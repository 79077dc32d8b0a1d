"""The regression learns what can be seen, repeats itself and refuses what is no score; its table is scipy's."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_squared_error

from chexgen_lib.images import ImageError
from chexgen_lib.learners import regressor as s
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.records import SCHEMA
from tests.builders import graded_discs


def train(data, seed=0, steps=3, val=None, **options):
    return s.train_regressor(*data, LearnerConfig(steps, seed, size="ci", **options), val=val)


@pytest.fixture(scope="module")
def trained():
    return train(graded_discs(96), steps=60, batch_size=16, learning_rate=3e-3, val=graded_discs(32, 1), checks=3)


def test_it_scores_unseen_images(trained):
    images, scores = graded_discs(40, 2)
    predicted = trained.predict(images, batch_size=7)
    assert predicted.shape == (40,) and predicted.dtype == np.float32 and 0 <= predicted.min() <= predicted.max() <= 1
    assert stats.pearsonr(predicted, scores).statistic > 0.9
    assert np.abs(predicted - scores).mean() < 0.15
    np.testing.assert_allclose(trained.predict(images[:3]), predicted[:3], atol=1e-5)
    np.testing.assert_allclose(trained.predict(images.astype(np.float32) / 255), predicted, atol=1e-6)


def test_scores_of_other_images_are_learnt_less_well(trained):
    images, scores = graded_discs(96)
    mislabelled = train((images, np.roll(scores, 7)), steps=60, batch_size=16, learning_rate=3e-3)
    images, scores = graded_discs(40, 2)
    assert np.abs(mislabelled.predict(images) - scores).mean() > 2 * np.abs(trained.predict(images) - scores).mean()


def test_the_best_validation_weights_are_kept(trained):
    images, scores = graded_discs(32, 1)
    assert [check["step"] for check in trained.history] == [20, 40, 60]
    kept = mean_squared_error(scores, trained.predict(images))
    assert kept == pytest.approx(min(check["val_mse"] for check in trained.history), abs=1e-6)


def test_the_seed_decides_the_result():
    data, before = graded_discs(8), torch.get_rng_state()
    a, b, other = (train(data, seed).net.state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["fc.weight"], other["fc.weight"])


def test_opacities_add_up_and_what_is_not_stated_stays_unknown():
    scores = [
        [{"finding": "Edema", "score": 0.3}, {"finding": "Cardiomegaly", "score": 0.9}],
        [{"finding": "Edema", "score": 0.7}, {"finding": "Consolidation", "score": 0.6}],
        [{"finding": "Lung Opacity", "score": 0.5}, {"finding": "geographic extent", "score": 0.4}],
        [],
        None,
    ]
    found = s.opacity_scores(pl.DataFrame({"severity": scores}, schema={"severity": SCHEMA["severity"]}))
    np.testing.assert_allclose(found, [0.3, 1.0, 0.5, 0.0, np.nan])


def test_grades_are_terciles_of_the_training_scores():
    scores = [*(0.1 * k for k in range(10)), 0.95, 0.05]
    severity = [[{"finding": "Edema", "score": score}] if score else [] for score in scores]
    table = pl.DataFrame({"split": ["train"] * 10 + ["test", "train"], "stage2": [True] * 11 + [False]})
    table = table.with_columns(pl.Series("severity", severity, SCHEMA["severity"]))
    cuts = s.cut_points(table)
    counted = pl.Series(s.grades(scores[:10], cuts)).value_counts()
    assert dict(counted.iter_rows()) == {"none": 1, "mild": 3, "moderate": 3, "severe": 3}
    assert s.grades([0.0, 0.05, 0.95], cuts) == ["none", "mild", "severe"]
    assert s.cut_points(table.filter(pl.col("split") == "test")) is None
    assert not np.signbit(s.opacity_scores(table)[0])  # shown as 0.00, not -0.00


@pytest.mark.parametrize("score", [np.nan, -0.1, 1.5, np.inf])
def test_what_is_no_score_is_named(score):
    images, scores = graded_discs(4)
    wrong = scores.copy()
    wrong[2] = score
    with pytest.raises(ValueError, match=r"train row 2: score .* needs 0\.\.1"):
        train((images, wrong))
    with pytest.raises(ValueError, match="val row 2"):
        train((images, scores), val=(images, wrong))


def test_what_does_not_fit_is_refused():
    images, scores = graded_discs(4)
    with pytest.raises(ValueError, match=r"train: needs one score for each of 4 rows, got shape \(3,\)"):
        train((images, scores[:3]))
    with pytest.raises(ValueError, match=r"N >= 2"):
        train((images[:1], scores[:1]))
    with pytest.raises(ValueError, match=r"val: needs one score for each of 4 rows, got shape \(4, 1\)"):
        train((images, scores), val=(images, scores[:, None]))
    with pytest.raises(ImageError, match="at least one image"):
        train((images, scores)).predict(images[:0])


def test_the_papers_size_is_a_resnet50():
    with torch.device("meta"):
        net = s.Regressor(s.SIZES["paper"], device="meta").net
    assert net.fc.in_features == 2048 and sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 53
