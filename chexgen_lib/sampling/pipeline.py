"""Text to radiograph, as a diffusers pipeline (paper, Methods, Text-to-Image Generation)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chexgen_lib.images import to_uint8
from chexgen_lib.models.autoencoder import decode, load_autoencoder
from chexgen_lib.models.text import encode_texts, load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training.trainer import DDPM


@dataclass
class ChexGenPipelineOutput(BaseOutput):
    """`images`: list of PIL images, or an array or tensor [N, H, W] in 0..1, or latents [N, 4, h, w]."""

    images: list[PIL.Image.Image] | np.ndarray | Tensor


def ddim_scheduler() -> DDIMScheduler:
    """DDIM (Song et al. 2020) on the schedule of training, starting from its last step; the paper takes 100 steps."""
    return DDIMScheduler(**DDPM, timestep_spacing="trailing", clip_sample=False)


def assemble(transformer: ChexGenTransformer, autoencoder: str, text_encoder: str) -> "ChexGenPipeline":
    """A pipeline of a trained transformer and the frozen parts of those names, with the paper's sampler."""
    tokenizer, encoder = load_text_encoder(text_encoder)
    return ChexGenPipeline(transformer, load_autoencoder(autoencoder), encoder, tokenizer, ddim_scheduler())


class ChexGenPipeline(DiffusionPipeline):
    """Samples chest radiographs from descriptions.

    Args:
        transformer, vae, text_encoder, tokenizer: the trained parts.
        scheduler: any diffusers scheduler for epsilon prediction; `ddim_scheduler()` is the paper's.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        transformer: ChexGenTransformer,
        vae: AutoencoderKL,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
    ):
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 100,
        guidance_scale: float = 4.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        return_dict: bool = True,
    ) -> ChexGenPipelineOutput | tuple:
        """Sample radiographs; all images of prompt 0 come first, then those of prompt 1, and so on.

        Args:
            prompt: one description or several, at most `transformer.config.text_tokens` tokens each.
            num_images_per_prompt, num_inference_steps: counts of at least 1.
            guidance_scale: weight of classifier-free guidance (paper: 4.0); 1 samples without it, at half the cost.
            generator: one for the batch, or one an image: then an image does not depend on its batch.
            latents: starting noise [N, 4, h, w] instead of a generator's.
            prompt_embeds, prompt_attention_mask: text states [B, L, width] and mask [B, L] instead of `prompt`.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as (pipeline, i, t, {"latents": ...}) after each step; may return new latents.

        Raises:
            ValueError, TextError: if an argument is out of range, or a prompt empty or too long.
        """
        self._check(prompt, prompt_embeds, prompt_attention_mask, num_images_per_prompt, output_type)
        device, dtype = self._execution_device, self.transformer.dtype
        if prompt is not None:
            prompts = [prompt] if isinstance(prompt, str) else prompt
            limit = self.transformer.config.text_tokens
            prompt_embeds, prompt_attention_mask = encode_texts(self.tokenizer, self.text_encoder, prompts, limit)
        states = prompt_embeds.to(device, dtype).repeat_interleave(num_images_per_prompt, dim=0)  # [N, L, width]
        mask = prompt_attention_mask.to(device).repeat_interleave(num_images_per_prompt, dim=0)  # [N, L]
        size = self.transformer.config.sample_size
        shape = (len(states), self.transformer.config.in_channels, size, size)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}, these prompts need {shape}")
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        latents = latents.to(device) * self.scheduler.init_noise_sigma
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            noise = self._predict_noise(latents, t, states, mask, guidance_scale)
            latents = self.scheduler.step(noise, t, latents, return_dict=False)[0]
            if callback_on_step_end is not None:
                latents = (callback_on_step_end(self, i, t, {"latents": latents}) or {}).get("latents", latents)
        images = latents if output_type == "latent" else self._decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ChexGenPipelineOutput(images=images) if return_dict else (images,)

    def _predict_noise(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022): one batch, the null half under the same mask."""
        x = self.scheduler.scale_model_input(latents, t).to(states.dtype)
        channels = self.transformer.config.in_channels
        if scale == 1:
            return self.transformer(x, t, states, mask).sample[:, :channels].float()
        null = self.transformer.null_caption[: states.shape[1]].to(states).expand_as(states)
        both = self.transformer(x.repeat(2, 1, 1, 1), t, torch.cat([states, null]), mask.repeat(2, 1)).sample
        conditional, unconditional = both[:, :channels].float().chunk(2)
        return unconditional + scale * (conditional - unconditional)

    def _decode(self, latents: Tensor, output_type: str) -> list[PIL.Image.Image] | np.ndarray | Tensor:
        images = decode(self.vae, latents)  # [N, H, W] in 0..1
        if output_type == "np":
            return images
        return torch.from_numpy(images) if output_type == "pt" else [PIL.Image.fromarray(x) for x in to_uint8(images)]

    @staticmethod
    def _check(prompt, prompt_embeds, prompt_attention_mask, num_images_per_prompt, output_type) -> None:
        if (prompt is None) == (prompt_embeds is None):
            raise ValueError("give either `prompt` or `prompt_embeds`")
        if prompt_embeds is not None and prompt_attention_mask is None:
            raise ValueError("`prompt_embeds` needs its `prompt_attention_mask`")
        if prompt is not None and len(prompt) == 0:
            raise ValueError("`prompt` is empty: write what the image should show")
        if num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, not {num_images_per_prompt}")
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type must be pil, np, pt or latent, not {output_type!r}")
