"""Text to radiograph, as a diffusers pipeline (paper, Methods, Text-to-Image Generation)."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.diffusion.schedulers import (
    default_guidance,
    default_scheduler,
    default_steps,
    ignore_variance,
    set_steps,
    spaced,
    uses_variance,
)
from chexgen_lib.models.autoencoder import (
    CompactAutoencoderKL,
    decode,
    downsampling,
    encode_conditions,
    load_autoencoder,
)
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.foundation import PACKAGED, SHIPPED, WITH_ADAPTER, load_adapter, load_transformer
from chexgen_lib.models.loading import as_stated
from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.models.text import MAX_TOKENS, check_texts, encode_texts, load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.arguments import (
    check_callback,
    check_condition,
    check_distilled,
    check_guided,
    check_noise,
    check_objective,
    check_outputs,
    check_prompts,
    clean_caption,
    one_each,
    returned_latents,
    without_padding,
)
from chexgen_lib.sampling.conditions import check_drawing, draw
from chexgen_lib.sampling.editing import Editing
from chexgen_lib.sampling.guidance import Inputs, guided_steps, scales_at
from chexgen_lib.sampling.output import ChexGenPipelineOutput, as_output
from chexgen_lib.sampling.prompts import with_metadata


def assemble(transformer: ChexGenTransformer, autoencoder: str, text_encoder: str | None) -> "ChexGenPipeline":
    """A pipeline of a trained transformer and the frozen parts of those names, all on the transformer's device.

    Its sampler is that of the model's objective (`default_scheduler`). Without a text encoder it takes text states
    (`prompt_embeds`) or metadata alone.
    """
    device = transformer.device
    tokenizer, encoder = (None, None) if text_encoder is None else load_text_encoder(text_encoder, device=device)
    parts = load_autoencoder(autoencoder, device), encoder, tokenizer, default_scheduler(transformer)
    return ChexGenPipeline(transformer, *parts)


class ChexGenPipeline(Editing, DiffusionPipeline):
    """Samples chest radiographs from descriptions, and edits given ones (`edit`).

    Args:
        transformer, vae, text_encoder, tokenizer: the trained parts.
        scheduler: any diffusers scheduler for what the transformer predicts: the noise (`ddim_scheduler()` is the
            paper's), or a flow's velocity (`flow_dpm_solver_scheduler()`). diffusers' own DDIM, which leaves noise
            where the number of steps does not divide 1000, becomes a `SpacedDDIMScheduler` of the same settings.
        compat: "paper", or "released": guidance as in the released code, on three of the four latent channels, and
            none where a condition controls the image.
        clean_captions: clean prompts as the released models' training captions were (lower case, no brackets, ...).

    Raises:
        ValueError: if the transformer's objective is not what the scheduler samples.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder"]  # a model may be conditioned on metadata alone
    _callback_tensor_inputs = ["latents", "prompt_embeds"]

    def __init__(
        self,
        transformer: ChexGenTransformer | ControlledTransformer,
        vae: AutoencoderKL | CompactAutoencoderKL,  # `from_pipe` goes by these types
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
            scheduler=spaced(scheduler),
        )
        if transformer is not None:  # without one, which takes the memory, diffusers' users encode their prompts first
            check_objective(self.transformer, self.scheduler)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options) -> "ChexGenPipeline":
        """As diffusers' method, in float32 unless told otherwise, also of a folder that holds only a variant (fp16).

        "shipped" assembles what the package ships, in float32 and without options; "shipped-adapter" is the same
        with the adapter that masks and boxes steer, "shipped-distilled" what has learned from it to take four steps
        without guidance.

        Raises:
            WeightsError: if the shipped foundation is missing, damaged or of another version.
        """
        if (source := str(pretrained_model_name_or_path)) not in PACKAGED:
            return super().from_pretrained(source, **as_stated(source, options))
        if options:
            raise ValueError(f"{source!r} takes no {next(iter(options))}: change the pipeline once it is loaded")
        transformer = load_adapter() if source == WITH_ADAPTER else load_transformer(source)
        return cls(**assemble(transformer, SHIPPED, "minilm").components)

    @torch.inference_mode()
    def __call__(  # noqa: PLR0913  # as diffusers' pipelines
        self,
        prompt: str | Sequence[str] | None = None,
        metadata: Mapping | Sequence[Mapping] | None = None,
        mask: Mapping | Sequence[Mapping] | None = None,
        boxes: str | Mapping | Sequence[Mapping] | Sequence[Sequence[Mapping]] | None = None,
        condition_image: PIL.Image.Image | np.ndarray | Sequence | None = None,
        control_scale: float = 1.0,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        metadata_guidance: Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        condition_latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
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
            boxes: list of dicts of `class`, x, y, w, h; top left corner and size as fractions of the image; or one of
                them, or a text, as `conditions.read_boxes` takes it.
            condition_image: a ready drawing (`conditions.draw`) uint8 [H, W, 3] instead of `mask` and `boxes`.
            control_scale: weight of the control; 0 samples without it.
            num_images_per_prompt, num_inference_steps: counts of at least 1; of steps, None: `default_steps`.
            guidance_scale: weight of classifier-free guidance by text and condition together; 1 samples without it, at
                half the cost. None: `default_guidance` of the model, 4.0 (the paper's), or 2.0 for a flow.
            metadata_guidance: separate weights of attributes, next to `guidance_scale` for text and other attributes:
                null + sum of weight x (term - null). Each adds half the cost of guidance.
            guidance_interval: guide only where t / 1000 lies in it; steps outside cost half (Kynkaanniemi et al. 2024).
            generator: one for the batch, or one per image: then an image does not depend on its batch. The noise of an
                acquisition is also its own, where the autoencoder adds some (`models.autoencoder.Grain`).
            latents: starting noise [N, 4, h, w] instead of a generator's; without one, no noise is added at the end.
            condition_latents: an encoded condition per prompt, [B, 4, h, w], instead of the three above.
            prompt_embeds, prompt_attention_mask: text states [B, L, width] and mask [B, L] instead of `prompt`.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as (pipeline, i, t, tensors) after each step (with Heun's method, each half of
                one); may return other tensors, set `pipeline._guidance_scale` (then up to 1 is none) for the steps that
                follow, or skip them by `pipeline._interrupt = True`. Also diffusers' own callbacks.
            callback_on_step_end_tensor_inputs: which tensors it gets: "latents", "prompt_embeds".

        Raises:
            ValueError, TextError, ConditionError: if an argument is out of range, or none that a distilled model can
                follow, a prompt empty or too long, or a mask or box cannot be drawn.
        """
        self.scheduler = spaced(self.scheduler)
        check_objective(self.transformer, self.scheduler)
        guidance_scale = default_guidance(self.transformer) if guidance_scale is None else guidance_scale
        num_inference_steps = default_steps(self.transformer) if num_inference_steps is None else num_inference_steps
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        by_metadata = metadata is not None and self.transformer.metadata_sources is not None
        width = self.transformer.null_caption.shape[-1]
        check_prompts(prompt, prompt_embeds, prompt_attention_mask, by_metadata, width)
        check_outputs(num_images_per_prompt, num_inference_steps, guidance_scale, control_scale, output_type)
        check_distilled(self.distilled_steps, self.scheduler, num_inference_steps, guidance_scale, metadata_guidance)
        check_callback(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if prompt_embeds is None:
            prompt_embeds, prompt_attention_mask = self.encode_prompt(prompt, metadata)
        limit = len(self.transformer.null_caption)
        prompt_embeds, prompt_attention_mask = without_padding(prompt_embeds, prompt_attention_mask, limit)
        count = len(prompt_embeds)
        asked = self._encode_metadata(count, metadata, metadata_guidance or {})
        if condition_latents is None and not (mask is None and boxes is None and condition_image is None):
            condition_latents = self._encode_conditions(count, mask, boxes, condition_image)
        check_condition(self.transformer, count, condition_latents)
        device, dtype = self._execution_device, self.transformer.dtype
        given = (
            None if x is None else x.to(device).repeat_interleave(num_images_per_prompt, dim=0)
            for x in (prompt_embeds.to(dtype), prompt_attention_mask, asked, condition_latents)
        )  # [N, L, width], [N, L], [N, CODES], [N, 4, h, w]
        channels = 3 if self.config.compat == "released" else self.vae.config.latent_channels
        inputs = Inputs(self.transformer, *given, control_scale=control_scale, guided_channels=channels)
        set_steps(self.scheduler, num_inference_steps, device)
        grain = torch.default_generator if generator is None and latents is None else generator
        latents = self._starting_noise(len(inputs.states), latents, generator)
        steps = self._guided_steps(guidance_interval, controlled=inputs.condition is not None)
        times = self.transformer.encode_time(self.scheduler.timesteps)
        noisy = {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}
        scale_input = getattr(self.scheduler, "scale_model_input", lambda x, t: x)  # flow schedulers have none
        variance = uses_variance(self.scheduler)
        ignore_variance(self.scheduler)
        self._guidance_scale, self._interrupt = guidance_scale, False
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            if self._interrupt:
                continue
            x = scale_input(latents, t).to(dtype)
            scales = scales_at(self._guidance_scale, guidance_scale, metadata_guidance or {}) if steps[i] else None
            output = inputs.predict(x, times[i : i + 1], scales)
            if not variance:
                output = output[:, : latents.shape[1]]
            latents = self.scheduler.step(output, t, latents, return_dict=False, **noisy)[0]
            if callback_on_step_end is not None:
                tensors = {"latents": latents, "prompt_embeds": inputs.states}
                wanted = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                returned = callback_on_step_end(self, i, t, wanted) or {}
                latents = returned_latents(returned, latents)
                inputs = inputs.with_states(returned.get("prompt_embeds"))
        images = latents if output_type == "latent" else as_output(decode(self.vae, latents, grain), output_type)
        self.maybe_free_model_hooks()
        return ChexGenPipelineOutput(images=images) if return_dict else (images,)

    @property
    def guidance_scale(self) -> float:
        """The weight of guidance in the call that goes on, or the last one."""
        return self._guidance_scale

    @property
    def interrupt(self) -> bool:
        """Whether a callback has asked to skip the steps that are left."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """How often the model is asked in the call that goes on, or the last one."""
        return len(self.scheduler.timesteps)

    @torch.inference_mode()
    def encode_prompt(
        self, prompt: str | Sequence[str] | None, metadata: Mapping | Sequence[Mapping] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Text states [B, L, width] and mask [B, L] of captions, as `__call__` takes them; arguments as there.

        Of no prompt, the null caption's first token. Without a transformer, a prompt of `models.text.MAX_TOKENS`.
        """
        if self.transformer is None and (prompt is None or metadata is not None):
            raise ValueError("this pipeline has no transformer, and encodes a `prompt` alone: leave out `metadata`")
        check_prompts(prompt, None, None, metadata is not None, 0)
        if prompt is None:
            count = 1 if isinstance(metadata, Mapping) else len(metadata)
            return self.transformer.null_caption[:1].expand(count, 1, -1), torch.ones(count, 1, dtype=torch.bool)
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError(
                "this pipeline has no text encoder to read a prompt: give `prompt_embeds` and `prompt_attention_mask`, "
                "or make it with `text_encoder` and `tokenizer`"
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if metadata is not None and self.transformer.metadata_sources is None:
            people = one_each("metadata", metadata, len(prompts), single=isinstance(metadata, Mapping))
            prompts = [with_metadata(text, person) for text, person in zip(prompts, people, strict=True)]
        captions = [self.caption(text) for text in prompts]
        limit = MAX_TOKENS if self.transformer is None else len(self.transformer.null_caption)
        check_texts(self.tokenizer, captions, limit)
        distinct = list(dict.fromkeys(captions))  # several images of one prompt are often requested
        states, mask = encode_texts(self.tokenizer, self.text_encoder, distinct, limit, truncate=True)  # none is longer
        rows = torch.tensor([distinct.index(caption) for caption in captions], device=states.device)
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
            single = not boxes or isinstance(boxes, str | Mapping) or isinstance(boxes[0], Mapping)
            listed = one_each("boxes", boxes, count, single)
            drawn = [draw(size, m, b) for m, b in zip(masks, listed, strict=True)]
        return encode_conditions(self.vae, np.stack(drawn))

    def _starting_noise(self, count: int, latents: Tensor | None, generator) -> Tensor:
        shape = (count, *self.transformer.latent_shape)
        check_noise(generator, latents, shape)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        return latents.to(self._execution_device) * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _guided_steps(self, interval: tuple[float, float], controlled: bool) -> list[bool]:
        """Whether each call of the model is guided; the released code guides none where a condition controls."""
        guided = guided_steps(self.scheduler.timesteps, self.scheduler.config.num_train_timesteps, interval)
        allowed = not (self.config.compat == "released" and controlled)
        return [allowed and step for step in guided]

    def caption(self, prompt: str) -> str:
        """What the text encoder reads for a prompt: cleaned where the pipeline cleans captions."""
        return clean_caption(prompt) if self.config.clean_captions and isinstance(prompt, str) else prompt

    @property
    def distilled_steps(self) -> int | None:
        """The steps that a distilled model takes, without guidance; None for another."""
        return self.transformer.distilled_steps

    @property
    def image_size(self) -> int:
        """Pixels a side of the images."""
        return downsampling(self.vae) * self.transformer.latent_shape[-1]
