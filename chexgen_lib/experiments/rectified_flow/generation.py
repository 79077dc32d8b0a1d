"""Samples of metadata requests from the trained rectified flow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.sampling.pipeline import ChexGenPipeline


def samples(
    pipeline: ChexGenPipeline, requests: pl.DataFrame, metadata: Sequence[Mapping], sampling: Sampling, folder: Path
) -> np.ndarray:
    """One image of each request, uint8 [R, H, W], as kept in `folder`.

    Args:
        requests: with distinct image_id.
        metadata: of each request.
    """
    return sample_pool(pipeline, requests.select("image_id"), folder, sampling, metadata=metadata)[:, 0]


def sweep_images(
    pipeline: ChexGenPipeline, sweeps: Sequence[tuple[str, Sequence[str], Sequence[Mapping]]], sampling: Sampling
) -> tuple[pl.DataFrame, list[tuple[str, Sequence[str], np.ndarray]]]:
    """Images of `requests.sweeps`, all from the same noise.

    Returns:
        attribute and requested value (`asked`) of each image; and attribute, values and images [K, H, W] of each sweep.
    """
    metadata = [one for _, _, own in sweeps for one in own]
    images = pipeline(
        metadata=metadata,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        metadata_guidance=sampling.metadata_guidance,
        generator=[torch.Generator().manual_seed(sampling.seed) for _ in metadata],
        output_type="np",
    ).images[..., 0]
    parts = np.split(images, np.cumsum([len(words) for _, words, _ in sweeps])[:-1])
    lines = [(name, words, own) for (name, words, _), own in zip(sweeps, parts, strict=True)]
    listed = [(name, word) for name, words, _ in sweeps for word in words]
    return pl.DataFrame(listed, ["attribute", "asked"], orient="row"), lines
