"""Stage I at the size of a foundation: many rendered radiographs, trained on once, shipped with the package.

As in the paper, the generator has seen far more images than any task that uses it. The laptop profile has only minutes;
`notebooks/03_foundation.ipynb` (`make foundation`) takes hours, and the DAG reads its weights.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import AutoencoderKL

from chexgen_lib.images import to_uint8
from chexgen_lib.kept import Arrays, run_all
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.phantom.render import render
from chexgen_lib.training.latent_cache import LatentCache

SHARD = 512  # images that are rendered and encoded at a time


def render_pairs(
    records: pl.DataFrame, autoencoder: AutoencoderKL, text_encoder: str, resolution: int
) -> dict[str, np.ndarray]:
    """Render records and encode images and prompts: the arrays of a `LatentCache`, without its deviations.

    The shipped autoencoder's deviation is a hundredth of a latent's; a foundation sees each image a few times only.
    """
    images = np.stack([to_uint8(render(record, resolution).image) for record in records.iter_rows(named=True)])
    pairs = LatentCache.of(images, records["prompt"].to_list(), autoencoder, load_text_encoder(text_encoder))
    return {name: getattr(pairs, name).numpy() for name in ("mean", "states", "offsets")}


def build_pairs(
    folder: Path,
    records: pl.DataFrame,
    autoencoder: AutoencoderKL,
    text_encoder: str,
    resolution: int,
    workers: int = 2,
) -> None:
    """Make `train.safetensors` and `val.safetensors`, latent caches of the records of each split, in their order.

    It works shard by shard, each kept when it is finished: called again after an interruption, it goes on.

    Args:
        records: as `cohort.select.select` returns them.
        text_encoder: a name, as `load_text_encoder` takes it.
        workers: processes of one thread each.
    """
    shared = dict(autoencoder=autoencoder, text_encoder=text_encoder, resolution=resolution)
    for split in ("train", "val"):
        parts = records.filter(pl.col("split") == split).iter_slices(SHARD)
        jobs = {f"{i:05d}": {"records": part, **shared} for i, part in enumerate(parts)}
        shards = run_all(render_pairs, {}, jobs, folder / f"shards_{split}", workers)
        joined(list(shards.values())).save(folder / f"{split}.safetensors")


def joined(shards: Sequence[Arrays]) -> LatentCache:
    """One cache of the pairs of several shards, in their order."""
    mean, states = (torch.from_numpy(np.concatenate([shard[n] for shard in shards])) for n in ("mean", "states"))
    lengths = np.concatenate([[0], *(np.diff(shard["offsets"]) for shard in shards)])
    offsets = torch.from_numpy(lengths.cumsum())
    return LatentCache(mean, torch.zeros(1).half().expand(mean.shape), states, offsets)
