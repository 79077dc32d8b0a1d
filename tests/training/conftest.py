"""Fixtures of the trainer's tests."""

import pytest
import torch

from chexgen_lib.training.latent_cache import LatentCache


@pytest.fixture
def cache() -> LatentCache:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 9, (10,), generator=g)
    return LatentCache(
        mean=torch.randn(10, 4, 4, 4, generator=g).half(),
        std=torch.full((10, 4, 4, 4), 0.1).half(),
        states=torch.randn(int(lengths.sum()), 16, generator=g).half(),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths]).cumsum(0),
    )
