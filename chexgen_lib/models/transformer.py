"""The diffusion transformer of ChexGen: a DiT with cross-attention to text and one shared adaLN table.

Names and wiring follow the released checkpoints, so that their tensors load without renaming. The block is
PixArt-alpha's (Chen et al. 2023): the time embedding is projected once for the whole network, and every block adds
its own learned offset to that shared table instead of owning a projection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from chexgen_lib.models.layers import (
    Block,
    FinalLayer,
    PatchEmbedder,
    TextEmbedder,
    TextKeys,
    TimeEmbedder,
    TimeTables,
    each_time,
    position_embedding,
    project_text,
)
from chexgen_lib.models.loading import WholeModel
from chexgen_lib.models.metadata import MetadataEncoder
from chexgen_lib.storage import own_settings


@dataclass(frozen=True)
class Size:
    """Depth and width of a transformer.

    Attributes:
        learned_variance: predict the variance too, in as many channels again, as the released models do.
        gelu: "tanh" (PixArt's, the released models') or "none", which CPUs compute three times faster and which trains
            as well.
    """

    depth: int
    hidden_size: int
    num_heads: int
    learned_variance: bool = False
    gelu: str = "tanh"

    def config(self, latent_channels: int = 4) -> dict[str, int | str]:
        """Arguments of the constructor for latents of so many channels."""
        own = {name: value for name, value in vars(self).items() if name != "learned_variance"}
        return own | {"in_channels": latent_channels, "out_channels": latent_channels * (1 + self.learned_variance)}


SIZES = {
    "ci": Size(2, 64, 2, gelu="none"),
    "laptop-s": Size(6, 128, 4, gelu="none"),  # many trainings on a CPU
    "laptop": Size(6, 256, 4, gelu="none"),
    "s2": Size(12, 384, 6),
    "b2": Size(12, 768, 12),
    "l2": Size(24, 1024, 16),
    "xl2": Size(28, 1152, 16, learned_variance=True),  # the released checkpoints
    "rf-1b": Size(34, 1536, 24),  # 1.3 B parameters, as the largest model of the second paper (RadiT)
    "paper": Size(28, 2048, 32),  # the paper's text: 32 heads, 2048 hidden
}


OBJECTIVES = ("ddpm", "rectified_flow")  # what the output is: the noise, or the velocity from latent to noise


class ChexGenTransformer(WholeModel, ModelMixin, ConfigMixin):
    """Predicts the noise in a latent from the noisy latent, its time step and the text (paper, Methods, eq. 2).

    With the objective "rectified_flow" the same network predicts the velocity from latent to noise.

    Args:
        sample_size: latent height and width; an image of 8 x sample_size pixels.
        in_channels, out_channels: latent channels, and predicted channels (the first `in_channels` are the noise).
        patch_size: latent pixels a side of one token.
        hidden_size, depth, num_heads: width, number of blocks, attention heads.
        text_dim, text_tokens: width of the text states, and length of the learned null caption.
        gelu: `approximate` of torch's GELU in the blocks.
        position_scale: what token coordinates are divided by. A model continued at twice the resolution uses 2, so
            that a place in the image keeps its embedding (stage I to stage II, paper's ED Fig 4).
        objective: what the model is trained to predict, a name in `OBJECTIVES`; trainer and pipeline check it.
        flow_shift: for a rectified flow, the `shift` of its times in training (`RectifiedFlow`), which sampling keeps.
        metadata_sources: names of the sources that the metadata encoder knows (`models.metadata`); None: the model has
            no metadata encoder, like the released ones.
        distilled_steps: of a rectified flow that has learned where the guided paths of another lead
            (`experiments.distillation`): it takes so many steps of Euler's method, without guidance. None: no such one.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block", "TextProjection"]  # FSDP gathers the parameters of each when it is called
    _supports_group_offloading = False  # text is projected outside the blocks that hold its weights
    _repeated_blocks = ["Block", "ControlBlock", "Int8Block"]  # what diffusers compiles once for all

    @register_to_config
    def __init__(  # noqa: PLR0913  # diffusers stores each as configuration
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        out_channels: int = 8,
        patch_size: int = 2,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        text_dim: int = 4096,
        text_tokens: int = 120,
        gelu: str = "tanh",
        position_scale: float = 1.0,
        objective: str = "ddpm",
        flow_shift: float = 1.0,
        metadata_sources: Sequence[str] | None = None,
        distilled_steps: int | None = None,
    ):
        super().__init__()
        if sample_size % patch_size:
            raise ValueError(f"sample_size {sample_size} is not a multiple of patch_size {patch_size}")
        if hidden_size % num_heads or hidden_size % 4:
            raise ValueError(f"hidden_size {hidden_size} must be a multiple of num_heads ({num_heads}) and of 4")
        if objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
        grid = sample_size // patch_size
        positions = position_embedding(hidden_size, grid, position_scale)
        positions = positions.to(torch.get_default_dtype())  # which `from_pretrained` sets while it makes a model
        self.pos_embed = nn.Parameter(positions[None], requires_grad=False)
        self.x_embedder = PatchEmbedder(patch_size, in_channels, hidden_size)
        self.t_embedder = TimeEmbedder(hidden_size)
        self.y_embedder = TextEmbedder(text_dim, text_tokens, hidden_size)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, gelu) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size, out_channels)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.metadata_embedder = (
            None if metadata_sources is None else MetadataEncoder(text_dim, metadata_sources, hidden_size)
        )
        self.gradient_checkpointing = False
        self._initialize()

    @classmethod
    def of_size(cls, size: str, latent_channels: int = 4, **config) -> "ChexGenTransformer":
        """A transformer of a named size (`SIZES`); further keywords as in the constructor."""
        if size not in SIZES:
            raise ValueError(f"unknown model size {size!r}; choose one of {', '.join(SIZES)}")
        return cls(**SIZES[size].config(latent_channels) | config)

    def enlarged(self) -> "ChexGenTransformer":
        """A copy for twice the resolution: same weights, position embedding rescaled (stage I to stage II)."""
        config = own_settings(self.config)
        config.update(sample_size=2 * config["sample_size"], position_scale=2 * config["position_scale"])
        larger = type(self)(**config)
        state = {k: v for k, v in self.state_dict().items() if k != "pos_embed"}
        larger.load_state_dict({**state, "pos_embed": larger.pos_embed})
        return larger.to(self.device)

    def for_latents(self, size: int) -> "ChexGenTransformer":
        """This model where it takes latents of `size` pixels a side already, else its enlarged copy, which must.

        Raises:
            ValueError: if it takes latents neither of this size nor of half of it.
        """
        own = self.config.sample_size
        if size not in (own, 2 * own):
            raise ValueError(f"the model is for latents of {own} or {2 * own} pixels a side, not of {size}")
        return self if size == own else self.enlarged()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.config.in_channels, self.config.sample_size, self.config.sample_size

    @property
    def objective(self) -> str:
        """What the output is, a name in `OBJECTIVES`."""
        return self.config.objective

    @property
    def flow_shift(self) -> float:
        """The shift of a rectified flow's times in training."""
        return self.config.flow_shift

    @property
    def distilled_steps(self) -> int | None:
        """The steps that a distilled model takes, without guidance; None for another."""
        return self.config.distilled_steps

    @property
    def metadata_sources(self) -> Sequence[str] | None:
        """The sources that the metadata encoder knows; None without an encoder."""
        return self.config.metadata_sources

    @property
    def null_caption(self) -> Tensor:
        """Text states [L, text_dim] of the empty caption, learned by dropping captions in training."""
        return self.y_embedder()

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        metadata: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Noise (and variance) prediction, or velocity.

        Args:
            hidden_states: noisy latents [B, in_channels, H, W], H = W = sample_size.
            timestep: training time steps 0..999, or 1000 times the time 0..1 of a flow; a number or [B].
            encoder_hidden_states: text states [B, L, text_dim].
            encoder_attention_mask: [B, L], nonzero where a token counts; None: all do. Each row needs one.
            metadata: codes [B, CODES] of `models.metadata.encode_metadata`; None: nothing is given.

        Returns:
            `.sample` [B, out_channels, H, W].

        Raises:
            ValueError: if the latents do not have the model's size and channels, or there is no metadata encoder.
        """
        text = self.encode_text(encoder_hidden_states, encoder_attention_mask, metadata)
        time = self.encode_time(each_time(timestep, hidden_states))
        sample = self.denoise(hidden_states, time, text)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def encode_text(self, states: Tensor, mask: Tensor | None = None, metadata: Tensor | None = None) -> TextKeys:
        """Keys and values of text states [B, L, text_dim] for every block; `mask`, `metadata` as in `forward`."""
        states, mask, table = self.with_metadata(states, mask, metadata)
        return project_text(self.y_embedder.y_proj, self.blocks, states, mask, table)

    def with_metadata(
        self, states: Tensor, mask: Tensor | None, metadata: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Text states and mask with the metadata's tokens after the text's, and its table, where there is any."""
        if metadata is None:
            return states, mask, None
        if self.metadata_embedder is None:
            raise ValueError("this transformer has no metadata encoder: make one with metadata_sources")
        tokens, given = self.metadata_embedder(metadata)
        mask = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
        table = self.metadata_embedder.tables(tokens, given).to(states)
        return torch.cat([states, tokens.to(states)], dim=1), torch.cat([mask.bool(), given], dim=1), table

    @apply_forward_hook
    def encode_time(self, timestep: Tensor) -> TimeTables:
        """Tables of time steps [B]."""
        t = self.t_embedder(timestep, self.dtype)
        return TimeTables(t, self.t_block(t).unflatten(1, (6, -1)))

    @apply_forward_hook
    def denoise(
        self,
        hidden_states: Tensor,
        time: TimeTables,
        text: TextKeys,
        control: Callable[[Tensor], Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """`forward` with time (of B steps, or one for all) and text already encoded: [B, out_channels, H, W].

        control: tokens [B, T, D] after the first block -> what to add before the second block, the third, ...
        """
        if tuple(hidden_states.shape[1:]) != self.latent_shape:
            raise ValueError(f"latents have shape {tuple(hidden_states.shape)}, not [B, {self.latent_shape}]")
        x = self.x_embedder(hidden_states) + self.pos_embed  # [B, T, D], T = (H / patch_size) ** 2
        added: Sequence[Tensor] = ()
        modulation = text.modulation(time)
        for i, block in enumerate(self.blocks):
            if 0 < i <= len(added):
                x = x + added[i - 1]
            arguments = x, modulation, text.keys[i], text.values[i], text.mask
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)
            if i == 0 and control is not None:
                added = control(x)
        return self._unpatchify(self.final_layer(x, time.embedding))  # [B, T, p * p * C] -> [B, C, H, W]

    def _unpatchify(self, x: Tensor) -> Tensor:
        p, c = self.config.patch_size, self.config.out_channels
        grid = self.config.sample_size // p
        x = x.view(len(x), grid, grid, p, p, c)  # [B, h, w, p_row, p_col, C]
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), c, grid * p, grid * p)  # [B, C, H, W]

    def _initialize(self) -> None:
        """DiT's adaLN-zero start: every block is the identity on its gated branches, the output is zero.

        The text projection starts at full scale: at PixArt's 0.02, keys and values of a narrow model are so small that
        short runs never learn to read the prompt.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.hidden_size, -1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        for linear in (self.t_embedder.mlp[0], self.t_embedder.mlp[2], self.t_block[1]):
            nn.init.normal_(linear.weight, std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.cross_attn.proj.weight)
        if self.metadata_embedder is not None:
            nn.init.zeros_(self.metadata_embedder.table.weight)
        nn.init.zeros_(self.final_layer.linear.weight)
