"""Sampling from the baseline generators: the U-Net of this library, and Stable Diffusion pipelines such as RoentGen's.

Both are for `sample_pool`: prompts in, grey images in 0..1 out. Neither reads more than 77 tokens of a prompt;
`models.baseline.truncate(pipeline.tokenizer, prompts)` counts the prompts that are longer.
"""

import warnings
from pathlib import Path
from pickle import UnpicklingError

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError

from chexgen_lib.models.baseline import MAX_TOKENS, BaselineUNet, truncate
from chexgen_lib.models.loading import as_stated
from chexgen_lib.sampling.pipeline import ChexGenPipeline, ChexGenPipelineOutput, assemble

UNREADABLE = (  # what diffusers, transformers and safetensors raise for files of others
    OSError,
    SafetensorError,
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    UnpicklingError,
    TypeError,
    AttributeError,
)


class BaselinePipeline(ChexGenPipeline):
    """A `ChexGenPipeline` whose `transformer` is a `BaselineUNet`; longer prompts are cut, and a warning says so."""

    def caption(self, prompt: str) -> str:
        caption = super().caption(prompt)
        if not isinstance(caption, str):
            return caption  # encoding refuses it, and names its row
        (text,), cut = truncate(self.tokenizer, [caption])
        if cut:
            warnings.warn(f"a prompt is cut after {MAX_TOKENS} tokens: the baseline reads no more", stacklevel=2)
        return text


def assemble_baseline(unet: BaselineUNet, autoencoder: str, text_encoder: str) -> BaselinePipeline:
    """`assemble` for a trained baseline: the frozen parts of those names, and the paper's sampler."""
    return BaselinePipeline(**assemble(unet, autoencoder, text_encoder).components)


class GreyStableDiffusionPipeline(StableDiffusionPipeline):
    """A Stable Diffusion pipeline of radiographs, called as `ChexGenPipeline` is by `sample_pool`."""

    @property
    def transformer(self) -> UNet2DConditionModel:
        """The trained model."""
        return self.unet

    def __call__(
        self, prompt: str | list[str], condition_image: None = None, output_type: str = "np", **settings
    ) -> ChexGenPipelineOutput:
        """Sample radiographs; `settings` are those of diffusers' pipeline.

        Returns:
            `.images` float32 [N, H, W, 1] in 0..1: the mean of the colour channels.

        Raises:
            ValueError: for a condition, or an `output_type` other than "np".
        """
        if condition_image is not None:
            raise ValueError("a Stable Diffusion pipeline takes no condition: leave out `conditions`")
        if output_type != "np":
            raise ValueError(f"output_type must be np, not {output_type!r}")
        images = super().__call__(prompt, output_type=output_type, **settings).images  # [N, H, W, 3]
        return ChexGenPipelineOutput(images=images.mean(axis=-1, keepdims=True))


def load_baseline(name: str | Path) -> GreyStableDiffusionPipeline:
    """A published generator (RoentGen, MINIM) that diffusers saved as a Stable Diffusion pipeline, with its sampler.

    Only safetensors are read, nothing in the folder is executed, and no safety checker judges the radiographs.

    Args:
        name: folder or hub id of the pipeline.

    Raises:
        ValueError: if no such pipeline can be loaded from there.
    """
    try:
        found = StableDiffusionPipeline.load_config(name)["_class_name"]
        if found != StableDiffusionPipeline.__name__:
            raise ValueError(f"it is a {found}")
        options = {"safety_checker": None, "requires_safety_checker": False, "use_safetensors": True}
        return GreyStableDiffusionPipeline.from_pretrained(name, **as_stated(name, options))
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"no Stable Diffusion pipeline at {str(name)!r}: give a folder that diffusers saved as safetensors, or a "
            f"reachable hub id ({reason})"
        ) from error
