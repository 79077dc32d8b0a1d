"""Classifier-free guidance: what a step compares, how it is weighed, and which steps are guided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.layers import TimeTables
from chexgen_lib.models.metadata import ATTRIBUTES, keep_attributes
from chexgen_lib.models.transformer import ChexGenTransformer

Scales = tuple[float, Mapping[str, float]]  # the weight of all, and those of attributes that have their own


@dataclass(frozen=True)
class Inputs:
    """What does not change over the steps of one call of the pipeline.

    Attributes:
        transformer: the model.
        states, mask: text states [N, L, width] and their mask [N, L].
        metadata: codes [N, CODES], or None.
        condition: latents [N, 4, h, w] of the conditions, or None.
        control_scale: weight of what the control adapter adds.
        guided_channels: how many of the output's channels guidance changes.
    """

    transformer: ChexGenTransformer | ControlledTransformer
    states: Tensor
    mask: Tensor
    metadata: Tensor | None
    condition: Tensor | None
    control_scale: float
    guided_channels: int
    _encoded: dict = field(default_factory=dict, repr=False, compare=False)

    def predict(self, x: Tensor, time: TimeTables, scales: Scales | None) -> Tensor:
        """The output at noisy latents x, float32, guided by `scales` if there are any."""
        names = None if scales is None else tuple(scales[1])
        if names not in self._encoded:
            self._encoded[names] = self._encode(names)
        copies = 1 if scales is None else len(names) + 2
        output = self.transformer.denoise(x.repeat(copies, 1, 1, 1), time, **self._encoded[names]).float()
        return output if scales is None else guide(output, [scales[0], *scales[1].values()], self.guided_channels)

    def with_states(self, states: Tensor | None) -> "Inputs":
        """These inputs with other text states of the same shape, as a callback may return them.

        diffusers' cut-off callbacks keep the last row or half, to cut the negative half off embeddings that hold both:
        here there is none, and all rows stay. Any other number of rows is an error.

        Raises:
            ValueError: for states of another shape.
        """
        if states is None or states is self.states:
            return self
        if len(states) in (1, len(self.states) // 2) and torch.equal(states, self.states[-len(states) :]):
            return self
        if states.shape != self.states.shape:
            shapes = f"{tuple(states.shape)}, not {tuple(self.states.shape)}"
            raise ValueError(f"the callback returned prompt_embeds {shapes}: return a row for each image")
        return replace(self, states=states.to(self.states), _encoded={})

    def _encode(self, names: tuple[str, ...] | None) -> dict:
        """Text, metadata and condition as `denoise` takes them; names: of attributes with a weight of their own."""
        given = (self.states, self.mask, self.metadata) if names is None else self._terms(names)
        encoded = {"text": self.transformer.encode_text(*(given[:2] if given[2] is None else given))}
        if self.condition is not None:
            # Of the first term alone: guidance then amplifies what the condition says as it does what the text says.
            encoded["condition"] = self.transformer.encode_condition(self.condition.to(self.states.dtype))
            encoded["control_scale"] = self.control_scale
        return encoded

    def _terms(self, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor | None]:
        """What guidance compares: text states, mask and metadata of n + 1 terms and of null, one below the other.

        The first term is the text with the attributes that have no weight of their own.
        """
        # The null half stands under its caption's mask, as in training and in the released code ...
        states, mask, codes = self.states, self.mask, self.metadata
        null, unsaid = self.transformer.null_caption[: states.shape[1]].to(states).expand_as(states), mask
        if codes is None:
            return torch.cat([states, null]), torch.cat([mask, unsaid]), None
        unsaid = torch.zeros_like(mask)  # ... but where there is metadata, under its first token's, as in training
        unsaid[:, 0] = 1
        alone = [torch.tensor([name == k for name in ATTRIBUTES], device=codes.device) for k in names]
        rest = ~torch.stack([torch.zeros(len(ATTRIBUTES), dtype=torch.bool, device=codes.device), *alone]).any(0)
        n = len(alone) + 1
        metadata = torch.cat([keep_attributes(codes, kept) for kept in (rest, *alone, torch.zeros_like(rest))])
        return torch.cat([states, *[null] * n]), torch.cat([mask, *[unsaid] * n]), metadata


def guide(output: Tensor, weights: Sequence[float], channels: int) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022) of the first `channels`; the others are the first term's.

    Several terms are composed (Liu et al. 2022, eq. 11): null + sum of weight x (term - null).

    Args:
        output: [(n + 1) N, C, h, w], of n terms and of null.
        weights: of the n terms.
    """
    *terms, null = output.chunk(len(weights) + 1)
    guided = null[:, :channels]
    for weight, term in zip(weights, terms, strict=True):
        guided = guided + weight * (term - null)[:, :channels]
    return torch.cat([guided, terms[0][:, channels:]], dim=1)


def guided_steps(timesteps: Tensor, trained: int, interval: tuple[float, float]) -> list[bool]:
    """Whether each time step, as a fraction of those of training, lies in `interval`.

    Raises:
        ValueError: if the interval is not two fractions in order.
    """
    try:
        low, high = interval
        ordered = 0 <= low <= high <= 1
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise ValueError(f"guidance_interval must be two fractions in order, not {interval}")
    fractions = (timesteps / trained).clamp(max=1).tolist()  # a shifted time 1 may be rounded up
    return [low <= fraction <= high for fraction in fractions]


def scales_at(scale: float, requested: float, attributes: Mapping[str, float]) -> Scales | None:
    """Weights of guidance at a step: `scale` is the call's `requested`, or what a callback made of it."""
    if scale == requested:
        return (scale, attributes) if scale != 1 or attributes else None
    return (scale, attributes) if scale > 1 else None  # diffusers' callbacks end guidance by 0
