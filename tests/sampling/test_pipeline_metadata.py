"""Metadata reach the sample, in the prompt or by an encoder."""

import numpy as np
import pytest
import torch

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import MetadataError, encode_metadata
from chexgen_lib.sampling.guidance import Inputs
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.sampling.samples import PROMPTS, SCHEDULERS, condition, sample, with_scheduler


@pytest.fixture(scope="module", params=SCHEDULERS, ids=lambda scheduler: scheduler.__name__)
def pipeline(pipeline, request):
    return with_scheduler(pipeline, request.param())


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


def test_metadata_is_part_of_the_prompt(pipeline):
    merged = sample(pipeline, ["sex:Male, age:71.0. Clear lungs.", "Clear lungs."])
    people = [dict(sex="Male", age=71), {}]
    np.testing.assert_array_equal(sample(pipeline, ["Clear lungs."] * 2, metadata=people), merged)


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
    for weight in (float("nan"), "3", None):
        with pytest.raises(ValueError, match=f"metadata_guidance of sex must be a finite number, not {weight!r}"):
            sample(encoding, metadata=PEOPLE, metadata_guidance={"sex": weight})
    with pytest.raises(ValueError, match="metadata_guidance of an unknown 'race'"):
        sample(encoding, metadata=PEOPLE, metadata_guidance={"race": 2.0})
    with pytest.raises(ValueError, match="needs a transformer with a metadata encoder"):
        sample(pipeline, metadata_guidance={"age": 2.0})
    with pytest.raises(ValueError, match="3 entries in `metadata` for 2 prompts"):
        sample(encoding, metadata=[{}] * 3)
    with pytest.raises(ValueError, match="either `prompt` or `prompt_embeds`"):
        pipeline(metadata={"age": 71})
