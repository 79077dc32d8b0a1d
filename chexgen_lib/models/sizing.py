"""What a training run takes, before it is begun: parameters, tokens, FLOPs, memory, disk, GPU-hours and cost.

>>> run = PAPERS["ChexGen stage I"]
>>> run.steps, run.tokens_per_image
(124897, 256)

FLOPs count a multiplication and an addition as two. Sizes are in bytes, times in hours, money in the price's currency.
"""

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import torch

from chexgen_lib.models.transformer import SIZES, ChexGenTransformer, Size

PEAK_FLOPS = {"A100": 312e12, "H100": 989e12}  # bf16 a second, dense; NVIDIA's data sheets of the SXM modules
STATE_BYTES = 4 * 5  # a parameter: float32 weight, gradient, AdamW's two moments, average (EMA)
# Bytes that a block keeps for its backward pass, for each token and channel: in bf16, with a fused attention. Counted
# on the model in tests/models/test_sizing.py.
ACTIVATION_BYTES = 55
CHECKPOINT_BYTES = 4  # and with activation checkpointing: the block's input alone, in float32


@dataclass(frozen=True)
class Run:
    """A training run of a `ChexGenTransformer` on latents that are 8 times smaller than the image.

    Attributes:
        size: a name in `SIZES`, or a `Size` that has none.
        resolution: of the images, in px a side, a multiple of 16.
        images: pairs in the data set.
        epochs: how often each is seen.
        batch_size: images of an optimiser step, of all GPUs.
        text_tokens, text_dim: length (at most) and width of the text states.

    Raises:
        ValueError: if the size is unknown or a number is out of range.
    """

    size: str | Size
    resolution: int
    images: int
    epochs: float
    batch_size: int
    text_tokens: int = 120
    text_dim: int = 4096

    def __post_init__(self):
        if isinstance(self.size, str) and self.size not in SIZES:
            raise ValueError(f"unknown model size {self.size!r}; choose one of {', '.join(SIZES)}")
        if self.resolution < 16 or self.resolution % 16:
            raise ValueError(f"resolution must be a multiple of 16 px, not {self.resolution}")
        for name in ("images", "epochs", "batch_size", "text_tokens", "text_dim"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")

    def of_tokens(self, tokens: float) -> "Run":
        """The same run for as many epochs as make up that number of image tokens."""
        return replace(self, epochs=tokens / (self.images * self.tokens_per_image))

    @property
    def shape(self) -> Size:
        """Depth and width of the transformer."""
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    @cached_property
    def parameters(self) -> int:
        """Parameters of the transformer, counted on the meta device."""
        with torch.device("meta"):
            model = ChexGenTransformer(
                **asdict(self.shape),
                sample_size=self.resolution // 8,
                text_dim=self.text_dim,
                text_tokens=self.text_tokens,
            )
        return sum(parameter.numel() for parameter in model.parameters())

    @property
    def tokens_per_image(self) -> int:
        """Image tokens: patches of 2 x 2 latent pixels, so of 16 x 16 pixels."""
        return (self.resolution // 16) ** 2

    @property
    def samples(self) -> float:
        """Images seen, all epochs."""
        return self.images * self.epochs

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def tokens(self) -> float:
        """Image tokens seen."""
        return self.samples * self.tokens_per_image

    @property
    def block_flops(self) -> int:
        """FLOPs of all blocks for one image, with the keys and values of its text given: matrix products alone."""
        tokens, text, width = self.tokens_per_image, self.text_tokens, self.shape.hidden_size
        attention = 4 * width**2 + 2 * tokens * width  # q, k, v and output; products with keys and values
        cross_attention = 2 * width**2 + 2 * text * width  # q and output; the products
        return 2 * self.shape.depth * tokens * (attention + cross_attention + 8 * width**2)  # last: the MLP

    @property
    def forward_flops(self) -> int:
        """FLOPs of one image's forward pass with a text of full length."""
        size, width = self.shape, self.shape.hidden_size
        text = self.text_tokens * (self.text_dim * width + width**2 + size.depth * 2 * width**2)  # with keys, values
        time = 256 * width + width**2 + 6 * width**2
        ends = self.tokens_per_image * width * 4 * (4 + size.out_channels)  # patches of 4 latent pixels, 4 channels
        return self.block_flops + 2 * (text + time + ends)

    def training_flops(self, checkpointing: bool = False) -> float:
        """FLOPs of the whole run: a backward pass is two forward ones; checkpointing computes the blocks again."""
        return (3 * self.forward_flops + checkpointing * self.block_flops) * self.samples

    def memory(self, batch_size: int, checkpointing: bool = False, sharded_over: int = 1) -> int:
        """Bytes on a GPU: weights, gradients, optimiser and average, and the activations of its `batch_size` images.

        sharded_over: GPUs that share all but the activations (FSDP); 1 for DDP. What the framework adds, and the
        autoencoder and text encoder, which the caches replace, are not counted.
        """
        size, each = self.shape, CHECKPOINT_BYTES if checkpointing else ACTIVATION_BYTES
        blocks = size.depth + (ACTIVATION_BYTES / each if checkpointing else 0)  # one is computed again at a time
        activations = batch_size * self.tokens_per_image * size.hidden_size * blocks * each
        return math.ceil(self.parameters * STATE_BYTES / sharded_over + activations)

    @property
    def latent_cache(self) -> int:
        """Bytes of the cached latents: mean and deviation of four channels in float16 (`LatentCache`)."""
        return self.images * 2 * 4 * (self.resolution // 8) ** 2 * 2

    def text_cache(self, mean_tokens: float | None = None) -> float:
        """Bytes of the cached text states in float16; texts of `mean_tokens` tokens, or of full length."""
        return self.images * (mean_tokens or self.text_tokens) * self.text_dim * 2

    def gpu_hours(self, utilisation: float, gpu: str = "A100", checkpointing: bool = False) -> float:
        """Hours on one GPU, of all GPUs together, at a `utilisation` 0..1 of its peak: measure that.

        Recomputed activations count as work that the GPU does, not as work that is useful.
        """
        if gpu not in PEAK_FLOPS:
            raise ValueError(f"unknown GPU {gpu!r}; choose one of {', '.join(PEAK_FLOPS)}")
        if not 0 < utilisation <= 1:
            raise ValueError(f"utilisation must be above 0 and at most 1, not {utilisation!r}")
        return self.training_flops(checkpointing) / (PEAK_FLOPS[gpu] * utilisation) / 3600

    def cost(self, price: float, utilisation: float, gpu: str = "A100", checkpointing: bool = False) -> float:
        """Cost at a `price` for an hour of one GPU."""
        if not price >= 0:
            raise ValueError(f"price must be at least 0, not {price!r}")
        return price * self.gpu_hours(utilisation, gpu, checkpointing)


# As the papers state them. ChexGen: Methods (ChexGen Model Training) and ED Table 4, on 32 A100. The rectified flow's
# summary gives 1.3 B parameters, 1.2 M images and 1.6 T tokens, but neither resolution nor batch: those are ours here.
PAPERS = {
    "ChexGen stage I": Run("xl2", 256, 959_206, 800, 32 * 192),
    "ChexGen stage II": Run("xl2", 512, 45_000, 300, 32 * 64),
    "rectified flow": Run("rf-1b", 512, 1_200_000, 1, 32 * 64).of_tokens(1.6e12),
}
