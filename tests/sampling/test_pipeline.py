"""The contracts every diffusers pipeline keeps, on components of a few thousand parameters, for both objectives."""

import copy
import inspect

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image

from chexgen_lib.diffusion.objectives import DDPM
from chexgen_lib.diffusion.schedulers import (
    ddim_scheduler,
    flow_dpm_solver_scheduler,
    flow_euler_scheduler,
    flow_heun_scheduler,
    samples_objective,
    set_steps,
)
from chexgen_lib.models.autoencoder import encode_conditions
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.metadata import MetadataError, encode_metadata
from chexgen_lib.models.text import TextError
from chexgen_lib.sampling.conditions import ConditionError, draw
from chexgen_lib.sampling.guidance import Inputs
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from tests.builders import shipped_foundation

PROMPTS = [
    "Large left pleural effusion.",
    "The heart is enlarged. No pneumothorax is seen on this radiograph.",
]


def with_scheduler(pipe, scheduler):
    """The pipeline with another scheduler, its transformer as if trained for that."""
    transformer = copy.deepcopy(pipe.transformer)
    transformer.register_to_config(objective=samples_objective(scheduler))
    other = ChexGenPipeline(**{**pipe.components, "transformer": transformer, "scheduler": scheduler})
    other.set_progress_bar_config(disable=True)
    return other


SCHEDULERS = [ddim_scheduler, flow_euler_scheduler, flow_heun_scheduler, flow_dpm_solver_scheduler]


@pytest.fixture(scope="module", params=SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def pipeline(pipeline, request):
    return with_scheduler(pipeline, request.param())


def seeds(*values):
    return [torch.Generator().manual_seed(v) for v in values]


def sample(pipe, prompt=PROMPTS, generators=(0, 1), **changes):
    settings = dict(num_inference_steps=4, output_type="np", generator=seeds(*generators))
    return pipe(prompt, **{**settings, **changes}).images


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


def condition(n=2):
    return torch.randn(n, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_condition_controls_the_sample(pipeline, controlled):
    base = sample(pipeline, output_type="latent")

    def change(pipe=controlled, **changes):
        return ((sample(pipe, output_type="latent", **changes) - base).abs().max() / base.std()).item()

    fresh = ControlledTransformer.on(pipeline.transformer, 1).eval()
    fresh = ChexGenPipeline(**{**pipeline.components, "transformer": fresh})
    fresh.set_progress_bar_config(disable=True)
    assert change(fresh) < 1e-4 and change(fresh, condition_latents=condition()) < 1e-4  # starts without effect
    assert change(condition_latents=condition(), control_scale=0) < 1e-4
    full, half = change(condition_latents=condition()), change(condition_latents=condition(), control_scale=0.5)
    assert full > 1e-2 and half > 1e-2 and abs(full - half) > 1e-2
    assert change(condition_latents=condition(), guidance_scale=1.0) > 1e-2


def test_guidance_weighs_the_condition_as_it_does_the_text(pipeline, controlled):
    unguided = sample(pipeline, output_type="latent", guidance_scale=0)
    asked = sample(controlled, output_type="latent", guidance_scale=0, condition_latents=condition())
    assert (asked - unguided).abs().max() < 1e-4 * unguided.std()  # neither is in the null half
    without, once, twice = (
        sample(controlled, output_type="latent", guidance_scale=w, condition_latents=condition(), num_inference_steps=1)
        for w in (0, 1, 2)
    )
    assert (twice - without - 2 * (once - without)).abs().max() < 1e-3 * (once - without).std()


def test_masks_boxes_and_drawings_are_one_condition(controlled):
    mask = np.zeros((64, 64), bool)
    mask[20:50, 10:30] = True
    boxes = [{"class": "Lung Lesion", "x": 0.5, "y": 0.5, "w": 0.4, "h": 0.3}]
    both = sample(controlled, mask={"lungs": mask}, boxes=boxes)
    drawing = draw(32, {"lungs": mask}, boxes)
    np.testing.assert_array_equal(sample(controlled, condition_image=Image.fromarray(drawing)), both)
    np.testing.assert_array_equal(sample(controlled, condition_image=drawing), both)
    encoded = encode_conditions(controlled.vae, np.stack([drawing, drawing]))
    np.testing.assert_array_equal(sample(controlled, condition_latents=encoded), both)
    own = sample(controlled, mask=[{"lungs": mask}, {"heart": mask}], boxes=[boxes, []])
    np.testing.assert_allclose(own[0], both[0], atol=1e-4)
    alone = sample(controlled, [PROMPTS[1]], (1,), mask={"heart": mask})
    np.testing.assert_allclose(own[1], alone[0], atol=1e-4)
    assert np.abs(own[1] - both[1]).max() > 1e-3  # the untrained autoencoder makes little of a colour
    grouped = sample(controlled, num_images_per_prompt=2, generators=range(4), mask=[{"lungs": mask}, {"heart": mask}])
    np.testing.assert_allclose(grouped[1], sample(controlled, PROMPTS[:1], (1,), mask={"lungs": mask})[0], atol=1e-4)


def test_bad_conditions_are_clear(pipeline, controlled):
    mask = np.ones((8, 8), bool)
    with pytest.raises(ValueError, match="takes no condition"):
        sample(pipeline, mask={"lungs": mask})
    with pytest.raises(ValueError, match="condition's latents have shape"):
        sample(controlled, condition_latents=condition()[..., :2])
    with pytest.raises(ValueError, match="1 conditions for 2 prompts"):
        sample(controlled, condition_latents=condition(1))
    with pytest.raises(ValueError, match="3 entries in `mask` for 2 prompts"):
        sample(controlled, mask=[{"lungs": mask}] * 3)
    with pytest.raises(ConditionError, match="neither a mask nor a box"):
        sample(controlled, mask=[{"lungs": mask}, None], boxes=[[], []])
    with pytest.raises(ConditionError, match="unknown class 'liver'"):
        sample(controlled, mask={"liver": mask})
    with pytest.raises(ConditionError, match="a condition image is square uint8"):
        sample(controlled, condition_image=Image.new("L", (32, 32)))
    with pytest.raises(ValueError, match="either `condition_image`"):
        sample(controlled, condition_image=Image.new("RGB", (32, 32)), mask={"lungs": mask})


def test_a_controlled_pipeline_saves_and_loads(controlled, tmp_path):
    controlled.save_pretrained(tmp_path)
    loaded = ChexGenPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    expected = sample(controlled, condition_latents=condition())
    np.testing.assert_allclose(sample(loaded, condition_latents=condition()), expected, atol=1e-5)


def test_metadata_is_part_of_the_prompt(pipeline):
    merged = sample(pipeline, ["sex:Male, age:71.0. Clear lungs.", "Clear lungs."])
    people = [dict(sex="Male", age=71), {}]
    np.testing.assert_array_equal(sample(pipeline, ["Clear lungs."] * 2, metadata=people), merged)


@pytest.fixture(scope="module")
def encoding(pipeline) -> ChexGenPipeline:
    """The pipeline with a metadata encoder."""
    torch.manual_seed(2)
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    transformer = type(pipeline.transformer)(**{**config, "metadata_sources": ["nih", "openi"]}).eval()
    transformer.load_state_dict(pipeline.transformer.state_dict(), strict=False)
    pipe = ChexGenPipeline(**{**pipeline.components, "transformer": transformer})
    pipe.set_progress_bar_config(disable=True)
    return pipe


PEOPLE = [{"age": 71, "sex": "M", "Effusion": 1}, {"age": 30, "sex": "F", "view": "AP", "source": "openi"}]


def test_a_metadata_encoder_reads_what_the_prompt_would(encoding):
    def latents(**changes):
        return sample(encoding, output_type="latent", **changes)

    plain, asked = latents(), latents(metadata=PEOPLE)
    assert torch.equal(latents(metadata=[{}, {}]), plain)
    assert not torch.allclose(asked[0], plain[0], atol=1e-3) and not torch.allclose(asked[1], plain[1], atol=1e-3)
    alone = latents(prompt=PROMPTS[1:], generators=(1,), metadata=PEOPLE[1])
    torch.testing.assert_close(alone[0], asked[1], atol=1e-4, rtol=1e-4)
    older = latents(metadata=[{**PEOPLE[0], "age": 72}, PEOPLE[1]])
    assert not torch.allclose(older[0], asked[0], atol=1e-5) and torch.allclose(older[1], asked[1], atol=1e-4)
    textless = latents(prompt=None, metadata=PEOPLE)
    assert textless.shape == asked.shape and not torch.allclose(textless, asked, atol=1e-3)


def test_a_pipeline_with_a_metadata_encoder_saves_and_loads(encoding, tmp_path):
    encoding.save_pretrained(tmp_path)
    loaded = ChexGenPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.scheduler) is type(encoding.scheduler)
    np.testing.assert_allclose(sample(loaded, metadata=PEOPLE), sample(encoding, metadata=PEOPLE), atol=1e-5)


def test_a_control_adapter_keeps_the_metadata_encoder(encoding):
    transformer = ControlledTransformer.on(encoding.transformer, 1).eval()
    pipe = ChexGenPipeline(**{**encoding.components, "transformer": transformer})
    pipe.set_progress_bar_config(disable=True)
    found = sample(pipe, metadata=PEOPLE, condition_latents=condition())
    np.testing.assert_allclose(found, sample(encoding, metadata=PEOPLE), atol=1e-4)  # a fresh adapter has no effect


def test_attributes_are_guided_each_by_its_weight(encoding):
    """One step of guidance is null + sum of weight x (term - null), with terms from the transformer itself."""
    transformer, people = encoding.transformer, PEOPLE[:1]
    x, t = condition(1), torch.tensor([500])
    null = transformer.null_caption[:1][None]
    text = torch.randn(1, 5, 384, generator=torch.Generator().manual_seed(3))

    def term(states, person):
        codes = encode_metadata([person], ["nih", "openi"])
        return transformer(x, t, states, metadata=codes).sample

    with torch.no_grad():
        nothing = term(null, {})
        expected = nothing + 3.0 * (term(text, {"Effusion": 1}) - nothing)
        expected = expected + 2.0 * (term(null, {"age": 71}) - nothing) + 0.5 * (term(null, {"sex": "M"}) - nothing)
        asked, valid = encode_metadata(people, ["nih", "openi"]), torch.ones(1, 5)
        inputs = Inputs(transformer, text, valid, asked, None, 1.0, 4)
        guided = inputs.predict(x, transformer.encode_time(t), (3.0, {"age": 2.0, "sex": 0.5}))
        torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
    samples = [
        sample(encoding, PROMPTS[:1], (0,), metadata=people, output_type="latent", metadata_guidance=weights)
        for weights in (None, {"age": 4.0}, {"age": 1.0})
    ]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in zip(samples, samples[1:] + samples[:1], strict=True))


def test_bad_metadata_is_clear(pipeline, encoding):
    with pytest.raises(MetadataError, match="row 1: age '71' is no number of years from 0 to 120"):
        sample(encoding, metadata=[{}, {"age": "71"}])
    with pytest.raises(ValueError, match="metadata_guidance of 'sex', which the metadata of row 1 does not give"):
        sample(encoding, metadata=[{"sex": "F"}, {}], metadata_guidance={"sex": 2.0})
    with pytest.raises(ValueError, match="metadata_guidance of an unknown 'race'"):
        sample(encoding, metadata=PEOPLE, metadata_guidance={"race": 2.0})
    with pytest.raises(ValueError, match="needs a transformer with a metadata encoder"):
        sample(pipeline, metadata_guidance={"age": 2.0})
    with pytest.raises(ValueError, match="3 entries in `metadata` for 2 prompts"):
        sample(encoding, metadata=[{}] * 3)
    with pytest.raises(ValueError, match="either `prompt` or `prompt_embeds`"):
        pipeline(metadata={"age": 71})


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


FLOW_SOLVER = dict(prediction_type="flow_prediction", use_flow_sigmas=True)


@pytest.mark.parametrize(
    "scheduler, objective",
    [
        (DPMSolverMultistepScheduler(**DDPM), "ddpm"),
        (EulerDiscreteScheduler(**DDPM), "ddpm"),
        (DPMSolverMultistepScheduler(**FLOW_SOLVER), "rectified_flow"),
    ],
)
def test_other_schedulers_fit(pipeline, scheduler, objective):
    assert samples_objective(scheduler) == objective
    assert np.isfinite(sample(with_scheduler(pipeline, scheduler))).all()


def test_a_scheduler_of_the_other_objective_is_refused(pipeline):
    other = ddim_scheduler() if pipeline.transformer.objective == "rectified_flow" else flow_euler_scheduler()
    with pytest.raises(ValueError, match="the transformer was trained as .*choose another scheduler"):
        ChexGenPipeline(**{**pipeline.components, "scheduler": other})
    changed = ChexGenPipeline(**pipeline.components)
    changed.scheduler = other
    with pytest.raises(ValueError, match="the transformer was trained as .*choose another scheduler"):
        sample(changed)


def test_an_assembled_flow_samples_along_the_flow(pipeline):
    assembled = assemble(pipeline.transformer, "shipped", "minilm")
    assert samples_objective(assembled.scheduler) == pipeline.transformer.objective


@pytest.mark.parametrize("shift", [1.0, 1.7, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_flow_samplers_follow_a_straight_path_to_its_end(steps, shift):
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 4, 4, generator=g), torch.randn(2, 4, 4, 4, generator=g)
    calls = {flow_euler_scheduler: steps, flow_heun_scheduler: 2 * steps - 1, flow_dpm_solver_scheduler: steps}
    for make, count in calls.items():
        scheduler = make(shift)
        set_steps(scheduler, steps, "cpu")
        assert len(scheduler.timesteps) == count and float(scheduler.timesteps[0]) == pytest.approx(1000, abs=1)
        x = noise
        for t in scheduler.timesteps:
            x = scheduler.step(noise - clean, t, x, return_dict=False)[0]
        atol = 8e-3 if make is flow_dpm_solver_scheduler else 2e-4  # which starts at 0.999; Heun's divides by 0.001
        torch.testing.assert_close(x, clean, atol=atol, rtol=1e-4)


def test_flow_euler_takes_even_steps_before_the_shift():
    scheduler = flow_euler_scheduler()
    set_steps(scheduler, 4, "cpu")
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 750.0, 500.0, 250.0]))
    scheduler = flow_euler_scheduler(shift=3.0)
    set_steps(scheduler, 4, "cpu")
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 900.0, 750.0, 500.0]))  # 3 s / (1 + 2 s)


def test_a_shifted_first_step_is_guided(pipeline):
    shift, above = 2.986090309309323, []  # one of those whose first time is rounded up
    for scheduler, calls in ((flow_euler_scheduler(shift), 3), (flow_heun_scheduler(shift), 5)):
        pipe = with_scheduler(pipeline, scheduler)
        set_steps(pipe.scheduler, 3, "cpu")
        above.append(float(scheduler.timesteps[0]) > 1000)
        assert pipe._guided_steps((0.0, 1.0), controlled=False) == [True] * calls
    assert any(above)


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
    with pytest.raises(TextError, match="prompt 2 is empty"):
        pipeline(["Clear.", "Clear.", ""])  # the row that was given, though equal prompts are encoded once
    with pytest.raises(TextError, match=r"prompt 0 is empty or not text \(\['Clear.'\]\)"):
        pipeline([["Clear."]])
    with pytest.raises(TextError, match="the limit is 120"):
        pipeline("effusion " * 200)
    with pytest.raises(ValueError, match="num_inference_steps must be at least 1, not 0"):
        pipeline("fine", num_inference_steps=0)
    with pytest.raises(ValueError, match="output_type"):
        pipeline("fine", output_type="jpg")
    with pytest.raises(ValueError, match="latents have shape"):
        pipeline("fine", latents=torch.zeros(1, 4, 8, 8))
