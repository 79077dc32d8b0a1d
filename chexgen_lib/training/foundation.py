"""Stage I at the size of a foundation: many rendered radiographs, trained on once, shipped with the package.

As in the paper, the generator has seen far more images than any task that uses it. The laptop profile has only minutes;
`notebooks/03_foundation.ipynb` (`make foundation`) takes hours, and the DAG reads its weights.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from chexgen_lib.cohort import layout
from chexgen_lib.kept import Arrays, run_all
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.training.latent_cache import LatentCache

SHARD = 512  # images that are encoded at a time


def encode_pairs(
    images: np.ndarray, prompts: Sequence[str], autoencoder: AutoencoderKL, text_encoder: str
) -> dict[str, np.ndarray]:
    """Encode uint8 images [N, R, R] and their prompts: the arrays of a `LatentCache`, without its deviations.

    The shipped autoencoder's deviation is a hundredth of a latent's; a foundation sees each image a few times only.
    """
    pairs = LatentCache.of(images, prompts, autoencoder, load_text_encoder(text_encoder))
    return {name: getattr(pairs, name).numpy() for name in ("mean", "states", "offsets")}


def build_pairs(
    folder: Path,
    cohort: Path,
    autoencoder: AutoencoderKL,
    text_encoder: str,
    resolution: int,
    workers: int = 2,
) -> None:
    """Make `train.safetensors` and `val.safetensors`, latent caches of the images of each split, in their order.

    It works shard by shard, each kept when it is finished: called again after an interruption, it goes on.

    Args:
        cohort: folder of the images (`cohort.build.build`); another autoencoder needs no other images.
        text_encoder: a name, as `load_text_encoder` takes it.
        workers: processes of one thread each.
    """
    table, shared = layout.load(cohort), dict(autoencoder=autoencoder, text_encoder=text_encoder)
    for split in ("train", "val"):
        jobs = {}
        for i, rows in enumerate(_shards(layout.rows(table, split=split))):
            prompts, images = table[rows]["prompt"].to_list(), layout.load_images(cohort, resolution, rows)
            jobs[f"{i:05d}"] = {"images": images, "prompts": prompts, **shared}
        shards = run_all(encode_pairs, {}, jobs, folder / f"shards_{split}", workers)
        joined(list(shards.values())).save(folder / f"{split}.safetensors")


def joined(shards: Sequence[Arrays]) -> LatentCache:
    """One cache of the pairs of several shards, in their order."""
    mean, states = (torch.from_numpy(np.concatenate([shard[n] for shard in shards])) for n in ("mean", "states"))
    lengths = np.concatenate([[0], *(np.diff(shard["offsets"]) for shard in shards)])
    offsets = torch.from_numpy(lengths.cumsum())
    return LatentCache(mean, torch.zeros(1).half().expand(mean.shape), states, offsets)


def _shards(rows: np.ndarray) -> list[np.ndarray]:
    return np.split(rows, range(SHARD, len(rows), SHARD))
