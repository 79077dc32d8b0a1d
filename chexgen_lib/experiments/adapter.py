"""What the adherence experiment trains: the control adapter, and the segmenter that measures its samples.

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
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.annotations import Annotated, condition_images
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.stages import train_model

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

    Beside the weights, `folder` holds what `stages.train_model` writes, with the errors on the requests "held out". The
    processes that the profile asks for train it.

    Args:
        folder: in that of the stage.
        requests: rows of `annotations.choose_requests`, for "train" and "held out".
        text_encoder: a name, as `load_text_encoder` takes it.
    """
    frozen = autoencoder, text_encoder
    pairs, held_out = (annotated_pairs(data, requests[split], *frozen) for split in ("train", "held out"))
    torch.manual_seed(config.seed)  # for the projection into the adapter
    train_model(folder, ControlledTransformer.on(base, copied_blocks), pairs, held_out, config, launched=folder.parent)


def annotated_pairs(
    data: Annotated, requests: pl.DataFrame, autoencoder: AutoencoderKL, text_encoder: str
) -> LatentCache:
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
