"""Weights of 8 bits, for sampling on a CPU."""

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.layers import Block, CrossAttention, Mlp, SelfAttention, by_products
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.storage import digest

Model = TypeVar("Model", ChexGenTransformer, ControlledTransformer)

# Numbers in the tokens that a block takes at a time; the MLP's are four times as many. glibc returns tensors of more
# than 32 MiB to the system after each use, and requesting them again takes longer than multiplying them.
AT_A_TIME = 2**20
# Steps from the smallest to the largest activation; one fewer than fit, because zero is moved to a whole step. Without
# VNNI a processor adds two products in 16 bits, where those of 8-bit activations overflow.
STEPS = 254 if torch.cpu._is_vnni_supported() else 126
LONG = 512  # keys; of more, the scores of all heads no longer fit the caches, and torch's own attention holds none


def int8_weights(transformer: Model) -> Model:
    """A copy of a trained transformer whose blocks multiply in int8, for sampling on a CPU.

    Each row of a weight matrix has a scale of its own, and the activations of each product share one, computed on the
    fly, so that an image depends, within that rounding, on the rest of its batch. Attention is in bfloat16 where the
    processor has bfloat16 products; sums, norms and everything outside the blocks stay in float32. For many images,
    `compile_repeated_blocks()` of the result pays off. `benchmarks/sampler_speed_cpu.csv` says how much faster both
    are, and how close to float32. The copy can be neither trained, copied nor saved: keep the original.

    Raises:
        ValueError: if the transformer is not in float32 on a CPU, is such a copy already or has no blocks; if
            torch lacks oneDNN.
    """
    if not torch.backends.mkldnn.is_available():
        raise ValueError(
            "int8 weights need a torch with oneDNN, which this one lacks: sample without them (int8: false)"
        )
    if transformer.device.type != "cpu" or transformer.dtype != torch.float32:
        raise ValueError(f"int8 weights are for float32 on a CPU, not {transformer.dtype} on {transformer.device}")
    if any(isinstance(module, Int8Block) for module in transformer.modules()):
        raise ValueError("the transformer's weights are int8 already")
    if not any(isinstance(module, Block) for module in transformer.modules()):
        raise ValueError(f"a {type(transformer).__name__} has no blocks for int8 weights: sample without them")
    result = copy.deepcopy(transformer).eval().requires_grad_(False)
    for parent in list(result.modules()):
        for name, block in parent.named_children():
            if isinstance(block, Block):
                setattr(parent, name, Int8Block(block))
    result.save_pretrained = _refuse
    return result


class Int8Block(Block):
    """A trained block with products in int8, which takes as many samples at a time as its temporaries allow."""

    def __init__(self, block: Block):
        nn.Module.__init__(self)
        self.shift_scale_gate_table = block.shift_scale_gate_table
        self.attn = Int8SelfAttention(block.attn)
        self.cross_attn = Int8CrossAttention(block.cross_attn)
        self.mlp = Int8Mlp(block.mlp)

    def forward(self, x: Tensor, table: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        pieces = max(1, math.ceil(x.numel() / AT_A_TIME))
        parts = [None if t is None else t.expand(len(x), *t.shape[1:]).chunk(pieces) for t in (x, table, k, v, mask)]
        rows = zip(*[part or [None] * len(parts[0]) for part in parts], strict=True)
        return torch.cat([Block.forward(self, *row) for row in rows])


@torch.library.custom_op("chexgen::int8_product", mutates_args=())
def int8_product(
    x: Tensor, scale: Tensor, zero: Tensor, weight: Tensor, scales: Tensor, bias: Tensor, dtype: torch.dtype, gelu: str
) -> Tensor:
    """oneDNN's product of uint8 activations [..., I] with packed int8 weights; torch.compile takes it as it is."""
    after = ("gelu", [], gelu) if gelu else ("none", [], "")
    weights = weight, scales, torch.zeros_like(scales, dtype=torch.int32), bias
    return torch.ops.onednn.qlinear_pointwise.tensor(x, scale, zero, *weights, 1.0, 0, dtype, *after)


@int8_product.register_fake
def _(x, scale, zero, weight, scales, bias, dtype, gelu):
    return x.new_empty(*x.shape[:-1], len(bias), dtype=dtype)


class Int8Linear(nn.Module):
    """A linear layer, and the GELU after it if `gelu` names one (`approximate` of torch's), multiplied in int8.

    Activations [..., in_features], float32 or bfloat16, become `dtype` [..., out_features].
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32, gelu: str = ""):
        super().__init__()
        weight = linear.weight.detach()
        self.dtype, self.gelu = dtype, gelu
        self.scales = nn.Parameter(weight.abs().amax(dim=1).clamp(min=1e-12) / 127, requires_grad=False)
        self.bias = linear.bias
        plain = (weight / self.scales[:, None]).round().to(torch.int8)
        self.sha256 = digest(plain)
        self.weight = torch.ops.onednn.qlinear_prepack(plain, None)

    def extra_repr(self) -> str:
        """What tells two layers apart (`storage.digest`): oneDNN's weight is in no state, and cannot be read."""
        return f"weight={self.sha256}"

    def forward(self, x: Tensor) -> Tensor:
        return int8_product(*quantized(x), self.weight, self.scales, self.bias, self.dtype, self.gelu)


def quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8 with its scale and zero point: x is nearly scale * (result - zero point)."""
    low, high = torch.aminmax(x)
    low, high = low.float().clamp(max=0.0), high.float().clamp(min=0.0)
    scale = ((high - low) / STEPS).clamp(min=1e-12)
    zero = (-low / scale).ceil()  # rounded up, or the smallest activation may lie half a step below 0
    # 1.5 * 2**23 more, and the rounded number is in the lowest bits of a float32: torch's own conversion of floats to
    # uint8 takes ten times as long.
    shifted = (x.float() * (1 / scale)).add_(1.5 * 2**23 + zero)
    return shifted.view(torch.int32).to(torch.uint8), scale, zero.to(torch.int32)


class Int8SelfAttention(nn.Module):
    """A trained `SelfAttention` with products in int8."""

    def __init__(self, attention: SelfAttention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv = Int8Linear(attention.qkv, attention_dtype())
        self.proj = Int8Linear(attention.proj)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, T, d]
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))  # [B, T, D]


class Int8CrossAttention(nn.Module):
    """A trained `CrossAttention` with products in int8."""

    def __init__(self, attention: CrossAttention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.q_linear = Int8Linear(attention.q_linear, attention_dtype())
        self.kv_linear = attention.kv_linear  # used once for all steps
        self.proj = Int8Linear(attention.proj)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = self.q_linear(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, T, d]
        return self.proj(attend(q, k.to(q.dtype), v.to(q.dtype), mask).transpose(1, 2).flatten(2))  # [B, T, D]


class Int8Mlp(nn.Sequential):
    """A trained `Mlp` with products in int8."""

    def __init__(self, mlp: Mlp):
        super().__init__(Int8Linear(mlp.fc1, gelu=mlp.gelu), Int8Linear(mlp.fc2))


def attention_dtype() -> torch.dtype:
    """bfloat16 where this processor has bfloat16 products, else float32."""
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention, shapes and `mask` as torch's, in half its time for a few hundred tokens on a
    CPU."""
    long = k.shape[2] > LONG
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask) if long else by_products(q, k, v, mask)


def _refuse(*_, **__) -> None:
    raise ValueError("int8 weights are for sampling and are not saved: save the transformer that they were made from")
