"""The segmenter learns what is there, repeats itself and refuses what does not fit."""

import numpy as np
import pytest
import torch

from chexgen_lib.images import ImageError
from chexgen_lib.learners.segmenter import SIZES, _network, dice, pooled_dice, train_segmenter


def discs(n, size=64, seed=0):
    """A bright disc in noise, its mask, and a class that is never there."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    centres = rng.uniform(20, 44, (n, 2))
    masks = np.stack([(y - cy) ** 2 + (x - cx) ** 2 < 100 for cy, cx in centres])
    images = np.clip(0.3 + 0.4 * masks + rng.normal(0, 0.1, masks.shape), 0, 1).astype(np.float32)
    return images, np.stack([masks, np.zeros_like(masks)], axis=1)


def trained(seed=0, steps=120):
    return train_segmenter(*discs(32), ("disc", "absent"), seed=seed, steps=steps, size="ci", batch_size=8)


def test_it_finds_the_discs_of_unseen_images():
    images, masks = discs(8, seed=1)
    found = trained().predict(images, batch_size=3)
    assert found.shape == masks.shape and found.dtype == bool
    assert dice(found[:, 0], masks[:, 0]).mean() > 0.85
    assert found[:, 1].mean() < 0.01
    larger = trained().predict(np.kron(images, np.ones((2, 2), np.float32)))
    assert larger.shape == (8, 2, 128, 128)


def test_the_seed_decides_the_result():
    images = discs(2, seed=1)[0]
    weights = [next(iter(trained(seed, 3).net.parameters())).detach() for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    np.testing.assert_array_equal(trained(0, 3).predict(images), trained(0, 3).predict(images))


def test_the_best_validation_weights_are_kept():
    images, masks = discs(24)
    data, val = (images, masks[:, :1]), (discs(8, seed=2)[0], discs(8, seed=2)[1][:, :1])
    model = train_segmenter(
        *data, ("disc",), seed=0, steps=40, size="ci", val=val, check_every=15, batch_size=8, learning_rate=1e-2
    )
    assert [check["step"] for check in model.history] == [15, 30, 40]
    kept = pooled_dice(model.predict(val[0]), val[1])
    assert kept == pytest.approx(max(check["val_dice"] for check in model.history), abs=1e-6) and kept > 0.5
    with pytest.raises(ValueError, match=r"val: no image shows \['absent'\]"):
        train_segmenter(images, masks, ("disc", "absent"), seed=0, steps=1, size="ci", val=(images, masks))


def test_pooled_dice_counts_what_is_found_where_nothing_is():
    asked = np.zeros((2, 1, 4, 4), bool)
    asked[0, 0, 0] = True
    found = asked.copy()
    assert pooled_dice(found, asked) == 1
    found[1, 0, :2] = True
    assert pooled_dice(found, asked) == pytest.approx(2 * 4 / (4 + 12))


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
    images, masks = discs(4)
    with pytest.raises(ValueError, match=r"bool masks \[N, 1, H, W\]"):
        train_segmenter(images, masks, ("disc",), seed=0, steps=1, size="ci")
    with pytest.raises(ValueError, match="float64"):
        train_segmenter(images, masks.astype(float), ("disc", "absent"), seed=0, steps=1, size="ci")
    with pytest.raises(ImageError, match="at least one image"):
        trained(steps=1).predict(images[:0])
