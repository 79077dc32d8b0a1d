"""Pairs lose the end of their long texts and nothing else."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.descriptions import grammar
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.baseline import truncate
from chexgen_lib.models.text import cache_texts, count_tokens, load_text_encoder
from chexgen_lib.training import cohort_cache
from chexgen_lib.training.baseline import load_pairs, truncate_cache
from chexgen_lib.training.latent_cache import CacheError, LatentCache
from tests.builders import curated_records

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
    torch.testing.assert_close(shorter.states[:], expected["states"], atol=5e-3, rtol=5e-3)
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


@pytest.fixture
def cohort_folder(tmp_path, minilm):
    """Two records of stage I and two of stage II in turn, and one of validation, with caches of 16 and 32 px."""
    torch.manual_seed(0)
    autoencoder = new_autoencoder((8, 8, 8)).eval()
    columns = {"prompt": [*PROMPTS, "Clear."], "split": ["train"] * 4 + ["val"]}
    columns |= {"stage1": [True, False, True, False, True], "stage2": [False, True, False, True, False]}
    table = curated_records(5).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    table.write_parquet(tmp_path / "cohort.parquet")
    texts = [grammar.prompt(table)[k] if k in (0, 2) else PROMPTS[k] for k in range(4)]
    rng = np.random.default_rng(0)
    images = {size: rng.integers(0, 255, (5, size, size), np.uint8) for size in (16, 32)}
    for size, array in images.items():
        np.save(tmp_path / f"images_{size}.npy", array)
    for name, size, rows in (("pretraining", 16, [0, 2]), ("alignment", 32, [1, 3])):
        pairs = LatentCache.of(images[size][rows], [texts[row] for row in rows], autoencoder, minilm)
        pairs.save(tmp_path / f"{name}_train")
    return tmp_path, autoencoder, images[16]


def test_the_pairs_of_both_stages_at_the_low_resolution(cohort_folder, minilm):
    folder, autoencoder, images = cohort_folder
    pairs, cut = load_pairs(folder, "train", autoencoder, minilm)
    order = [0, 2, 1, 3]
    described = grammar.prompt(pl.read_parquet(folder / "cohort.parquet"))  # what stage I reads
    texts, expected_cut = truncate(minilm[0], [described[0], described[2], PROMPTS[1], PROMPTS[3]])
    expected = LatentCache.of(images[order], texts, autoencoder, minilm)
    assert cut == expected_cut == 2 and torch.equal(pairs.offsets, expected.offsets)
    for name in ("mean", "std", "states"):
        torch.testing.assert_close(getattr(pairs, name)[:], getattr(expected, name), atol=5e-3, rtol=5e-3)


def test_prompts_in_place_of_long_descriptions_are_those_of_the_pairs(cohort_folder, minilm, monkeypatch):
    folder, autoencoder, images = cohort_folder
    monkeypatch.setattr(cohort_cache, "MAX_TOKENS", 10)  # no description is so short
    texts = [PROMPTS[0], PROMPTS[2]]
    LatentCache.of(images[[0, 2]], texts, autoencoder, minilm).save(folder / "pretraining_train")
    pairs, _ = load_pairs(folder, "train", autoencoder, minilm)
    expected = count_tokens(minilm[0], truncate(minilm[0], [*texts, PROMPTS[1], PROMPTS[3]])[0])
    assert pairs.offsets.diff().tolist() == expected


def test_caches_of_other_records_are_refused(cohort_folder, minilm):
    folder, autoencoder, _ = cohort_folder
    table = pl.read_parquet(folder / "cohort.parquet")
    table = table.with_columns(stage2=pl.col("stage2") & (pl.int_range(pl.len()) < 2))
    table.write_parquet(folder / "cohort.parquet")
    with pytest.raises(CacheError, match="do not form pairs"):
        load_pairs(folder, "train", autoencoder, minilm)


def test_pairs_that_do_not_belong_together_are_not_joined(pairs):
    half = replace(pairs, mean=pairs.mean[..., :1, :1], std=pairs.std[..., :1, :1])
    with pytest.raises(CacheError, match="differ: give both one resolution"):
        pairs + half
    with pytest.raises(CacheError, match="conditions or metadata cannot be joined"):
        pairs + replace(pairs, condition=pairs.mean)
