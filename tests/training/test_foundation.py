"""Pairs are made shard by shard in the images' order, by several processes, and again where they were left.

Most of them state what the renderer drew.
"""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.cohort import layout
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.foundation import load_transformer
from chexgen_lib.models.metadata import encode_records
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.training import cohort_cache, foundation
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from tests.builders import curated_records, shipped_foundation

N = 11


def ill(n):
    """Those of `n` records that show an effusion, about half."""
    return curated_records(n, findings=("Effusion", "Effusion")).filter(pl.col("Effusion") == 1)


@pytest.fixture
def cohort(tmp_path):
    """Records and images of which no two are alike."""
    splits = ["train", "train", "train", "val"] * 2 + ["train"] * 3
    records = ill(2 * N + 2)[:N].with_columns(pl.Series("split", splits), prompt=pl.lit("As it was."))
    records.write_parquet(tmp_path / "cohort.parquet")
    np.save(tmp_path / "images_16.npy", np.random.default_rng(0).integers(0, 255, (N, 16, 16), np.uint8))
    return tmp_path


@pytest.mark.parametrize("workers", [1, 2])
def test_pairs_are_those_of_one_shard_and_go_on_where_they_were(cohort, monkeypatch, workers):
    monkeypatch.setattr(cohort_cache, "SHARD", 4)
    frozen = load_autoencoder("shipped", torch.device("cpu"))
    given = dict(cohort=cohort, autoencoder=frozen, text_encoder="minilm", resolution=16)
    made = kept(foundation.build_pairs, cohort / f"pairs_{workers}", {"workers": workers}, **given)
    table, images = foundation.told(layout.load(cohort), "minilm"), np.load(cohort / "images_16.npy")
    for split, shards in (("train", 3), ("val", 1)):
        own, pairs = table["split"] == split, LatentCache.load(made / split)
        whole = LatentCache.of(images[own], table["prompt"].filter(own).to_list(), frozen, load_text_encoder("minilm"))
        assert len(list((made / split).iterdir())) == shards and torch.equal(pairs.offsets, whole.offsets)
        torch.testing.assert_close(pairs.mean[:], whole.mean, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(pairs.states[:], whole.states, atol=5e-3, rtol=5e-3)
        assert not pairs.std[:].any() and whole.std.any()
    lost, *others = sorted((made / "train").iterdir())
    bytes_, times = lost.read_bytes(), [path.stat().st_mtime_ns for path in others]
    lost.unlink()
    foundation.build_pairs(made, workers=1, **given)
    assert lost.read_bytes() == bytes_ and [path.stat().st_mtime_ns for path in others] == times


def test_three_in_four_are_told_sides_in_text_and_metadata(cohort):
    records = ill(800)
    told = foundation.told(records, "minilm")
    assert told.drop("details", "prompt").equals(records.drop("details"))
    sides = told["details"].list.eval(pl.element().struct.field("side")).list.drop_nulls().list.len() > 0
    assert 0.65 < sides.mean() < 0.85
    assert (told["prompt"].str.contains("left|right|bilateral") == sides).all()


def test_a_text_that_would_be_too_long_stays_as_it_was(monkeypatch):
    records = ill(80)
    monkeypatch.setattr(foundation, "MAX_TOKENS", 5)
    told = foundation.told(records, "minilm")
    assert told.drop("prompt").equals(records) and not told["prompt"].str.contains("left|right").any()


def test_pairs_have_the_metadata_of_what_was_told(cohort):
    frozen = load_autoencoder("shipped", torch.device("cpu"))
    given = dict(cohort=cohort, autoencoder=frozen, text_encoder="minilm", resolution=16, workers=1)
    train, val = foundation.load_pairs(kept(foundation.build_pairs, cohort / "pairs", **given), ["nih"])
    told = foundation.told(layout.load(cohort), "minilm")
    assert torch.equal(
        train.metadata[:].nan_to_num(-1), encode_records(told.filter(split="train"), ["nih"]).nan_to_num(-1)
    )
    assert len(train) == 9 and len(val) == 2


def test_a_training_begins_anew_or_goes_on_from_weights(cohort, tmp_path, monkeypatch):
    pairs = LatentCache(torch.zeros(2, 4, 4, 4), None, torch.zeros(4, 384), torch.tensor([0, 2, 4]))
    config = TrainingConfig(steps=1, batch_size=2, objective="rectified_flow")
    shipped_foundation(tmp_path / "shipped", monkeypatch, metadata_sources=["nih"])
    new, nothing = foundation.begin(None, "ci", pairs, 120, ["nih"], config)
    model, begun = foundation.begin("shipped", "ci", pairs, 120, ["nih"], config)
    assert nothing == {} and begun["start"]["training"]["steps"] == 7 and begun["start"]["sha256"]
    state = load_transformer().state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, state[name]) for name, value in new.state_dict().items())
    trained = [{name for name, p in m.named_parameters() if p.requires_grad} for m in (new, model)]
    assert trained[0] == trained[1] and "pos_embed" not in trained[1]
    with pytest.raises(TrainingError, match=r"start=shipped: its metadata_sources is \['nih'\], this training's"):
        foundation.begin("shipped", "ci", pairs, 120, ["nih", "openi"], config)
