"""The control adapter: masks and boxes steer a frozen text-to-image transformer (paper, Methods; ED Figs 11 to 14).

Copies of the first blocks read the condition, an image that the autoencoder has turned into latents, and add their
outputs to the base model's tokens through projections that start at zero. Names and wiring are the released code's.
Only the projection into the first copy starts at full scale, not at zero as there: the others suffice to leave a fresh
adapter without effect, and a short run learns four times as much from the condition.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from chexgen_lib.models.layers import Block, TextKeys, TimeTables, each_time, position_embedding, project_text
from chexgen_lib.models.loading import WholeModel
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import own_settings


class ControlledTransformer(WholeModel, ModelMixin, ConfigMixin):
    """A frozen `ChexGenTransformer` and the adapter that a condition steers it with.

    Args:
        base_config: configuration of the base model (its constructor's arguments).
        copied_blocks: how many of its first blocks the adapter copies (paper's code: 13 of 28).
    """

    _supports_gradient_checkpointing = True
    _supports_group_offloading = ChexGenTransformer._supports_group_offloading
    _no_split_modules = ChexGenTransformer._no_split_modules
    _repeated_blocks = ChexGenTransformer._repeated_blocks

    @register_to_config
    def __init__(self, base_config: dict, copied_blocks: int = 13):
        super().__init__()
        self.base_model = ChexGenTransformer(**base_config)
        depth, hidden = self.base_model.config.depth, self.base_model.config.hidden_size
        if not 1 <= copied_blocks < depth:
            raise ValueError(f"copied_blocks must be in 1..{depth - 1} for a model of {depth} blocks: {copied_blocks}")
        heads, gelu = self.base_model.config.num_heads, self.base_model.config.gelu
        blocks = (ControlBlock(hidden, heads, gelu, first=i == 0) for i in range(copied_blocks))
        self.controlnet = nn.ModuleList(blocks)
        self.gradient_checkpointing = False
        self.base_model.requires_grad_(False)

    @classmethod
    def on(cls, base: ChexGenTransformer, copied_blocks: int) -> "ControlledTransformer":
        """An adapter that starts as the base model: copied blocks, projections of zero."""
        config = own_settings(base.config)
        model = cls(base_config=config, copied_blocks=copied_blocks)  # diffusers takes what has no name for a default
        model.base_model.load_state_dict(base.state_dict())
        for control, block in zip(model.controlnet, base.blocks, strict=False):
            control.copied_block.load_state_dict(block.state_dict())
        return model.to(base.device)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents, and of the condition's: the base model's."""
        return self.base_model.latent_shape

    @property
    def objective(self) -> str:
        """What the output is: the base model's objective."""
        return self.base_model.objective

    @property
    def flow_shift(self) -> float:
        """The shift of a rectified flow's times in training: the base model's."""
        return self.base_model.flow_shift

    @property
    def distilled_steps(self) -> int | None:
        """The steps that a distilled base model takes, without guidance; None for another."""
        return self.base_model.distilled_steps

    @property
    def metadata_sources(self) -> list[str] | None:
        """The sources that the base model's metadata encoder knows; None without an encoder."""
        return self.base_model.metadata_sources

    @property
    def null_caption(self) -> Tensor:
        """Text states [L, text_dim] of the empty caption: the base model's."""
        return self.base_model.null_caption

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        controlnet_cond: Tensor | None = None,
        control_scale: float = 1.0,
        metadata: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """As the base model's; `controlnet_cond` [B, in_channels, H, W] are the condition's latents.

        Without a condition this is the base model. `control_scale` weighs what the adapter adds.
        """
        text = self.encode_text(encoder_hidden_states, encoder_attention_mask, metadata)
        time = self.encode_time(each_time(timestep, hidden_states))
        condition = None if controlnet_cond is None else self.encode_condition(controlnet_cond)
        sample = self.denoise(hidden_states, time, text, condition, control_scale)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def encode_text(self, states: Tensor, mask: Tensor | None = None, metadata: Tensor | None = None) -> TextKeys:
        """Keys and values for the base model's blocks and, after them, for the copies."""
        blocks = [*self.base_model.blocks, *(control.copied_block for control in self.controlnet)]
        states, mask, table = self.base_model.with_metadata(states, mask, metadata)
        return project_text(self.base_model.y_embedder.y_proj, blocks, states, mask, table)

    @apply_forward_hook
    def encode_time(self, timestep: Tensor) -> TimeTables:
        return self.base_model.encode_time(timestep)

    @apply_forward_hook
    def encode_condition(self, latents: Tensor) -> Tensor:
        """What the first copy reads of a condition [B, in_channels, H, W], constant over the steps: [B, T, D]."""
        config = self.base_model.config
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the condition's latents have shape {tuple(latents.shape)}, not [B, {self.latent_shape}]: encode the "
                "condition at the image's size"
            )
        # Recomputed, not the stored embedding: the one of a released checkpoint drifts with its averaged weights.
        places = position_embedding(config.hidden_size, config.sample_size // config.patch_size, config.position_scale)
        return self.controlnet[0].before_proj(self.base_model.x_embedder(latents) + places.to(latents))

    @apply_forward_hook
    def denoise(
        self,
        hidden_states: Tensor,
        time: TimeTables,
        text: TextKeys,
        condition: Tensor | None = None,
        control_scale: float = 1.0,
    ) -> Tensor:
        """`forward` with time, text and condition already encoded.

        A condition [M, T, D] is that of the first M samples; the others are sampled without.
        """
        if condition is None:
            return self.base_model.denoise(hidden_states, time, text)
        depth, m = len(self.base_model.blocks), len(condition)
        modulation, mask = text.modulation(time)[:m], None if text.mask is None else text.mask[:m]

        def control(x: Tensor) -> list[Tensor]:
            c, added = x[:m] + condition, []
            for i, block in enumerate(self.controlnet, start=depth):
                arguments = c, modulation, text.keys[i][:m], text.values[i][:m], mask
                if torch.is_grad_enabled() and self.gradient_checkpointing:
                    c, addition = self._gradient_checkpointing_func(block, *arguments)
                else:
                    c, addition = block(*arguments)
                addition = control_scale * addition  # [M, T, D]
                added.append(F.pad(addition, (0, 0, 0, 0, 0, len(x) - m)))
            return added

        return self.base_model.denoise(hidden_states, time, text, control)


class ControlBlock(nn.Module):
    """A copy of one block, the projection into it (the first only), and the one out of it, zero at the start."""

    def __init__(self, hidden_size: int, num_heads: int, gelu: str, first: bool):
        super().__init__()
        self.copied_block = Block(hidden_size, num_heads, gelu)
        if first:
            self.before_proj = nn.Linear(hidden_size, hidden_size)
            nn.init.xavier_uniform_(self.before_proj.weight)
            nn.init.zeros_(self.before_proj.bias)
        self.after_proj = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.after_proj.weight)
        nn.init.zeros_(self.after_proj.bias)

    def forward(self, x: Tensor, table: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the next copy reads, and what the base model's tokens gain; arguments as of `Block`."""
        x = self.copied_block(x, table, k, v, mask)
        return x, self.after_proj(x)
