"""Text to radiograph, as a diffusers pipeline (paper, Methods, Text-to-Image Generation)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.diffusion.schedulers import (
    ddim_scheduler,
    flow_euler_scheduler,
    samples_objective,
    set_steps,
)
from chexgen_lib.images import to_uint8
from chexgen_lib.models.autoencoder import decode, downsampling, encode_conditions, load_autoencoder
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.layers import TimeTables
from chexgen_lib.models.metadata import ATTRIBUTES, encode_metadata, keep_attributes
from chexgen_lib.models.text import check_texts, encode_texts, load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.arguments import check_guided, check_outputs, check_prompts, clean_caption, one_each
from chexgen_lib.sampling.conditions import check_drawing, draw
from chexgen_lib.sampling.prompts import with_metadata


@dataclass
class ChexGenPipelineOutput(BaseOutput):
    """`images`: list of PIL images, or an array or tensor [N, H, W] in 0..1, or latents [N, 4, h, w]."""

    images: list[PIL.Image.Image] | np.ndarray | Tensor


def assemble(transformer: ChexGenTransformer, autoencoder: str, text_encoder: str | None) -> "ChexGenPipeline":
    """A pipeline of a trained transformer and the frozen parts of those names.

    It samples with the paper's DDIM, or along a rectified flow with Euler's method. Without a text encoder it takes
    text states (`prompt_embeds`) or metadata alone.
    """
    tokenizer, encoder = (None, None) if text_encoder is None else load_text_encoder(text_encoder)
    scheduler = ddim_scheduler() if transformer.objective == "ddpm" else flow_euler_scheduler()
    return ChexGenPipeline(transformer, load_autoencoder(autoencoder), encoder, tokenizer, scheduler)


class ChexGenPipeline(DiffusionPipeline):
    """Samples chest radiographs from descriptions.

    Args:
        transformer, vae, text_encoder, tokenizer: the trained parts.
        scheduler: any diffusers scheduler for what the transformer predicts: the noise (`ddim_scheduler()` is the
            paper's), or a flow's velocity (`flow_euler_scheduler()`).
        compat: "paper", or "released": guidance as in the released code, on three of the four latent channels, and
            none where a condition controls the image.
        clean_captions: clean prompts as the released models' training captions were (lower case, no brackets, ...).

    Raises:
        ValueError: if the transformer's objective is not what the scheduler samples.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder"]  # a model may be conditioned on metadata alone
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        transformer: ChexGenTransformer | ControlledTransformer,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        compat: str = "paper",
        clean_captions: bool = False,
    ):
        super().__init__()
        if compat not in ("paper", "released"):
            raise ValueError(f"compat must be paper or released, not {compat!r}")
        self.register_to_config(compat=compat, clean_captions=clean_captions)
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self._check_objective()

    @torch.inference_mode()
    def __call__(  # noqa: PLR0913  # as diffusers' pipelines
        self,
        prompt: str | Sequence[str] | None = None,
        metadata: Mapping | Sequence[Mapping] | None = None,
        mask: Mapping | Sequence[Mapping] | None = None,
        boxes: Sequence[Mapping] | Sequence[Sequence[Mapping]] | None = None,
        condition_image: PIL.Image.Image | np.ndarray | Sequence | None = None,
        control_scale: float = 1.0,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 100,
        guidance_scale: float = 4.0,
        metadata_guidance: Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        condition_latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        return_dict: bool = True,
    ) -> ChexGenPipelineOutput | tuple:
        """Sample radiographs; all images of prompt 0 come first, then those of prompt 1, and so on.

        What steers the images (`metadata`, `mask`, `boxes`, `condition_image`) is given for a single prompt, or as a
        list with an entry per prompt. A condition needs a `ControlledTransformer`.

        Args:
            prompt: one description or several, at most `transformer.config.text_tokens` tokens each.
            metadata: dict of `sex`, `age`, `race`, `view`, merged into the prompt in the released models' format. For a
                transformer with a metadata encoder, a dict or Record as in `models.metadata.encode_metadata`, and then
                `prompt` may be left out.
            mask: dict of class -> two-valued square mask; classes and colours are in `conditions.LEGEND`.
            boxes: list of dicts of `class`, x, y, w, h; top left corner and size as fractions of the image.
            condition_image: a ready drawing (`conditions.draw`) uint8 [H, W, 3] instead of `mask` and `boxes`.
            control_scale: weight of the control; 0 samples without it.
            num_images_per_prompt, num_inference_steps: counts of at least 1.
            guidance_scale: weight of classifier-free guidance (paper: 4.0) by text and condition together; 1 samples
                without it, at half the cost.
            metadata_guidance: separate weights of attributes, next to `guidance_scale` for text and other attributes:
                null + sum of weight x (term - null). Each adds half the cost of guidance.
            guidance_interval: guide only where t / 1000 lies in it; steps outside cost half (Kynkaanniemi et al. 2024).
            generator: one for the batch, or one per image: then an image does not depend on its batch.
            latents: starting noise [N, 4, h, w] instead of a generator's.
            condition_latents: an encoded condition per prompt, [B, 4, h, w], instead of the three above.
            prompt_embeds, prompt_attention_mask: text states [B, L, width] and mask [B, L] instead of `prompt`.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as (pipeline, i, t, {"latents": ...}) after each step (with Heun's method, each
                half of one); may return new latents.

        Raises:
            ValueError, TextError, ConditionError: if an argument is out of range, a prompt empty or too long, or a
                mask or box cannot be drawn.
        """
        self._check_objective()
        by_metadata = metadata is not None and self.transformer.metadata_sources is not None
        check_prompts(prompt, prompt_embeds, prompt_attention_mask, by_metadata)
        check_outputs(num_images_per_prompt, output_type)
        if prompt_embeds is None:
            prompt_embeds, prompt_attention_mask = self._encode_prompts(prompt, metadata)
        count = len(prompt_embeds)
        asked = self._encode_metadata(count, metadata, metadata_guidance or {})
        if condition_latents is None and not (mask is None and boxes is None and condition_image is None):
            condition_latents = self._encode_conditions(count, mask, boxes, condition_image)
        self._check_condition(count, condition_latents)
        device, dtype = self._execution_device, self.transformer.dtype
        states, valid, asked, condition = (
            None if x is None else x.to(device).repeat_interleave(num_images_per_prompt, dim=0)
            for x in (prompt_embeds.to(dtype), prompt_attention_mask, asked, condition_latents)
        )  # [N, L, width], [N, L], [N, CODES], [N, 4, h, w]
        set_steps(self.scheduler, num_inference_steps, device)
        latents = self._starting_noise(len(states), latents, generator)
        steps = self._guided_steps(guidance_interval, controlled=condition is not None)
        scales = (guidance_scale, metadata_guidance or {}) if guidance_scale != 1 or metadata_guidance else None
        predictors = {
            guided: self._predictor(states, valid, asked, condition, control_scale, scales if guided else None)
            for guided in set(steps)
        }
        times = self.transformer.encode_time(self.scheduler.timesteps)
        noisy = {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}
        scale_input = getattr(self.scheduler, "scale_model_input", lambda x, t: x)  # flow schedulers have none
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            x = scale_input(latents, t).to(dtype)
            output = predictors[steps[i]](x, times[i : i + 1])
            if not self._learns_variance:
                output = output[:, : latents.shape[1]]
            latents = self.scheduler.step(output, t, latents, return_dict=False, **noisy)[0]
            if callback_on_step_end is not None:
                latents = (callback_on_step_end(self, i, t, {"latents": latents}) or {}).get("latents", latents)
        images = latents if output_type == "latent" else self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ChexGenPipelineOutput(images=images) if return_dict else (images,)

    def _encode_prompts(self, prompt: str | Sequence[str] | None, metadata) -> tuple[Tensor, Tensor]:
        """Text states [B, L, width] and mask [B, L] of the captions; of no prompt, the null caption's first token."""
        if prompt is None:
            count = 1 if isinstance(metadata, Mapping) else len(metadata)
            return self.transformer.null_caption[:1].expand(count, 1, -1), torch.ones(count, 1, dtype=torch.bool)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if metadata is not None and self.transformer.metadata_sources is None:
            people = one_each("metadata", metadata, len(prompts), single=isinstance(metadata, Mapping))
            prompts = [with_metadata(text, person) for text, person in zip(prompts, people, strict=True)]
        captions = [self.caption(text) for text in prompts]
        limit = len(self.transformer.null_caption)
        check_texts(self.tokenizer, captions, limit)
        distinct = list(dict.fromkeys(captions))  # several images of one prompt are often requested
        states, mask = encode_texts(self.tokenizer, self.text_encoder, distinct, limit, truncate=True)  # none is longer
        rows = [distinct.index(caption) for caption in captions]
        return states[rows], mask[rows]

    def _encode_metadata(self, count: int, metadata, scales: Mapping[str, float]) -> Tensor | None:
        """Codes [B, CODES] for a transformer with a metadata encoder; None for another."""
        sources = self.transformer.metadata_sources
        if sources is None:
            if scales:
                raise ValueError("metadata_guidance needs a transformer with a metadata encoder")
            return None
        rows = one_each("metadata", metadata or {}, count, single=metadata is None or isinstance(metadata, Mapping))
        codes = encode_metadata(rows, sources)
        check_guided(scales, codes)
        return codes

    def _encode_conditions(self, count: int, mask, boxes, image) -> Tensor:
        """Latents [B, 4, h, w] of the drawn or given condition images."""
        size = self.image_size
        if image is not None:
            if mask is not None or boxes is not None:
                raise ValueError("give either `condition_image`, or `mask` and `boxes`")
            single = isinstance(image, PIL.Image.Image) or np.ndim(image) == 3
            given = one_each("condition_image", image, count, single)
            drawn = [check_drawing(np.asarray(x), size) for x in given]
        else:
            masks = one_each("mask", mask, count, single=mask is None or isinstance(mask, Mapping))
            listed = one_each("boxes", boxes, count, single=not boxes or isinstance(boxes[0], Mapping))
            drawn = [draw(size, m, b) for m, b in zip(masks, listed, strict=True)]
        return encode_conditions(self.vae, np.stack(drawn))

    def _check_condition(self, count: int, latents: Tensor | None) -> None:
        if latents is None:
            return
        if not isinstance(self.transformer, ControlledTransformer):
            raise ValueError(f"a {type(self.transformer).__name__} takes no condition: load a control adapter")
        if len(latents) != count:
            raise ValueError(f"{len(latents)} conditions for {count} prompts: give one each")

    def _starting_noise(self, count: int, latents: Tensor | None, generator) -> Tensor:
        shape = (count, *self.transformer.latent_shape)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}, these prompts need {shape}")
        return latents.to(self._execution_device) * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _guided_steps(self, interval: tuple[float, float], controlled: bool) -> list[bool]:
        """Whether each call of the model is guided; Heun's steps have two.

        The released code guides none where a condition controls the image.
        """
        low, high = interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance_interval must be two fractions in order, not {interval}")
        allowed = not (self.config.compat == "released" and controlled)
        times = self.scheduler.timesteps / self.scheduler.config.num_train_timesteps
        fractions = times.clamp(max=1).tolist()  # a shifted time 1 may be rounded up
        return [allowed and low <= fraction <= high for fraction in fractions]

    def _terms(
        self, states: Tensor, valid: Tensor, asked: Tensor | None, scale: float, attribute_scales: Mapping[str, float]
    ) -> tuple[list[float], Tensor, Tensor, Tensor | None]:
        """What guidance compares: weights of n terms; text [(n + 1) N, L, width], mask and metadata of terms and null.

        The first term is the text with the attributes that have no weight of their own.
        """
        # The null half uses its caption's mask, as in training and in the released code ...
        null, unsaid = self.transformer.null_caption[: states.shape[1]].to(states).expand_as(states), valid
        if asked is None:
            return [scale], torch.cat([states, null]), torch.cat([valid, unsaid]), None
        unsaid = torch.zeros_like(valid)  # ... but with metadata the mask of its first token, as in training
        unsaid[:, 0] = 1
        alone = [torch.tensor([name == k for name in ATTRIBUTES], device=asked.device) for k in attribute_scales]
        rest = ~torch.stack([torch.zeros(len(ATTRIBUTES), dtype=torch.bool, device=asked.device), *alone]).any(0)
        none = torch.zeros_like(rest)
        n = len(alone) + 1
        metadata = torch.cat([keep_attributes(asked, kept) for kept in (rest, *alone, none)])
        weights = [scale, *attribute_scales.values()]
        return weights, torch.cat([states, *[null] * n]), torch.cat([valid, *[unsaid] * n]), metadata

    def _predictor(
        self,
        states: Tensor,
        valid: Tensor,
        asked: Tensor | None,
        condition: Tensor | None,
        control_scale: float,
        scales: tuple[float, Mapping[str, float]] | None,
    ) -> Callable[[Tensor, TimeTables], Tensor]:
        """(noisy latents, time tables) -> output, guided by `scales` (of all, of attributes) if there are any.

        Text, metadata and condition do not change and are encoded here.
        """
        weights: list[float] = []
        if scales is not None:
            weights, states, valid, asked = self._terms(states, valid, asked, *scales)
        copies = len(weights) + 1 if weights else 1
        said = (states, valid) if asked is None else (states, valid, asked)
        fixed = dict(text=self.transformer.encode_text(*said))
        if condition is not None:
            # For the first term alone: guidance then amplifies the condition as it does the text.
            encoded = self.transformer.encode_condition(condition.to(states.dtype))
            fixed.update(condition=encoded, control_scale=control_scale)

        def predict(x: Tensor, time: TimeTables) -> Tensor:
            output = self.transformer.denoise(x.repeat(copies, 1, 1, 1), time, **fixed).float()
            return self._guide(output, weights) if weights else output

        return predict

    def caption(self, prompt: str) -> str:
        """What the text encoder reads for a prompt: cleaned where the pipeline cleans captions."""
        return clean_caption(prompt) if self.config.clean_captions and isinstance(prompt, str) else prompt

    def _guide(self, output: Tensor, weights: Sequence[float]) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022) of noise or velocity [:4]; the variance is the first term's.

        Several terms are composed (Liu et al. 2022, eq. 11): null + sum of weight x (term - null). The released code
        guides the first three channels only.
        """
        channels = 3 if self.config.compat == "released" else self.vae.config.latent_channels
        *terms, null = output.chunk(len(weights) + 1)
        guided = null[:, :channels]
        for weight, term in zip(weights, terms, strict=True):
            guided = guided + weight * (term - null)[:, :channels]
        return torch.cat([guided, terms[0][:, channels:]], dim=1)

    @property
    def image_size(self) -> int:
        """Pixels a side of the images."""
        return downsampling(self.vae) * self.transformer.latent_shape[-1]

    @property
    def _learns_variance(self) -> bool:
        return self.scheduler.config.get("variance_type") == "learned_range"

    def _decode(self, latents: Tensor, output_type: str) -> list[PIL.Image.Image] | np.ndarray | Tensor:
        images = decode(self.vae, latents)  # [N, H, W] in 0..1
        if output_type == "np":
            return images
        return torch.from_numpy(images) if output_type == "pt" else [PIL.Image.fromarray(x) for x in to_uint8(images)]

    def _check_objective(self) -> None:
        learnt, sampled = self.transformer.objective, samples_objective(self.scheduler)
        if learnt != sampled:
            raise ValueError(
                f"the transformer was trained as {learnt}, {type(self.scheduler).__name__} samples {sampled}: "
                "choose another scheduler (chexgen_lib.diffusion.schedulers)"
            )
