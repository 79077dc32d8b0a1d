"""The foundation that the package ships: a transformer that has seen far more images than one run can train on.

`weights/foundation` holds it as diffusers saves a model, in float16, beside `recipe.json` (what it was made
from, `training.summary.recipe`, and the sha256 of the files) and `history.parquet` (what `trainer.train` returned).
`make foundation` makes it. `weights/adapter` holds, in the same way, the adapter that steers it by masks and boxes
(`make adapter`): the tensors of `ControlledTransformer.controlnet` alone; `weights/distilled` a transformer that has
learned from it to take few steps (`make distilled`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file

from chexgen_lib.models import autoencoder
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.loading import WeightsError, fastest_device, forget_origins, from_pretrained
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import digest, replacing, write_json

SHIPPED, WITH_ADAPTER, DISTILLED = PACKAGED = "shipped", "shipped-adapter", "shipped-distilled"
FOLDER = Path(__file__).parent / "weights" / "foundation"
ADAPTER = FOLDER.with_name("adapter")
DISTILLED_FOLDER = FOLDER.with_name("distilled")
WEIGHTS, RECIPE, HISTORY = "diffusion_pytorch_model.safetensors", "recipe.json", "history.parquet"


def load_transformer(name: str | Path = SHIPPED, device: torch.device | None = None) -> ChexGenTransformer:
    """The text-to-image transformer `name`, in float32 on `device` (by default the GPU where there is one).

    Args:
        name: "shipped", "shipped-distilled", a folder that `save_pretrained` wrote, or a hub id.

    Raises:
        WeightsError: if it is missing, damaged or of another version; the message says what to do.
    """
    if shipped := str(name) in (SHIPPED, DISTILLED):
        check_shipped(str(name))
    source = _folder(str(name)) if shipped else name
    try:
        model = from_pretrained(ChexGenTransformer, source, torch.float32)
    except WeightsError as error:
        raise WeightsError(f"{error}: {remedy(source)}" if shipped else str(error)) from error
    except OSError as error:
        raise WeightsError(
            f"no transformer at {str(name)!r}: give {SHIPPED!r}, a folder that save_pretrained wrote, or a reachable "
            "hub id"
        ) from error
    return model.eval().requires_grad_(False).to(device or fastest_device())


def remedy(folder: Path) -> str:
    """What mends one of the package's folders of weights, or one that `make adapter` wrote elsewhere."""
    if folder not in (FOLDER, ADAPTER, DISTILLED_FOLDER):
        return "give a folder that `make adapter` wrote (adapter.destination)"
    return f"install the package again, or train it anew with `make {folder.name}`"


def check_shipped(name: str = SHIPPED) -> None:
    """Raise WeightsError unless a shipped transformer's files are whole, and belong to the others that ship.

    Its latents must be those of the autoencoder, and a student's teacher the foundation.
    """
    recipe, folder = _check_files(name), _folder(name)
    if recipe.get("latents_sha256", own := autoencoder.latents_sha256()) != own:
        raise WeightsError(
            f"{folder} was trained on the latents of another autoencoder than the shipped one: {remedy(folder)}"
        )
    if name == DISTILLED:
        _check_foundation(recipe, folder)


def load_adapter(device: torch.device | None = None, name: str = WITH_ADAPTER) -> ControlledTransformer:
    """The shipped foundation under the shipped adapter, in float32 on `device` (by default the GPU where there is one).

    Args:
        name: "shipped-adapter", or a folder that `make adapter` wrote.

    Raises:
        WeightsError: if either is missing, damaged or of another version, or the adapter is of another foundation.
    """
    recipe, folder = _check_files(name), _folder(name)
    base = load_transformer(device=device)
    _check_foundation(recipe, folder)
    try:
        model = ControlledTransformer.on(base, recipe["copied_blocks"])
        model.controlnet.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} is of another version ({error}): {remedy(folder)}") from error
    return model.eval().requires_grad_(False)


def _check_foundation(recipe: Mapping[str, Any], folder: Path) -> None:
    if recipe.get("foundation_sha256") != read_recipe()["sha256"]:
        raise WeightsError(f"{folder} belongs to another foundation than the shipped one: {remedy(folder)}")


def _folder(name: str) -> Path:
    return {SHIPPED: FOLDER, WITH_ADAPTER: ADAPTER, DISTILLED: DISTILLED_FOLDER}.get(name) or Path(name)


def _check_files(name: str) -> dict[str, Any]:
    """The recipe of one of `PACKAGED`, or of an adapter's folder, whose weights it describes. Raises WeightsError."""
    folder, recipe = _folder(name), read_recipe(name)
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(f"{folder / WEIGHTS} does not exist: {remedy(folder)}")
    if digest(folder / WEIGHTS) != recipe["sha256"]:
        raise WeightsError(f"{folder / WEIGHTS} is damaged or not what {RECIPE} describes: {remedy(folder)}")
    return recipe


def read_recipe(name: str = SHIPPED) -> dict[str, Any]:
    """How one of `PACKAGED` was made, the adapter alone. Raises WeightsError: missing or damaged."""
    folder = _folder(name)
    try:
        recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return {**recipe, "sha256": recipe["sha256"]}
    except FileNotFoundError as error:
        lacking = f"the package holds no {folder.name}" if name in PACKAGED else f"{name} is no adapter"
        lacking = f"{lacking} ({folder / RECIPE} does not exist)"
        raise WeightsError(f"{lacking}: {remedy(folder)}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = f"{folder / RECIPE} is no recipe with the sha256 of the weights"
        raise WeightsError(f"{damaged}: {remedy(folder)}") from error


def goes_on_from(recipe: Mapping[str, Any]) -> dict[str, str]:
    """In words, as "goes on from", what a training of this recipe began with; empty if it began anew."""
    start = recipe.get("start")
    if isinstance(start, Mapping):
        shown = f"{start['images']:,} images, shown {start['presentations']:,} times in {start['hours']} hours"
        start = f"a training on {shown} (commit {start['commit']})"
    return {} if start is None else {"goes on from": str(start)}


def read_history(name: str = SHIPPED) -> pl.DataFrame:
    """The history of the training of one of `PACKAGED`. Raises WeightsError.

    Its columns are step, loss, grad_norm and learning_rate.
    """
    folder = _folder(name)
    try:
        return pl.read_parquet(folder / HISTORY, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WeightsError(f"{folder / HISTORY} is missing or damaged: {remedy(folder)}") from error


def save_transformer(folder: Path, model: ChexGenTransformer, recipe: Mapping[str, Any], history: pl.DataFrame) -> None:
    """Write `folder` as the package ships a transformer.

    `recipe` gets the sha256 of the weights and of their latents, that of a student the foundation's, its teacher's.
    """
    with replacing(folder) as partial:
        half = type(model).from_config(model.config)
        half.load_state_dict(model.state_dict())
        half.half().save_pretrained(partial)
        forget_origins(partial)
        history.write_parquet(partial / HISTORY)
        hashes = {"sha256": digest(partial / WEIGHTS), "latents_sha256": autoencoder.latents_sha256()}
        if model.distilled_steps:
            hashes["foundation_sha256"] = read_recipe()["sha256"]
        write_json({**recipe, **hashes}, partial / RECIPE)


def save_adapter(folder: Path, model: ControlledTransformer, recipe: Mapping[str, Any], history: pl.DataFrame) -> None:
    """Write the adapter of `model`, trained on the shipped foundation, as the package ships it (`load_adapter`)."""
    with replacing(folder) as partial:
        partial.mkdir()
        tensors = {name: tensor.half().cpu().contiguous() for name, tensor in model.controlnet.state_dict().items()}
        save_file(tensors, partial / WEIGHTS)
        history.write_parquet(partial / HISTORY)
        hashes = {"sha256": digest(partial / WEIGHTS), "foundation_sha256": read_recipe()["sha256"]}
        write_json({**recipe, "copied_blocks": len(model.controlnet), **hashes}, partial / RECIPE)


def shipped_sha256(name: str = SHIPPED) -> dict[str, str]:
    """What identifies the shipped pipeline, one of `PACKAGED`: the sha256 of each of its files.

    `weights_sha256`, `autoencoder_sha256` and, of the one with the adapter, `adapter_sha256`.
    """
    transformer = DISTILLED_FOLDER if name == DISTILLED else FOLDER
    files = {"weights": transformer / WEIGHTS, "autoencoder": autoencoder.SHIPPED / WEIGHTS}
    files |= {"adapter": ADAPTER / WEIGHTS} if name == WITH_ADAPTER else {}
    return {f"{part}_sha256": digest(path) for part, path in files.items()}
