"""Latents and text states computed once and read by every training step.

The autoencoder and the text encoder are frozen, so their outputs are constants of the data (paper, Methods). They lie
in a folder of shards, safetensors files of some thousand pairs, which several processes may write, and which are
memory-mapped: any row in any order, with a memory that does not grow with their number. (One file would not do: a
mapping larger than the machine's memory is refused. Formats that are read from front to back, as WebDataset's, would
take from the trainer that the rows of a step depend on its number and the seed alone.)
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.models.autoencoder import encode, encode_conditions
from chexgen_lib.models.metadata import CODES
from chexgen_lib.models.text import cache_texts
from chexgen_lib.storage import replacing

SHARD = 2560  # pairs; with T5-XXL 1 to 2.5 GB


class CacheError(ValueError):
    """A latent cache that is missing, broken or does not fit."""


@dataclass(frozen=True)
class Stack:
    """Tensors [n, ...] as one [N, ...]: read where they lie, nothing is joined before it is asked for."""

    parts: tuple[Tensor, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The first row of each part, and N."""
        return [0, *np.cumsum([len(part) for part in self.parts]).tolist()]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.starts[-1], *self.parts[0].shape[1:]))

    def __len__(self) -> int:
        return self.starts[-1]

    def between(self, first: int, last: int) -> list[Tensor]:
        """Rows as views, one of each part that has some of them."""
        found = zip(self.parts, self.starts, self.starts[1:], strict=False)
        return [x[max(first - a, 0) : last - a] for x, a, b in found if a < last and first < b]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            k = bisect(self.starts, first) - 1
            if step == 1 and last <= self.starts[k + 1]:  # a text: its tokens are in one part
                return self.parts[k][first - self.starts[k] : last - self.starts[k]]
            if step == 1:
                return torch.cat(self.between(first, last))
            rows = torch.arange(first, last, step)
        places = ((row, bisect(self.starts, row) - 1) for row in rows.tolist())
        return torch.stack([self.parts[k][row - self.starts[k]] for row, k in places])


@dataclass(frozen=True)
class LatentCache:
    """Training pairs.

    Attributes:
        mean, std: float16 [N, 4, h, w], posterior of the autoencoder in the model's scale.
        states, offsets: float16 [total tokens, width] and int64 [N + 1], as `models.text.cache_texts` makes them.
        condition: float16 [N, 4, h, w], latents of the condition images of a control adapter, or None.
        metadata: float32 [N, CODES], what `models.metadata.encode_metadata` makes of the records with the model's
            `metadata_sources`, or None.
        paths: float16 [N, K + 1, 4, h, w], from noise to `mean`, K evenly spaced stretches of sampling paths that a
            student learns (`experiments.distillation`), or None.
    """

    mean: Tensor | Stack
    std: Tensor | Stack
    states: Tensor | Stack
    offsets: Tensor
    condition: Tensor | Stack | None = None
    metadata: Tensor | None = None
    paths: Tensor | Stack | None = None

    def __post_init__(self):
        n = len(self.mean)
        shapes = {x.shape for x in (self.mean, self.std, self.condition) if x is not None}
        if n == 0 or len(shapes) > 1 or len(self.offsets) != n + 1:
            raise CacheError(
                f"{len(self.offsets) - 1} texts, latents {tuple(self.mean.shape)} and deviations "
                f"{tuple(self.std.shape)} do not form pairs: build the cache again"
            )
        if self.metadata is not None and self.metadata.shape != (n, CODES):
            raise CacheError(f"metadata {tuple(self.metadata.shape)} for {n} pairs, not {(n, CODES)}: encode it again")

    def __len__(self) -> int:
        return len(self.mean)

    def __add__(self, other: "LatentCache") -> "LatentCache":
        """These pairs, then the other's, without a copy. CacheError where latents or widths of text differ."""
        return joined([self, other])

    def take(self, rows: Tensor) -> "LatentCache":
        """The pairs of some rows, in their order, without a copy."""
        if torch.equal(rows, torch.arange(len(self))):
            return self
        spans = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        texts = [self.states[first:last] for first, last in spans]
        chosen = {name: getattr(self, name) for name in ("mean", "std", "condition", "paths")}
        return LatentCache(
            states=Stack(tuple(texts)),
            offsets=torch.tensor([0, *map(len, texts)]).cumsum(0),
            metadata=None if self.metadata is None else self.metadata[rows],
            **{k: None if x is None else Stack(tuple(x[r : r + 1] for r in rows.tolist())) for k, x in chosen.items()},
        )

    def batch(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Latents [B, 4, h, w] drawn from their posterior, text states [B, L, width] and their mask bool [B, L].

        Last a list of the condition [B, 4, h, w], or of nothing.
        """
        mean, std = self.mean[rows].float(), self.std[rows].float()
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        texts = [self.states[self.offsets[i] : self.offsets[i + 1]].float() for i in rows.tolist()]
        states = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        lengths = torch.tensor([len(text) for text in texts])
        condition = [] if self.condition is None else [self.condition[rows].float()]
        return latents, states, torch.arange(states.shape[1]) < lengths[:, None], condition

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        prompts: Sequence[str],
        autoencoder: AutoencoderKL,
        text_encoder: tuple[PreTrainedTokenizerBase, PreTrainedModel],
        conditions: np.ndarray | None = None,
        metadata: Tensor | None = None,
    ) -> "LatentCache":
        """Encode uint8 images [N, H, W], their prompts and, for an adapter, condition images uint8 [N, H, W, 3].

        metadata: codes [N, CODES], kept as they are.
        """
        mean, std = encode(autoencoder, images)
        condition = None if conditions is None else encode_conditions(autoencoder, conditions).cpu().half()
        return cls(
            mean.half(), std.half(), **cache_texts(*text_encoder, prompts), condition=condition, metadata=metadata
        )

    def save(self, folder: Path, shard: int = 0, of: int = 1) -> None:
        """Write these pairs as a shard of the cache in `folder`: several processes may write one each."""
        tensors = {name: tensor[:].contiguous() for name, tensor in vars(self).items() if tensor is not None}
        with replacing(shard_path(folder, shard, of)) as partial:
            save_file(tensors, partial)

    def save_in_shards(self, folder: Path, pairs: int = SHARD) -> None:
        """Write the cache `folder` in shards of some `pairs`, one after the other: no more of them are in memory."""
        parts = torch.arange(len(self)).split(pairs)
        for number, rows in enumerate(parts):
            self.take(rows).save(folder, number, len(parts))

    @classmethod
    def load(cls, folder: Path) -> "LatentCache":
        """The pairs of all shards. Raises CacheError: if one is missing, truncated or holds something else."""
        try:
            return joined([cls(**load_file(path)) for path in shards(folder)])
        except (SafetensorError, TypeError) as error:
            raise CacheError(f"{folder} is not a latent cache ({error}): delete it and run 02_cohort again") from error


def joined(parts: Sequence[LatentCache]) -> LatentCache:
    """Pairs below each other as one cache, without a copy.

    Raises:
        CacheError: where the parts hold different things, or latents or text states of different shapes.
    """
    shapes = [(tuple(part.mean.shape[1:]), part.states.shape[1]) for part in parts]
    other = next((shape for shape in shapes if shape != shapes[0]), None)
    if other:
        raise CacheError(
            f"latents and widths of text {shapes[0]} and {other} differ: give both one resolution and one text encoder"
        )
    held = {name for part in parts for name, x in vars(part).items() if x is not None}
    if any(getattr(part, name) is None for part in parts for name in held):
        raise CacheError("pairs with and without conditions or metadata cannot be joined: build one cache of them")
    lengths = torch.cat([part.offsets.diff() for part in parts])
    offsets = torch.cat([torch.zeros(1, dtype=lengths.dtype), lengths.cumsum(0)])
    metadata = torch.cat([part.metadata for part in parts]) if "metadata" in held else None
    stacks = {name: _stack([getattr(part, name) for part in parts]) for name in held - {"offsets", "metadata"}}
    return LatentCache(offsets=offsets, metadata=metadata, **stacks)


def _stack(parts: Sequence[Tensor | Stack]) -> Stack:
    return Stack(tuple(t for part in parts for t in (part.parts if isinstance(part, Stack) else [part])))


def shard_path(folder: Path, shard: int, of: int) -> Path:
    """The file of a shard of the cache in `folder`; its name tells how many there are."""
    return Path(folder) / f"{shard:05d}-of-{of:05d}.safetensors"


def shards(folder: Path) -> list[Path]:
    """The files of a whole latent cache. Raises CacheError: if there is none, or a shard is missing."""
    found = sorted(Path(folder).glob("[0-9]*-of-*.safetensors"))
    if not found:
        there = "holds no latent cache" if Path(folder).exists() else "does not exist"
        raise CacheError(f"{folder} {there}: run the stage 02_cohort first")
    expected = {shard_path(folder, k, int(found[0].stem[-5:])) for k in range(int(found[0].stem[-5:]))}
    if wrong := expected.symmetric_difference(found):
        raise CacheError(f"{folder} is not whole, see {min(wrong).name}: delete the folder and run 02_cohort again")
    return found
