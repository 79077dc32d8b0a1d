"""Pairs lose the end of their long texts and nothing else."""

from dataclasses import replace

import pytest
import torch

from chexgen_lib.models.baseline import truncate
from chexgen_lib.models.text import cache_texts, load_text_encoder
from chexgen_lib.training.baseline import truncate_cache
from chexgen_lib.training.latent_cache import CacheError, LatentCache

PROMPTS = ["No acute disease.", "Small left effusion. " * 18, "Cardiomegaly.", "Right apical opacity. " * 19]


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder("minilm")


@pytest.fixture
def pairs(minilm) -> LatentCache:
    latents = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(0)).half()
    return LatentCache(latents, latents.abs(), **cache_texts(*minilm, PROMPTS))


def test_long_texts_are_encoded_again_and_counted(minilm, pairs):
    shorter, cut = truncate_cache(pairs, PROMPTS, minilm)
    expected = cache_texts(*minilm, truncate(minilm[0], PROMPTS)[0])
    assert cut == 2 and shorter.offsets.diff()[[1, 3]].tolist() == [77, 77]
    assert torch.equal(shorter.offsets, expected["offsets"])
    torch.testing.assert_close(shorter.states, expected["states"], atol=5e-3, rtol=5e-3)
    second = slice(pairs.offsets[1], pairs.offsets[1] + 77)
    assert not torch.allclose(shorter.states[second], pairs.states[second], atol=5e-2)  # which knew of what was cut
    assert torch.equal(shorter.mean, pairs.mean) and torch.equal(shorter.std, pairs.std)


def test_short_texts_stay(minilm, pairs):
    rows = [0, 2]
    short = replace(
        pairs, mean=pairs.mean[rows], std=pairs.std[rows], **cache_texts(*minilm, [PROMPTS[row] for row in rows])
    )
    same, cut = truncate_cache(short, [PROMPTS[row] for row in rows], minilm)
    assert cut == 0 and same is short


def test_other_prompts_are_refused(minilm, pairs):
    for other in (PROMPTS[:3], PROMPTS[::-1]):
        with pytest.raises(CacheError, match="prompts are not those of the 4 pairs"):
            truncate_cache(pairs, other, minilm)
