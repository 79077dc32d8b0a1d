"""Stage I of a run: a transformer trained on the run's own images, or one that was trained on far more before."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import AutoencoderKL

from chexgen_lib.cohort import layout
from chexgen_lib.kept import kept
from chexgen_lib.models import foundation
from chexgen_lib.models.autoencoder import downsampling, load_autoencoder
from chexgen_lib.models.foundation import SHIPPED, goes_on_from, load_transformer, read_history, read_recipe
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.text import load_text_encoder, load_tokenizer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training.cohort_cache import descriptions, load_splits
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.stages import HISTORY, keep_trained, read_training, train_model
from chexgen_lib.training.summary import describe


def keep_pretraining(
    folder: Path,
    weights: str | None,
    cohort: Path,
    model: str,
    text_tokens: int,
    autoencoder: str,
    text_encoder: str,
    config: TrainingConfig,
) -> tuple[pl.DataFrame, dict[str, float], dict[str, str]]:
    """Stage I's transformer, trained or loaded once and kept in `folder`, with its history and held-out error.

    Args:
        weights: None: a new model of the size `model` is trained (`stages.train_model`). Or what `load_transformer`
            takes: nothing is trained, and the other settings of a training are not used.
        cohort: folder of the run's cohort, with the caches of stage 02_cohort.
        text_tokens: that a new model reads.
        autoencoder, text_encoder: names of the frozen parts.

    Returns:
        the history (`stages.HISTORY`; no rows where it is not known); noise_error_untrained,
        noise_error and steps; and the training in words (`paper.training.beside`), a recipe's as it is written.

    Raises:
        TrainingError, WeightsError, CacheError: as the training or the loading; if the frozen parts are not those that
            shipped weights were trained with.
    """
    if weights == SHIPPED and (autoencoder, text_encoder) != (SHIPPED, "minilm"):
        raise TrainingError(
            f"the shipped weights belong to autoencoder=shipped and text_encoder=minilm, not {autoencoder} and "
            f"{text_encoder}: set both in section cohort, or weights=null in section pretraining"
        )
    frozen = load_autoencoder(autoencoder)
    if weights is None:
        about = _train(folder, cohort, model, text_tokens, frozen, config)
    else:
        about = _load(folder, weights, cohort, frozen, text_encoder)
    history, error = read_training(folder)
    steps = 0 if history.is_empty() else int(history["step"].max()) + 1
    return history, {"noise_error_untrained": error["before"], "noise_error": error["after"], "steps": steps}, about


def _train(
    folder: Path, cohort: Path, model: str, text_tokens: int, autoencoder: AutoencoderKL, config: TrainingConfig
) -> dict[str, str]:
    """Train a new model and keep it; returns the training in words. A checkpoint of `chexgen train` is taken over."""
    pairs, held_out = load_splits(cohort, "pretraining")
    _, channels, _, side = pairs.mean.shape
    shape = {"sample_size": side, "text_dim": pairs.states.shape[1], "text_tokens": text_tokens}
    torch.manual_seed(config.seed)
    untrained = ChexGenTransformer.of_size(model, channels, objective=config.objective, **shape)
    data = {"pairs": pairs, "held_out": held_out}
    kept(train_model, folder, {"launched": folder.parent}, model=untrained, **data, config=config)
    resolution = downsampling(autoencoder) * side  # px
    return describe(config, len(pairs), f"{model}, {_parameters(untrained)}", resolution)


def _load(folder: Path, weights: str, cohort: Path, autoencoder: AutoencoderKL, text_encoder: str) -> dict[str, str]:
    """Keep a trained transformer as `train_model` leaves one; returns what its recipe says, in words."""
    transformer = load_transformer(weights)
    resolution = downsampling(autoencoder) * transformer.latent_shape[-1]  # px
    table = layout.load(cohort)
    rows = layout.rows(table, "stage1", "val")
    kept(
        keep_weights,
        folder,
        transformer=transformer,
        history=read_history() if weights == SHIPPED else pl.DataFrame(schema=HISTORY),
        images=layout.load_images(cohort, resolution, rows),
        prompts=descriptions(cohort, load_tokenizer(text_encoder), rows).to_list(),
        autoencoder=autoencoder,
        text_encoder=text_encoder,
    )
    size = _parameters(transformer)
    if weights != SHIPPED:
        return {"model": f"{weights}, {size}", "resolution": f"{resolution} px"}
    return _recipe_in_words(size, resolution)


def _recipe_in_words(size: str, resolution: int) -> dict[str, str]:
    recipe = read_recipe()
    try:
        trained = describe(TrainingConfig(**recipe["training"]), recipe["images"], f"shipped, {size}", resolution)
        made = {name: str(recipe[name]) for name in ("patients", "hours", "machine", "commit")}
        return trained | made | goes_on_from(recipe)
    except (KeyError, TypeError, ValueError) as error:
        remedy = foundation.remedy(foundation.FOLDER)
        raise WeightsError(f"the shipped recipe is of another version ({error!r}): {remedy}") from error


def keep_weights(
    folder: Path,
    transformer: ChexGenTransformer,
    history: pl.DataFrame,
    images: np.ndarray,
    prompts: list[str],
    autoencoder: AutoencoderKL,
    text_encoder: str,
) -> None:
    """Fill `folder` with a trained transformer as `train_model` does, without training it; for `kept.kept`.

    The errors "before" and "after" are those of an untrained model and of this one, on held-out pairs.

    Args:
        images, prompts: uint8 [N, H, W] and N texts, of the held-out pairs.
        text_encoder: a name, as `load_text_encoder` takes it.
    """
    held_out = LatentCache.of(images, prompts, autoencoder, load_text_encoder(text_encoder))
    torch.manual_seed(0)
    untrained = ChexGenTransformer.from_config(transformer.config).to(transformer.device)
    keep_trained(folder, untrained, transformer, history, held_out)


def _parameters(model: ChexGenTransformer) -> str:
    return f"{model.num_parameters() / 1e6:.1f} M parameters"
