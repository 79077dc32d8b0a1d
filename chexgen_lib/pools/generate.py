"""Pools of synthetic images: several samples of each request, made once and resumable."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from chexgen_lib import code_digest
from chexgen_lib.images import to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import digest, own_settings, remove, replacing, seed_of

ABOUT = ("record", "prompt", "kind", "condition", "condition_hash")  # columns of requests that the manifest repeats


@dataclass(frozen=True)
class Sampling:
    """How requests are sampled.

    Attributes:
        copies: images of each request.
        num_inference_steps, guidance_scale, metadata_guidance, guidance_interval: as the pipeline takes them.
        batch_size: images at a time; it changes images by rounding alone.
        seed: with the request's image_id and the number of the copy, it determines the noise.
    """

    copies: int = 4
    num_inference_steps: int = 100
    guidance_scale: float = 4.0
    batch_size: int = 64
    seed: int = 0
    metadata_guidance: Mapping[str, float] | None = None
    guidance_interval: Sequence[float] = (0.0, 1.0)


def fitting(sampling: Sampling, pipeline: ChexGenPipeline) -> Sampling:
    """`sampling` as a generator can take it: a distilled one takes its own steps, and no guidance."""
    steps = getattr(pipeline, "distilled_steps", None)  # other generators are none
    return replace(sampling, num_inference_steps=steps, guidance_scale=1.0) if steps else sampling


def sample_pool(
    pipeline: ChexGenPipeline,
    requests: pl.DataFrame,
    folder: str | Path,
    sampling: Sampling,
    conditions: np.ndarray | None = None,
    metadata: Sequence[Mapping] | None = None,
) -> np.ndarray:
    """Sample `sampling.copies` radiographs of each request into a folder (`kept.kept`).

    The folder holds `samples.npy` (uint8 [P, copies, H, W], in the order of the requests) and `manifest.parquet`
    (image_id, seeds and those of `ABOUT` that the requests have). The noise of an image depends on its image_id and the
    seed alone, not on its batch. An interrupted call resumes after the last complete batch.

    Args:
        requests: image_id (distinct), prompt (which `metadata` can stand in for) and, where image_id is not the
            cohort's, `record`, the cohort's image_id. With conditions, `condition` may name a PNG below the folder for
            each, for other generators to sample from.
        sampling: a distilled generator takes of it what it can (`fitting`).
        conditions: uint8 [P, H, W, 3], the condition image of each request (`conditions.draw`).
        metadata: of each request, as the pipeline takes it.

    Returns:
        The samples.

    Raises:
        ValueError: if there are no requests, an image_id is repeated, or something is not given for each.
    """
    if requests.is_empty() or not requests["image_id"].is_unique().all():
        raise ValueError(f"needs requests with distinct image_id to sample, got {len(requests)} rows")
    for name, given in (("conditions", conditions), ("metadata", metadata)):
        if given is not None and len(given) != len(requests):
            raise ValueError(f"{len(given)} {name} for {len(requests)} requests: give one each")
    if metadata is None and "prompt" not in requests.columns:
        raise ValueError("the requests have no column prompt, and no metadata is given: nothing says what to sample")
    folder = kept(
        _sample_batches,
        folder,
        {"pipeline": pipeline},
        generator=fingerprint(pipeline),
        requests=requests.select("image_id", *(name for name in requests.columns if name in ABOUT)).rechunk(),
        sampling=fitting(sampling, pipeline),
        conditions=conditions,
        metadata=None if metadata is None else [dict(row) for row in metadata],
    )
    return np.load(folder / "samples.npy", allow_pickle=False)


def _sample_batches(
    folder: Path,
    pipeline: ChexGenPipeline,
    generator: str,
    requests: pl.DataFrame,
    sampling: Sampling,
    conditions: np.ndarray | None,
    metadata: list[dict] | None,
) -> None:
    """Fill the folder of `sample_pool` batch by batch; generator: the pipeline's fingerprint, for the key alone."""
    texts = requests["prompt"].to_list() if "prompt" in requests.columns else None
    of = np.repeat(np.arange(len(requests)), sampling.copies)  # the request of each image
    seeds = [image_seed(i, k, sampling.seed) for i in requests["image_id"] for k in range(sampling.copies)]
    batches = _batches([0] * len(of) if texts is None else [len(texts[i]) for i in of], sampling.batch_size)
    parts = folder / "batches"
    parts.mkdir(exist_ok=True)
    pipeline.set_progress_bar_config(disable=True)
    for number, batch in enumerate(tqdm(batches, desc="samples", unit="batch")):
        path = parts / f"{number:06d}.npy"
        if not path.exists():
            images = pipeline(
                None if texts is None else [texts[of[i]] for i in batch],
                metadata=None if metadata is None else [metadata[of[i]] for i in batch],
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                metadata_guidance=sampling.metadata_guidance,
                guidance_interval=sampling.guidance_interval,
                generator=[torch.Generator().manual_seed(seeds[i]) for i in batch],
                condition_image=None if conditions is None else [conditions[of[i]] for i in batch],
                output_type="np",
            ).images[..., 0]
            with replacing(path) as partial:
                np.save(partial, to_uint8(images))
    flat = np.concatenate([np.load(parts / f"{n:06d}.npy", allow_pickle=False) for n in range(len(batches))])
    flat = flat[np.argsort(np.concatenate(batches))]
    np.save(folder / "samples.npy", flat.reshape(len(requests), sampling.copies, *flat.shape[1:]))
    seeds_of = pl.Series("seeds", np.array(seeds).reshape(len(requests), -1).tolist())
    requests.with_columns(seeds_of).write_parquet(folder / "manifest.parquet")
    _write_conditions(folder, requests, conditions)
    remove(parts)


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Images with prompts of like length share a batch: padding to its longest then costs little."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _write_conditions(folder: Path, requests: pl.DataFrame, conditions: np.ndarray | None) -> None:
    if conditions is not None and "condition" in requests.columns:
        for name, image in zip(requests["condition"], conditions, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name)


def image_seed(image_id: str, k: int, seed: int) -> int:
    """Seed of the k-th image of a request: 48 bits of a hash, the same on every machine."""
    return seed_of(f"{seed}:{image_id}:{k}", 6)


def fingerprint(pipeline: ChexGenPipeline) -> str:
    """Digest of what determines the samples of a request: models, tokenizers, scheduler, settings and their code."""
    models = [model for model in (pipeline.transformer, pipeline.vae, pipeline.text_encoder) if model is not None]
    tokenizers = [part for part in pipeline.components.values() if isinstance(part, PreTrainedTokenizerBase)]
    of = getattr(pipeline, "pipeline", pipeline)  # what a `GreyPipeline` calls
    named = [
        (type(part).__name__, json.dumps(own_settings(part.config), sort_keys=True, default=str))
        for part in (of, pipeline.scheduler)
    ]
    code = _code_of([pipeline, pipeline.scheduler, *(part for model in models for part in model.modules())])
    return digest([*models, *map(_rules, tokenizers), named, code])


def _rules(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer makes of any text, whatever it was last called for, as text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {"vocabulary": tokenizer.get_vocab()} if backend is None else json.loads(backend.to_str())
    own = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
    return json.dumps([type(tokenizer).__name__, own], sort_keys=True)


def _code_of(parts: Iterable[Any]) -> list[str]:
    """Digests of the library's modules that define parts: `sample_pool`, whose own code counts, imports only some."""
    own = {kind for kind in map(type, parts) if kind.__module__.partition(".")[0] == code_digest.PACKAGE}
    return [code_digest.of(file) for file in sorted(set(map(inspect.getfile, own)))]
