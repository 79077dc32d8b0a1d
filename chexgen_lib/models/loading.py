"""Loading the weights of others: which file of a folder, in which precision, onto which device."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

from chexgen_lib.storage import files_below, files_of_model

WEIGHTS = (".safetensors", ".bin")
EVERY_KIND = (*WEIGHTS, ".pt", ".pth", ".ckpt", ".msgpack")
# As diffusers and transformers name them: model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, ...
PART = re.compile(r"-\d{5}-of-\d{5}")


class WeightsError(ValueError):
    """Weights that are missing, damaged or of another kind; the message names the folder and the remedy."""


def from_pretrained(
    model_class: type, source: str | Path, dtype: torch.dtype, subfolder: str | None = None, **options
) -> Any:
    """`model_class.from_pretrained` in a stated precision, also where only a variant (fp16) of the weights is there.

    options: further keywords of that method.

    Raises:
        WeightsError: if the files of the folder cannot be read as such a model.
        OSError: if there is no such folder, and no hub that has it can be reached.
    """
    place = options if subfolder is None else {**options, "subfolder": subfolder}
    folder = Path(source) / (subfolder or "")
    try:
        if folder.is_dir():
            return model_class.from_pretrained(source, **as_stated(folder, {"dtype": dtype, **place}))
        try:
            return model_class.from_pretrained(source, dtype=dtype, **place)
        except OSError:
            return model_class.from_pretrained(source, dtype=dtype, variant="fp16", **place)
    except (torch.OutOfMemoryError, WeightsError):
        raise
    except Exception as error:  # damaged files make the libraries raise nearly anything
        if isinstance(error, OSError) and not folder.is_dir():
            raise
        raise WeightsError(
            f"the weights in {folder} cannot be read as {model_class.__name__}: download or save them again "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def variant_in(folder: Path) -> str | None:
    """The variant of the weights below a folder, such as "fp16"; None where there are others, or no weights at all."""
    files = files_below(folder) if folder.is_dir() else []
    names = [PART.sub("", file.stem).split(".") for file in files if file.suffix in WEIGHTS]
    variants = {parts[1] if len(parts) > 1 else None for parts in names}
    return None if None in variants or not variants else sorted(variants)[0]


class WholeModel:
    """Beside diffusers' `ModelMixin`, before it: a model is not loaded in part."""

    remedy = ""  # what the error ends with

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options):
        """As every model's, but tensors that lack, which diffusers makes up, or that it drops are an error.

        Raises:
            WeightsError: if there are such tensors.
        """
        wanted = options.pop("output_loading_info", False)
        model, found = super().from_pretrained(pretrained_model_name_or_path, output_loading_info=True, **options)
        if others := [*found["missing_keys"], *found["unexpected_keys"]]:
            source = pretrained_model_name_or_path
            raise WeightsError(
                f"the weights in {source} are of another version: {others[0]!r} is missing or unknown{cls.remedy}"
            )
        return (model, found) if wanted else model


def as_stated(source: str | Path, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a `from_pretrained` that say the precision, float32, and the variant at `source`, if these do not.

    transformers would keep the precision that was saved, and diffusers not.
    """
    precision = {} if "torch_dtype" in options else {"dtype": torch.float32}
    return {"variant": variant_in(Path(source)), **precision, **options}


def forget_origins(folder: Path) -> None:
    """Take out of what diffusers saved where each model had been loaded from: a path of this machine."""
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def weights_sha256(weights: Path) -> str:
    """sha256 of a weights file; of a folder, that of the paths and digests of its files, weights and settings alike.

    Hidden files and what only people read (.md, pictures) are left out.

    Raises:
        ValueError: if there are no weights.
    """
    if weights.is_file():
        with open(weights, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    names = files_of_model(weights) if weights.is_dir() else []
    if not any(name.endswith(EVERY_KIND) for name in names):
        raise ValueError(f"{weights} holds no weights: name a pipeline folder or a released .pth")
    parts = ((name, weights_sha256(weights / name)) for name in names)
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def fastest_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def running_device(model: torch.nn.Module) -> torch.device:
    """Where a model computes: its device, or that which offloading brings it to when it is called."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return model.device
