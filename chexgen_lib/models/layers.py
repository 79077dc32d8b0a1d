"""Layers of the diffusion transformer, named and wired as in the released checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORT = 256  # tokens up to which attention is two products on a CPU


@dataclass(frozen=True)
class TextKeys:
    """What the blocks attend to; it depends on the text alone, so sampling computes it once for all steps.

    Attributes:
        keys, values: of each block, [B, heads, L, d]; L is the longest text's number of valid tokens.
        mask: bool [B, 1, 1, L], True where a token counts; None where all do.
        table: [B, 6, D], what metadata adds to the time's shared table; None without metadata.
    """

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor | None
    table: Tensor | None

    def modulation(self, time: "TimeTables") -> Tensor:
        """The table that the blocks share, [B, 6, D]."""
        return time.shared if self.table is None else time.shared + self.table


@dataclass(frozen=True)
class TimeTables:
    """What the time step contributes: `embedding` [B, D] (last layer), `shared` [B, 6, D] (all blocks)."""

    embedding: Tensor
    shared: Tensor

    def __getitem__(self, rows: slice) -> "TimeTables":
        return TimeTables(self.embedding[rows], self.shared[rows])


def each_time(timestep: Tensor | float, hidden_states: Tensor) -> Tensor:
    """Time steps [B] of latents [B, C, H, W]: one for all, a number or a tensor, or one for each."""
    return torch.as_tensor(timestep, device=hidden_states.device).expand(len(hidden_states))


class PatchEmbedder(nn.Module):
    """Latents [B, C, H, W] -> one token for each patch, [B, T, D], row by row; T = H * W / patch_size**2."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, T, D]


class TimeEmbedder(nn.Module):
    """Sinusoidal features of the time step (Ho et al. 2020) and a two-layer network."""

    def __init__(self, hidden_size: int, frequencies: int = 128):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * frequencies, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        k = torch.arange(self.frequencies, device=t.device, dtype=torch.float32)
        angles = t.float()[:, None] * torch.exp(k * (-torch.tensor(10000.0).log() / self.frequencies))  # [B, F]
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(dtype))


class TextEmbedder(nn.Module):
    """Projects text states to the model's width and holds the null caption."""

    def __init__(self, text_dim: int, text_tokens: int, hidden_size: int):
        super().__init__()
        self.y_embedding = nn.Parameter(torch.randn(text_tokens, text_dim) / text_dim**0.5)
        self.y_proj = Mlp(text_dim, hidden_size, hidden_size)

    def forward(self) -> Tensor:
        """The null caption [L, text_dim]; called and not read, so that offloaded weights are there."""
        return self.y_embedding


class Mlp(nn.Module):
    """[..., in_features] -> [..., out_features] by way of a GELU; `gelu` is `approximate` of torch's."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int, gelu: str = "tanh"):
        super().__init__()
        self.gelu = gelu
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of q [B, heads, T, d] to k, v [B, heads, L, d]; `mask` bool [B, 1, 1, L].

    By products where that is faster: in bfloat16 on a CPU, with whose fused kernel a training step of 64 tokens takes
    1.36 times as long, most of it in the backward pass (`benchmarks/training_step.csv`).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or max(q.shape[2], k.shape[2]) > SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return by_products(q, k, v, mask)


def by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as two products and a softmax; shapes and `mask` as in `attention`."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # [B, heads, T, L]
    scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


class SelfAttention(nn.Module):
    """Attention among the image's tokens, [B, T, D] -> [B, T, D]."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # [B, T, 3, heads, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, T, d]
        return self.proj(attention(q, k, v).transpose(1, 2).flatten(2))  # [B, T, D]


class TextProjection(nn.Linear):
    """A linear layer with its own class name for FSDP: `project_text` calls it before the block that holds it."""


class CrossAttention(nn.Module):
    """Attention of the image's tokens [B, T, D] to keys and values of the text, shapes as in `TextKeys`."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = TextProjection(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = self.q_linear(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, T, d]
        return self.proj(attention(q, k, v, mask).transpose(1, 2).flatten(2))  # [B, T, D]


def project_text(
    y_proj: nn.Module, blocks: Sequence["Block"], states: Tensor, mask: Tensor | None, table: Tensor | None = None
) -> TextKeys:
    """Project only the tokens that count, whatever their pattern, and move them to the front of their rows.

    A row without any attends to nothing: to one key and value of zero.
    """
    valid = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device) if mask is None else mask.bool()
    if torch.compiler.is_compiling():
        return _project_all(y_proj, blocks, states, valid, table)
    lengths = valid.sum(1)  # [B]
    longest = max(1, int(lengths.max()))
    y = y_proj(states[valid])  # [valid tokens of all rows, D]
    front = torch.arange(longest, device=states.device) < lengths[:, None]  # [B, longest]
    keys, values = [], []
    for block in blocks:
        projected = block.cross_attn.kv_linear(y)  # [valid tokens, 2 * D]
        padded = projected.new_zeros(*front.shape, projected.shape[1])
        padded[front] = projected
        k, v = padded.unflatten(2, (2, block.cross_attn.num_heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, L, d]
        keys.append(k)
        values.append(v)
    front = torch.cat([torch.ones_like(front[:, :1]), front[:, 1:]], dim=1)
    return TextKeys(keys, values, None if bool(front.all()) else front[:, None, None], table)


def _project_all(
    y_proj: nn.Module, blocks: Sequence["Block"], states: Tensor, valid: Tensor, table: Tensor | None
) -> TextKeys:
    """`project_text` with every token at its place, in shapes that do not depend on the mask: for graphs."""
    y, keys, values = y_proj(states), [], []
    for block in blocks:
        projected = block.cross_attn.kv_linear(y) * valid[..., None]  # [B, L, 2 * D]
        k, v = projected.unflatten(2, (2, block.cross_attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        keys.append(k)
        values.append(v)
    unsaid = ~valid.any(1, keepdim=True)
    attended = torch.cat([valid[:, :1] | unsaid, valid[:, 1:]], dim=1)
    return TextKeys(keys, values, attended[:, None, None], table)


class Block(nn.Module):
    """Self-attention, cross-attention to text, MLP; the first and the last are modulated and gated by time."""

    def __init__(self, hidden_size: int, num_heads: int, gelu: str):
        super().__init__()
        self.shift_scale_gate_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)
        self.attn = SelfAttention(hidden_size, num_heads)
        self.cross_attn = CrossAttention(hidden_size, num_heads)
        self.mlp = Mlp(hidden_size, 4 * hidden_size, hidden_size, gelu)

    def forward(self, x: Tensor, table: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        modulation = self.shift_scale_gate_table + table  # [B, 6, D]
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=1)  # [B, 1, D]
        x = x + gate_attn * self.attn(layer_norm(x) * (1 + scale_attn) + shift_attn)
        x = x + self.cross_attn(x, k, v, mask)
        return x + gate_mlp * self.mlp(layer_norm(x) * (1 + scale_mlp) + shift_mlp)


class FinalLayer(nn.Module):
    """Tokens [B, T, D] and the time's embedding [B, D] -> the pixels of each patch, [B, T, P * P * out_channels]."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int):
        super().__init__()
        self.shift_scale_table = nn.Parameter(torch.randn(2, hidden_size) / hidden_size**0.5)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        shift, scale = (self.shift_scale_table + t[:, None]).chunk(2, dim=1)  # [B, 1, D]
        return self.linear(layer_norm(x) * (1 + scale) + shift)


def layer_norm(x: Tensor) -> Tensor:
    """Layer normalisation over the last axis, without weights of its own: adaLN brings scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def position_embedding(hidden_size: int, grid: int, scale: float = 1.0) -> Tensor:
    """Sine-cosine embedding of a square grid of tokens, [grid * grid, hidden_size], row by row.

    A quarter of the channels each: sin and cos of the column, sin and cos of the row; coordinates are token indices
    divided by `scale`. Computed in float64, as the released checkpoints were.
    """
    frequencies = 10000.0 ** (-torch.arange(hidden_size // 4, dtype=torch.float64) / (hidden_size // 4))
    coordinate = torch.arange(grid, dtype=torch.float64) / scale
    rows, columns = torch.meshgrid(coordinate, coordinate, indexing="ij")
    parts = [f(axis.flatten()[:, None] * frequencies) for axis in (columns, rows) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, dim=1).float()  # [grid * grid, D]
