"""SSIM and MS-SSIM agree with the reference implementations at every size and see what they should."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.images import ImageError
from chexgen_lib.quality.diversity import BETAS, pairs_of_prompts, pairwise_similarity, scales


def related(p, s, size, share=0.7):
    x = np.random.default_rng(0).random((p, s, size, size)).astype(np.float32)
    return (1 - share) * x + share * x.mean(1, keepdims=True)


def slow_ms_ssim(a, b):
    """Wang, Simoncelli and Bovik 2003, one pair, written out: valid windows only."""
    product, m = 1.0, scales(len(a))
    betas = np.array(BETAS[:m]) / sum(BETAS[:m])
    for k in range(m):
        mean = lambda v: gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
        mu, nu = mean(a), mean(b)
        structure = (2 * (mean(a * b) - mu * nu) + 9e-4) / (mean(a * a) - mu**2 + mean(b * b) - nu**2 + 9e-4)
        luminance = (2 * mu * nu + 1e-4) / (mu**2 + nu**2 + 1e-4)
        product *= max((structure * luminance if k == m - 1 else structure).mean(), 0) ** betas[k]
        a, b = (v.reshape(len(v) // 2, 2, -1, 2).mean((1, 3)) for v in (a, b))
    return product


@pytest.mark.parametrize("size", [64, 128])
def test_equals_the_references(size):
    x = related(2, 3, size)
    found = pairwise_similarity(x)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    for p in range(2):
        pairs = list(combinations(x[p].astype(np.float64), 2))
        ssim = np.mean([structural_similarity(a, b, **options) for a, b in pairs])
        assert found["SSIM"][p] == pytest.approx(ssim, abs=1e-4)
        assert found["MS-SSIM"][p] == pytest.approx(np.mean([slow_ms_ssim(a, b) for a, b in pairs]), abs=1e-4)


def test_near_torchmetrics_which_reflects_part_of_the_border():
    x = related(1, 2, 128)
    betas = np.array(BETAS[:4]) / sum(BETAS[:4])
    a, b = (torch.from_numpy(v)[None, None] for v in x[0])
    theirs = multiscale_structural_similarity_index_measure(a, b, data_range=1.0, betas=tuple(betas))
    assert pairwise_similarity(x)["MS-SSIM"][0] == pytest.approx(theirs.item(), abs=0.02)


def test_number_of_scales():
    assert [scales(s) for s in (11, 32, 64, 128, 176, 512)] == [1, 2, 3, 4, 5, 5]
    with pytest.raises(ValueError, match="at least 11"):
        scales(10)


def test_same_images_give_1_and_less_alike_gives_less():
    same = np.repeat(related(2, 1, 64), 4, axis=1)
    for values in pairwise_similarity(same).values():
        np.testing.assert_allclose(values, 1, atol=1e-4)
    near, far = (pairwise_similarity(related(4, 4, 64, share))["MS-SSIM"] for share in (0.9, 0.3))
    assert (near > far).all()


def test_batches_do_not_change_a_prompt():
    x = related(5, 2, 32)
    a, b = pairwise_similarity(x, batch_size=2), pairwise_similarity(x, batch_size=5)
    np.testing.assert_allclose(a["MS-SSIM"], b["MS-SSIM"], atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_similarity(np.zeros((3, 1, 32, 32), np.float32))
    with pytest.raises(ImageError):
        pairwise_similarity(np.zeros((3, 2, 32, 32), np.uint8))


def test_pairs_are_of_different_prompts_and_each_prompt_is_in_as_many():
    pairs = pairs_of_prompts(7, 3, seed=0)
    assert len(pairs) == 21 and (pairs[:, 0] != pairs[:, 1]).all() and set(np.bincount(pairs.ravel())) == {6}
    assert len(pairs_of_prompts(2, 5, seed=0)) == 2


def test_the_spread_between_prompts_is_that_of_new_prompts():
    """A pair's similarity is made of what its two images bring; the bootstrap must see that both are shared."""
    rng, means, spreads = np.random.default_rng(0), [], []
    for seed in range(150):
        own, pairs = rng.normal(size=40), pairs_of_prompts(40, 3, seed)
        resampled = mean(own[pairs].sum(1), Resampling(np.arange(40), 100, seed).weights[:, pairs].prod(-1))
        means.append(resampled[0])
        spreads.append(resampled[1:].std())
    assert np.mean(spreads) == pytest.approx(np.std(means), rel=0.15)
