"""The foundation that the package ships: a transformer that has seen far more images than one run can train on.

`weights/foundation` holds it as diffusers saves a model, in float16, beside `recipe.json` (what it was made
from, `training.summary.recipe`, and the sha256 of the files) and `history.parquet` (what `trainer.train` returned).
`make foundation` makes it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch

from chexgen_lib.models import autoencoder
from chexgen_lib.models.loading import WeightsError, fastest_device, from_pretrained
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import digest, replacing, write_json

SHIPPED = "shipped"
FOLDER = Path(__file__).parent / "weights" / "foundation"
WEIGHTS, RECIPE, HISTORY = "diffusion_pytorch_model.safetensors", "recipe.json", "history.parquet"
REMEDY = "install the package again, or train the foundation with `make foundation`"


def load_transformer(name: str | Path = SHIPPED, device: torch.device | None = None) -> ChexGenTransformer:
    """The text-to-image transformer `name`, in float32 on `device` (by default the GPU where there is one).

    Args:
        name: "shipped", a folder that `save_pretrained` wrote, or a hub id.

    Raises:
        WeightsError: if it is missing, damaged or of another version; the message says what to do.
    """
    if shipped := str(name) == SHIPPED:
        check_shipped()
    source = FOLDER if shipped else name
    try:
        model, found = from_pretrained(ChexGenTransformer, source, torch.float32, output_loading_info=True)
        if others := [*found["missing_keys"], *found["unexpected_keys"]]:  # diffusers makes up what is missing
            raise WeightsError(f"the weights in {source} are of another version: {others[0]!r} is missing or unknown")
    except WeightsError as error:
        raise WeightsError(f"{error}: {REMEDY}" if shipped else str(error)) from error
    except OSError as error:
        raise WeightsError(
            f"no transformer at {str(name)!r}: give {SHIPPED!r}, a folder that save_pretrained wrote, or a reachable "
            "hub id"
        ) from error
    return model.eval().requires_grad_(False).to(device or fastest_device())


def check_shipped() -> None:
    """Raise WeightsError unless the shipped files are whole, and the shipped autoencoder is that of their latents."""
    recipe = read_recipe()
    if not (FOLDER / WEIGHTS).is_file():
        raise WeightsError(f"{FOLDER / WEIGHTS} does not exist: {REMEDY}")
    if digest(FOLDER / WEIGHTS) != recipe["sha256"]:
        raise WeightsError(f"{FOLDER / WEIGHTS} is damaged or not what {RECIPE} describes: {REMEDY}")
    if recipe.get("latents_sha256", own := autoencoder.latents_sha256()) != own:
        raise WeightsError(f"{FOLDER} was trained on the latents of another autoencoder than the shipped one: {REMEDY}")


def read_recipe() -> dict[str, Any]:
    """How the shipped foundation was made. Raises WeightsError if that is missing or damaged."""
    try:
        recipe = json.loads((FOLDER / RECIPE).read_text(encoding="utf-8"))
        return {**recipe, "sha256": recipe["sha256"]}
    except FileNotFoundError as error:
        raise WeightsError(f"the package holds no foundation ({FOLDER / RECIPE} does not exist): {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{FOLDER / RECIPE} is no recipe with the sha256 of the weights: {REMEDY}") from error


def read_history() -> pl.DataFrame:
    """The history of the foundation's training: step, loss, grad_norm, learning_rate. Raises WeightsError."""
    try:
        return pl.read_parquet(FOLDER / HISTORY)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WeightsError(f"{FOLDER / HISTORY} is missing or damaged: {REMEDY}") from error


def save_foundation(folder: Path, model: ChexGenTransformer, recipe: Mapping[str, Any], history: pl.DataFrame) -> None:
    """Write `folder` as the package ships it; `recipe` gets the sha256 of weights and of their latents."""
    with replacing(folder) as partial:
        half = type(model).from_config(model.config)
        half.load_state_dict(model.state_dict())
        half.half().save_pretrained(partial)
        history.write_parquet(partial / HISTORY)
        hashes = {"sha256": digest(partial / WEIGHTS), "latents_sha256": autoencoder.latents_sha256()}
        write_json({**recipe, **hashes}, partial / RECIPE)


def shipped_sha256() -> dict[str, str]:
    """What identifies the shipped pipeline: `weights_sha256` and `autoencoder_sha256`, of the files."""
    files = {"weights": FOLDER / WEIGHTS, "autoencoder": autoencoder.SHIPPED / WEIGHTS}
    return {f"{name}_sha256": digest(path) for name, path in files.items()}
