"""The baseline generator, which reads at most 77 tokens: its training pairs, and its training."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from diffusers import AutoencoderKL
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.kept import kept
from chexgen_lib.models.autoencoder import downsampling, encode, load_autoencoder
from chexgen_lib.models.baseline import MAX_TOKENS, BaselineUNet, truncate
from chexgen_lib.models.text import cache_texts, count_tokens, load_text_encoder
from chexgen_lib.storage import remove, write_json
from chexgen_lib.training.cohort_cache import descriptions
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import CacheError, LatentCache, Stack, joined
from chexgen_lib.training.stages import HISTORY, read_training, train_model


def truncate_cache(
    pairs: LatentCache, prompts: Sequence[str], text_encoder: tuple[PreTrainedTokenizerBase, PreTrainedModel]
) -> tuple[LatentCache, int]:
    """`pairs` with their texts cut after 77 tokens, and how many were too long.

    These are encoded again: the states of a longer text's first tokens depend on the tokens after them.

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
    states, pieces, start = joined([pairs]).states, [], 0
    for row, shorter in zip(long, again["states"].split(again["offsets"].diff().tolist()), strict=True):
        pieces += [*states.between(start, int(pairs.offsets[row])), shorter]
        start, counts[row] = int(pairs.offsets[row + 1]), len(shorter)
    pieces += states.between(start, len(states))
    return replace(pairs, states=Stack(tuple(pieces)), offsets=torch.tensor([0, *counts]).cumsum(0)), cut


def load_pairs(
    folder: Path, split: str, autoencoder: AutoencoderKL, text_encoder: tuple[PreTrainedTokenizerBase, PreTrainedModel]
) -> tuple[LatentCache, int]:
    """All pairs that ChexGen's two stages are trained on (`split` "train") or evaluated on ("val"), for the baseline.

    They are at stage I's resolution: its cache as it is, then stage II's with its images encoded again at that size.
    Texts are cut after 77 tokens; the number says how many were too long. In memory are stage II's images and the
    states of the texts that were cut.

    folder: the cohort's, with the caches of stage 02_cohort.

    Raises:
        CohortError, CacheError: if something is missing, or the cache was made of other records.
    """
    table = cohort.load(folder)
    stage1, stage2 = (cohort.rows(table, flag, split) for flag in ("stage1", "stage2"))
    pairs, larger = (LatentCache.load(folder / f"{name}_{split}") for name in ("pretraining", "alignment"))
    resolution = downsampling(autoencoder) * pairs.mean.shape[-1]  # px
    images = cohort.load_images(folder, resolution, stage2)
    mean, std = encode(autoencoder, images)
    pairs += replace(larger, mean=mean.half(), std=std.half())
    described = descriptions(folder, text_encoder[0], stage1)
    return truncate_cache(pairs, [*described, *table[stage2]["prompt"]], text_encoder)


def train_baseline(
    folder: Path,
    cohort: Path,
    size: str,
    autoencoder: AutoencoderKL,
    text_encoder: str,
    config: TrainingConfig,
) -> None:
    """Train a fresh U-Net on the pairs of both stages and fill `folder` as `stages.train_model` does.

    Writes `pairs.json` beside the weights: the numbers of training and held-out pairs, of prompts cut
    after 77 tokens, and of parameters. The processes that the profile asks for train it.

    Args:
        folder: in that of the stage.
        cohort: folder of the cohort, with the caches of stage 02_cohort.
        size: a name in `models.baseline.SIZES`.
        text_encoder: a name, as `load_text_encoder` takes it.
    """
    frozen = autoencoder, load_text_encoder(text_encoder)
    (pairs, cut), (held_out, _) = (load_pairs(cohort, split, *frozen) for split in ("train", "val"))
    torch.manual_seed(config.seed)
    unet = BaselineUNet.of_size(size, pairs.mean.shape[1:], text_dim=pairs.states.shape[1])
    numbers = {"training": len(pairs), "held out": len(held_out), "cut": cut, "parameters": unet.num_parameters()}
    write_json(numbers, folder / "pairs.json")
    train_model(folder, unet, pairs, held_out, config, launched=folder.parent)


def keep_baseline(
    folder: Path,
    weights: str | None,
    cohort: Path,
    size: str,
    autoencoder: str,
    text_encoder: str,
    config: TrainingConfig,
) -> tuple[pl.DataFrame, dict[str, int | float]]:
    """The history and the numbers of a baseline that is trained once and kept in `folder` (`train_baseline`).

    Where `weights` are given, nothing is trained: the history has no rows, and `folder` is empty.

    Returns:
        history (`stages.HISTORY`), and noise_error_untrained, steps, prompts_cut and noise_error.
    """
    if weights is not None:
        remove(folder)
        folder.mkdir(parents=True)
        return pl.DataFrame(schema=HISTORY), {}
    parts = {"autoencoder": load_autoencoder(autoencoder), "text_encoder": text_encoder}
    kept(train_baseline, folder, cohort=cohort, size=size, config=config, **parts)
    history, error = read_training(folder)
    numbers = json.loads((folder / "pairs.json").read_text())
    counts = {"noise_error_untrained": error["before"], "steps": config.steps, "prompts_cut": numbers["cut"]}
    return history, counts | {"noise_error": error["after"]}
