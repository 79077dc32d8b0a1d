"""The shipped adapter in place of one that a run trains; what it replaces does not depend on its files."""

from pathlib import Path

import polars as pl
from diffusers import AutoencoderKL

from chexgen_lib.experiments.adapter import annotated_pairs
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import SHIPPED, WITH_ADAPTER, load_adapter, read_history
from chexgen_lib.pools.annotations import Annotated
from chexgen_lib.storage import write_json
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.trainer import noise_error


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
    held_out = annotated_pairs(data, requests, autoencoder, text_encoder)
    fresh = ControlledTransformer.on(adapter.base_model, len(adapter.controlnet))
    adapter.save_pretrained(folder)
    read_history(WITH_ADAPTER).write_parquet(folder / "history.parquet")
    errors = {"before": noise_error(fresh, held_out), "after": noise_error(adapter, held_out)}
    write_json(errors, folder / "held_out_error.json")
