"""Masks, boxes and drawings control what the pipeline samples."""

import numpy as np
import pytest
import torch
from PIL import Image

from chexgen_lib.models.autoencoder import encode_conditions
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.sampling.conditions import ConditionError, draw
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.sampling.samples import PROMPTS, SCHEDULERS, condition, sample, with_scheduler


@pytest.fixture(scope="module", params=SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def pipeline(pipeline, request):
    return with_scheduler(pipeline, request.param())


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


def test_one_box_or_a_text_is_that_of_a_single_prompt(controlled):
    box = {"class": "Lung Lesion", "x": 0.5, "y": 0.5, "w": 0.4, "h": 0.3}
    listed = controlled._encode_conditions(1, None, [box], None)
    for boxes in (box, "Lung Lesion 0.5 0.5 0.4 0.3", [[box]]):
        assert torch.equal(controlled._encode_conditions(1, None, boxes, None), listed)


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
