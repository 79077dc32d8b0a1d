"""Training the small autoencoder of the laptop profile; larger profiles load Stable Diffusion's.

First the whole of it learns to reconstruct. Squared and absolute errors return the mean of what a latent can stand
for, so the decoder is then trained on, against a discriminator that sees its images with the acquisition's noise
(`models.autoencoder.Grain`), which learns beside it; latents stay as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from tqdm import tqdm

from chexgen_lib.images import from_uint8, resize, to_model
from chexgen_lib.models.autoencoder import SHIPPED, CompactAutoencoderKL, decode, encode, image_channels
from chexgen_lib.models.loading import fastest_device, forget_origins
from chexgen_lib.storage import replacing

RECIPE = "recipe.json"
DISCRIMINATOR_START = 100  # steps in which the discriminator learns alone
GRAIN_WEIGHT = 0.1  # of the noise's error, whose gradient reaches the noise alone


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Settings.

    Attributes:
        steps: of encoder and decoder; 0: none.
        sharpening_steps: of the decoder against the discriminator, after these; 0: none.
        crop: pixels a side of the random crops that a step sees.
        kl_weight: of the divergence of the latents from a standard normal distribution.
        adversarial_weight: of the discriminator's gradient, relative to that of the reconstruction error. Untrained
            noise is set off by it alone, after the first `DISCRIMINATOR_START` sharpening steps.
    """

    steps: int
    sharpening_steps: int = 0
    batch_size: int = 16
    crop: int = 64
    learning_rate: float = 2e-3
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.5
    seed: int = 0


def train_autoencoder(model: CompactAutoencoderKL, images: np.ndarray, recipe: AutoencoderRecipe) -> list[dict]:
    """Train `model` in place on uint8 images [N, H, W] and set its scaling factor to 1 / std of the latents.

    It is moved to the GPU where there is one. Without `steps`, a trained one keeps its encoder and its scaling factor,
    and with them its latents: only what follows them is trained.

    The loss is L1 plus squared error in pixels plus a light KL term (Rombach et al. 2022, without the perceptual one,
    whose network would have to be downloaded); every other step sees images of half the resolution.

    Returns the history: step and loss.

    Raises:
        ValueError: if there are no images, or they are smaller than a crop; or for sharpening an autoencoder that adds
            no noise.
    """
    if len(images) == 0 or images.shape[1] < recipe.crop:
        raise ValueError(f"images {images.shape} are too few or too small for crops of {recipe.crop} px")
    if recipe.sharpening_steps and not isinstance(model, CompactAutoencoderKL):
        raise ValueError(f"a {type(model).__name__} has no noise to train: set sharpening_steps=0, or give one of ours")
    model.train().requires_grad_(True).to(fastest_device(), memory_format=torch.channels_last)
    history = _reconstruct(model, images, recipe) if recipe.steps else []
    if recipe.sharpening_steps:
        _sharpen(model, images, recipe)
    model.eval().requires_grad_(False)
    if recipe.steps:
        model.register_to_config(scaling_factor=1.0)
        means, stds = encode(model, from_uint8(images[: min(len(images), 512)]))
        model.register_to_config(scaling_factor=round(1 / (means.var() + stds.square().mean()).sqrt().item(), 5))
    return history


def _reconstruct(model: AutoencoderKL, images: np.ndarray, recipe: AutoencoderRecipe) -> list[dict]:
    """Train encoder and decoder; returns the history."""
    half = (resize(from_uint8(images), images.shape[1] // 2) * 255).round().astype(np.uint8)
    scales = [images, half if half.shape[1] >= recipe.crop else images]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, recipe.steps, pct_start=0.05)
    rng, generator = np.random.default_rng(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    history = []
    for step in (progress := tqdm(range(recipe.steps), desc="autoencoder")):
        batch = _crops(scales[step % 2], recipe, rng, model)
        posterior = model.encode(batch).latent_dist
        reconstruction = model.decode(posterior.sample(generator)).sample
        loss = _error(reconstruction, batch) + recipe.kl_weight * posterior.kl().mean()
        _update(optimizer, loss, parameters)
        schedule.step()
        if step % 20 == 0:
            history.append(dict(step=step, loss=loss.item()))
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return history


def _sharpen(model: CompactAutoencoderKL, images: np.ndarray, recipe: AutoencoderRecipe) -> None:
    """Train decoder and noise against a discriminator of patches (Isola et al. 2017; weights as in Esser et al. 2021).

    The error is that of the image without noise: noise of one's own never reduces it. The rates are constant, since a
    discriminator that stops learning is deceived by a blur; what is kept is an average.
    """
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    judge = Discriminator(image_channels(model)).to(model.device)
    own, its = [p for p in model.parameters() if p.requires_grad], list(judge.parameters())
    rate, betas = recipe.learning_rate / 4, (0.5, 0.9)  # a game needs less inertia
    optimizer, other = (torch.optim.AdamW(p, r, betas, weight_decay=0.01) for p, r in ((own, rate), (its, 2 * rate)))
    average = EMAModel(own, decay=0.995)
    rng, generator = np.random.default_rng([recipe.seed, 1]), torch.Generator().manual_seed(recipe.seed)
    for step in (progress := tqdm(range(recipe.sharpening_steps), desc="sharpening")):
        batch = _crops(images, recipe, rng, model)
        with torch.no_grad():
            latents = model.encode(batch).latent_dist.mean
        reconstruction = model.decode(latents).sample
        grainy = model.with_grain(reconstruction, generator)
        real, fake = judge(batch), judge(grainy.detach())
        _update(other, F.relu(1 - real).mean() + F.relu(1 + fake).mean(), its)
        error = _error(reconstruction, batch)
        if step >= DISCRIMINATOR_START:
            adversarial = -judge(grainy).mean()
            ratio = _gradient(error, model) / _gradient(adversarial, model).clamp(min=1e-4)
            error = error + recipe.adversarial_weight * ratio * adversarial
        grain_error = _grain_error(model, reconstruction.detach(), batch, generator)
        _update(optimizer, error + GRAIN_WEIGHT * grain_error, own)
        average.step(own)
        progress.set_postfix(real=f"{real.mean():.2f}", fake=f"{fake.mean():.2f}")
    average.copy_to(own)


def _grain_error(model: CompactAutoencoderKL, image: Tensor, batch: Tensor, generator: torch.Generator) -> Tensor:
    """How far the noise's energy is from that of what images lack without it, by place and frequency.

    Squared, relative to the frequency's mean, over neighbouring blocks of 8 x 8 pixels (their cosine transform). Two
    draws make it free of bias: of one alone, the spread would count as an error, and less noise would have less. A
    discriminator does not see to it: it leaves the finest detail at two fifths of its energy.
    """
    transform = _cosines().to(batch)

    def energy(noise: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(noise, transform, stride=4).square(), 3, stride=1)  # [N, 63, h, w]

    lacking = energy(batch - image)
    one, other = (energy(model.with_grain(image, generator) - image) for _ in range(2))
    scale = lacking.mean((0, 2, 3), keepdim=True).square()
    return ((lacking - one) * (lacking - other) / scale).mean()


@cache
def _cosines(side: int = 8) -> Tensor:
    """The cosine transform of blocks of `side` pixels but for their mean, as filters [side ** 2 - 1, 1, side, side]."""
    wave = dct(np.eye(side), norm="ortho", axis=0)  # [frequency, place]
    filters = np.einsum("fy,gx->fgyx", wave, wave).reshape(-1, 1, side, side)
    return torch.from_numpy(filters[1:]).float()


class Discriminator(nn.Module):
    """Images [N, C, H, W] in -1..1 to a score [N, 1, h, w] of each patch of 26 pixels a side; high: a radiograph's.

    It sees what is finer than five pixels ten times as strong: its layers keep distances (spectral normalisation), and
    fine detail is a hundredth of an image's range.
    """

    def __init__(self, channels: int, width: int = 32):
        super().__init__()
        sizes = [
            (2 * channels, width, 4, 2),
            (width, 2 * width, 4, 2),
            (2 * width, 2 * width, 3, 1),
            (2 * width, 1, 3, 1),
        ]
        layers: list[nn.Module] = []
        for before, after, size, stride in sizes:
            layers += [spectral_norm(nn.Conv2d(before, after, size, stride, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        smooth = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
        return self.layers(torch.cat([images, 10 * (images - smooth)], dim=1))


def _gradient(loss: Tensor, model: AutoencoderKL) -> Tensor:
    """Norm of a loss's gradient of the decoder's last layer."""
    return torch.autograd.grad(loss, model.decoder.conv_out.weight, retain_graph=True)[0].norm()


def _error(reconstruction: Tensor, batch: Tensor) -> Tensor:
    return F.l1_loss(reconstruction, batch) + 4 * F.mse_loss(reconstruction, batch)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _crops(images: np.ndarray, recipe: AutoencoderRecipe, rng: np.random.Generator, model: AutoencoderKL) -> Tensor:
    """Random crops [B, C, size, size] as the model takes them."""
    size, room = recipe.crop, images.shape[1] - recipe.crop + 1
    rows = rng.integers(0, len(images), recipe.batch_size)
    corners = rng.integers(0, room, (recipe.batch_size, 2))
    crops = [images[i, y : y + size, x : x + size] for i, (y, x) in zip(rows, corners, strict=True)]
    return to_model(from_uint8(np.stack(crops)))[:, : image_channels(model)].to(
        model.device, memory_format=torch.channels_last
    )


def reconstruct(model: AutoencoderKL, images: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructions float32 [N, H, W] of uint8 images and the peak signal-to-noise ratio of each in dB.

    Where the autoencoder adds the noise of an acquisition, the images have it. The ratio is that without: the noise of
    another draw is an error, however right it looks.
    """
    x = from_uint8(images)
    latents, _ = encode(model, x)
    y = decode(model, latents)
    return decode(model, latents, torch.Generator().manual_seed(seed)), -10 * np.log10(((x - y) ** 2).mean(axis=(1, 2)))


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
        forget_origins(partial)
        model.float()
        (partial / RECIPE).write_text(json.dumps(recipe, indent=1))


def read_recipe(name: str) -> dict | None:
    """How an autoencoder that `save_half` wrote was made: "shipped", or a folder; None where that is not known."""
    path = (SHIPPED if name == "shipped" else Path(name)) / RECIPE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
