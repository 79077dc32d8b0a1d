"""Samples of tiny pipelines, for tests."""

import copy

import torch

from chexgen_lib.diffusion.schedulers import (
    ddim_scheduler,
    flow_dpm_solver_scheduler,
    flow_euler_scheduler,
    flow_heun_scheduler,
    samples_objective,
)
from chexgen_lib.sampling.pipeline import ChexGenPipeline

PROMPTS = [
    "Large left pleural effusion.",
    "The heart is enlarged. No pneumothorax is seen on this radiograph.",
]


def with_scheduler(pipe, scheduler):
    """The pipeline with another scheduler, its transformer as if trained for that."""
    transformer = copy.deepcopy(pipe.transformer)
    transformer.register_to_config(objective=samples_objective(scheduler))
    other = ChexGenPipeline(**{**pipe.components, "transformer": transformer, "scheduler": scheduler})
    other.set_progress_bar_config(disable=True)
    return other


SCHEDULERS = [ddim_scheduler, flow_euler_scheduler, flow_heun_scheduler, flow_dpm_solver_scheduler]


def seeds(*values):
    return [torch.Generator().manual_seed(v) for v in values]


def sample(pipe, prompt=PROMPTS, generators=(0, 1), **changes):
    settings = dict(num_inference_steps=4, output_type="np", generator=seeds(*generators))
    return pipe(prompt, **{**settings, **changes}).images


def condition(n=2):
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(0))
