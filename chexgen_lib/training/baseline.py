"""Training pairs for a generator that reads at most 77 tokens."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from diffusers import AutoencoderKL
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.images import from_uint8
from chexgen_lib.models.autoencoder import encode
from chexgen_lib.models.baseline import MAX_TOKENS, truncate
from chexgen_lib.models.text import cache_texts, count_tokens
from chexgen_lib.training.latent_cache import CacheError, LatentCache


def truncate_cache(
    pairs: LatentCache, prompts: Sequence[str], text_encoder: tuple[PreTrainedTokenizerBase, PreTrainedModel]
) -> tuple[LatentCache, int]:
    """`pairs` with their texts cut after 77 tokens, and how many had to be.

    These are encoded again: the states of a longer text's first tokens know of the tokens that come after.

    Args:
        prompts: the texts that the pairs were made of, in their order.
        text_encoder: tokenizer and encoder that made the pairs.

    Raises:
        CacheError: if the prompts are not those of the pairs.
    """
    counts = count_tokens(text_encoder[0], prompts)
    if counts != pairs.offsets.diff().tolist():
        raise CacheError(f"{len(prompts)} prompts are not those of the {len(pairs)} pairs: give them in the same order")
    texts, cut = truncate(text_encoder[0], prompts)
    if not cut:
        return pairs, 0
    long = [row for row, count in enumerate(counts) if count > MAX_TOKENS]
    again = cache_texts(*text_encoder, [texts[row] for row in long])
    states = list(pairs.states.split(counts))
    for row, shorter in zip(long, again["states"].split(again["offsets"].diff().tolist()), strict=True):
        states[row] = shorter
    offsets = torch.tensor([0, *map(len, states)]).cumsum(0)
    return replace(pairs, states=torch.cat(states), offsets=offsets), cut


def load_pairs(
    folder: Path, split: str, autoencoder: AutoencoderKL, text_encoder: tuple[PreTrainedTokenizerBase, PreTrainedModel]
) -> tuple[LatentCache, int]:
    """All pairs that ChexGen's two stages are trained on (`split` "train") or measured by ("val"), for the baseline.

    They are at stage I's resolution: its cache as it is, then stage II's with its images encoded again at that size.
    Texts are cut after 77 tokens; the number says how many had to be. Both stages are held in memory.

    folder: the cohort's, with the caches of stage 02_cohort.

    Raises:
        CohortError, CacheError: if something is missing, or the cache was made of other records.
    """
    table = cohort.load(folder).with_row_index("row").filter(pl.col("split") == split)
    stage1, stage2 = (table.filter(flag) for flag in ("stage1", "stage2"))
    pairs, larger = (LatentCache.load(folder / f"{name}_{split}.safetensors") for name in ("pretraining", "alignment"))
    resolution = 8 * pairs.mean.shape[-1]  # px; an autoencoder's latents have an eighth of the side
    images = cohort.load_images(folder, resolution, stage2["row"])
    mean, std = encode(autoencoder, from_uint8(images))
    pairs += replace(larger, mean=mean.half(), std=std.half())
    return truncate_cache(pairs, [*stage1["prompt"], *stage2["prompt"]], text_encoder)
