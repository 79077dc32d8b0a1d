"""Conditions and metadata of the pairs reach the models that read them, and no others."""

from dataclasses import replace

import pytest
import torch

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.metadata import ATTRIBUTES, encode_metadata
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training.config import TrainingError
from chexgen_lib.training.latent_cache import CacheError
from chexgen_lib.training.trainer import noise_error, train
from tests.training.runs import (
    CONFIG,
    PEOPLE,
    encoder,
    flow,
    interrupt,
    model,
    run,
    unet,
    with_conditions,
    with_metadata,
)


def test_an_adapter_learns_and_not_one_bit_of_the_frozen_model_moves(cache, tmp_path):
    base = model().eval()
    torch.nn.init.normal_(base.final_layer.linear.weight, std=0.1)  # else nothing the adapter adds reaches the output
    adapter = ControlledTransformer.on(base, 1)
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    train(adapter, with_conditions(cache), replace(CONFIG, weight_decay=0.5), tmp_path)
    after = adapter.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith("controlnet.") for name in moved)
    assert {"controlnet.0.before_proj.weight", "controlnet.0.after_proj.weight"} <= moved
    assert all(torch.equal(tensor, after[f"base_model.{name}"]) for name, tensor in base.state_dict().items())


def test_metadata_is_learnt_and_an_interrupted_run_goes_on(cache, tmp_path, monkeypatch):
    pairs = with_metadata(cache)
    expected, history = run(pairs, tmp_path / "whole", encoder)
    with monkeypatch.context() as m:
        interrupt(m, at=5)
        with pytest.raises(KeyboardInterrupt):
            run(pairs, tmp_path / "cut", encoder)
    other = replace(pairs, metadata=pairs.metadata.flip(0))
    with pytest.raises(TrainingError, match="of another run"):
        run(other, tmp_path / "cut", encoder)
    resumed, resumed_history = run(pairs, tmp_path / "cut", encoder)
    assert torch.equal(resumed, expected) and resumed_history == history
    assert not torch.equal(run(other, tmp_path / "other", encoder)[0], expected)
    trained = encoder()
    train(trained, pairs, replace(CONFIG, objective="rectified_flow"), tmp_path / "again")
    fresh = encoder().metadata_embedder.state_dict()
    moved = {name for name, value in trained.metadata_embedder.state_dict().items() if not value.equal(fresh[name])}
    assert {"age.weight", "sex.weight", "findings.weight"} <= moved
    assert noise_error(trained, pairs) != noise_error(trained, other)


def test_metadata_is_for_models_that_read_it(cache, tmp_path):
    for build, pairs in ((encoder, cache), (flow, with_metadata(cache)), (unet, with_metadata(cache))):
        with pytest.raises(TrainingError, match="a model with a metadata encoder needs a cache with metadata"):
            run(pairs, tmp_path, build)
    other = replace(cache, metadata=encode_metadata([{"source": "openi"}] * 10, ["nih", "openi"]))
    with pytest.raises(TrainingError, match="a source number 1, the model knows 1"):
        run(other, tmp_path, encoder)
    with pytest.raises(CacheError, match="metadata .* for 10 pairs"):
        replace(cache, metadata=encode_metadata(PEOPLE[:9], ["nih"]))


def test_beside_metadata_a_dropped_caption_is_one_token_long(cache, tmp_path, monkeypatch):
    lengths, original = [], ChexGenTransformer.with_metadata

    def spy(self, states, mask, metadata):
        lengths.append(mask.sum(1))
        return original(self, states, mask, metadata)

    monkeypatch.setattr(ChexGenTransformer, "with_metadata", spy)
    run(with_metadata(cache), tmp_path / "encoder", encoder, caption_dropout=0.9999)
    assert torch.cat(lengths).max() == 1
    lengths.clear()
    run(cache, tmp_path / "text", flow, caption_dropout=0.9999)
    assert torch.cat(lengths).max() > 1  # as in the released code


def test_an_adapter_may_learn_from_texts_alone(cache, tmp_path, monkeypatch):
    """Also on a model with a metadata encoder, whose null caption is one token long."""
    lengths, original = [], ChexGenTransformer.with_metadata

    def spy(self, states, mask, metadata):
        lengths.append(mask.sum(1))
        assert metadata is None
        return original(self, states, mask, metadata)

    monkeypatch.setattr(ChexGenTransformer, "with_metadata", spy)
    config = replace(CONFIG, objective="rectified_flow", caption_dropout=0.9999)
    train(ControlledTransformer.on(encoder(), 1), with_conditions(cache), config, tmp_path)
    assert torch.cat(lengths).max() == 1


def test_a_share_of_samples_is_shown_a_text_alone(cache, tmp_path, monkeypatch):
    rows, original = [], ChexGenTransformer.with_metadata

    def spy(self, states, mask, metadata):
        rows.append(metadata[:, : len(ATTRIBUTES)].isnan().all(1))
        return original(self, states, mask, metadata)

    monkeypatch.setattr(ChexGenTransformer, "with_metadata", spy)
    bare = {}
    for share in (0.0, 0.5, 0.9999):
        run(with_metadata(cache), tmp_path / str(share), encoder, metadata_dropout=share, steps=20)
        bare[share] = torch.cat(rows).float().mean()
        rows.clear()
    assert bare[0.0] < 0.4 and bare[0.0] + 0.2 < bare[0.5] < 0.9 and bare[0.9999] == 1


def test_conditions_are_for_adapters(cache, tmp_path):
    with pytest.raises(TrainingError, match="an adapter needs a cache with conditions"):
        train(ControlledTransformer.on(model(), 1), cache, CONFIG, tmp_path)
    with pytest.raises(TrainingError, match="a text-to-image model one without"):
        train(model(), with_conditions(cache), CONFIG, tmp_path)
    with pytest.raises(CacheError, match="do not form pairs"):
        replace(cache, condition=torch.zeros(10, 4, 2, 2))
