"""Whether a folder or a file holds what a loader expects, told from its names, configurations and headers.

Nothing is unpickled and no tensor is read, so that 45 GB take a moment; a file that was cut off is found all the same.
"""

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chexgen_lib.models.weights_catalogue import WeightsFileError

TENSORS, PICKLED = ".safetensors", (".bin", ".pth", ".pt")
TOKENIZERS = (("tokenizer.json",), ("spiece.model",), ("vocab.txt",), ("vocab.json", "merges.txt"))
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch's files of before 2020 begin
SINGLE = ("xrv", "torchvision", "released")  # layouts of one file


@dataclass(frozen=True)
class Layout:
    """A model's folder: a configuration, and weights whose names begin with one of `stems`.

    Attributes:
        says: an entry of the configuration, and its admissible values.
        formats: suffixes of the weights, in the loader's order of preference.
        beside: groups of files; one whole group must be there.
        below: a subfolder in which the loader looks if the folder has no configuration of its own.
    """

    says: tuple[str, tuple[str, ...]] | None
    stems: tuple[str, ...]
    formats: tuple[str, ...] = (TENSORS,)
    config: str = "config.json"
    beside: tuple[tuple[str, ...], ...] = field(default=((),))
    below: str = ""


_DIFFUSERS = ("diffusion_pytorch_model",)
LAYOUTS = {
    "autoencoder": Layout(
        ("_class_name", ("AutoencoderKL", "CompactAutoencoderKL")), _DIFFUSERS, (TENSORS, ".bin"), below="vae"
    ),
    "text encoder": Layout(None, ("model", "pytorch_model"), (TENSORS, ".bin"), beside=TOKENIZERS),
    "transformer": Layout(("_class_name", ("ChexGenTransformer",)), _DIFFUSERS, below="transformer"),
    "clip": Layout(("model_type", ("clip", "clip_vision_model")), ("model",), beside=(("preprocessor_config.json",),)),
    "dinov2": Layout(("model_type", ("dinov2",)), ("model",), beside=(("preprocessor_config.json",),)),
}
_PARTS = {  # of a Stable Diffusion pipeline
    "unet": Layout(("_class_name", ("UNet2DConditionModel",)), _DIFFUSERS),
    "vae": Layout(("_class_name", ("AutoencoderKL",)), _DIFFUSERS),
    "text_encoder": Layout(None, ("model",)),
}


def check(layout: str, path: Path, expects: Mapping[str, Any] | None = None) -> None:
    """Raise WeightsFileError, naming the file and the reason, if `path` is not a whole weight of this layout.

    Args:
        layout: a key of `LAYOUTS`, "pipeline", or one of `SINGLE`.
        path: the folder; of a `SINGLE` layout the file.
        expects: entries that its configuration must have.
    """
    if layout in SINGLE:
        check_file(path, pickled=True)
    elif layout == "pipeline":
        _check_pipeline(path)
    else:
        _check_model(path, LAYOUTS[layout], expects or {})


def check_file(path: Path, pickled: bool = False) -> None:
    """Raise WeightsFileError if a file is missing, empty, cut off, or not of the format that its suffix names.

    Args:
        pickled: it must be a file of torch, whatever its suffix.
    """
    if not path.is_file():
        raise WeightsFileError(f"{path} is missing")
    if not path.stat().st_size:
        raise WeightsFileError(f"{path} is empty")
    if path.suffix == TENSORS:
        _check_safetensors(path)
    elif (pickled or path.suffix in PICKLED) and not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            if file.read(len(LEGACY)) != LEGACY:
                raise WeightsFileError(f"{path} is cut off, or no file of torch")
    elif path.suffix == ".json":
        _read(path)


def _check_safetensors(path: Path) -> None:
    """The header of a safetensors file says where its last byte is."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise WeightsFileError(f"{path} is cut off, or no safetensors file")
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise WeightsFileError(f"{path} is no safetensors file") from error
    if not ends or path.stat().st_size != 8 + length + max(ends):
        raise WeightsFileError(
            f"{path} is cut off: {path.stat().st_size:,} bytes of {8 + length + max(ends, default=0):,}"
        )


def _check_model(folder: Path, layout: Layout, expects: Mapping[str, Any]) -> None:
    if layout.below and not (folder / layout.config).is_file():
        folder = folder / layout.below
    config = _read(folder / layout.config)
    if layout.says:
        key, values = layout.says
        if config.get(key) not in values:
            raise WeightsFileError(
                f"{folder / layout.config} describes another model: {key} is {config.get(key)!r}, not "
                f"{' or '.join(values)}"
            )
    for key, value in expects.items():
        if config.get(key) != value:
            raise WeightsFileError(
                f"{folder / layout.config} describes a model of another size: {key} is {config.get(key)}, not {value}"
            )
    if not any(all((folder / name).is_file() for name in group) for group in layout.beside):
        raise WeightsFileError(f"{folder} lacks {_alternatives(layout.beside)}")
    _check_weights(folder, layout)


def _check_weights(folder: Path, layout: Layout) -> None:
    for suffix in layout.formats:
        found = sorted(p for stem in layout.stems for p in folder.glob(f"{stem}*{suffix}"))
        for index in sorted(p for stem in layout.stems for p in folder.glob(f"{stem}*{suffix}.index*.json")):
            found += [folder / name for name in sorted(set(_read(index).get("weight_map", {}).values()))]
        if found:
            for path in found:
                check_file(path)
            return
    wanted = " or ".join(f"{stem}*{suffix}" for suffix in layout.formats for stem in layout.stems)
    pickled = [p.name for stem in ("pytorch_model", *layout.stems) for p in folder.glob(f"{stem}*.bin")]
    remedy = f" (it has {pickled[0]}: convert it, see docs/weights.md)" if pickled else ""
    raise WeightsFileError(f"{folder} lacks {wanted}{remedy}")


def _check_pipeline(folder: Path) -> None:
    found = _read(folder / "model_index.json").get("_class_name")
    if found != "StableDiffusionPipeline":
        raise WeightsFileError(f"{folder / 'model_index.json'} is of a {found}, not of a StableDiffusionPipeline")
    for name, layout in _PARTS.items():
        _check_model(folder / name, layout, {})
    _read(folder / "scheduler" / "scheduler_config.json")
    if not any(all((folder / "tokenizer" / name).is_file() for name in group) for group in TOKENIZERS):
        raise WeightsFileError(f"{folder / 'tokenizer'} lacks {_alternatives(TOKENIZERS)}")


def _alternatives(groups: Iterable[tuple[str, ...]]) -> str:
    return " or ".join(" and ".join(group) for group in groups)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsFileError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise WeightsFileError(f"{path} cannot be read as JSON: it is damaged") from error
    if not isinstance(content, dict):
        raise WeightsFileError(f"{path} is no configuration")
    return content
