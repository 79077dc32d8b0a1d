"""A first look at a generator: one image for each of a few prompts."""

from collections.abc import Sequence

import numpy as np
import torch

from chexgen_lib.models.loading import fastest_device
from chexgen_lib.sampling.pipeline import ChexGenPipeline


def preview(pipeline: ChexGenPipeline, prompts: Sequence[str], num_inference_steps: int, seed: int = 0) -> np.ndarray:
    """One image per prompt, float [P, H, W] in 0..1; prompt i has the noise of seed + i, whatever the other prompts.

    Samples on the GPU where there is one.
    """
    pipeline.to(fastest_device())
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
    return pipeline(
        list(prompts), num_inference_steps=num_inference_steps, generator=generators, output_type="np"
    ).images[..., 0]
