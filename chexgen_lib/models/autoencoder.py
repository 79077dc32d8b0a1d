"""Loading autoencoders, and images to latents and back.

The autoencoder is diffusers' `AutoencoderKL`: 8x smaller latents of 4 channels, frozen (paper, Methods). `gpu` and
`paper` load Stable Diffusion's; the laptop profile loads the small one shipped in `weights/autoencoder`, which
`notebooks/00_autoencoder.ipynb` trained on the embedded cohort.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm.auto import tqdm

from chexgen_lib.images import from_model, to_model

SHIPPED = Path(__file__).parent / "weights" / "autoencoder"


def load_autoencoder(name: str = "shipped") -> AutoencoderKL:
    """The autoencoder `name`: "shipped", a folder in diffusers' layout, or a hub id such as "stabilityai/sd-vae-ft-ema".

    Raises:
        ValueError: if none can be loaded from there.
    """
    source = SHIPPED if name == "shipped" else name
    try:
        model = AutoencoderKL.from_pretrained(source, torch_dtype=torch.float32)
    except OSError as error:
        raise ValueError(
            f"no autoencoder at {name!r}: give 'shipped', a folder that diffusers saved, or a hub id that can be reached"
        ) from error
    return model.eval().requires_grad_(False)


def new_autoencoder(channels: tuple[int, ...] = (32, 64, 96, 128), layers_per_block: int = 1) -> AutoencoderKL:
    """A small untrained `AutoencoderKL` for single-channel radiographs: 8x, 4 latent channels."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=layers_per_block,
        latent_channels=4,
        norm_num_groups=16,
        mid_block_add_attention=False,
    )


@torch.inference_mode()
def encode(autoencoder: AutoencoderKL, images: np.ndarray, batch_size: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of images [N, H, W] in 0..1, in the model's scale.

    Returns:
        two float32 tensors [N, 4, H / 8, W / 8]; a latent is `mean + std * noise`.
    """
    means, stds = [], []
    channels, scale = autoencoder.config.in_channels, autoencoder.config.scaling_factor
    for start in tqdm(range(0, len(images), batch_size), desc="latents", leave=False):
        batch = to_model(images[start : start + batch_size])[:, :channels].to(autoencoder.device)
        posterior = autoencoder.encode(batch).latent_dist
        means.append((posterior.mean * scale).float().cpu())
        stds.append((posterior.std * scale).float().cpu())
    return torch.cat(means), torch.cat(stds)


@torch.inference_mode()
def decode(autoencoder: AutoencoderKL, latents: Tensor, batch_size: int = 32) -> np.ndarray:
    """Images float32 [N, H, W] in 0..1 of latents [N, 4, h, w]; colour channels are averaged, values cut off."""
    scale = autoencoder.config.scaling_factor
    batches = latents.to(autoencoder.device, autoencoder.dtype).split(batch_size)
    return np.concatenate([from_model(autoencoder.decode(batch / scale).sample) for batch in batches])
