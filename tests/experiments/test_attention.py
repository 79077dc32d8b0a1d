"""Attention of a random model is chance; its share inside masks is compared between initialisations."""

import numpy as np
import pytest
import torch

from chexgen_lib.experiments import attention as a
from chexgen_lib.experiments.arms import DEFAULT
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.classifier import Classifier, ClassifierSize

TINY = ClassifierSize(32, 8, 8, (2, 2))


def test_attention_of_untrained_models_is_chance():
    rng = np.random.default_rng(0)
    images = (rng.random((24, 32, 32)) * 255).astype(np.uint8)
    masks = np.zeros((24, 32, 32), bool)
    for k, (y, x) in enumerate(rng.integers(0, 20, (24, 2))):
        masks[k, y : y + 12, x : x + 12] = True
    findings = rng.integers(0, 14, 24)
    torch.manual_seed(0)
    shares = [a.inside(a.maps(Classifier(TINY), images, findings), masks) for _ in range(3)]
    assert np.mean(shares) == pytest.approx(masks.mean(), abs=0.04)


def test_the_share_of_attention_inside_a_mask():
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0, 0, 0], maps[1] = 1, 1  # one corner, everywhere, nowhere
    masks = np.zeros((3, 8, 8), bool)
    masks[:, :4, :4] = True
    corner, even, none = a.inside(maps, masks)
    assert corner > 0.75 and even == none == pytest.approx(0.25)
    assert a.enlarged(maps, (8, 8)).shape == (3, 8, 8)
    assert a.inside(np.zeros((0, 1, 1), np.float32), np.zeros((0, 8, 8), bool)).shape == (0,)


def test_attention_does_not_depend_on_the_other_images():
    """Images of one finding go through the network together, in evaluation mode."""
    images = (np.random.default_rng(0).random((4, 32, 32)) * 255).astype(np.uint8)
    torch.manual_seed(0)
    model, findings = Classifier(TINY), np.array([7, 2, 7, 2])
    together = a.maps(model, images, findings)
    alone = [a.maps(model, images[k : k + 1], findings[k : k + 1])[0] for k in range(4)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-4


def test_cases_have_a_mask_that_is_not_the_whole_image(tmp_path):
    masks = np.zeros((3, 64, 64), bool)
    masks[0, :20], masks[1, 5:9, 5:9], masks[2] = True, True, True  # the last fills the image
    packed = dict(findings=np.packbits(masks, axis=-1), finding_row=[4, 7, 7], finding_index=[9, 5, 2], anatomy=[0])
    np.savez(tmp_path / "masks.npz", **packed)
    cases = a.cases(tmp_path, np.array([4, 6, 7]), 10, seed=0)
    assert cases.rows.tolist() == [4, 7] and cases.findings.tolist() == [9, 5]
    assert cases.masks.sum((1, 2)).tolist() == [20 * 64, 16]
    assert len(a.cases(tmp_path, np.array([4, 6, 7]), 1, seed=0)) == 1
    np.savez(tmp_path / "masks.npz")  # real radiographs
    cases = a.cases(tmp_path, np.array([4]), 10, seed=0)
    assert len(cases) == 0 and a.table({DEFAULT: np.zeros((2, 0))}, cases, [], Repeats(2)).is_empty()


def test_attention_of_all_findings_and_of_each_that_has_cases():
    masks = np.zeros((9, 8, 8), bool)
    masks[:6, :4], masks[6:, :2] = True, True
    cases, repeats = a.Cases(np.arange(9), np.array([2] * 6 + [5] * 3), masks), Repeats(2, n_resamples=50)
    default = np.stack([np.linspace(0.1, 0.9, 9), np.linspace(0.2, 1.0, 9)])
    table = a.table({DEFAULT: default, "5x": default + 0.1}, cases, [str(k) for k in range(9)], repeats)
    assert table["finding"].to_list() == ["Average"] * 2 + ["Cardiomegaly"] * 2 + ["Edema"] * 2
    assert table["n"].to_list() == [9, 9, 6, 6, 3, 3] and table["value"].null_count() == 2  # three cases: no estimate
    assert table["value"].to_list()[:3] == pytest.approx([0.55, 0.65, default[:, :6].mean()])
    assert table["chance"].to_list()[::2] == pytest.approx([masks.mean(), 0.5, 0.25])
    assert table["difference"].to_list()[1::2] == [pytest.approx(0.1), pytest.approx(0.1), None]
    assert (table["low"] < table["value"]).drop_nulls().all()
    assert a.summary(table)["initialisation"].to_list() == [DEFAULT, "5x"]
    one = a.table({DEFAULT: default[:1]}, cases, ["a"] * 9, repeats)
    assert one["value"].null_count() == len(one)  # one patient: nothing to resample


def test_one_example_of_each_finding_is_shown():
    cases = a.Cases(np.arange(4), np.array([7, 2, 7, 5]), np.ones((4, 8, 8), bool))
    chosen, heat = a.examples(cases, {DEFAULT: {"maps": np.arange(16, dtype=np.float32).reshape(4, 2, 2)}}, n=2)
    assert cases.findings[chosen].tolist() == [2, 5] and heat[DEFAULT].shape == (2, 8, 8)
    assert heat[DEFAULT][0].mean() == pytest.approx(5.5)
