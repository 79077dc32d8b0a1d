"""What the adherence experiment trains or reads: the control adapter, and the segmenter that measures its samples.

Each function fills a folder for `kept.kept`.
"""

from pathlib import Path

import polars as pl
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.segmenter import SIZES, Segmenter, train_segmenter
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import SHIPPED, WITH_ADAPTER, load_adapter, read_history
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.annotations import Annotated, condition_images
from chexgen_lib.storage import write_json
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.stages import train_model
from chexgen_lib.training.trainer import noise_error

SEGMENTER = "segmenter.safetensors"


def train_adapter(
    folder: Path,
    base: ChexGenTransformer,
    copied_blocks: int,
    data: Annotated,
    requests: dict[str, pl.DataFrame],
    autoencoder: AutoencoderKL,
    text_encoder: str,
    config: TrainingConfig,
) -> None:
    """Train an adapter for `base` on the requests "train" and save it in `folder`.

    Beside the weights, `folder` holds what `stages.train_model` writes, with the errors on the requests "held out".

    Args:
        requests: rows of `annotations.choose_requests`, for "train" and "held out".
        text_encoder: a name, as `load_text_encoder` takes it.
    """
    pairs, held_out = (_pairs(data, requests[name], autoencoder, text_encoder) for name in ("train", "held out"))
    torch.manual_seed(config.seed)  # for the projection into the adapter
    train_model(folder, ControlledTransformer.on(base, copied_blocks), pairs, held_out, config)


def open_shipped(weights: str | None, autoencoder: str, text_encoder: str) -> ControlledTransformer | None:
    """The adapter that a run reads: the shipped one for `weights` "shipped"; None, for None, if it trains its own.

    Raises:
        TrainingError: for other weights, or other frozen parts than the shipped adapter was trained with.
        WeightsError: as `load_adapter`.
    """
    if weights is None:
        return None
    if weights != SHIPPED:
        raise TrainingError(f"annotation_to_image.weights {weights!r}: give shipped, or null to train an adapter")
    if (autoencoder, text_encoder) != (SHIPPED, "minilm"):
        raise TrainingError(
            f"the shipped adapter belongs to autoencoder=shipped and text_encoder=minilm, not {autoencoder} and "
            f"{text_encoder}: set both in section cohort, or weights=null in section annotation_to_image"
        )
    return load_adapter()


def keep_adapter(
    folder: Path,
    adapter: ControlledTransformer,
    data: Annotated,
    requests: pl.DataFrame,
    autoencoder: AutoencoderKL,
    text_encoder: str,
) -> None:
    """Fill `folder` with the shipped adapter (`load_adapter`) as `train_adapter` does, without training it.

    The errors "before" and "after" are those of its base and of itself on `requests`, held-out ones.
    """
    held_out = _pairs(data, requests, autoencoder, text_encoder)
    fresh = ControlledTransformer.on(adapter.base_model, len(adapter.controlnet))
    adapter.save_pretrained(folder)
    read_history(WITH_ADAPTER).write_parquet(folder / "history.parquet")
    errors = {"before": noise_error(fresh, held_out), "after": noise_error(adapter, held_out)}
    write_json(errors, folder / "noise_error.json")


def _pairs(data: Annotated, requests: pl.DataFrame, autoencoder: AutoencoderKL, text_encoder: str) -> LatentCache:
    """Latents of the requests' images and conditions, with their text states."""
    images, prompts = data.images[requests["row"].to_list()], requests["prompt"].to_list()
    conditions = condition_images(data, requests)
    return LatentCache.of(images, prompts, autoencoder, load_text_encoder(text_encoder), conditions)


def train_reader(folder: Path, data: Annotated, config: LearnerConfig) -> None:
    """Train a segmenter on the training images and save it for `load_reader`."""
    rows = data.of("train")
    known = None if data.known is None else data.known[rows]
    segmenter = train_segmenter(data.images[rows], data.masks.take(rows, axis=0), data.classes, config, known=known)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in segmenter.net.state_dict().items()}
    save_file(tensors, folder / SEGMENTER)


def load_reader(folder: Path, classes: tuple[str, ...], config: LearnerConfig) -> Segmenter:
    """The segmenter that `train_reader` saved with the same classes and settings."""
    segmenter = Segmenter(config.size_in(SIZES), classes, device=config.device)
    segmenter.net.load_state_dict(load_file(folder / SEGMENTER))
    segmenter.net.eval()
    return segmenter


def changed_tensors(base: ChexGenTransformer, adapter: ControlledTransformer) -> int:
    """How many tensors of the frozen model differ from those it had before the adapter was trained."""
    now = adapter.base_model.cpu().state_dict()
    return sum(not torch.equal(tensor, now[name]) for name, tensor in base.cpu().state_dict().items())
