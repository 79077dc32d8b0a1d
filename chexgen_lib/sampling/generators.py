"""The one place that opens a text-to-image generator, whoever made it.

`open_generator` goes by what lies at a source: the shipped foundation, a released ChexGen checkpoint, a transformer or
U-Net of a run, a saved `ChexGenPipeline`, or any text-to-image pipeline of diffusers (RoentGen, MINIM) in a folder or
on the hub. Whatever comes back is called as `pools.generate.sample_pool` calls it. Nothing in a source is executed.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import PACKAGED, SHIPPED, load_transformer
from chexgen_lib.models.loading import as_stated, fastest_device, from_pretrained
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.baseline import (
    UNREADABLE,
    BaselinePipeline,
    GreyStableDiffusionPipeline,
    assemble_baseline,
    load_baseline,
)
from chexgen_lib.sampling.pipeline import ChexGenPipeline, ChexGenPipelineOutput, assemble
from chexgen_lib.sampling.released import released_pipeline

INDEX, CONFIG = "model_index.json", "config.json"  # of a pipeline's folder, and of a model's
OURS = {kind.__name__: kind for kind in (ChexGenPipeline, BaselinePipeline)}
STABLE_DIFFUSION = "StableDiffusionPipeline"
REMEDY = (
    "give 'shipped', a released .pth, a folder of pipeline.save_pretrained, the transformer folder of a run, or a "
    "reachable hub id of a text-to-image pipeline of diffusers"
)


@dataclass(frozen=True)
class Parts:
    """What a model alone, or a released checkpoint, is completed with; None takes the default of its kind.

    Attributes:
        autoencoder, text_encoder: names, as `load_autoencoder` and `load_text_encoder` take them.
        compat: "paper" or "released", for a released checkpoint alone.
    """

    autoencoder: str | None = None
    text_encoder: str | None = None
    compat: str | None = None

    def given(self) -> dict[str, str]:
        """Those that are not None."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if value is not None}


class GreyPipeline:
    """Any text-to-image pipeline of diffusers, called as `ChexGenPipeline` is by `sample_pool`.

    What its `__call__` has no argument for (metadata, say) is left out. Attributes that this class has not are the
    pipeline's.
    """

    metadata_sources = None

    def __init__(self, pipeline: DiffusionPipeline):
        self.pipeline = pipeline
        self.accepted = set(inspect.signature(type(pipeline).__call__).parameters)

    @property
    def transformer(self) -> torch.nn.Module:
        """The models of the pipeline, all that its samples depend on (`pools.generate.fingerprint`)."""
        models = {name: part for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)}
        return torch.nn.ModuleDict(dict(sorted(models.items())))

    vae = text_encoder = None  # part of `transformer`

    def __getattr__(self, name: str) -> Any:
        if name == "pipeline":
            raise AttributeError(name)
        return getattr(self.pipeline, name)

    def to(self, device: str | torch.device) -> "GreyPipeline":
        """This pipeline, its models moved."""
        self.pipeline.to(device)
        return self

    def __call__(self, prompt: list[str], output_type: str = "np", **settings: Any) -> ChexGenPipelineOutput:
        """Sample radiographs: `.images` float32 [N, H, W, 1] in 0..1, the mean of the colour channels.

        Raises:
            ValueError: for a condition, which such a pipeline does not take.
        """
        if settings.pop("condition_image", None) is not None:
            raise ValueError(f"{type(self.pipeline).__name__} takes no condition: leave out `conditions`")
        known = {name: value for name, value in settings.items() if name in self.accepted}
        images = self.pipeline(prompt, output_type=output_type, **known).images  # [N, H, W, C]
        return ChexGenPipelineOutput(images=images.mean(axis=-1, keepdims=True))


Generator = ChexGenPipeline | GreyStableDiffusionPipeline | GreyPipeline


def open_generator(source: str | Path, parts: Parts | None = None) -> Generator:
    """The generator at a source, in float32 on the CPU or, for one of this library's own models, the fastest device.

    Args:
        source: one of `PACKAGED` ("shipped", ...), a released `.pth`, a folder of a model or pipeline, or a hub id of a
            pipeline.
        parts: for a model alone or a `.pth`.

    Raises:
        ValueError: if there is nothing that can be opened; it says what was found and what to give.
        CheckpointError, WeightsError: of a `.pth`, or of the shipped foundation.
    """
    parts, path = parts or Parts(), Path(source)
    if path.is_file() or path.suffix == ".pth":
        return released_pipeline(path, **parts.given())
    whole = is_whole(source)
    if misplaced := [name for name in parts.given() if whole or name == "compat"]:
        kind = "a whole pipeline" if whole else "a model of a run"
        raise ValueError(f"{source} is {kind}: --{misplaced[0].replace('_', '-')} is for a released .pth")
    if str(source) in PACKAGED:
        return ChexGenPipeline.from_pretrained(source)
    if not whole:
        return _open_model(path, parts)
    # What cannot be a hub id is not looked for on the hub, which would try it several times before it fails.
    if not path.exists() and str(source).count("/") != 1:
        raise ValueError(
            f"no generator at {str(source)!r}: there is no such folder, and a hub id is OWNER/NAME: {REMEDY}"
        )
    if path.is_dir() and not (path / INDEX).is_file():
        raise ValueError(f"{path} holds no pipeline: write one with pipeline.save_pretrained or chexgen convert")
    return _open_pipeline(source, _class_of(source))


def is_whole(source: str | Path) -> bool:
    """Whether a source has its own autoencoder and text encoder, as no released `.pth` and no model alone has."""
    path = Path(source)
    if path.is_file() or path.suffix == ".pth":
        return False
    return str(source) in PACKAGED or not (path / CONFIG).is_file() or (path / INDEX).is_file()


def _open_model(folder: Path, parts: Parts) -> ChexGenPipeline:
    """A transformer or U-Net that a run trained, with its frozen parts."""
    autoencoder, text_encoder = parts.autoencoder or SHIPPED, parts.text_encoder or "minilm"
    name = _read(folder / CONFIG).get("_class_name")
    if name == BaselineUNet.__name__:
        unet = from_pretrained(BaselineUNet, folder, torch.float32).eval()
        return assemble_baseline(unet.to(fastest_device()), autoencoder, text_encoder)
    if name == ControlledTransformer.__name__:
        model = from_pretrained(ControlledTransformer, folder, torch.float32).eval().to(fastest_device())
    elif name == ChexGenTransformer.__name__:
        model = load_transformer(folder)
    else:
        raise ValueError(f"{folder} holds no pipeline: write one with pipeline.save_pretrained (it holds a {name})")
    textless = model.metadata_sources is not None and len(model.null_caption) == 1  # as stage 12 trains it
    return assemble(model, autoencoder, None if textless else text_encoder)


def _class_of(source: str | Path) -> str:
    """The class that a pipeline's folder, or its page on the hub, names."""
    try:
        index = _read(Path(source) / INDEX) if Path(source).is_dir() else DiffusionPipeline.load_config(str(source))
    except (OSError, ValueError) as error:
        raise ValueError(f"no generator at {str(source)!r}: {REMEDY} ({_first_line(error)})") from error
    return str(index.get("_class_name"))


def _open_pipeline(source: str | Path, name: str) -> Generator:
    if name not in OURS and not _is_text_to_image(name):
        raise ValueError(f"{source} holds a {name}, which is no text-to-image pipeline of diffusers: {REMEDY}")
    if (Path(source) / INDEX).is_file():
        _check_parts(Path(source))
    if name == STABLE_DIFFUSION:
        return load_baseline(source)
    try:
        if name in OURS:
            return OURS[name].from_pretrained(source)
        return GreyPipeline(DiffusionPipeline.from_pretrained(source, **as_stated(source, {"use_safetensors": True})))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source} holds no whole pipeline, write or download it again ({reason})") from error


def _is_text_to_image(name: str) -> bool:
    """Whether diffusers has a text-to-image pipeline of this name."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING  # imports every pipeline it knows

    return any(pipeline.__name__ == name for pipeline in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values())


def _check_parts(folder: Path) -> None:
    """Raise ValueError for a part without a folder: of a tokenizer, transformers would make an empty one."""
    parts = {name: kind for name, kind in _read(folder / INDEX).items() if isinstance(kind, list) and any(kind)}
    unused = ("_class_name", "safety_checker")
    if absent := [name for name in parts if name not in unused and not (folder / name).is_dir()]:
        raise ValueError(f"{folder} lacks {', '.join(absent)}, which its {INDEX} names: write or download it again")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no JSON, write or download it again ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
