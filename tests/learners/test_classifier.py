"""The classifier learns what is visible, keeps unknown labels out, and its AUROC equals scikit-learn's."""

import json

import numpy as np
import pytest
import torch

from chexgen_lib.learners import classifier as c
from chexgen_lib.learners.base import LearnerConfig
from tests.builders import labelled_squares

TINY = c.ClassifierSize(32, 8, 8, (2, 2))


@pytest.fixture(scope="module")
def trained():
    config = LearnerConfig(steps=48, checks=6, size=TINY, learning_rate=1e-2)
    return c.train_classifier(*labelled_squares(256, 0), config, val=labelled_squares(64, 1))


def test_it_learns_and_generalises(trained):
    x, y = labelled_squares(100, 2)
    assert c.macro_auroc(y, trained.predict(x)) > 0.75
    assert trained.predict(x).shape == (100, 14) and trained.features(x).shape == (100, trained.dim)
    np.testing.assert_allclose(trained.predict(x[:3]), trained.predict(x)[:3], atol=1e-5)


def test_the_best_validation_checkpoint_is_kept(trained):
    kept = c.macro_auroc(labelled_squares(64, 1)[1], trained.predict(labelled_squares(64, 1)[0]))
    assert kept == pytest.approx(max(h["val_auroc"] for h in trained.history), abs=1e-6)


def test_same_seed_same_weights_and_no_global_state():
    data, val = labelled_squares(40, 0), labelled_squares(20, 1)
    configs = [LearnerConfig(steps=2, seed=seed, checks=1, size=TINY) for seed in (3, 3, 4)]
    before = torch.get_rng_state()
    a, b, other = (c.train_classifier(*data, config, val=val) for config in configs)
    assert torch.equal(before, torch.get_rng_state())
    x = labelled_squares(5, 2)[0]
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    assert not np.array_equal(a.predict(x), other.predict(x))


def test_uint8_equals_float(trained):
    x = labelled_squares(4, 5)[0]
    eight = np.rint(x * 255).astype(np.uint8)
    np.testing.assert_array_equal(trained.predict(eight), trained.predict(eight.astype(np.float32) / 255))


def test_save_and_load(trained, tmp_path):
    x = labelled_squares(5, 2)[0]
    again = c.Classifier.load(trained.save(tmp_path / "c"))
    np.testing.assert_array_equal(again.predict(x), trained.predict(x))
    assert again.history == trained.history
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["classifier.json", "classifier.safetensors"]
    config = json.loads((tmp_path / "c/classifier.json").read_text())
    (tmp_path / "c/classifier.json").write_text(json.dumps(config | {"findings": ["Cat"]}))
    with pytest.raises(ValueError, match="other findings"):
        c.Classifier.load(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="train_classifier"):
        c.Classifier.load(tmp_path)


def test_unknown_labels_have_no_gradient():
    logits = torch.zeros(2, 14, requires_grad=True)
    labels = torch.full((2, 14), torch.nan)
    labels[0, 3] = 1
    c.masked_bce(logits, labels).backward()
    assert logits.grad.nonzero().tolist() == [[0, 3]]
    assert c.masked_bce(torch.zeros(1, 14), torch.full((1, 14), torch.nan)) == 0


def test_bad_data_names_split_row_and_finding():
    x, y = labelled_squares(6, 0)
    wrong = y.copy()
    wrong[2, 3] = -1  # CheXpert's code for uncertain
    config = LearnerConfig(steps=1, checks=1)
    with pytest.raises(ValueError, match=r"train row 2, Lung Opacity: label -1"):
        c.train_classifier(x, wrong, config, val=(x, y))
    with pytest.raises(ValueError, match="val: needs images"):
        c.train_classifier(x, y, config, val=(x, y[:5]))
    with pytest.raises(ValueError, match="at least one image"):
        c.Classifier(TINY).predict(np.zeros((0, 8, 8), np.float32))


def test_paper_size_is_densenet121():
    net = c.Classifier(c.SIZES["paper"]).net
    assert net.classifier.in_features == 1024
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 120  # and one linear layer


def test_rare_findings_are_drawn_as_often_as_common_ones():
    labels = np.zeros((1000, 14))
    labels[:300, 2], labels[300:310, 9] = 1, 1
    labels[310:320, 9] = np.nan
    weight = c.balanced_weights(labels)
    assert weight[:300].sum() == pytest.approx(weight[300:310].sum())
    assert set(weight[310:]) == {weight[0]}


def test_another_label_set_starts_from_all_but_the_last_layer(trained):
    names = ("above", "below", "both")
    x, y = labelled_squares(24, 3)
    config = LearnerConfig(steps=1, checks=1, size=TINY, learning_rate=1e-9)
    moved = c.train_classifier(x, y[:, :3], config, val=(x, y[:, :3]), initial=trained, names=names)
    assert moved.predict(x).shape == (24, 3) and moved.labels == names
    state, before = moved.net.state_dict(), trained.net.state_dict()
    assert torch.allclose(state["features.conv0.weight"], before["features.conv0.weight"], atol=1e-6)
    with pytest.raises(ValueError, match=r"train: needs images .* labels \[N, 3\]"):
        c.train_classifier(x, y, config, val=(x, y), names=names)
    wrong = np.full((24, 3), 7)
    with pytest.raises(ValueError, match="train row 0, above: label 7"):
        c.train_classifier(x, wrong, config, val=(x, y[:, :3]), names=names)


def test_a_saved_classifier_knows_its_labels(tmp_path):
    again = c.Classifier.load(c.Classifier(TINY, ("a", "b")).save(tmp_path / "c"))
    assert again.labels == ("a", "b") and again.net.classifier.out_features == 2
