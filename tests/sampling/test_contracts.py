"""What users of diffusers' pipelines and models rely on, in tiny versions of diffusers' own tests."""

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback

from chexgen_lib.diffusion.schedulers import SpacedDDIMScheduler, released_scheduler
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.sampling.pipeline import ChexGenPipeline

PROMPTS = ["Large left pleural effusion.", "No pneumothorax."]


def sample(pipe, prompt=PROMPTS, seeds=(0, 1), **changes):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    settings = dict(num_inference_steps=4, output_type="latent", generator=generators)
    return pipe(prompt, **{**settings, **changes}).images


def test_arrays_and_tensors_have_a_channel_that_diffusers_helpers_expect(pipeline):
    array, tensor, images = (sample(pipeline, output_type=kind) for kind in ("np", "pt", "pil"))
    assert array.shape == (2, 32, 32, 1) and tensor.shape == (2, 1, 32, 32)
    np.testing.assert_array_equal(array[..., 0], tensor[:, 0].numpy())
    for ours, helped in zip(images, pipeline.numpy_to_pil(array), strict=True):
        assert ours.mode == helped.mode == "L"
        np.testing.assert_allclose(np.asarray(ours, int), np.asarray(helped, int), atol=1)


def test_callbacks_get_the_tensors_that_they_ask_for(pipeline):
    seen = []

    def look(pipe, i, t, tensors):
        seen.append((i, sorted(tensors), pipe.guidance_scale, pipe.num_timesteps))
        return tensors

    sample(pipeline, callback_on_step_end=look, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    assert seen == [(i, ["latents", "prompt_embeds"], 4.0, 4) for i in range(4)]
    with pytest.raises(ValueError, match="callback_on_step_end_tensor_inputs noise: use latents, prompt_embeds"):
        sample(pipeline, callback_on_step_end=look, callback_on_step_end_tensor_inputs=["noise"])


def test_latents_of_a_callback_are_those_of_all_images(pipeline):
    with pytest.raises(ValueError, match=r"the callback returned latents \(1, 4, 4, 4\), not \(2, 4, 4, 4\)"):
        sample(pipeline, callback_on_step_end=lambda pipe, i, t, tensors: {"latents": tensors["latents"][:1]})


def test_a_callback_changes_the_guidance_of_the_steps_that_follow(pipeline):
    def doubled(pipe, i, t, tensors):
        pipe._guidance_scale *= 2
        return tensors

    changed = sample(pipeline, callback_on_step_end=doubled)
    assert pipeline.guidance_scale == 4.0 * 2**4 and not torch.allclose(changed, sample(pipeline), atol=1e-3)


def test_diffusers_cut_off_ends_guidance(pipeline):
    never = sample(pipeline, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=9))
    assert torch.equal(never, sample(pipeline))
    cut = sample(pipeline, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))
    early = sample(pipeline, guidance_interval=(0.4, 1.0), num_inference_steps=4)
    assert not torch.allclose(cut, never, atol=1e-3)
    by_hand = [t for t in (999, 749, 499, 249)]
    interval = (by_hand[2] / 1000, 1.0)
    torch.testing.assert_close(cut, sample(pipeline, guidance_interval=interval), atol=1e-4, rtol=1e-4)
    assert torch.equal(early, sample(pipeline, guidance_interval=interval))


def test_a_callback_that_keeps_the_half_that_diffusers_guides_keeps_all(pipeline):
    def halved(pipe, i, t, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[-1]}

    prompts, seeds = [*PROMPTS, "Cardiomegaly.", "Clear lungs."], range(4)
    settings = dict(callback_on_step_end=halved, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    assert torch.equal(sample(pipeline, prompts, seeds, **settings), sample(pipeline, prompts, seeds))


@pytest.mark.parametrize("rows", [slice(1, None), slice(0, 0), slice(0, 2)], ids=str)
def test_other_rows_of_a_callback_are_refused(pipeline, rows):
    def some(pipe, i, t, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"][rows]}

    settings = dict(callback_on_step_end=some, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with pytest.raises(ValueError, match="the callback returned prompt_embeds .* return a row for each image"):
        sample(pipeline, [*PROMPTS, "Cardiomegaly.", "Clear lungs."], range(4), **settings)


def test_an_interrupted_call_skips_what_is_left(pipeline):
    steps = []

    def stop(pipe, i, t, tensors):
        steps.append(i)
        pipe._interrupt = i == 1
        return tensors

    stopped = sample(pipeline, callback_on_step_end=stop)
    assert steps == [0, 1] and torch.isfinite(stopped).all() and pipeline.interrupt


def test_from_pipe_shares_all_parts(pipeline, controlled):
    for pipe in (pipeline, controlled):
        other = ChexGenPipeline.from_pipe(pipe)
        assert all(other.components[name] is part for name, part in pipe.components.items())


def test_a_prompt_can_be_encoded_by_itself(pipeline):
    prompt_embeds, prompt_attention_mask = pipeline.encode_prompt(PROMPTS)
    textless = ChexGenPipeline(**{**pipeline.components, "text_encoder": None, "tokenizer": None})
    textless.set_progress_bar_config(disable=True)
    given = sample(textless, None, prompt_embeds=prompt_embeds, prompt_attention_mask=prompt_attention_mask)
    torch.testing.assert_close(given, sample(pipeline))
    with pytest.raises(ValueError, match="no text encoder to read a prompt: give `prompt_embeds`"):
        sample(textless)


def test_prompts_are_encoded_without_the_transformer(pipeline, tmp_path):
    """As with diffusers' PixArt, where text encoder and transformer do not fit into the memory together."""
    pipeline.save_pretrained(tmp_path / "saved")
    encoder = ChexGenPipeline.from_pretrained(tmp_path / "saved", transformer=None)
    prompt_embeds, prompt_attention_mask = encoder.encode_prompt(PROMPTS)
    given = sample(pipeline, None, prompt_embeds=prompt_embeds, prompt_attention_mask=prompt_attention_mask)
    torch.testing.assert_close(given, sample(pipeline))
    for call in (
        lambda: encoder.encode_prompt(PROMPTS, {"sex": "F"}),
        lambda: encoder.encode_prompt(None, {"sex": "F"}),
    ):
        with pytest.raises(ValueError, match="has no transformer, and encodes a `prompt` alone"):
            call()
    with pytest.raises(ValueError, match="has no transformer, and encodes prompts alone: load it with one"):
        sample(encoder)


def test_padding_beyond_what_the_model_reads_is_left_out(pipeline):
    embeds, mask = pipeline.encode_prompt(PROMPTS)
    padded = torch.nn.functional.pad(embeds, (0, 0, 0, 300 - embeds.shape[1]))
    longer = torch.nn.functional.pad(mask, (0, 300 - mask.shape[1]))
    given = sample(pipeline, None, prompt_embeds=padded, prompt_attention_mask=longer)
    torch.testing.assert_close(given, sample(pipeline))
    longer[0, 250] = True
    with pytest.raises(ValueError, match="`prompt_embeds` of 251 tokens: this model reads 120"):
        sample(pipeline, None, prompt_embeds=padded, prompt_attention_mask=longer)


@pytest.mark.parametrize("prompt", [{"prompt": "Effusion."}, {"Effusion."}, pd.DataFrame({"prompt": ["Effusion."]})])
def test_prompts_without_an_order_or_in_a_table_are_refused(pipeline, prompt):
    with pytest.raises(ValueError, match="`prompt` must be a text or a list of texts"):
        sample(pipeline, prompt)


def test_a_mask_without_tokens_is_refused_and_spoils_no_other_row(pipeline):
    embeds, mask = torch.randn(2, 5, 384), torch.tensor([[1] * 5, [0] * 5])
    with pytest.raises(ValueError, match="row 1 of `prompt_attention_mask` has no token"):
        sample(pipeline, None, prompt_embeds=embeds, prompt_attention_mask=mask)
    latents, t = torch.randn(2, 4, 4, 4), torch.tensor([500, 500])
    for model in (pipeline.transformer, int8_weights(pipeline.transformer)):
        with torch.no_grad():
            assert model(latents, t, embeds, mask).sample.isfinite().all()


def test_a_learned_variance_leaves_other_schedulers_alone(pipeline):
    config = {key: value for key, value in pipeline.transformer.config.items() if not key.startswith("_")}
    torch.manual_seed(0)
    transformer = type(pipeline.transformer)(**{**config, "out_channels": 8}).eval()
    pipe = ChexGenPipeline(**{**pipeline.components, "transformer": transformer, "scheduler": released_scheduler()})
    pipe.set_progress_bar_config(disable=True)
    assert sample(pipe).shape == (2, 4, 4, 4)
    for kind in (SpacedDDIMScheduler, *pipe.scheduler.compatibles):
        if kind.__name__ in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDIMScheduler"):
            pipe.scheduler = kind.from_config(released_scheduler().config)
            assert sample(pipe).isfinite().all(), kind


@pytest.mark.parametrize("masked", [True, False])
def test_the_forward_is_one_graph_whatever_the_mask(pipeline, controlled, masked):
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]) if masked else None
    inputs = torch.randn(2, 4, 4, 4), torch.tensor([500, 20]), torch.randn(2, 5, 384), mask
    for pipe in (pipeline, controlled):
        with torch.no_grad():
            compiled = torch.compile(pipe.transformer, fullgraph=True, backend="eager")(*inputs).sample
            torch.testing.assert_close(compiled, pipe.transformer(*inputs).sample, atol=1e-4, rtol=1e-4)
    exported = torch.export.export(pipeline.transformer, inputs)
    torch.testing.assert_close(exported.module()(*inputs).sample, compiled * 0 + pipeline.transformer(*inputs).sample,
                               atol=1e-4, rtol=1e-4)  # fmt: skip
