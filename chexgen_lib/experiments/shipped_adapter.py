"""A ready adapter of the shipped foundation in place of one that a run trains, which does not depend on its files."""

from pathlib import Path

import polars as pl
from diffusers import AutoencoderKL

from chexgen_lib.experiments.adapter import annotated_pairs
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import SHIPPED, WITH_ADAPTER, load_adapter, read_history
from chexgen_lib.pools.annotations import Annotated
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.stages import keep_trained


def open_shipped(weights: str | None, autoencoder: str, text_encoder: str) -> ControlledTransformer | None:
    """The adapter that a run reads; None, for `weights` None, if it trains its own.

    Args:
        weights: "shipped", or a folder that `make adapter` wrote (`adapter.destination`).

    Raises:
        TrainingError: for other frozen parts than the adapter was trained with.
        WeightsError: as `load_adapter`.
    """
    if weights is None:
        return None
    if (autoencoder, text_encoder) != (SHIPPED, "minilm"):
        raise TrainingError(
            "an adapter of the shipped foundation belongs to autoencoder=shipped and text_encoder=minilm, not "
            f"{autoencoder} and {text_encoder}: set both in section cohort, or weights=null in section "
            "annotation_to_image"
        )
    return load_adapter(name=_name(weights))


def _name(weights: str) -> str:
    return WITH_ADAPTER if weights == SHIPPED else weights


def keep_adapter(
    folder: Path,
    adapter: ControlledTransformer,
    weights: str,
    data: Annotated,
    requests: pl.DataFrame,
    autoencoder: AutoencoderKL,
    text_encoder: str,
) -> None:
    """Fill `folder` as `train_adapter` does, with the adapter that `open_shipped` opened for `weights`.

    The errors "before" and "after" are those of its base and of itself on `requests`, held-out ones.
    """
    held_out = annotated_pairs(data, requests, autoencoder, text_encoder)
    fresh = ControlledTransformer.on(adapter.base_model, len(adapter.controlnet))
    keep_trained(folder, fresh, adapter, read_history(_name(weights)), held_out)
