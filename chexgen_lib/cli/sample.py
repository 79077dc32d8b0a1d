"""A file of prompts in, a folder of images out: what `chexgen sample` and `chexgen convert` do.

Batches are shared among the processes of an accelerate launch. An interrupted run resumes where it stopped and ends
with the same bytes.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm

import chexgen_lib
from chexgen_lib.cli.overwriting import check_outputs, check_table
from chexgen_lib.diffusion.schedulers import SAMPLERS, default_guidance, default_steps, scheduler_named
from chexgen_lib.export.images import SUFFIXES, read_recipe, save
from chexgen_lib.images import ImageError
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import DISTILLED, PACKAGED, SHIPPED, WITH_ADAPTER, shipped_sha256
from chexgen_lib.models.loading import weights_sha256
from chexgen_lib.models.metadata import MetadataError, encode_metadata
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.text import count_tokens
from chexgen_lib.pools.generate import image_seed
from chexgen_lib.sampling.arguments import check_distilled
from chexgen_lib.sampling.conditions import ConditionError, draw, read_masks
from chexgen_lib.sampling.generators import Parts, is_whole, open_generator
from chexgen_lib.sampling.guidance import guided_steps
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.prompts import ENCODED, PromptError, read_prompts
from chexgen_lib.storage import own_settings, replacing, write_csv

PARTS = ("autoencoder", "text_encoder")  # what a released checkpoint is completed with


def load_pipeline(weights: Path, **parts: str | None) -> ChexGenPipeline:
    """ChexGen's pipeline of a source, as `open_generator` opens it.

    Args:
        parts: the fields of `Parts`.

    Raises:
        CheckpointError, ValueError: if there is none, or it is another's, naming the remedy.
    """
    pipeline = open_generator(weights, Parts(**parts))
    if not isinstance(pipeline, ChexGenPipeline):
        kind = type(getattr(pipeline, "pipeline", pipeline)).__name__
        raise ValueError(f"{weights} is no pipeline of ChexGen's ({kind}): sample it by diffusers, or judge it")
    return pipeline


def _parts(options: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(options, name) for name in (*PARTS, "compat")}


def convert(options: argparse.Namespace) -> int:
    """Write the pipeline of `options.checkpoint` to the new folder `options.folder`; returns the exit status."""
    if options.folder.exists():
        raise ValueError(f"{options.folder} exists: name a new folder")
    pipeline = load_pipeline(options.checkpoint, **_parts(options))
    with replacing(options.folder) as folder:
        pipeline.save_pretrained(folder)
    print(f"{options.folder}: a pipeline for ChexGenPipeline.from_pretrained or chexgen sample --weights")
    return 0


def sample(options: argparse.Namespace) -> int:
    """Sample the prompts of a file into a folder, with a manifest; returns 1 where rows failed, listed on stderr.

    Raises:
        PromptError, ConditionError, CheckpointError, ValueError: before anything is sampled, naming row and remedy.
    """
    _check_options(options)
    prompts, state = read_prompts(options.prompts), PartialState()
    placed = any(prompts[column].list.len().max() for column in ("masks", "boxes"))
    if str(options.weights) == SHIPPED and placed:
        options.weights = Path(WITH_ADAPTER)
    pipeline = _prepared(options).to(state.device)
    if pipeline.transformer.metadata_sources is not None:  # metadata goes to the encoder, not into the prompt
        prompts = prompts.with_columns(prompt="text")
    else:
        _check_unread(prompts, options.prompts)
    _check_lengths(prompts, pipeline)
    jobs, failed = _jobs(prompts, options, pipeline)
    manifest = options.out / "manifest.csv"
    drawn = [options.out / job["condition"] for job in jobs if "condition" in job and job["image"] == 0]
    masks = [Path(mask["path"]) for masks in prompts["masks"] for mask in masks]
    check_outputs([options.out / job["file"] for job in jobs], [manifest, *drawn], [options.prompts, *masks])
    check_table(manifest, ("file", "seed"))
    options.out.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)  # it comes back when all images are as it says
    batches = _batches(jobs, options.batch_size)
    mine = batches[state.process_index :: state.num_processes]
    with tqdm(total=sum(map(len, mine)), desc="samples", disable=not state.is_local_main_process) as progress:
        for batch in mine:
            if not all(finished(options.out, job) for job in batch):
                failed |= _sample_batch(pipeline, batch, options)
            progress.update(len(batch))
    failed = dict(gather_object(list(failed.items())))
    if state.is_main_process:
        done = [_about(job) for job in jobs if job["file"] not in failed]
        write_csv(pl.DataFrame(done, infer_schema_length=None), manifest)
        for file, reason in failed.items():
            print(f"chexgen: not sampled: {file}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _prepared(options: argparse.Namespace) -> ChexGenPipeline:
    """The pipeline of the options' weights with their sampler; `steps` and `guidance` get their defaults."""
    pipeline = load_pipeline(options.weights, **_parts(options))
    pipeline.set_progress_bar_config(disable=True)
    _check_learned(options, pipeline)
    if options.sampler:
        pipeline.scheduler = scheduler_named(options.sampler, pipeline.scheduler)
    options.steps = default_steps(pipeline.transformer) if options.steps is None else options.steps
    options.guidance = default_guidance(pipeline.transformer) if options.guidance is None else options.guidance
    check_distilled(
        pipeline.distilled_steps, pipeline.scheduler, options.steps, options.guidance, options.metadata_guidance
    )
    if options.int8:
        pipeline.transformer = int8_weights(pipeline.transformer)
    if options.compile:
        pipeline.transformer.compile_repeated_blocks()
    return pipeline


def _check_options(options: argparse.Namespace) -> None:
    """Raise ValueError for an interval, a sampler or a compiler that cannot be used."""
    guided_steps(torch.empty(0), 1, options.guidance_interval or (0.0, 1.0))
    names = dict.fromkeys(name for samplers in SAMPLERS.values() for name in samplers)
    if options.sampler not in (None, *names):
        raise ValueError(f"--sampler {options.sampler!r} is none of {', '.join(names)}")
    compiler = os.environ.get("CXX", "g++")
    if options.compile and not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ValueError(
            f"--compile needs a C++ compiler and there is no {compiler}: install it, or leave --compile out"
        )


def _check_learned(options: argparse.Namespace, pipeline: ChexGenPipeline) -> None:
    """Raise ValueError for what a distilled model has learned, and cannot be told any more."""
    given = [f"--sampler {options.sampler}"] * (options.sampler not in (None, "flow-euler"))
    given += ["--guidance-interval"] * (options.guidance_interval is not None)
    if pipeline.distilled_steps and given:
        raise ValueError(
            f"these weights are distilled to {pipeline.distilled_steps} steps of Euler's method, with guidance "
            f"learned: leave out {' and '.join(given)}"
        )


def _batches(jobs: list[dict], size: int) -> list[list[dict]]:
    """Batches that depend on the file and not on what is left to do, so that a resumed run ends with the same bytes.

    Images with a condition do not share a batch with images without one.
    """
    kinds = [[job for job in jobs if ("condition" in job) == controlled] for controlled in (False, True)]
    return [kind[i : i + size] for kind in kinds for i in range(0, len(kind), size)]


def _sample_batch(pipeline: ChexGenPipeline, batch: list[dict], options: argparse.Namespace) -> dict[str, str]:
    """Sample and write the images of a batch; returns file -> reason for those whose mask can no longer be read."""
    drawings, failed = [], {}
    for job in batch:
        try:
            drawings.append(_drawing(job["row"], pipeline))
        except ConditionError as error:
            failed[job["file"]] = str(error)
    batch = [job for job in batch if job["file"] not in failed]
    if not batch:
        return failed
    controlled = "condition" in batch[0]
    try:
        images = pipeline(
            [job["prompt"] for job in batch] if batch[0]["prompt"] else None,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            guidance_interval=options.guidance_interval or (0.0, 1.0),
            generator=[torch.Generator().manual_seed(job["seed"]) for job in batch],
            condition_image=drawings if controlled else None,
            control_scale=options.control_scale,
            metadata=[json.loads(job["metadata"]) for job in batch] if "metadata" in batch[0] else None,
            metadata_guidance=options.metadata_guidance,
        ).images
    except ImageError as error:
        raise ImageError(f"{batch[0]['file']} or one of its batch: {error}") from error
    for job, image, drawing in zip(batch, images, drawings, strict=True):
        if controlled and job["image"] == 0:  # once per row: another process may sample the row's other images
            with replacing(options.out / job["condition"]) as path:
                Image.fromarray(drawing).save(path)
        save(options.out / job["file"], image, _about(job), json.loads(job["row"]["metadata"]))
    return failed


def _drawing(row: dict, pipeline: ChexGenPipeline) -> np.ndarray | None:
    """The condition image of a row of the prompt file; None if the row has neither masks nor boxes."""
    if not row["masks"] and not row["boxes"]:
        return None
    masks = read_masks({mask["class"]: mask["path"] for mask in row["masks"]})
    return draw(pipeline.image_size, masks, row["boxes"])


def _check_unread(prompts: pl.DataFrame, path: Path) -> None:
    """Warn of columns that only a metadata encoder reads; PromptError for a row without text (weights without one)."""
    if not all(prompts["text"]):
        raise PromptError(f"{path}: no column impression, and these weights have no metadata encoder")
    said = {key for text in prompts["metadata"] for key in json.loads(text)}
    if unread := [column for column in ENCODED if column in said]:
        warnings.warn(f"{path}: these weights have no metadata encoder to read {', '.join(unread)}", stacklevel=2)


def _check_lengths(prompts: pl.DataFrame, pipeline: ChexGenPipeline) -> None:
    if not any(prompts["prompt"]):
        return
    if pipeline.text_encoder is None:
        raise PromptError("these weights read no text: leave out the column impression")
    limit = len(pipeline.transformer.null_caption)
    counts = count_tokens(pipeline.tokenizer, [pipeline.caption(text) for text in prompts["prompt"]])
    long = [(row, n) for row, n in zip(prompts["row"], counts, strict=True) if n > limit]
    if long:
        listed = ", ".join(f"row {row} ({n})" for row, n in long[:10])
        raise PromptError(f"{len(long)} prompts have more than {limit} tokens, shorten them: {listed}")


def _jobs(prompts: pl.DataFrame, options: argparse.Namespace, pipeline: ChexGenPipeline) -> tuple[list[dict], dict]:
    """One dict per image, and row -> reason for those whose masks or boxes cannot be drawn."""
    settings, steering = _settings(options, pipeline), {}
    if str(options.weights) == WITH_ADAPTER:  # rows without a condition do not depend on it
        steering["adapter_sha256"] = shipped_sha256(WITH_ADAPTER)["adapter_sha256"]
    sources = pipeline.transformer.metadata_sources
    if sources is None and options.metadata_guidance:
        raise ValueError("--metadata-guidance is for weights with a metadata encoder")
    jobs, failed = [], {}
    for row in prompts.iter_rows(named=True):
        name, condition = row["name"], {}
        asked = {}
        if sources is not None:
            try:
                asked["metadata"] = json.dumps(_metadata(row, sources, options.metadata_guidance or {}))
            except PromptError as error:
                raise PromptError(f"{options.prompts}: {error}") from error
        try:
            drawing = _drawing(row, pipeline)
        except ConditionError as error:
            failed[f"{name} (row {row['row']})"] = str(error)
            continue
        if drawing is not None:
            if not isinstance(pipeline.transformer, ControlledTransformer):
                raise ValueError(
                    f"row {row['row']} ({name}) has a mask or boxes: load weights with a control adapter, such as "
                    f"--weights {WITH_ADAPTER}"
                )
            sha256 = hashlib.sha256(drawing.tobytes()).hexdigest()
            condition = dict(condition=f"{name}_condition.png", condition_sha256=sha256, control=options.control_scale)
            condition |= steering
        jobs += [
            dict(
                file=f"{name}_{k}{SUFFIXES[options.format]}",
                prompt=row["prompt"],
                seed=image_seed(name, k, options.seed),
                **settings,
                **asked,
                **condition,
                row=row,
                image=k,
            )
            for k in range(options.images_per_prompt)
        ]
    return jobs, failed


def _settings(options: argparse.Namespace, pipeline: ChexGenPipeline) -> dict:
    """What the manifest states equally for all images."""
    return dict(
        sampler=type(pipeline.scheduler).__name__,
        steps=options.steps,
        guidance=options.guidance,
        sampler_settings=json.dumps(own_settings(pipeline.scheduler.config), sort_keys=True, default=str),
        **sha256_of(options.weights),
        **{f"{name}_sha256": _digest_of_part(part) for name, part in _frozen(options).items()},
        **({"compat": options.compat} if options.compat else {}),
        chexgen_lib=chexgen_lib.__version__,
        **({"weights": "int8", "batch_size": options.batch_size} if options.int8 else {}),
        **({"compiled": True} if options.compile else {}),
        **({"guidance_interval": json.dumps(options.guidance_interval)} if options.guidance_interval else {}),
        **({"metadata_guidance": json.dumps(options.metadata_guidance)} if options.metadata_guidance else {}),
    )


def sha256_of(weights: str | Path) -> dict[str, str]:
    """What a recipe says of the weights that an image was made by."""
    if str(weights) not in PACKAGED:
        return {"weights_sha256": weights_sha256(weights)}
    return shipped_sha256(DISTILLED if str(weights) == DISTILLED else SHIPPED)  # the adapter is named where it steers


def _metadata(row: dict, sources: Sequence[str], weights: Mapping[str, float]) -> dict:
    """What a row of the prompt file requests from a metadata encoder; PromptError if that is invalid.

    weights: of the attributes that have a guidance weight of their own; every row must give these attributes.
    """
    given = json.loads(row["metadata"])
    if "race" in given:
        raise PromptError(f"row {row['row']} ({row['name']}): these weights cannot be asked for race: leave it out")
    asked = {key: value[0] if key == "sex" else value for key, value in given.items()}  # Male is M
    try:
        encode_metadata([asked], sources)
    except MetadataError as error:
        reason = str(error).removeprefix("metadata of row 0: ")
        raise PromptError(f"row {row['row']} ({row['name']}): {reason}") from error
    if unsaid := [name for name in weights if name not in asked]:
        raise PromptError(f"row {row['row']} ({row['name']}) says no {unsaid[0]}, which --metadata-guidance weighs")
    return asked


def _about(job: dict) -> dict:
    """What the manifest and the recipe in the file state about an image."""
    return {key: value for key, value in job.items() if key not in ("row", "image")}


def finished(folder: Path, job: dict) -> bool:
    """Whether the job's image exists, is complete and was sampled with the same settings."""
    return read_recipe(folder / job["file"]) == json.loads(json.dumps(_about(job)))


def _frozen(options: argparse.Namespace) -> dict[str, str]:
    """The parts that the weights are completed with: those given, and the shipped autoencoder for a model alone."""
    given = {name: getattr(options, name) for name in PARTS if getattr(options, name)}
    alone = options.weights.is_dir() and not is_whole(options.weights)
    return ({"autoencoder": SHIPPED} if alone else {}) | given


def _digest_of_part(name: str) -> str:
    """A frozen part by its files; a text encoder of the package, or a part of the hub, by its name."""
    if name == SHIPPED:
        return shipped_sha256()["autoencoder_sha256"]
    return weights_sha256(Path(name)) if Path(name).exists() else name
