"""One run: a transformer trained on some of the pairs, and what it samples for the held-out prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from chexgen_lib.diffusion.schedulers import dpm_solver_scheduler
from chexgen_lib.experiments.scaling.models import Model
from chexgen_lib.images import to_uint8
from chexgen_lib.kept import Arrays
from chexgen_lib.models.transformer import ChexGenTransformer, Size
from chexgen_lib.sampling.pipeline import assemble
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import noise_error, train


@dataclass(frozen=True)
class FewSamples:
    """How the held-out prompts are sampled, by DPM-Solver++.

    Attributes:
        images_per_prompt: S.
        batch_size: prompts at once.
        autoencoder: as `load_autoencoder` takes it.
    """

    images_per_prompt: int
    num_inference_steps: int
    guidance_scale: float
    batch_size: int
    autoencoder: str


def jobs(
    about: pl.DataFrame,
    rows: list[np.ndarray],
    models: Mapping[str, Model],
    training: Mapping,
    sampling: FewSamples,
    text_tokens: int,
    seed: int,
) -> dict[str, dict]:
    """The runs of `models.plan` by name, as `train_and_sample` takes them; training: fields of `TrainingConfig`."""
    return {
        r["run"]: {
            "rows": own,
            "size": models[r["model"]].size,
            "text_tokens": text_tokens,
            "training": TrainingConfig(**{**training, "steps": r["steps"], "seed": 1000 * seed + r["seed"]}),
            "sampling": sampling,
        }
        for r, own in zip(about.iter_rows(named=True), rows, strict=True)
    }


def train_and_sample(
    pairs: Path,
    held_out: Path,
    *,
    rows: np.ndarray,
    size: Size,
    text_tokens: int,
    training: TrainingConfig,
    sampling: FewSamples,
    folder: Path,
) -> Arrays:
    """Train one model and sample from it; its seed is the training's. Runs of one seed sample from the same noise.

    Args:
        pairs, held_out: folders of stage I's latent caches.
        rows: of `pairs`, to train on.
        folder: where the training keeps its checkpoints and log.

    Returns:
        samples: uint8 [P, S, H, W] of the held-out prompts; noise_error and seen_error: mean squared error of the
        predicted noise on the held-out pairs and on (at most) as many that it was trained on, over evenly spread times.
    """
    everything, unseen = LatentCache.load(pairs), LatentCache.load(held_out)
    own = everything.take(torch.from_numpy(rows))
    torch.manual_seed(training.seed)
    _, channels, _, side = own.mean.shape
    shape = {"sample_size": side, "text_dim": own.states.shape[1], "text_tokens": text_tokens}
    model = ChexGenTransformer(**size.config(channels), **shape)
    train(model, own, training, folder, keep_last=True)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), len(unseen))).round().astype(int)  # sorted by source
    seen = own.take(torch.from_numpy(spread))
    errors = {"noise_error": noise_error(model, unseen), "seen_error": noise_error(model, seen)}
    samples = sample(model, unseen, sampling, training.seed)
    return {"samples": samples, **{name: np.array(error) for name, error in errors.items()}}


def sample(model: ChexGenTransformer, prompts: LatentCache, sampling: FewSamples, seed: int) -> np.ndarray:
    """Radiographs for the text states of a cache, uint8 [P, images_per_prompt, H, W]."""
    pipeline = assemble(model, sampling.autoencoder, None)  # the cache holds the text states
    pipeline.scheduler = dpm_solver_scheduler()
    pipeline.set_progress_bar_config(disable=True)
    generator, images = torch.Generator().manual_seed(seed), []
    for rows in torch.arange(len(prompts)).split(sampling.batch_size):
        _, states, mask, _ = prompts.batch(rows, generator)
        batch = pipeline(
            prompt_embeds=states,
            prompt_attention_mask=mask,
            num_images_per_prompt=sampling.images_per_prompt,
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            generator=generator,
            output_type="np",
        ).images[..., 0]
        images.append(to_uint8(batch).reshape(len(rows), sampling.images_per_prompt, *batch.shape[1:]))
    return np.concatenate(images)
