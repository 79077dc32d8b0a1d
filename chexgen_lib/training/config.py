"""Settings of a training run (paper, Methods; ED Table 4)."""

import math
from dataclasses import dataclass, field

import torch

from chexgen_lib.diffusion.objectives import NoisePrediction, RectifiedFlow
from chexgen_lib.models.transformer import OBJECTIVES

SCHEDULES = {"constant": "constant_with_warmup", "cosine": "cosine"}  # diffusers' plain "constant" has no warm-up
ONLY_FOR = {"noisy_weight": "ddpm", **dict.fromkeys(("time_mean", "time_scale", "time_shift"), "rectified_flow")}


class TrainingError(ValueError):
    """Settings, data or a checkpoint that training cannot use."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one run; the defaults are the paper's (ED Table 4) where it gives one.

    Attributes:
        steps: optimiser steps.
        batch_size: samples of a micro-batch, which one process handles at a time.
        gradient_accumulation: micro-batches of a step; the processes share them, so that a step sees batch_size x
            gradient_accumulation samples, whatever their number.
        gradient_checkpointing: keep the blocks' inputs alone and compute the rest again in the backward pass: a third
            more computing, a fraction of the memory (`models.sizing`), the same gradients.
        muon_learning_rate: of Muon (Jordan et al. 2024) for the matrices of the blocks, the rest trains with AdamW at
            `learning_rate`; None: AdamW for all. Its cost is one of a step, so it pays from about 100 samples on.
        adam_beta2: decay of AdamW's second moment; runs of few steps need a smaller one.
        schedule: "constant", or "cosine" to zero, after `warmup_steps` of linear warm-up.
        ema_decay: of the averaged weights, ramped up over the first steps.
        caption_dropout: share of captions replaced by the null caption, for classifier-free guidance. A model with a
            metadata encoder needs more: it must also meet few attributes, which are dropped too, without a text.
        metadata_dropout: share of samples whose metadata are dropped as a whole; of the others attributes are, by
            chance. 0.5 for a model that is asked with a text alone as often as with metadata.
        objective: "ddpm" (the paper: `NoisePrediction`) or "rectified_flow" (`RectifiedFlow`); the model's own.
        noisy_weight: for "ddpm", the largest weight of a time step's error; 1 weighs all equally, as in the paper.
        time_mean, time_scale, time_shift: for "rectified_flow", the distribution of times.
        precision: "bf16", "fp32", or "auto": bf16 where the hardware multiplies it natively.
        checkpoint_every, log_every: in steps.

    `gradient_checkpointing` and `checkpoint_every` change neither weights nor history, so they are not compared: a run
    goes on with others.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-4
    muon_learning_rate: float | None = None
    weight_decay: float = 0.01
    adam_beta2: float = 0.999
    clip_norm: float = 1.0
    schedule: str = "constant"
    warmup_steps: int = 0
    ema_decay: float = 0.9999
    caption_dropout: float = 0.1
    metadata_dropout: float = 0.0
    objective: str = "ddpm"
    noisy_weight: float = 1.0
    time_mean: float = 0.0
    time_scale: float = 1.0
    time_shift: float = 1.0
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = field(default=False, compare=False)
    precision: str = "auto"
    checkpoint_every: int = field(default=500, compare=False)
    log_every: int = 10
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "gradient_accumulation", "checkpoint_every", "log_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise TrainingError(f"{name} must be a positive integer, not {getattr(self, name)!r}")
        for name in ("warmup_steps", "seed"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 0:
                raise TrainingError(f"{name} must be 0 or a positive integer, not {getattr(self, name)!r}")
        for name in ("learning_rate", "clip_norm", "time_scale", "time_shift"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} must be positive and finite, not {getattr(self, name)!r}")
        if self.muon_learning_rate is not None and not 0 < self.muon_learning_rate < math.inf:
            raise TrainingError(f"muon_learning_rate must be positive or null, not {self.muon_learning_rate!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise TrainingError(f"weight_decay must be at least 0 and finite, not {self.weight_decay!r}")
        for name in ("ema_decay", "caption_dropout", "metadata_dropout", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"{name} must be in [0, 1), not {getattr(self, name)!r}")
        if not self.noisy_weight >= 1:
            raise TrainingError(f"noisy_weight must be at least 1, not {self.noisy_weight!r}")
        if self.objective not in OBJECTIVES:
            raise TrainingError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        for name, objective in ONLY_FOR.items():
            if objective != self.objective and getattr(self, name) != getattr(type(self), name):
                raise TrainingError(f"{name} is for the objective {objective}: leave it out with {self.objective}")
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise TrainingError(f"precision must be auto, bf16 or fp32, not {self.precision!r}")

    def build_objective(self) -> NoisePrediction | RectifiedFlow:
        """The training objective with these settings."""
        if self.objective == "ddpm":
            return NoisePrediction(self.noisy_weight)
        return RectifiedFlow(self.time_mean, self.time_scale, self.time_shift)


def native_bf16() -> bool:
    """Whether bfloat16 products are faster than float32 here (a GPU since Ampere; a CPU with AMX or AVX512-BF16)."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
