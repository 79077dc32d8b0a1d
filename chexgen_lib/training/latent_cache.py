"""Latents and text states computed once and read by every training step.

The autoencoder and the text encoder are frozen, so their outputs are constants of the data (paper, Methods). One
safetensors file holds both; it is memory-mapped, so its size is bounded by the disk and not by the memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.images import from_uint8
from chexgen_lib.models.autoencoder import encode, encode_conditions
from chexgen_lib.models.metadata import CODES
from chexgen_lib.models.text import cache_texts
from chexgen_lib.storage import replacing


class CacheError(ValueError):
    """A latent cache that is missing, broken or does not fit."""


@dataclass(frozen=True)
class LatentCache:
    """Training pairs.

    Attributes:
        mean, std: float16 [N, 4, h, w], posterior of the autoencoder in the model's scale.
        states, offsets: float16 [total tokens, width] and int64 [N + 1], as `models.text.cache_texts` makes them.
        condition: float16 [N, 4, h, w], latents of the condition images of a control adapter, or None.
        metadata: float32 [N, CODES], what `models.metadata.encode_metadata` makes of the records with the model's
            `metadata_sources`, or None.
    """

    mean: Tensor
    std: Tensor
    states: Tensor
    offsets: Tensor
    condition: Tensor | None = None
    metadata: Tensor | None = None

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
        """These pairs, then the other's. CacheError where latents or text states differ in shape, or hold more."""
        parts = (self, other)
        if any(x is not None for part in parts for x in (part.condition, part.metadata)):
            raise CacheError("pairs with conditions or metadata cannot be joined: build one cache of them")
        shapes = [(tuple(part.mean.shape[1:]), part.states.shape[1]) for part in parts]
        if shapes[0] != shapes[1]:
            raise CacheError(f"latents and widths of text {shapes[0]} and {shapes[1]} differ: give both one resolution "
                             "and one text encoder")  # fmt: skip
        return LatentCache(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "std", "states")),
            offsets=torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]]),
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
        mean, std = encode(autoencoder, from_uint8(images))
        condition = None if conditions is None else encode_conditions(autoencoder, conditions).cpu().half()
        return cls(
            mean.half(), std.half(), **cache_texts(*text_encoder, prompts), condition=condition, metadata=metadata
        )

    def save(self, path: Path) -> None:
        tensors = {name: tensor.contiguous() for name, tensor in vars(self).items() if tensor is not None}
        with replacing(path) as partial:
            save_file(tensors, partial)

    @classmethod
    def load(cls, path: Path) -> "LatentCache":
        """Raises CacheError: if the file is missing, truncated or holds something else."""
        try:
            return cls(**load_file(path))
        except FileNotFoundError as error:
            raise CacheError(f"{path} does not exist: run the stage 02_cohort first") from error
        except (SafetensorError, TypeError) as error:
            raise CacheError(f"{path} is not a latent cache ({error}): delete it and run 02_cohort again") from error


def load_splits(cohort: Path, purpose: str) -> tuple[LatentCache, LatentCache]:
    """The training and the validation pairs of "pretraining" or "alignment", from the cohort's folder.

    Raises:
        CacheError: if one is missing or broken.
    """
    train, val = (LatentCache.load(cohort / f"{purpose}_{split}.safetensors") for split in ("train", "val"))
    return train, val
