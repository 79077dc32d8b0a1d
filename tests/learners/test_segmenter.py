"""The segmenter learns what is there, repeats itself and refuses what does not fit."""

import numpy as np
import pytest
import torch

from chexgen_lib.images import ImageError
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.segmenter import (
    SIZES,
    _best_smallest,
    _loss_of_known,
    _network,
    dice,
    pooled_dice,
    train_segmenter,
    without_small,
)
from tests.builders import masked_discs


def trained(seed=0, steps=120):
    config = LearnerConfig(steps, seed, size="ci", batch_size=8)
    return train_segmenter(*masked_discs(32), ("disc", "absent"), config)


def test_it_finds_the_discs_in_unseen_images():
    images, masks = masked_discs(8, seed=1)
    predicted = trained().predict(images, batch_size=3)
    assert predicted.shape == masks.shape and predicted.dtype == bool
    assert dice(predicted[:, 0], masks[:, 0]).mean() > 0.85
    assert predicted[:, 1].mean() < 0.01
    larger = trained().predict(np.kron(images, np.ones((2, 2), np.float32)))
    assert larger.shape == (8, 2, 128, 128)


def test_the_seed_decides_the_result():
    images = masked_discs(2, seed=1)[0]
    weights = [next(iter(trained(seed, 3).net.parameters())).detach() for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    np.testing.assert_array_equal(trained(0, 3).predict(images), trained(0, 3).predict(images))


def test_the_best_validation_weights_are_kept():
    images, masks = masked_discs(24)
    data, val = (images, masks[:, :1]), (masked_discs(8, seed=2)[0], masked_discs(8, seed=2)[1][:, :1])
    config = LearnerConfig(steps=40, size="ci", checks=3, batch_size=8, learning_rate=1e-2)
    model = train_segmenter(*data, ("disc",), config, val=val)
    assert [check["step"] for check in model.history] == [13, 27, 40]
    model.smallest[:] = 0
    kept = pooled_dice(model.predict(val[0]), val[1])
    assert kept == pytest.approx(max(check["val_dice"] for check in model.history), abs=1e-6) and kept > 0.5
    with pytest.raises(ValueError, match=r"val: no image shows \['absent'\]"):
        train_segmenter(images, masks, ("disc", "absent"), config, val=(images, masks))


def test_pooled_dice_counts_false_positives_in_images_without_the_class():
    truth = np.zeros((2, 1, 4, 4), bool)
    truth[0, 0, 0] = True
    predicted = truth.copy()
    assert pooled_dice(predicted, truth) == 1
    predicted[1, 0, :2] = True
    assert pooled_dice(predicted, truth) == pytest.approx(2 * 4 / (4 + 12))


def test_specks_where_validation_images_show_nothing_are_no_masks():
    truth = np.zeros((6, 2, 20, 20), bool)
    truth[0, :, :4, :4] = True  # 4 % of the image
    predicted = truth.copy()
    assert _best_smallest(predicted, truth).tolist() == [0, 0]
    predicted[1:, 0, 9, :3] = True  # 0.75 %, in the first class alone
    smallest = _best_smallest(predicted, truth)
    assert smallest.tolist() == [0.01, 0] and (without_small(predicted, smallest) == truth).all()
    truth[1:, 0, 9, :3] = True  # as many small masks are true
    assert _best_smallest(predicted, truth).tolist() == [0, 0]


def test_a_trained_network_leaves_out_what_is_smaller_than_its_smallest():
    images, masks = masked_discs(24)
    images[12:], masks[12:] = images[12:].mean(), False
    data = images, masks[:, :1]
    model = train_segmenter(*data, ("disc",), LearnerConfig(2, size="ci", batch_size=8, checks=1), val=data)
    share = model.predict(images).mean(axis=(2, 3))
    assert ((share == 0) | (share >= model.smallest)).all()
    model.smallest[:] = 1.1
    assert not model.predict(images).any()


def test_dice():
    a, b = np.zeros((2, 4, 4), bool)
    a[0], b[0], b[1] = True, True, True
    assert (
        dice(a, a) == 1 and dice(a, b) == pytest.approx(2 * 4 / 12) and dice(a & ~a, a & ~a) == 1 and dice(a, ~a) == 0
    )


def test_the_papers_size_is_a_resnet34_unet():
    with torch.device("meta"):
        net = _network(SIZES["paper"], 2)
    assert 20e6 < sum(p.numel() for p in net.parameters()) < 40e6


def test_what_does_not_fit_is_refused():
    images, masks = masked_discs(4)
    config = LearnerConfig(steps=1, size="ci")
    with pytest.raises(ValueError, match=r"bool masks \[N, 1, H, W\]"):
        train_segmenter(images, masks, ("disc",), config)
    with pytest.raises(ValueError, match="float64"):
        train_segmenter(images, masks.astype(float), ("disc", "absent"), config)
    with pytest.raises(ImageError, match="at least one image"):
        trained(steps=1).predict(images[:0])


def test_classes_that_an_image_is_not_annotated_for_do_not_count():
    torch.manual_seed(0)
    logits, target = torch.randn(3, 2, 8, 8, requires_grad=True), (torch.rand(3, 2, 8, 8) > 0.5).float()
    known = torch.tensor([[True, False], [True, True], [False, True]])
    loss = _loss_of_known(logits, target, known)
    loss.backward()
    assert (logits.grad.abs().sum((2, 3)) > 0).equal(known)
    changed = torch.where(known[:, :, None, None], target, 1 - target)
    assert torch.equal(_loss_of_known(logits, changed, known), loss)
