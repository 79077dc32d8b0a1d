"""Pairs are made shard by shard in the images' order, whichever shard they are in."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.kept import kept
from chexgen_lib.training import foundation
from chexgen_lib.training.latent_cache import LatentCache


def fake_pairs(images, prompts, autoencoder, text_encoder):
    """As `foundation.encode_pairs`, cheaply: the latents hold the image's grey value, the text as many tokens."""
    numbers = images[:, 0, 0].astype(int)
    assert prompts == [f"prompt {n}" for n in numbers]
    mean = np.ones((len(numbers), 4, 2, 2), np.float16) * numbers[:, None, None, None].astype(np.float16)
    states = np.concatenate([np.full((n % 3 + 1, 8), n, np.float16) for n in numbers])
    return dict(mean=mean, states=states, offsets=np.cumsum([0, *(n % 3 + 1 for n in numbers)]))


@pytest.fixture
def cohort(tmp_path):
    """Eleven images; image n is grey n everywhere."""
    numbers = list(range(11))
    splits = ["train", "train", "train", "val"] * 2 + ["train"] * 3
    prompts = [f"prompt {n}" for n in numbers]
    table = pl.DataFrame({"number": numbers, "split": splits, "prompt": prompts})
    table.write_parquet(tmp_path / "cohort.parquet")
    np.save(tmp_path / "images_16.npy", np.ones((11, 16, 16), np.uint8) * np.array(numbers, np.uint8)[:, None, None])
    return table


def test_pairs_are_in_the_images_order(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(foundation, "SHARD", 4)
    monkeypatch.setattr(foundation, "encode_pairs", fake_pairs)
    made = kept(
        foundation.build_pairs,
        tmp_path / "pairs",
        {"workers": 0},
        cohort=tmp_path,
        autoencoder=torch.nn.Linear(1, 1),
        text_encoder="minilm",
        resolution=16,
    )
    for split in ("train", "val"):
        pairs, numbers = (
            LatentCache.load(made / f"{split}.safetensors"),
            cohort.filter(split=split)["number"].to_list(),
        )
        assert pairs.mean[:, 0, 0, 0].tolist() == numbers
        assert pairs.offsets.diff().tolist() == [n % 3 + 1 for n in numbers]
        firsts = pairs.states[pairs.offsets[:-1], 0].tolist()
        assert firsts == numbers and pairs.std.abs().max() == 0
