"""What the pipeline returns."""

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from chexgen_lib.images import to_uint8


@dataclass
class ChexGenPipelineOutput(BaseOutput):
    """`images`: PIL images, an array [N, H, W, 1] or tensor [N, 1, H, W] in 0..1, or latents [N, 4, h, w]."""

    images: list[PIL.Image.Image] | np.ndarray | Tensor


def as_output(images: np.ndarray, output_type: str) -> list[PIL.Image.Image] | np.ndarray | Tensor:
    """Images [N, H, W] in 0..1 as "pil" (grey), "np" [N, H, W, 1] or "pt" [N, 1, H, W]."""
    if output_type == "np":
        return images[..., None]
    return torch.from_numpy(images)[:, None] if output_type == "pt" else to_pil(images)


def to_pil(images: np.ndarray) -> list[PIL.Image.Image]:
    """Grey PIL images of an array [N, H, W] in 0..1."""
    return [PIL.Image.fromarray(image) for image in to_uint8(images)]
