"""Weights of 8 bits: nearly the same images, nothing to train or save, and errors that say so."""

import numpy as np
import pytest
import torch

from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.sampling.synthesis import fingerprint


def images(pipeline, **kwargs):
    generator = [torch.Generator().manual_seed(seed) for seed in range(2)]
    prompt = ["Cardiomegaly.", "Small left effusion."]
    return pipeline(prompt, num_inference_steps=4, generator=generator, output_type="np", **kwargs).images


@pytest.mark.parametrize("kind", ["pipeline", "controlled"])
def test_images_stay_within_40_db(request, kind):
    pipeline = request.getfixturevalue(kind)
    asked = {"condition_image": np.full((2, 32, 32, 3), 90, np.uint8)} if kind == "controlled" else {}
    exact, trained = images(pipeline, **asked), pipeline.transformer
    pipeline.transformer = int8_weights(trained)
    rounded = images(pipeline, **asked)
    pipeline.transformer = trained
    error = np.square(exact - rounded).mean()
    assert 0 < error < 1e-4  # 40 dB; 0 would mean that nothing was rounded
    assert np.array_equal(images(pipeline, **asked), exact)  # the original did not change


def test_every_product_of_the_blocks_is_int8(controlled):
    blocks = {**dict(int8_weights(controlled.transformer).named_modules())}
    products = [m for name, m in blocks.items() if name.endswith((".qkv", ".fc1", ".fc2", "q_linear", "attn.proj"))]
    inside = [m for m in products if not isinstance(m, torch.nn.Linear)]
    assert len(inside) == len(products) - 2  # the text projection's two are outside the blocks


def test_it_counts_as_another_generator(pipeline):
    before, trained = fingerprint(pipeline), pipeline.transformer
    pipeline.transformer = int8_weights(trained)
    after = fingerprint(pipeline)
    pipeline.transformer = trained
    assert before != after and fingerprint(pipeline) == before


def test_what_cannot_be_made_or_saved_says_so(pipeline, tmp_path):
    rounded = int8_weights(pipeline.transformer)
    with pytest.raises(ValueError, match="int8 already"):
        int8_weights(rounded)
    with pytest.raises(ValueError, match="save the transformer that they were made from"):
        rounded.save_pretrained(tmp_path / "x")
    with pytest.raises(ValueError, match="float32 on a CPU, not torch.bfloat16"):
        int8_weights(rounded.__class__.from_config(rounded.config).to(torch.bfloat16))
