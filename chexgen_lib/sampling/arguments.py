"""What the pipeline does with its arguments before it samples: one entry per prompt, captions as in training."""

from collections.abc import Iterable, Mapping, Sequence, Set, Sized

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PixArtAlphaPipeline, SchedulerMixin
from torch import Tensor

from chexgen_lib.checks import check_count, check_weights
from chexgen_lib.diffusion.schedulers import samples_objective
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import ATTRIBUTES


def check_prompts(
    prompt: str | Sequence[str] | None, embeds: Tensor | None, mask: Tensor | None, by_metadata: bool, width: int
) -> None:
    """Raise ValueError unless exactly one of prompt and text states is given, or metadata that stands for both.

    Text states are [B, L, width], their mask [B, L].
    """
    if (prompt is None) == (embeds is None) and not (prompt is None and by_metadata):
        raise ValueError("give either `prompt` or `prompt_embeds`")
    unordered = isinstance(prompt, Mapping | Set) or hasattr(prompt, "columns")  # a table would give its columns' names
    if unordered or not (prompt is None or isinstance(prompt, Sized)):
        raise ValueError(f"`prompt` must be a text or a list of texts, not {repr(prompt)[:200]}")
    if embeds is not None and mask is None:
        raise ValueError("`prompt_embeds` needs its `prompt_attention_mask`")
    check_tensors(prompt_embeds=embeds, prompt_attention_mask=mask)
    if embeds is not None and (embeds.ndim != 3 or embeds.shape[2] != width or mask.shape != embeds.shape[:2]):
        raise ValueError(
            f"`prompt_embeds` {tuple(embeds.shape)} and `prompt_attention_mask` {tuple(mask.shape)}: this model needs "
            f"[B, L, {width}] and [B, L], of its own text encoder"
        )
    if mask is not None and not (counts := mask.bool().any(dim=1)).all():
        row = int((~counts).nonzero()[0])
        raise ValueError(f"row {row} of `prompt_attention_mask` has no token: keep at least one")
    if prompt is not None and len(prompt) == 0:
        raise ValueError("`prompt` is empty: write what the image should show")


def without_padding(embeds: Tensor, mask: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Text states [B, L, width] and mask [B, L] without padding beyond the `tokens` that a model reads.

    Raises:
        ValueError: for a text of more tokens.
    """
    if mask[:, tokens:].any():
        raise ValueError(
            f"`prompt_embeds` of {int(mask.bool().any(dim=0).nonzero().max()) + 1} tokens: this model reads {tokens}; "
            "encode the prompts with that limit"
        )
    return embeds[:, :tokens], mask[:, :tokens]


def check_outputs(
    images: int, steps: int | None, guidance_scale: float, control_scale: float, output_type: str
) -> None:
    """Raise ValueError for an impossible number, guidance, control or kind of images."""
    for name, count in (("num_images_per_prompt", images), ("num_inference_steps", steps)):
        if count is not None:
            check_count(name, count)
    check_weights(guidance_scale=guidance_scale, control_scale=control_scale)
    if output_type not in ("pil", "np", "pt", "latent"):
        raise ValueError(f"output_type must be pil, np, pt or latent, not {output_type!r}")


def check_tensors(**tensors: Tensor | None) -> None:
    """Raise ValueError for an argument, given by its name, that is neither a tensor nor None."""
    for name, tensor in tensors.items():
        if not (tensor is None or isinstance(tensor, Tensor)):
            raise ValueError(f"`{name}` must be a torch.Tensor, not a {type(tensor).__name__}")


def check_noise(generator, latents: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError for what cannot give the noise of images with latents of this shape, [N, 4, h, w]."""
    check_tensors(latents=latents)
    if isinstance(generator, list) and len(generator) != shape[0]:
        raise ValueError(f"{len(generator)} generators for {shape[0]} images: give one, or one for each")
    for one in generator if isinstance(generator, list) else [generator]:
        if not (one is None or isinstance(one, torch.Generator)):
            raise ValueError(f"`generator` must be a torch.Generator or a list of them, not a {type(one).__name__}")
    if latents is not None and tuple(latents.shape) != shape:
        raise ValueError(f"latents have shape {tuple(latents.shape)}, these prompts need {shape}")


def returned_latents(returned: Mapping, latents: Tensor) -> Tensor:
    """The latents that a callback returned, or those that it was given.

    Raises:
        ValueError: for latents of another shape.
    """
    new = returned.get("latents", latents)
    if new.shape != latents.shape:
        shapes = f"{tuple(new.shape)}, not {tuple(latents.shape)}"
        raise ValueError(f"the callback returned latents {shapes}: return a row for each image")
    return new


def check_objective(transformer: torch.nn.Module, scheduler: SchedulerMixin) -> None:
    """Raise ValueError for a scheduler that does not sample what the transformer was trained for, or without one."""
    if transformer is None:
        raise ValueError("this pipeline has no transformer, and encodes prompts alone: load it with one to sample")
    learnt, sampled = transformer.objective, samples_objective(scheduler)
    predicted = scheduler.config.get("prediction_type", "epsilon")
    fault = None
    if learnt != sampled:
        fault = f"samples {sampled}"
    elif learnt == "ddpm" and predicted != "epsilon":
        fault = f"takes what it predicts for {predicted} and not for the noise"
    elif learnt == "ddpm" and not hasattr(scheduler, "alphas_cumprod"):
        fault = "has other noise levels"
    elif predicted == "flow_prediction" and not scheduler.config.get("use_flow_sigmas"):
        fault = "has the noise levels of ddpm without use_flow_sigmas=True"
    if fault:
        raise ValueError(
            f"the transformer was trained as {learnt}, {type(scheduler).__name__} {fault}: choose another scheduler "
            "(chexgen_lib.diffusion.schedulers)"
        )


def check_distilled(
    distilled: int | None, scheduler: SchedulerMixin, steps: int, guidance: float, weights: Mapping[str, float] | None
) -> None:
    """Raise ValueError for steps, guidance or a scheduler other than a distilled model has learned to be sampled with.

    Args:
        distilled: its steps; None: it is no distilled model, and nothing is checked.
        weights: of metadata.
    """
    if distilled is None:
        return
    given = [f"num_inference_steps={steps} (--steps)"] * (steps != distilled)
    given += [f"guidance_scale={guidance:g} (--guidance)"] * (guidance != 1)
    if given := given + ["metadata_guidance (--metadata-guidance)"] * bool(weights):
        raise ValueError(
            f"these weights are distilled to {distilled} steps, with guidance learned: leave out {' and '.join(given)}"
        )
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"these weights are distilled to steps of Euler's method, not of {type(scheduler).__name__}: "
            "use flow_euler_scheduler(), or leave out --sampler"
        )


def check_callback(wanted: Iterable[str], known: Sequence[str]) -> None:
    """Raise ValueError for a tensor that the pipeline cannot hand to a callback."""
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"callback_on_step_end_tensor_inputs {', '.join(unknown)}: use {', '.join(known)}")


def check_guided(weights: Mapping[str, float], codes: Tensor) -> None:
    """Raise ValueError for no weight, or an attribute that does not exist or that a row of codes does not give.

    Args:
        weights: of attributes.
        codes: [B, CODES].
    """
    check_weights(**{f"metadata_guidance of {name}": weight for name, weight in weights.items()})
    for name in weights:
        if name not in ATTRIBUTES:
            raise ValueError(f"metadata_guidance of an unknown {name!r}: use {', '.join(ATTRIBUTES)}")
        missing = codes[:, ATTRIBUTES.index(name)].isnan()
        if missing.any():
            row = int(missing.nonzero()[0])
            raise ValueError(f"metadata_guidance of {name!r}, which the metadata of row {row} does not give")


def check_condition(transformer: torch.nn.Module, count: int, latents: Tensor | None) -> None:
    """Raise ValueError for conditions that a transformer cannot take, or that are not one for each prompt."""
    check_tensors(condition_latents=latents)
    if latents is None:
        return
    if not isinstance(transformer, ControlledTransformer):
        raise ValueError(f"a {type(transformer).__name__} takes no condition: load a control adapter")
    if len(latents) != count:
        raise ValueError(f"{len(latents)} conditions for {count} prompts: give one each")


def one_each(name: str, value, count: int, single: bool) -> list:
    """`value` for each of `count` prompts: repeated if it is a single one, else the list as it is."""
    if single:
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{len(value)} entries in `{name}` for {count} prompts: give one each")
    return list(value)


def clean_caption(text: str) -> str:
    """A caption as the released models were trained on: diffusers' copy of the cleaner they used, applied twice."""
    return PixArtAlphaPipeline._clean_caption(_Cleaner, PixArtAlphaPipeline._clean_caption(_Cleaner, text))


class _Cleaner:
    """All that the cleaner, a pipeline's method, needs of its pipeline."""

    bad_punct_regex = PixArtAlphaPipeline.bad_punct_regex
