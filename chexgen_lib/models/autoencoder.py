"""Loading autoencoders, and images to latents and back.

The autoencoder is diffusers' `AutoencoderKL`: 8x smaller latents of 4 channels, frozen (paper, Methods). `gpu` and
`paper` load Stable Diffusion's; the laptop profile loads the small one shipped in `weights/autoencoder`, which
`notebooks/02_autoencoder.ipynb` trained on the embedded cohort.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils.torch_utils import randn_tensor
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from chexgen_lib.images import from_model, from_uint8, to_model
from chexgen_lib.models.loading import WeightsError, WholeModel, fastest_device, from_pretrained, running_device
from chexgen_lib.storage import digest

SHIPPED = Path(__file__).parent / "weights" / "autoencoder"
BATCH = 8  # images at a time: what the layers of more pass on no longer fits a processor's caches


Generators = torch.Generator | list[torch.Generator]  # one for all images, or one for each


class Grain(nn.Module):
    """The noise of the acquisition, which no latent holds and a decoder alone would leave out as the mean of all.

    How strong it is at a place, and how coarse, follows from the image there, as on film and detector. It adds nothing
    until it is trained (`training.autoencoder`).

    channels: of the image.
    noise: independent fields that are mixed.
    """

    def __init__(self, channels: int, noise: int = 8, width: int = 16):
        super().__init__()
        self.noise = noise
        self.strength = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, noise, 3, padding=1), nn.Softplus()
        )
        self.texture = nn.Conv2d(noise, channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.texture.weight)

    def forward(self, image: Tensor, generator: Generators) -> Tensor:
        """What is added to an image [N, C, H, W]."""
        n, _, height, width = image.shape
        shape = n, self.noise, height, width
        noise = randn_tensor(shape, generator=generator, device=image.device, dtype=torch.float32).to(image.dtype)
        return self.texture(self.strength(image) * noise)


class CompactAutoencoderKL(WholeModel, AutoencoderKL, ModelMixin):
    """An `AutoencoderKL` of one grey channel whose inner network sees 2 x 2 pixels as four channels.

    That saves the layers at full resolution, most of the work on a CPU; with three levels inside, latents are 8x
    smaller than the image, as Stable Diffusion's are. Latents are [N, 4, H / 8, W / 8] for images [N, 1, H, W].
    (`ModelMixin` is named although inherited: diffusers looks it up in this module when it loads a pipeline.)

    With a generator `decode` adds the noise of an acquisition (`Grain`); without one, the image is what the latents
    hold, the same at every call.
    """

    remedy = "; train it again (notebooks/02_autoencoder.ipynb)"

    @functools.wraps(AutoencoderKL.__init__)  # the configuration is the signature's
    def __init__(self, *arguments, **configuration):
        super().__init__(*arguments, **configuration)
        self.grain = Grain(self.config.out_channels)

    def encode(self, x: Tensor, return_dict: bool = True):
        return super().encode(F.pixel_unshuffle(x, 2), return_dict)  # [N, 1, H, W] -> [N, 4, H / 2, W / 2]

    def decode(self, z: Tensor, return_dict: bool = True, generator: Generators | None = None):
        image = F.pixel_shuffle(super().decode(z, return_dict=False)[0], 2)  # [N, 1, H, W]
        image = image if generator is None else self.with_grain(image, generator)
        return DecoderOutput(sample=image) if return_dict else (image,)

    def with_grain(self, image: Tensor, generator: Generators) -> Tensor:
        """Images [N, 1, H, W] with the noise of an acquisition."""
        return image + F.pixel_shuffle(self.grain(F.pixel_unshuffle(image, 2), generator), 2)


KINDS = {kind.__name__: kind for kind in (AutoencoderKL, CompactAutoencoderKL)}


def new_autoencoder(channels: Sequence[int] = (32, 64, 96)) -> CompactAutoencoderKL:
    """An untrained autoencoder; `channels` of its three inner levels, multiples of 8."""
    return CompactAutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def load_autoencoder(name: str = "shipped", device: torch.device | None = None) -> AutoencoderKL:
    """The autoencoder `name`, in float32 on `device` (by default the GPU where there is one).

    Args:
        name: "shipped", a folder in diffusers' layout or a hub id ("stabilityai/sd-vae-ft-ema"); also of a whole
            pipeline, which has it in the subfolder `vae` ("stable-diffusion-v1-5/stable-diffusion-v1-5").

    Raises:
        ValueError: if none can be loaded from there.
        WeightsError: if it is damaged or of another version.
    """
    source = SHIPPED if name == "shipped" else name
    try:
        try:
            config, subfolder = AutoencoderKL.load_config(source), None
        except OSError:
            config, subfolder = AutoencoderKL.load_config(source, subfolder="vae"), "vae"
        kind = config.get("_class_name") if isinstance(config, dict) else None
        if kind not in KINDS:
            found = f"a {kind}" if kind else "a configuration without a class"
            raise WeightsError(f"{source} holds no autoencoder but {found}: give 'shipped' or one that diffusers saved")
        model = from_pretrained(KINDS[kind], source, torch.float32, subfolder)
    except OSError as error:
        raise ValueError(
            f"no autoencoder at {name!r}: give 'shipped', a folder that diffusers saved, or a reachable hub id"
        ) from error
    model.to(device or fastest_device(), memory_format=torch.channels_last)  # on a CPU 1.5 times as fast
    return model.eval().requires_grad_(False)


def latents_sha256(folder: Path = SHIPPED) -> str:
    """What identifies the latents of the autoencoder in `folder`: its encoder and scaling factor, in one sha256.

    Autoencoders that differ in the decoder alone have the same, and a model that samples latents serves them all.
    """
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    encoder = {name: tensor for name, tensor in tensors.items() if name.startswith(("encoder.", "quant_conv."))}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return digest([encoder, config["scaling_factor"]])


def downsampling(autoencoder: AutoencoderKL) -> int:
    """Image pixels per side of a latent pixel: 8 for Stable Diffusion's and the shipped autoencoder."""
    halvings = len(autoencoder.config.block_out_channels) - 1
    return 2 ** (halvings + isinstance(autoencoder, CompactAutoencoderKL))


def image_channels(autoencoder: AutoencoderKL) -> int:
    """Channels of the images that an autoencoder takes and returns: 1 grey, or 3."""
    return 1 if isinstance(autoencoder, CompactAutoencoderKL) else autoencoder.config.in_channels


@torch.inference_mode()
def encode(autoencoder: AutoencoderKL, images: np.ndarray, batch_size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of images [N, H, W] (uint8, or in 0..1), in the model's scale.

    Returns:
        two float32 tensors [N, 4, H / 8, W / 8]; a latent is `mean + std * noise`.
    """
    means, stds = [], []
    channels, scale = image_channels(autoencoder), autoencoder.config.scaling_factor
    for start in tqdm(range(0, len(images), batch_size), desc="latents", leave=False):
        batch = images[start : start + batch_size]
        batch = to_model(from_uint8(batch) if batch.dtype == np.uint8 else batch)[:, :channels]
        posterior = autoencoder.encode(batch.to(running_device(autoencoder), autoencoder.dtype)).latent_dist
        means.append(posterior.mean.float().cpu() * scale)
        stds.append(posterior.std.float().cpu() * scale)
    return torch.cat(means), torch.cat(stds)


@torch.inference_mode()
def encode_conditions(autoencoder: AutoencoderKL, images: np.ndarray, batch_size: int = BATCH) -> Tensor:
    """Latents [N, 4, H / 8, W / 8], in the model's scale, of condition images uint8 [N, H, W, 3] (their mode)."""
    latents = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size])
        pixels = batch.permute(0, 3, 1, 2).float() / 127.5 - 1  # [B, 3, H, W] in -1..1
        if image_channels(autoencoder) == 1:
            pixels = pixels.mean(dim=1, keepdim=True)
        posterior = autoencoder.encode(pixels.to(running_device(autoencoder), autoencoder.dtype)).latent_dist
        latents.append(posterior.mode().float() * autoencoder.config.scaling_factor)
    return torch.cat(latents)


@torch.inference_mode()
def decode(
    autoencoder: AutoencoderKL, latents: Tensor, generator: Generators | None = None, batch_size: int = BATCH
) -> np.ndarray:
    """Images float32 [N, H, W] in 0..1 of latents [N, 4, h, w]; colour channels are averaged, values clipped.

    generator: of the acquisition's noise, where an autoencoder adds some; one for all images, or one for each.
    """
    scale, images = autoencoder.config.scaling_factor, []
    for first, batch in enumerate(latents.to(running_device(autoencoder), autoencoder.dtype).split(batch_size)):
        of = slice(first * batch_size, (first + 1) * batch_size)
        own = generator[of] if isinstance(generator, list) else generator
        images.append(from_model(autoencoder.decode(batch / scale, generator=own).sample))
    return np.concatenate(images)
