"""Settings and a latent cache in, a trained model out: what `chexgen train` does, in one process or in many.

The model is a transformer, new or continued, or an adapter or baseline in a folder, as `training.launch` leaves one.
"""

import argparse
import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import get_args

import torch
from accelerate import PartialState
from accelerate.utils import get_int_from_env
from ruamel.yaml import YAML, YAMLError

from chexgen_lib.kept import held
from chexgen_lib.models.metadata import ATTRIBUTES
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer
from chexgen_lib.storage import naming_full_disk, replacing
from chexgen_lib.training.cohort_cache import add_metadata
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.launch import end_with_stage, meet_through_slurm
from chexgen_lib.training.run import Model
from chexgen_lib.training.trainer import train as train_model

MODEL = ("model", "text_tokens")  # settings of a new model; the section's other settings are for the notebook


def train(options: argparse.Namespace) -> int:
    """Train on `options.cache` and write `options.out/transformer`; returns the exit status.

    Given the same section, model, data, settings and folder are those of notebook 03 or 04. The final checkpoint is
    kept, so that neither the notebook nor this command trains again when started later.

    Raises:
        TrainingError, CacheError, ValueError, OSError: before anything is trained, naming what to change.
    """
    end_with_stage()
    meet_through_slurm()
    _check_gpus()
    _count_own_gpus()
    config, model = read_settings(options.settings)
    model |= {"model": options.size} if options.size else {}
    if options.gradient_checkpointing:
        config = replace(config, gradient_checkpointing=True)
    cache = LatentCache.load(options.cache)
    seen = config.batch_size * config.gradient_accumulation
    if seen > len(cache):
        raise TrainingError(
            f"a step of {config.batch_size} x {config.gradient_accumulation} images is larger than the {len(cache)} "
            f"pairs in {options.cache}: lower batch_size or gradient_accumulation"
        )
    if options.weights and options.metadata_sources:
        raise TrainingError("the model in --weights knows its own sources: leave out --metadata-sources")
    transformer = _continued(options, model, cache) if options.weights else _new(options, model, cache, config)
    if isinstance(transformer, ChexGenTransformer):
        cache = add_metadata(cache, options.cache, transformer.metadata_sources)
    for k, name in enumerate(options.metadata_sources or ()):
        if not (cache.metadata[:, ATTRIBUTES.index("source")] == k).any():
            raise TrainingError(f"no pair in {options.cache} is of {name!r}, which --metadata-sources names")
    with naming_full_disk(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        with _alone(options.out):
            train_model(transformer, cache, config, options.out, keep_last=True, continued_from=options.continue_from)
    state = PartialState()
    if state.is_main_process:
        with replacing(options.out / "transformer") as folder:
            transformer.save_pretrained(folder)
        print(f"{options.out / 'transformer'}: a model for {type(transformer).__name__}.from_pretrained")
    state.destroy_process_group()
    return 0


def _alone(folder: Path) -> AbstractContextManager:
    """Hold the folder of a training in the first of its processes, which writes; OSError where another one trains."""
    first = get_int_from_env(["RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"], 0) == 0
    return held(folder, "another process trains here; let it end first") if first else nullcontext()


def _check_gpus() -> None:
    """Raise where torchrun or accelerate started more processes than this machine has GPUs.

    Two of them would share one, which nccl refuses in words of its own.
    """
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise TrainingError(
            f"{processes} processes were started on this machine, which has {gpus} GPUs: start as many as there are "
            f"(accelerate launch --num_processes {gpus}, torchrun --nproc_per_node {gpus}; of a stage in the setting "
            "launch)"
        )


def _count_own_gpus() -> None:
    """Number this process among the GPUs that it sees, not among those of the machine.

    Slurm shows each task its own alone (`--gpus-per-task=1`): number 0 in all of them, and there is no number 1.
    """
    gpus = torch.cuda.device_count()
    if gpus and "LOCAL_RANK" in os.environ:
        os.environ["LOCAL_RANK"] = str(int(os.environ["LOCAL_RANK"]) % gpus)


def read_settings(source: str) -> tuple[TrainingConfig, dict]:
    """The trainer's settings in FILE or FILE:SECTION (YAML or JSON), with `model` and `text_tokens` if they are given.

    In a section of params.yaml the trainer's settings are those under `training`, and the `seed` is the file's.

    Raises:
        TrainingError: if the file cannot be read, there is no such section, or a setting is unknown, missing or wrong.
    """
    settings, model = _split(source)
    defaults = {field.name: field.default for field in fields(TrainingConfig)}
    if absent := [key for key, default in defaults.items() if default is MISSING and key not in settings]:
        raise TrainingError(f"{source}: {', '.join(absent)} must be set")
    if unknown := [key for key in settings if key not in defaults]:
        raise TrainingError(f"{source}: unknown setting {', '.join(unknown)}; known are {', '.join(defaults)}")
    for key in (key for key in settings if isinstance(defaults[key], bool | float | int)):
        value = settings[key]
        if isinstance(value, bool) != isinstance(defaults[key], bool) or not isinstance(value, float | int):
            raise TrainingError(f"{source}: {key} is {value!r}; its default is {defaults[key]!r}")
    try:
        return TrainingConfig(**settings), model
    except TypeError as error:  # text in place of a number
        raise TrainingError(f"{source}: {error}") from error


def _split(source: str) -> tuple[dict, dict]:
    """The trainer's settings and the model's, of FILE or FILE:SECTION."""
    name, _, section = source.partition(":")
    try:
        found = YAML(typ="safe").load(Path(name).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TrainingError(f"{name} cannot be read: {error.strerror}; name a file of settings") from error
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: another encoding, or a damaged value
        said = " ".join(str(error).split())
        raise TrainingError(f"{name} is neither YAML nor JSON, in UTF-8: {said}") from error
    seed = {}
    if section:
        if not isinstance(found, dict) or not isinstance(found.get(section), dict):
            raise TrainingError(f"{name} has no section {section!r}")
        seed, found = {key: found[key] for key in ("seed",) if key in found}, found[section]
    if not isinstance(found, dict):
        raise TrainingError(f"{source} is no mapping of settings to values: write name: value on each line")
    model = {key: found[key] for key in MODEL if key in found}
    settings = found.get("training", {key: value for key, value in found.items() if key not in MODEL})
    if not isinstance(settings, dict):
        raise TrainingError(f"{source}: training is {settings!r}, not a mapping of settings to values")
    return seed | settings, model


def _new(options: argparse.Namespace, model: dict, cache: LatentCache, config: TrainingConfig) -> ChexGenTransformer:
    """A fresh model for the cache, the same in every process."""
    if "model" not in model:
        raise TrainingError(
            f"no size: give --size, one of {', '.join(SIZES)}, or model in {options.settings}, or --weights"
        )
    torch.manual_seed(config.seed)
    return ChexGenTransformer.of_size(
        model["model"],
        cache.mean.shape[1],
        sample_size=cache.mean.shape[-1],
        text_dim=cache.states.shape[1],
        text_tokens=model.get("text_tokens", 120),
        objective=config.objective,
        metadata_sources=options.metadata_sources,
    )


def _continued(options: argparse.Namespace, model: dict, cache: LatentCache) -> Model:
    """The model in `options.weights`; a transformer enlarged as in stage II if the cache has twice its resolution."""
    try:
        kind = json.loads((options.weights / "config.json").read_text(encoding="utf-8"))["_class_name"]
        opened = next(known for known in get_args(Model) if known.__name__ == kind)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise TrainingError(
            f"{options.weights} holds no transformer, adapter or baseline: give a folder that save_pretrained wrote"
        ) from error
    transformer = opened.from_pretrained(options.weights)
    if opened is not ChexGenTransformer:
        if "model" in model:
            raise TrainingError(f"{options.weights} holds a {kind}, which has its size: leave out --size and `model`")
        return transformer
    if "model" in model:
        if model["model"] not in SIZES:
            raise TrainingError(f"unknown model size {model['model']!r}; choose one of {', '.join(SIZES)}")
        size = SIZES[model["model"]].config(transformer.config.in_channels)
        other = {key: transformer.config[key] for key, value in size.items() if transformer.config[key] != value}
        if other:
            raise TrainingError(
                f"{options.weights} is not of size {model['model']!r}, it has {other}: leave out the size"
            )
    return transformer.for_latents(cache.mean.shape[-1])
