"""A generator that others trained makes one image in one step, before anything is trained or sampled for hours.

Folders and files may be whole and yet make none: parts in different precisions, a text encoder of another width,
weights that overflow. That shows when they are called, and is to show first.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from diffusers import PNDMScheduler, SchedulerMixin

from chexgen_lib.models.loading import fastest_device
from chexgen_lib.sampling.pipeline import ChexGenPipeline

PROMPT = "Small left pleural effusion."
Pipeline = TypeVar("Pipeline", bound=ChexGenPipeline)


class GeneratorError(ValueError):
    """A generator that makes no image; the message names it, the cause and the remedy."""


def tried(open_pipeline: Callable[[], Pipeline], name: str) -> Pipeline:
    """The pipeline that `open_pipeline` gives, on the fastest device, after it has sampled one image in one step.

    Args:
        open_pipeline: loads it; called once.
        name: of the folder, id or setting, for the message.

    Raises:
        GeneratorError: if it cannot be loaded or called, or what it makes is no radiograph [1, H, W, 1] in 0..1.
    """
    try:
        pipeline = open_pipeline().to(fastest_device())
        noise = torch.Generator().manual_seed(0)
        steps = _fewest_steps(pipeline.scheduler)
        images = pipeline([PROMPT], num_inference_steps=steps, generator=[noise], output_type="np").images
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the files of others make the libraries raise nearly anything
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise GeneratorError(
            f"{name}: no image in a trial of one step ({said}); download it or save it again, in float32"
        ) from error
    shape = np.shape(images)
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 1 or not np.isfinite(images).all() or np.ptp(images) == 0:
        raise GeneratorError(
            f"{name}: a trial of one step gave {_described(np.asarray(images))} in place of a radiograph; "
            "is it a generator of grey images, saved in float32?"
        )
    return pipeline


def _fewest_steps(scheduler: SchedulerMixin) -> int:
    """One, but for PNDM, which begins by four steps of Runge-Kutta unless it is told to skip them."""
    return 4 if isinstance(scheduler, PNDMScheduler) and not scheduler.config.skip_prk_steps else 1


def _described(images: np.ndarray) -> str:
    if not np.isfinite(images).all():
        return "values that are not finite"
    return f"an image of one grey, {images.flat[0]:g}" if np.ptp(images) == 0 else f"an array {list(images.shape)}"
