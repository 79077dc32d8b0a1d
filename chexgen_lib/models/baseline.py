"""The baseline generator: a U-Net that reads at most 77 tokens, the kind of model that RoentGen and MINIM are.

It is diffusers' U-Net with the few names that `training.trainer.train` and `ChexGenPipeline` expect of a model, so that
the baseline and ChexGen are trained and sampled by the same code. Its weights are plain diffusers weights.
"""

from collections.abc import Sequence

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chexgen_lib.models.loading import WholeModel
from chexgen_lib.models.text import count_tokens

MAX_TOKENS = 77  # CLIP's, start and end markers included

# Arguments of diffusers' U-Net; its `attention_head_dim` is, despite the name, the number of heads.
_TWO_LEVELS = dict(
    down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2,
    layers_per_block=1,
)
SIZES = {
    "ci": dict(_TWO_LEVELS, block_out_channels=(16, 32), attention_head_dim=2, norm_num_groups=8),
    "laptop": dict(_TWO_LEVELS, block_out_channels=(64, 128), attention_head_dim=4),
    # Stable Diffusion v1, which RoentGen and MINIM fine-tune: with its 64 x 64 latents and 768-wide text
    "paper": dict(block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, attention_head_dim=8),
}


class BaselineUNet(WholeModel, UNet2DConditionModel, ModelMixin):
    """Predicts the noise in a latent from the noisy latent, its time step and at most 77 tokens of text.

    Constructor, configuration and weights are those of diffusers' `UNet2DConditionModel`; `sample_size` is required.
    (`ModelMixin` is named although inherited: diffusers looks it up in this module when it loads a pipeline.)
    """

    objective = "ddpm"  # a name in `models.transformer.OBJECTIVES`
    distilled_steps = None  # it is no distilled model
    metadata_sources = None  # it reads no metadata but the prompt's

    @classmethod
    def of_size(cls, size: str, latent_shape: Sequence[int], text_dim: int) -> "BaselineUNet":
        """A U-Net of a named size (`SIZES`) for latents [channels, side, side] and text of width `text_dim`."""
        if size not in SIZES:
            raise ValueError(f"unknown model size {size!r}; choose one of {', '.join(SIZES)}")
        channels, side, _ = latent_shape
        shape = dict(in_channels=channels, out_channels=channels, sample_size=side)
        return cls(**SIZES[size], **shape, cross_attention_dim=text_dim)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.config.in_channels, self.config.sample_size, self.config.sample_size

    @property
    def null_caption(self) -> Tensor:
        """Text states [77, text_dim] of the empty caption: zeros, which switch the attention to text off.

        Stable Diffusion takes the encoded empty text, a constant too.
        """
        return torch.zeros(MAX_TOKENS, self.config.cross_attention_dim, device=self.device, dtype=self.dtype)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Noise prediction; arguments as of `ChexGenTransformer.forward`, with at most 77 tokens.

        Returns:
            `.sample` [B, 4, H, W].

        Raises:
            ValueError: if the latents do not have the model's size and channels, or the text has more tokens.
        """
        if tuple(hidden_states.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents have shape {tuple(hidden_states.shape)}, not [B, {self.latent_shape}]")
        if encoder_hidden_states.shape[1] > MAX_TOKENS:
            raise ValueError(f"the text has {encoder_hidden_states.shape[1]} tokens, the limit is {MAX_TOKENS}: cut it")
        text = dict(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
        return super().forward(hidden_states, timestep, **text, return_dict=return_dict)

    # What sampling computes once for all steps. Here nothing is: text and time are passed on.

    def encode_text(self, states: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return states, mask

    def encode_time(self, timestep: Tensor) -> Tensor:
        return timestep

    def denoise(self, hidden_states: Tensor, time: Tensor, text: tuple[Tensor, Tensor | None]) -> Tensor:
        """`forward` with the outputs of `encode_time` (of B steps, or one for all) and `encode_text`: [B, 4, H, W]."""
        return self(hidden_states, time, *text).sample


def truncate(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[list[str], int]:
    """Texts cut after 77 tokens (start and end markers included), as CLIP does, and how many were too long."""
    cut = list(texts)
    long = [row for row, n in enumerate(count_tokens(tokenizer, texts)) if n > MAX_TOKENS]
    left, limit = long, MAX_TOKENS
    while left:  # T5's token of a space spans the letter after it, so that a text cut there has one token more
        whole = [texts[row] for row in left]
        kept = tokenizer(whole, truncation=True, max_length=limit, return_offsets_mapping=True)["offset_mapping"]
        for row, spans in zip(left, kept, strict=True):
            cut[row] = texts[row][: max(end for _, end in spans)]
        counts = count_tokens(tokenizer, [cut[row] for row in left])
        left, limit = [row for row, n in zip(left, counts, strict=True) if n > MAX_TOKENS], limit - 1
    return cut, len(long)
