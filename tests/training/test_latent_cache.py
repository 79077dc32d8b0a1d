"""A latent cache keeps what it is given, and refuses what forms no pairs."""

import pytest
import torch

from chexgen_lib.training.latent_cache import CacheError, LatentCache
from tests.training.runs import with_conditions, with_metadata


def test_latent_cache_round_trip_and_errors(cache, tmp_path):
    path = tmp_path / "cache"
    with pytest.raises(CacheError, match="run the stage 02_cohort"):
        LatentCache.load(path)
    cache.save(path)
    loaded = LatentCache.load(path)
    assert torch.equal(loaded.mean[:], cache.mean) and torch.equal(loaded.states[:], cache.states)
    (shard,) = path.iterdir()
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CacheError, match="not a latent cache"):
        LatentCache.load(path)
    with pytest.raises(CacheError, match="do not form pairs"):
        LatentCache(cache.mean, cache.std, cache.states, cache.offsets[:-1])


def test_a_cache_keeps_its_metadata(cache, tmp_path):
    pairs = with_metadata(cache)
    pairs.save(tmp_path / "c")
    torch.testing.assert_close(LatentCache.load(tmp_path / "c").metadata, pairs.metadata, equal_nan=True)
    cache.save(tmp_path / "old")
    assert LatentCache.load(tmp_path / "old").metadata is None


def test_a_cache_keeps_its_conditions(cache, tmp_path):
    conditions = with_conditions(cache)
    conditions.save(tmp_path / "c")
    loaded = LatentCache.load(tmp_path / "c")
    assert torch.equal(loaded.condition[:], conditions.condition)
    rows = torch.tensor([3, 1])
    (condition,) = loaded.batch(rows, torch.Generator())[3]
    assert torch.equal(condition, conditions.condition[rows].float()) and cache.batch(rows, torch.Generator())[3] == []
