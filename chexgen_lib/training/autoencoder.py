"""Training the small autoencoder of the laptop profile; larger profiles load Stable Diffusion's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from tqdm import tqdm

from chexgen_lib.images import from_uint8, resize, to_model
from chexgen_lib.models.autoencoder import decode, encode, image_channels
from chexgen_lib.storage import replacing


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Settings; `crop` pixels a side of the random crops that one step sees, half of them at half the resolution."""

    steps: int
    batch_size: int = 16
    crop: int = 64
    learning_rate: float = 2e-3
    kl_weight: float = 1e-6
    seed: int = 0


def train_autoencoder(model: AutoencoderKL, images: np.ndarray, recipe: AutoencoderRecipe) -> list[dict]:
    """Train `model` in place on uint8 images [N, H, W] and set its scaling factor to 1 / std of the latents.

    The loss is L1 plus squared error in pixels plus a light KL term (Rombach et al. 2022, without the perceptual and
    adversarial ones, whose networks would have to be downloaded). Returns the history: step and loss.

    Raises:
        ValueError: if there are no images, or they are smaller than a crop.
    """
    if len(images) == 0 or images.shape[1] < recipe.crop:
        raise ValueError(f"images {images.shape} are too few or too small for crops of {recipe.crop} px")
    half = (resize(from_uint8(images), images.shape[1] // 2) * 255).round().astype(np.uint8)
    scales = [images, half if half.shape[1] >= recipe.crop else images]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.05)
    rng, generator = np.random.default_rng(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    model.train().requires_grad_(True).to(memory_format=torch.channels_last)
    history = []
    for step in (progress := tqdm(range(recipe.steps), desc="autoencoder")):
        batch = to_model(_crops(scales[step % 2], recipe, rng))[:, : image_channels(model)].to(model.device)
        posterior = model.encode(batch.to(memory_format=torch.channels_last)).latent_dist
        reconstruction = model.decode(posterior.sample(generator)).sample
        loss = F.l1_loss(reconstruction, batch) + 4 * F.mse_loss(reconstruction, batch)
        loss = loss + recipe.kl_weight * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            history.append(dict(step=step, loss=loss.item()))
            progress.set_postfix(loss=f"{loss.item():.4f}")
    model.eval().requires_grad_(False)
    model.register_to_config(scaling_factor=1.0)
    means, stds = encode(model, from_uint8(images[: min(len(images), 512)]))
    model.register_to_config(scaling_factor=round(1 / (means.var() + stds.square().mean()).sqrt().item(), 5))
    return history


def _crops(images: np.ndarray, recipe: AutoencoderRecipe, rng: np.random.Generator) -> np.ndarray:
    size, room = recipe.crop, images.shape[1] - recipe.crop + 1
    rows = rng.integers(0, len(images), recipe.batch_size)
    corners = rng.integers(0, room, (recipe.batch_size, 2))
    crops = [images[i, y : y + size, x : x + size] for i, (y, x) in zip(rows, corners, strict=True)]
    return from_uint8(np.stack(crops))


def reconstruct(model: AutoencoderKL, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions float32 [N, H, W] of uint8 images and the peak signal-to-noise ratio of each in dB."""
    x = from_uint8(images)
    y = decode(model, encode(model, x)[0])
    return y, -10 * np.log10(((x - y) ** 2).mean(axis=(1, 2)))


def reconstruction_errors(
    model: AutoencoderKL, images: Mapping[int, np.ndarray]
) -> tuple[pl.DataFrame, dict[int, np.ndarray]]:
    """Table with the columns resolution and psnr (dB), one row per image, and the reconstructions of each resolution.

    Args:
        images: resolution in pixels -> uint8 [N, H, W].
    """
    restored, errors = {}, []
    for resolution, originals in images.items():
        restored[resolution], psnr = reconstruct(model, originals)
        errors.append(pl.DataFrame({"resolution": resolution, "psnr": psnr}))
    return pl.concat(errors), restored


def save_half(model: AutoencoderKL, folder: Path, recipe: dict) -> None:
    """Save weights as float16 safetensors (half the size, PSNR unchanged to 0.01 dB), and how they were made."""
    with replacing(folder) as partial:
        model.half().save_pretrained(partial)
        model.float()
        (partial / "recipe.json").write_text(json.dumps(recipe, indent=1))


def count_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
