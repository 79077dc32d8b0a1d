"""Offloaded weights are there when they are used, and weights have the precision that was asked for."""

import copy

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from chexgen_lib.models.metadata import encode_metadata
from chexgen_lib.sampling.pipeline import ChexGenPipeline


def test_sequential_offloading_changes_no_image(pipeline):
    settings = dict(num_inference_steps=2, output_type="np")
    expected = pipeline("Cardiomegaly.", generator=torch.Generator().manual_seed(0), **settings).images
    parts = {name: copy.deepcopy(pipeline.components[name]) for name in ("transformer", "vae")}
    for part in parts.values():
        cpu_offload(part, torch.device("cpu"), offload_buffers=True)
    assert parts["transformer"].y_embedder.y_embedding.device.type == "meta"
    offloaded = ChexGenPipeline(**{**pipeline.components, **parts})
    offloaded.set_progress_bar_config(disable=True)
    images = offloaded("Cardiomegaly.", generator=torch.Generator().manual_seed(0), **settings).images
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_group_offloading_is_refused(pipeline, controlled):
    for pipe in (pipeline, controlled):
        with pytest.raises(ValueError, match="does not support group offloading"):
            copy.deepcopy(pipe.transformer).enable_group_offload(torch.device("cpu"))


def test_weights_can_be_cast_for_storage_alone(pipeline):
    config = {key: value for key, value in pipeline.transformer.config.items() if not key.startswith("_")}
    model = type(pipeline.transformer)(**{**config, "metadata_sources": ["nih"]}).eval()
    latents, text = torch.randn(1, 4, 4, 4), torch.randn(1, 3, 384)
    codes = encode_metadata([{"age": 50, "sex": "F", "Effusion": 1}], ["nih"])
    with torch.no_grad():
        expected = model(latents, torch.tensor([500]), text, metadata=codes).sample
        model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
        cast = model(latents, torch.tensor([500]), text, metadata=codes).sample
    assert cast.dtype == torch.float32 and model.metadata_embedder.age.weight.dtype == torch.bfloat16
    torch.testing.assert_close(cast, expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_pipeline_saved_in_half_precision_is_loaded_in_one(pipeline, tmp_path, variant):
    ChexGenPipeline(**copy.deepcopy(pipeline.components)).to(torch.float16).save_pretrained(tmp_path, variant=variant)
    for options, dtype in (({}, torch.float32), ({"torch_dtype": torch.bfloat16}, torch.bfloat16)):
        parts = ChexGenPipeline.from_pretrained(tmp_path, **options).components
        models = [part for part in parts.values() if isinstance(part, torch.nn.Module)]
        assert {tensor.dtype for model in models for tensor in model.parameters()} == {dtype}


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_loaded_in_the_precision_that_is_asked_for(pipeline, tmp_path, dtype, low):
    pipeline.transformer.save_pretrained(tmp_path)
    model = type(pipeline.transformer).from_pretrained(tmp_path, torch_dtype=dtype, low_cpu_mem_usage=low)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    inputs = torch.randn(1, 4, 4, 4, dtype=dtype), torch.tensor([500]), torch.randn(1, 3, 384, dtype=dtype)
    with torch.no_grad():
        assert model(*inputs).sample.dtype == dtype
