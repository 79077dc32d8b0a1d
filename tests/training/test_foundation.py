"""Pairs are made shard by shard in the records' order, whichever shard they are in."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.kept import kept
from chexgen_lib.training import foundation
from chexgen_lib.training.latent_cache import LatentCache


def fake_pairs(records, autoencoder, text_encoder, resolution):
    """As `foundation.render_pairs`, cheaply: the latents hold the record's number, the text as many tokens."""
    numbers = records["number"].to_numpy()
    mean = np.ones((len(numbers), 4, 2, 2), np.float16) * numbers[:, None, None, None].astype(np.float16)
    states = np.concatenate([np.full((n % 3 + 1, 8), n, np.float16) for n in numbers])
    return dict(mean=mean, states=states, offsets=np.cumsum([0, *(n % 3 + 1 for n in numbers)]))


@pytest.fixture
def records():
    numbers = list(range(11))
    return pl.DataFrame({"number": numbers, "split": ["train", "train", "train", "val"] * 2 + ["train"] * 3})


def test_pairs_are_in_the_records_order(records, tmp_path, monkeypatch):
    monkeypatch.setattr(foundation, "SHARD", 4)
    monkeypatch.setattr(foundation, "render_pairs", fake_pairs)
    made = kept(
        foundation.build_pairs,
        tmp_path / "pairs",
        {"workers": 0},
        records=records,
        autoencoder=torch.nn.Linear(1, 1),
        text_encoder="minilm",
        resolution=16,
    )
    for split in ("train", "val"):
        pairs, numbers = (
            LatentCache.load(made / f"{split}.safetensors"),
            records.filter(split=split)["number"].to_list(),
        )
        assert pairs.mean[:, 0, 0, 0].tolist() == numbers
        assert pairs.offsets.diff().tolist() == [n % 3 + 1 for n in numbers]
        firsts = pairs.states[pairs.offsets[:-1], 0].tolist()
        assert firsts == numbers and pairs.std.abs().max() == 0
