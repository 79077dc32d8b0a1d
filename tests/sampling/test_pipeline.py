"""The contracts every diffusers pipeline keeps, on components of a few thousand parameters."""

import inspect

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.text import TextError
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.schedulers import ddim_scheduler
from chexgen_lib.training.trainer import DDPM

PROMPTS = [
    "Large left pleural effusion.",
    "The heart is enlarged. No pneumothorax is seen on this radiograph.",
]


def seeds(*values):
    return [torch.Generator().manual_seed(v) for v in values]


def sample(pipe, prompt=PROMPTS, generators=(0, 1), **changes):
    settings = dict(num_inference_steps=4, output_type="np", generator=seeds(*generators))
    return pipe(prompt, **{**settings, **changes}).images


def test_a_batch_equals_its_singles(pipeline):
    batch = sample(pipeline)
    singles = [sample(pipeline, [p], (i,))[0] for i, p in enumerate(PROMPTS)]
    np.testing.assert_allclose(batch, np.stack(singles), atol=1e-4)


def test_saves_and_loads(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("*.bin")) and list(tmp_path.rglob("*.safetensors"))
    loaded = ChexGenPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(sample(loaded), sample(pipeline), atol=1e-5)


def test_every_argument_changes_the_output(pipeline):
    base = sample(pipeline, output_type="latent")
    embeds = torch.randn(2, 5, 384, generator=torch.Generator().manual_seed(0))
    by_embeds = dict(prompt=None, prompt_embeds=embeds, prompt_attention_mask=torch.ones(2, 5))
    short = torch.tensor([[1, 1, 0, 0, 0]] * 2)
    changed = {
        "prompt": dict(prompt=PROMPTS[::-1]),
        "num_inference_steps": dict(num_inference_steps=5),
        "guidance_scale": dict(guidance_scale=1.0),
        "generator": dict(generators=(2, 3)),
        "latents": dict(latents=torch.zeros(2, 4, 4, 4)),
        "prompt_embeds": by_embeds,
        "prompt_attention_mask": {**by_embeds, "prompt_attention_mask": short},
        "callback_on_step_end": dict(callback_on_step_end=lambda p, i, t, k: {"latents": k["latents"] * 0.5}),
    }
    outputs = {k: sample(pipeline, output_type="latent", **v) for k, v in changed.items()}
    for name, output in outputs.items():
        assert not torch.allclose(output, base, atol=1e-3), name
    assert not torch.allclose(outputs["prompt_embeds"], outputs["prompt_attention_mask"], atol=1e-3)
    assert sample(pipeline, num_images_per_prompt=2, generators=range(4)).shape == (4, 32, 32)
    untested = set(inspect.signature(pipeline.__call__).parameters) - set(changed)
    assert untested == {
        "num_images_per_prompt",
        "output_type",
        "return_dict",
        "condition_latents",
        "control_scale",
    }  # the last two: below


def test_a_condition_controls_the_sample(pipeline):
    transformer = ControlledTransformer.on(pipeline.transformer, 1)
    controlled = ChexGenPipeline(**{**pipeline.components, "transformer": transformer})
    controlled.set_progress_bar_config(disable=True)
    condition = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    base = sample(pipeline, output_type="latent")

    def change(**changes):
        return ((sample(controlled, output_type="latent", **changes) - base).abs().max() / base.std()).item()

    assert change() < 1e-4 and change(condition_latents=condition) < 1e-4  # an adapter starts without effect
    torch.nn.init.normal_(transformer.controlnet[0].before_proj.weight)
    torch.nn.init.normal_(transformer.controlnet[0].after_proj.weight)
    assert change(condition_latents=condition, control_scale=0) < 1e-4
    full, half = change(condition_latents=condition), change(condition_latents=condition, control_scale=0.5)
    assert full > 1e-2 and half > 1e-2 and abs(full - half) > 1e-2
    assert change(condition_latents=condition, guidance_scale=1.0) > 1e-2
    with pytest.raises(ValueError, match="takes no `condition_latents`"):
        sample(pipeline, condition_latents=condition)
    with pytest.raises(ValueError, match="condition's latents have shape"):
        sample(controlled, condition_latents=condition[..., :2])


def test_images_of_a_prompt_stand_together(pipeline):
    grouped = sample(pipeline, num_images_per_prompt=2, generators=(0, 1, 2, 3))
    np.testing.assert_allclose(grouped[2:], sample(pipeline, [PROMPTS[1]] * 2, (2, 3)), atol=1e-4)


@pytest.mark.parametrize("kind, expected", [("pil", "list"), ("np", "ndarray"), ("pt", "Tensor"), ("latent", "Tensor")])
def test_output_types(pipeline, kind, expected):
    images = sample(pipeline, output_type=kind)
    assert type(images).__name__ == expected and len(images) == 2
    if kind == "np":
        assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_other_schedulers_fit(pipeline, scheduler):
    other = ChexGenPipeline(**{**pipeline.components, "scheduler": scheduler(**DDPM)})
    other.set_progress_bar_config(disable=True)
    assert np.isfinite(sample(other)).all()


def test_ddim_recovers_a_clean_latent_when_the_noise_is_known():
    scheduler, g = ddim_scheduler(), torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 4, 4, generator=g), torch.randn(2, 4, 4, 4, generator=g)
    scheduler.set_timesteps(100)
    x = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    for t in scheduler.timesteps:
        x = scheduler.step(noise, t, x, return_dict=False)[0]
    assert scheduler.timesteps[0] == 999
    torch.testing.assert_close(x, clean, atol=1e-2, rtol=1e-2)


def test_bad_arguments_are_clear(pipeline):
    with pytest.raises(ValueError, match="either `prompt` or `prompt_embeds`"):
        pipeline()
    with pytest.raises(ValueError, match="needs its `prompt_attention_mask`"):
        pipeline(prompt_embeds=torch.zeros(1, 2, 384))
    with pytest.raises(ValueError, match="`prompt` is empty"):
        pipeline([])
    with pytest.raises(TextError, match="prompt 1 is empty"):
        pipeline(["fine", " "])
    with pytest.raises(TextError, match="the limit is 120"):
        pipeline("effusion " * 200)
    with pytest.raises(ValueError, match="output_type"):
        pipeline("fine", output_type="jpg")
    with pytest.raises(ValueError, match="latents have shape"):
        pipeline("fine", latents=torch.zeros(1, 4, 8, 8))
