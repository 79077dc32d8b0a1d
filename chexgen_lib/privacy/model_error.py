"""Membership inference by the weights of a diffusion model: its error is smaller on images that it was trained on.

Matsumoto et al. 2023, Carlini et al. 2023 (arXiv 2302.03262, 2301.13188).
"""

import numpy as np
import torch

from chexgen_lib.diffusion.objectives import NoisePrediction, RectifiedFlow
from chexgen_lib.images import from_uint8
from chexgen_lib.models.autoencoder import encode
from chexgen_lib.privacy.folders import AuditError, Images
from chexgen_lib.sampling.pipeline import ChexGenPipeline

TIMES = (100, 250, 400, 550)  # of 1000
NAME = "error of the model"


@torch.inference_mode()
def scores(targets: Images, pipeline: ChexGenPipeline, seed: int = 0, batch_size: int = 32) -> np.ndarray:
    """The negative error of a pipeline's transformer on each image [N], at `TIMES` and with one noise for all images.

    Images are described by their prompts if all have one and the pipeline reads text, or else by none (the null
    caption).

    Raises:
        AuditError: for images of another size than the pipeline's.
    """
    check_size(targets, pipeline)
    model, n = pipeline.transformer, len(targets)
    objective = NoisePrediction() if model.objective == "ddpm" else RectifiedFlow()
    latents, _ = encode(pipeline.vae, from_uint8(targets.pixels))
    shape = (len(TIMES), 1, *latents.shape[1:])
    noises = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    described_all = pipeline.text_encoder is not None and not targets.table["prompt"].null_count()
    prompts = targets.table["prompt"].to_list() if described_all else None
    errors = []
    for rows in torch.arange(n).split(batch_size):
        x0 = latents[rows]
        described = (None, [{}] * len(rows)) if prompts is None else ([prompts[i] for i in rows],)
        states, mask = pipeline.encode_prompt(*described)
        total = torch.zeros(len(rows))
        for time, noise in zip(TIMES, noises, strict=True):
            t, eps = torch.full((len(rows),), time), noise.expand_as(x0)
            inputs = (x.to(model.device) for x in (objective.noisy(x0, eps, t), t, states, mask))
            output = model(*inputs).sample[:, : x0.shape[1]].float().cpu()
            total += (output - objective.target(x0, eps)).pow(2).mean((1, 2, 3))
        errors.append(total / len(TIMES))
    return -torch.cat(errors).numpy()


def check_size(images: Images, pipeline: ChexGenPipeline) -> None:
    """Raise AuditError for images of another size than a pipeline's."""
    if (size := images.pixels.shape[-1]) != pipeline.image_size:
        raise AuditError(f"images of {size} px, but the generator makes {pipeline.image_size}: leave out --weights")
