"""The synthetic pools that later stages share: several seeds a prompt, resumable."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.images import to_uint8
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import replacing


def synthesise(
    pipeline: ChexGenPipeline,
    records: pl.DataFrame,
    folder: Path,
    images_per_prompt: int = 4,
    num_inference_steps: int = 100,
    guidance_scale: float = 4.0,
    batch_size: int = 64,
    seed: int = 0,
    conditions: np.ndarray | None = None,
    metadata: Sequence[Mapping] | None = None,
    metadata_guidance: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Sample `images_per_prompt` radiographs for the `prompt` of each record.

    records: with image_id, prompt (which `metadata` can stand in for) and, where image_id is not the cohort's,
    `record`, the cohort's image_id.
    conditions: uint8 [P, H, W, 3], the drawing that controls the images of each record (`conditions.draw`).
    metadata, metadata_guidance: what the images of each record show, and weights of attributes, as the pipeline takes
    them.

    Writes `folder/samples.npy` (uint8 [P, images_per_prompt, H, W], in the records' order) and
    `folder/manifest.parquet` (image_id, record and prompt if given, seeds). The noise of an image depends on its
    image_id and seed alone, not on its batch. A run that was stopped goes on after the last whole batch.

    Raises:
        ValueError: if there are no records, or an image_id is repeated.
    """
    if records.is_empty() or not records["image_id"].is_unique().all():
        raise ValueError(f"needs records with distinct image_id to synthesise from, got {len(records)} rows")
    for name, given in (("conditions", conditions), ("metadata", metadata)):
        if given is not None and len(given) != len(records):
            raise ValueError(f"{len(given)} {name} for {len(records)} records: give one each")
    if metadata is None and "prompt" not in records.columns:
        raise ValueError("the records have no column prompt, and no metadata is given: nothing says what to draw")
    asked = records["prompt"].to_list() if "prompt" in records.columns else [""] * len(records)
    prompts = np.repeat(asked, images_per_prompt).tolist()
    seeds = [image_seed(i, k, seed) for i in records["image_id"] for k in range(images_per_prompt)]
    drawn = None if conditions is None else hashlib.sha256(conditions.tobytes()).hexdigest()
    sampler = [type(pipeline.scheduler).__name__, num_inference_steps, guidance_scale, batch_size]
    settings = [prompts, seeds, *sampler, fingerprint(pipeline), drawn, metadata, metadata_guidance]
    parts = folder / f"unfinished-{hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:12]}"
    for old in folder.glob("unfinished-*"):
        if old != parts:
            shutil.rmtree(old)
    parts.mkdir(parents=True, exist_ok=True)
    pipeline.set_progress_bar_config(disable=True)
    # Prompts of like length share a batch: padding to its longest then costs little.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for number, batch in enumerate(tqdm(batches, desc="samples", unit="batch")):
        path = parts / f"{number:06d}.npy"
        if not path.exists():
            images = pipeline(
                [prompts[i] for i in batch] if "prompt" in records.columns else None,
                metadata=None if metadata is None else [metadata[i // images_per_prompt] for i in batch],
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                metadata_guidance=metadata_guidance,
                generator=[torch.Generator().manual_seed(seeds[i]) for i in batch],
                condition_image=None if conditions is None else [conditions[i // images_per_prompt] for i in batch],
                output_type="np",
            ).images
            with replacing(path) as partial:
                np.save(partial, to_uint8(images))
    flat = np.concatenate([np.load(parts / f"{n:06d}.npy", allow_pickle=False) for n in range(len(batches))])
    samples = flat[np.argsort(order)].reshape(len(records), images_per_prompt, *flat.shape[1:])
    with replacing(folder / "samples.npy") as partial:
        np.save(partial, samples)
    manifest = records.select("image_id", pl.col("^(record|prompt)$")).with_columns(
        seeds=pl.Series(np.array(seeds).reshape(len(records), -1).tolist())
    )
    with replacing(folder / "manifest.parquet") as partial:
        manifest.write_parquet(partial)
    shutil.rmtree(parts)
    return samples


def image_seed(image_id: str, k: int, seed: int) -> int:
    """Seed of the k-th image of a record: 48 bits of a hash, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{image_id}:{k}".encode()).digest()[:6], "little")


def fingerprint(pipeline: ChexGenPipeline) -> str:
    """Hash of the models, trained and frozen, that decide the samples: their modules and weights."""
    digest = hashlib.sha256()
    for model in filter(None, (pipeline.transformer, pipeline.vae, pipeline.text_encoder)):
        digest.update(repr(model).encode())  # int8 weights are not parameters, but their modules have another name
        for parameter in model.parameters():
            digest.update(parameter.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def choose_prompts(cohort: pl.DataFrame, n: int, findings: tuple[str, ...], seed: int = 0) -> pl.DataFrame:
    """`n` test records of stage II, dealt in turn from each finding's positives, so that rare findings are asked for.

    First come those whose prompt states the finding (radiologists leave out what they think unimportant); when they
    are used up, any. The order within a finding is a seeded hash; a record is taken once.
    """
    pool = cohort.filter(pl.col("split") == "test", pl.col("stage2")).unique(
        "prompt", keep="first", maintain_order=True
    )
    keys = [hashlib.sha256(f"{seed}:{i}".encode()).hexdigest() for i in pool["image_id"]]
    pool = pool.with_columns(key=pl.Series(keys, dtype=pl.String)).sort("key")
    stated = [{mention.finding for mention in read(prompt).affirmed} for prompt in pool["prompt"]]
    present = {f: pool.filter(pl.col(f) == 1)["image_id"].to_list() for f in findings}
    states = dict(zip(pool["image_id"], stated, strict=True))
    asked = {f: [i for i in ids if f == "No Finding" or f in states[i]] for f, ids in present.items()}
    chosen: dict[str, None] = {}
    for queues in (list(asked.values()), list(present.values())):
        while len(chosen) < n and any(queues):
            for queue in queues:
                while queue and queue[0] in chosen:
                    queue.pop(0)
                if queue and len(chosen) < n:
                    chosen[queue.pop(0)] = None
    return pool.filter(pl.col("image_id").is_in(list(chosen))).drop("key").sort("image_id")


def choose_training(cohort: pl.DataFrame, n: int, seed: int = 0) -> pl.DataFrame:
    """`n` training records of stage II (all, if there are fewer), a seeded draw; a smaller one is part of a larger."""
    pool = cohort.filter(pl.col("split") == "train", pl.col("stage2"))
    keys = [hashlib.sha256(f"{seed}:pool:{i}".encode()).hexdigest() for i in pool["image_id"]]
    chosen = pool.with_columns(key=pl.Series(keys, dtype=pl.String)).sort("key").head(n)
    return chosen.drop("key").sort("image_id")
