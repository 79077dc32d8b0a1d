"""The contracts every diffusers pipeline keeps, on components of a few thousand parameters, for both objectives."""

import inspect

import numpy as np
import pytest
import torch

from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.text import TextError
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from tests.builders import shipped_foundation
from tests.sampling.samples import PROMPTS, SCHEDULERS, sample, with_scheduler


@pytest.fixture(scope="module", params=SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def pipeline(pipeline, request):
    return with_scheduler(pipeline, request.param())


def test_a_batch_equals_its_singles(pipeline):
    batch = sample(pipeline)
    singles = [sample(pipeline, [p], (i,))[0] for i, p in enumerate(PROMPTS)]
    np.testing.assert_allclose(batch, np.stack(singles), atol=1e-4)


def test_what_the_package_ships_is_assembled(tmp_path, monkeypatch):
    _, transformer = shipped_foundation(tmp_path / "foundation", monkeypatch, flow_shift=2.0)
    pipe = ChexGenPipeline.from_pretrained("shipped")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.transformer.dtype == torch.float32 and pipe.image_size == 8 * transformer.config.sample_size
    assert type(pipe.scheduler).__name__ == "DPMSolverMultistepScheduler" and pipe.scheduler.config.flow_shift == 2.0
    half = transformer.half().float()
    same = ChexGenPipeline(**{**assemble(half, "shipped", "minilm").components, "scheduler": pipe.scheduler})
    np.testing.assert_allclose(sample(pipe), sample(same), atol=1e-5)
    pipe("Clear.", output_type="latent")
    assert pipe.num_timesteps == 20
    with pytest.raises(ValueError, match="'shipped' takes no torch_dtype: change the pipeline once it is loaded"):
        ChexGenPipeline.from_pretrained("shipped", torch_dtype=torch.float16)
    (tmp_path / "foundation/recipe.json").unlink()
    with pytest.raises(WeightsError, match="the package holds no foundation .*`make foundation`"):
        ChexGenPipeline.from_pretrained("shipped")


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
        "metadata": dict(metadata=dict(sex="Female", age=54)),
        "guidance_scale": dict(guidance_scale=1.0),
        "guidance_interval": dict(guidance_interval=(0.0, 0.5)),
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
    assert sample(pipeline, num_images_per_prompt=2, generators=range(4)).shape == (4, 32, 32, 1)
    untested = set(inspect.signature(pipeline.__call__).parameters) - set(changed)
    below = {
        "callback_on_step_end_tensor_inputs",
        "mask",
        "boxes",
        "condition_image",
        "condition_latents",
        "control_scale",
        "metadata_guidance",
    }
    below.add("callback_on_step_end_tensor_inputs")
    assert untested == {"num_images_per_prompt", "output_type", "return_dict", *below}


def test_guidance_may_be_limited_to_an_interval(pipeline):
    base, free = sample(pipeline, output_type="latent"), sample(pipeline, output_type="latent", guidance_scale=1.0)
    whole = sample(pipeline, output_type="latent", guidance_interval=(0, 1))
    never = sample(pipeline, output_type="latent", guidance_interval=(0, 0))
    assert torch.equal(whole, base) and torch.allclose(never, free, atol=1e-5)
    with pytest.raises(ValueError, match="guidance_interval must be two fractions"):
        sample(pipeline, guidance_interval=(0.5, 0.2))


def test_images_of_a_prompt_stand_together(pipeline):
    grouped = sample(pipeline, num_images_per_prompt=2, generators=(0, 1, 2, 3))
    np.testing.assert_allclose(grouped[2:], sample(pipeline, [PROMPTS[1]] * 2, (2, 3)), atol=1e-4)


@pytest.mark.parametrize("kind, expected", [("pil", "list"), ("np", "ndarray"), ("pt", "Tensor"), ("latent", "Tensor")])
def test_output_types(pipeline, kind, expected):
    images = sample(pipeline, output_type=kind)
    assert type(images).__name__ == expected and len(images) == 2
    if kind == "np":
        assert images.min() >= 0 and images.max() <= 1


def test_bad_arguments_are_clear(pipeline):
    with pytest.raises(ValueError, match="either `prompt` or `prompt_embeds`"):
        pipeline()
    with pytest.raises(ValueError, match="needs its `prompt_attention_mask`"):
        pipeline(prompt_embeds=torch.zeros(1, 2, 384))
    with pytest.raises(ValueError, match="`prompt` is empty"):
        pipeline([])
    with pytest.raises(TextError, match="prompt 1 is empty"):
        pipeline(["fine", " "])
    with pytest.raises(TextError, match="prompt 2 is empty"):
        pipeline(["Clear.", "Clear.", ""])  # the row that was given, though equal prompts are encoded once
    with pytest.raises(TextError, match=r"prompt 0 is empty or not text \(\['Clear.'\]\)"):
        pipeline([["Clear."]])
    with pytest.raises(TextError, match="the limit is 120"):
        pipeline("effusion " * 200)
    states, mask = pipeline.encode_prompt("fine")
    for arguments, message in (
        (dict(num_inference_steps=0), "num_inference_steps must be a whole number of at least 1, not 0"),
        (dict(num_inference_steps=3.0), "num_inference_steps must be a whole number of at least 1, not 3.0"),
        (dict(guidance_scale=float("nan")), "guidance_scale must be a finite number, not nan"),
        (dict(guidance_scale="4"), "guidance_scale must be a finite number, not '4'"),
        (dict(num_images_per_prompt=True), "num_images_per_prompt must be a whole number of at least 1, not True"),
        (dict(control_scale=float("nan")), "control_scale must be a finite number, not nan"),
        (dict(guidance_interval=(0.5,)), r"guidance_interval must be two fractions in order, not \(0.5,\)"),
        (dict(guidance_interval=None), "guidance_interval must be two fractions in order, not None"),
        (dict(generator=(torch.Generator(),)), "`generator` must be a torch.Generator or a list of them, not a tuple"),
        (dict(generator=[7]), "`generator` must be a torch.Generator or a list of them, not a int"),
        (dict(latents=np.zeros((1, 4, 4, 4))), "`latents` must be a torch.Tensor, not a ndarray"),
        (dict(condition_latents=np.zeros((1, 4, 4, 4))), "`condition_latents` must be a torch.Tensor, not a ndarray"),
        (dict(generator=[torch.Generator()], num_images_per_prompt=2), "1 generators for 2 images"),
    ):
        with pytest.raises(ValueError, match=message):
            pipeline("fine", **arguments)
    with pytest.raises(ValueError, match="`prompt` must be a text or a list of texts, not 5"):
        pipeline(5)
    with pytest.raises(ValueError, match="`prompt_embeds` must be a torch.Tensor, not a ndarray"):
        pipeline(prompt_embeds=states.numpy(), prompt_attention_mask=mask)
    for nothing, message in ((None, "give either `prompt` or `prompt_embeds`"), ([], "`prompt` is empty")):
        with pytest.raises(ValueError, match=message):
            pipeline.encode_prompt(nothing)
    for embeds in (states[..., :8], states[:, :-1], states[0]):
        with pytest.raises(ValueError, match=r"this model needs \[B, L, 384\] and \[B, L\]"):
            pipeline(prompt_embeds=embeds, prompt_attention_mask=mask)
    with pytest.raises(ValueError, match="output_type"):
        pipeline("fine", output_type="jpg")
    with pytest.raises(ValueError, match="latents have shape"):
        pipeline("fine", latents=torch.zeros(1, 4, 8, 8))
