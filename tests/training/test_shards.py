"""A cache in shards is one cache: the same batches, the same training, and no memory for what is not asked for."""

import json
import os
import struct
from dataclasses import replace

import pytest
import torch

from chexgen_lib.models.metadata import CODES
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import CacheError, LatentCache, Stack
from chexgen_lib.training.run import Run, ahead
from chexgen_lib.training.trainer import train

SIZES = (3, 5, 1, 4)


def pairs(n=13) -> LatentCache:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (n,), generator=g)
    mean, states = torch.randn(n, 4, 4, 4, generator=g).half(), torch.randn(int(lengths.sum()), 16, generator=g).half()
    return LatentCache(mean, mean.abs() / 9, states, torch.tensor([0, *lengths]).cumsum(0))


@pytest.fixture
def folder(tmp_path):
    """The pairs in four shards."""
    start = 0
    for shard, n in enumerate(SIZES):
        pairs().take(torch.arange(start, start + n)).save(tmp_path / "pairs", shard, len(SIZES))
        start += n
    return tmp_path / "pairs"


def same(batch, other) -> bool:
    return all(torch.equal(x, y) for x, y in zip(batch[:3], other[:3], strict=True))


def batches(cache, rows):
    return cache.batch(torch.tensor(rows), torch.Generator().manual_seed(1))


def test_any_rows_of_all_shards_are_those_of_one_cache(folder):
    cache = LatentCache.load(folder)
    assert len(cache) == 13 and cache.mean.shape == (13, 4, 4, 4) and torch.equal(cache.offsets, pairs().offsets)
    for rows in ([12, 0, 7, 8, 9, 0], [4], list(range(13))):
        assert same(batches(cache, rows), batches(pairs(), rows))
    for part in (slice(None), slice(2, 9), slice(1, 12, 3), slice(8, 9)):
        assert torch.equal(cache.mean[part], pairs().mean[part])


def test_pairs_of_anywhere_are_written_in_shards(folder, tmp_path):
    LatentCache.load(folder).save_in_shards(tmp_path / "again", 6)
    again = LatentCache.load(tmp_path / "again")
    assert len(list((tmp_path / "again").iterdir())) == 3 and same(
        batches(again, [12, 0, 7]), batches(pairs(), [12, 0, 7])
    )


def trained(cache, place):
    """Weights and history of a training."""
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=16, text_tokens=8)
    config = TrainingConfig(steps=4, batch_size=6, learning_rate=1e-2, gradient_accumulation=2, precision="fp32")
    history = train(model, cache, config, place)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), history


def test_a_training_on_shards_ends_with_the_same_bytes(folder, tmp_path):
    (shards, first), (whole, second) = (
        trained(LatentCache.load(folder), tmp_path / "a"),
        trained(pairs(), tmp_path / "b"),
    )
    assert torch.equal(shards, whole) and first == second


def test_what_threads_draw_ahead_is_in_order_and_the_same(folder, tmp_path, monkeypatch):
    alone = trained(pairs(), tmp_path / "a")
    monkeypatch.setattr(Run, "threads", 3)
    assert torch.equal(trained(LatentCache.load(folder), tmp_path / "b")[0], alone[0])
    drawn = []
    results = ahead(lambda k: drawn.append(k) or k, ((k,) for k in range(9)), 2)
    assert next(results) == 0 and len(drawn) <= 4 and list(results) == list(range(1, 9))


def test_pairs_are_taken_and_joined_without_a_copy(folder):
    cache, rows = LatentCache.load(folder), torch.tensor([9, 2, 2, 12])
    taken = cache.take(rows)
    assert same(batches(taken, [3, 0, 1]), batches(pairs(), [12, 9, 2])) and cache.take(torch.arange(13)) is cache
    both = cache + taken
    assert same(batches(both, [14, 5, 16]), batches(pairs(), [2, 5, 12])) and len(both) == 17
    stored = {part.untyped_storage().data_ptr() for part in cache.mean.parts}
    assert {part.untyped_storage().data_ptr() for part in both.mean.parts} == stored and len(stored) == len(SIZES)


def test_metadata_and_conditions_go_with_their_pairs(folder):
    given = replace(pairs(), condition=pairs().mean * 2, metadata=torch.rand(13, CODES))
    taken = given.take(torch.tensor([5, 1]))
    assert torch.equal(taken.condition[:], given.condition[[5, 1]])
    assert torch.equal((taken + taken).metadata, given.metadata[[5, 1, 5, 1]])


def test_a_cache_larger_than_the_memory_is_read(tmp_path):
    """Two sparse files of 0.7 memories each."""
    tokens = int(0.7 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // 32
    shapes = {"offsets": ("I64", [2], 16), **dict.fromkeys(("mean", "std"), ("F16", [1, 4, 4, 4], 128))}
    header, end = {}, 0
    for name, (dtype, shape, size) in (shapes | {"states": ("F16", [tokens, 16], 32 * tokens)}).items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    for shard in range(2):
        with (tmp_path / f"{shard:05d}-of-00002.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + struct.pack("<qq", 0, tokens))
            file.truncate(8 + len(text) + end)
    cache = LatentCache.load(tmp_path)
    assert len(cache) == 2 and len(cache.states) == 2 * tokens and not cache.states[2 * tokens - 3 :].any()


def test_a_missing_or_superfluous_shard_is_named(folder):
    (folder / "00002-of-00004.safetensors").rename(folder.parent / "away.safetensors")
    with pytest.raises(CacheError, match="is not whole, see 00002-of-00004.safetensors: delete the folder"):
        LatentCache.load(folder)
    (folder.parent / "away.safetensors").rename(folder / "00001-of-00002.safetensors")
    with pytest.raises(CacheError, match="is not whole"):
        LatentCache.load(folder)


def test_a_view_spans_parts():
    stack = Stack((torch.arange(3), torch.arange(3, 8), torch.arange(8, 9)))
    assert [part.tolist() for part in stack.between(2, 9)] == [[2], [3, 4, 5, 6, 7], [8]]
    assert stack.between(9, 9) == [] and [part.tolist() for part in stack.between(4, 6)] == [[4, 5]]
