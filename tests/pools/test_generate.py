"""A pool is a function of its prompts and seed: batches, order and interruptions leave no trace."""

import copy
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import normalizers

from chexgen_lib import code_digest
from chexgen_lib.diffusion.schedulers import default_scheduler
from chexgen_lib.experiments.distillation import student_of
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import Sampling, fingerprint, sample_pool
from chexgen_lib.sampling.baseline import BaselinePipeline
from chexgen_lib.sampling.generators import GreyPipeline
from chexgen_lib.sampling.pipeline import ChexGenPipeline

RECORDS = pl.DataFrame(
    {
        "image_id": ["a", "b", "c"],
        "prompt": ["No acute disease.", "Large right pleural effusion with atelectasis.", "Cardiomegaly."],
    }
)
SETTINGS = Sampling(copies=2, num_inference_steps=3, seed=7)


def sample(pipeline, requests, folder, conditions=None, metadata=None, **changes):
    return sample_pool(pipeline, requests, folder, replace(SETTINGS, **changes), conditions, metadata)


def close(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1  # batches may round differently


def test_batch_size_and_neighbours_change_nothing(pipeline, tmp_path):
    whole = sample(pipeline, RECORDS, tmp_path / "a", batch_size=6)
    assert whole.shape == (3, 2, 32, 32) and whole.dtype == np.uint8
    assert close(sample(pipeline, RECORDS, tmp_path / "b", batch_size=2), whole)
    assert close(sample(pipeline, RECORDS[[2, 0]], tmp_path / "c", batch_size=4), whole[[2, 0]])
    assert not close(whole[:, 0], whole[:, 1])
    manifest = pl.read_parquet(tmp_path / "a/manifest.parquet")
    assert manifest["image_id"].to_list() == ["a", "b", "c"] and manifest["seeds"].list.len().to_list() == [2] * 3
    assert np.array_equal(np.load(tmp_path / "a/samples.npy"), whole)


def test_each_request_follows_its_condition_image(pipeline, controlled, tmp_path):
    conditions = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    free = sample(controlled, RECORDS, tmp_path / "free")
    assert close(free, sample(pipeline, RECORDS, tmp_path / "base"))
    asked = sample(controlled, RECORDS, tmp_path / "asked", conditions=conditions)
    assert not close(asked, free)
    other = sample(controlled, RECORDS[[2, 0]], tmp_path / "two", conditions=conditions[[2, 0]])
    assert close(other, asked[[2, 0]])
    with pytest.raises(ValueError, match="2 conditions for 3 requests"):
        sample(controlled, RECORDS, tmp_path / "bad", conditions=conditions[:2])


def test_steps_outside_the_interval_are_not_guided(pipeline, tmp_path):
    part, whole = (sample(pipeline, RECORDS, tmp_path / str(b), guidance_interval=(0.0, b)) for b in (0.7, 1.0))
    none = sample(pipeline, RECORDS, tmp_path / "none", guidance_scale=1.0)
    assert close(sample(pipeline, RECORDS, tmp_path / "0", guidance_interval=[0.0, 0.0]), none)  # as YAML has it
    assert not close(part, whole)


def test_each_request_follows_its_metadata(pipeline, tmp_path):
    torch.manual_seed(0)
    flow = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, metadata_sources=[]).eval()
    for parameter in flow.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    pipe = ChexGenPipeline(**{**pipeline.components, "transformer": flow})
    people, ids = [{"sex": "F"}, {"age": 80}, {"Effusion": 1}], RECORDS.select("image_id")
    asked = sample(pipe, ids, tmp_path / "all", metadata=people)
    assert pl.read_parquet(tmp_path / "all/manifest.parquet").columns == ["image_id", "seeds"]
    two = sample(pipe, ids[[2, 0]], tmp_path / "two", metadata=[people[2], people[0]], batch_size=3)
    assert close(two, asked[[2, 0]])
    assert not close(sample(pipe, ids, tmp_path / "same", metadata=[people[0]] * 3)[1:], asked[1:])
    weighed = sample(pipe, ids, tmp_path / "w", metadata=[people[0]] * 3, metadata_guidance={"sex": 9})
    assert not close(weighed[:1], asked[:1])
    assert not close(sample(pipe, RECORDS, tmp_path / "both", metadata=people), asked)
    with pytest.raises(ValueError, match="2 metadata for 3 requests"):
        sample(pipe, ids, tmp_path / "bad", metadata=people[:2])
    with pytest.raises(ValueError, match="no column prompt, and no metadata"):
        sample(pipe, ids, tmp_path / "bad")


def test_interrupted_with_other_metadata_starts_anew(pipeline, tmp_path, monkeypatch):
    call, calls = type(pipeline).__call__, []

    def stop_at_second(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        sample(pipeline, RECORDS, tmp_path / "cut", batch_size=2, metadata=[{"sex": "F"}] * 3)
    men = sample(pipeline, RECORDS, tmp_path / "cut", batch_size=2, metadata=[{"sex": "M"}] * 3)
    assert len(calls) == 5
    assert np.array_equal(men, sample(pipeline, RECORDS, tmp_path / "men", batch_size=2, metadata=[{"sex": "M"}] * 3))


def test_interrupted_equals_uninterrupted(pipeline, tmp_path, monkeypatch):
    expected = sample(pipeline, RECORDS, tmp_path / "whole", batch_size=2)
    call, calls = type(pipeline).__call__, []

    def stop_at_third(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        sample(pipeline, RECORDS, tmp_path / "cut", batch_size=2)
    again = sample(pipeline, RECORDS, tmp_path / "cut", batch_size=2)
    assert len(calls) == 4 and np.array_equal(again, expected)
    assert np.array_equal(sample(pipeline, RECORDS, tmp_path / "cut", batch_size=2), expected)
    assert len(calls) == 4  # a finished pool is read
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["kept.json", "manifest.parquet", "samples.npy"]


def test_needs_distinct_records(pipeline, tmp_path):
    for bad in (RECORDS.head(0), RECORDS[[0, 0]]):
        with pytest.raises(ValueError, match="distinct image_id"):
            sample(pipeline, bad, tmp_path / "bad")


def test_a_distilled_generator_takes_its_own_steps_without_guidance(flow, tmp_path):
    student = student_of(flow.transformer, 2)
    pipeline = ChexGenPipeline(**{**flow.components, "transformer": student, "scheduler": default_scheduler(student)})
    images = sample(pipeline, RECORDS, tmp_path / "a", num_inference_steps=20, guidance_scale=4.0)
    assert np.array_equal(images, sample(pipeline, RECORDS, tmp_path / "b", num_inference_steps=2, guidance_scale=1.0))


def test_all_that_changes_an_image_tells_generators_apart(pipeline):
    other = copy.deepcopy(pipeline.tokenizer)
    other.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    stable = GreyPipeline(pipeline)
    scaled = copy.deepcopy(pipeline.vae)
    scaled.register_to_config(scaling_factor=0.5)
    others = [
        ChexGenPipeline(**pipeline.components, compat="released"),
        ChexGenPipeline(**pipeline.components, clean_captions=True),
        BaselinePipeline(**pipeline.components),
        ChexGenPipeline(**pipeline.components | {"tokenizer": other}),
        stable,
        GreyPipeline(ChexGenPipeline(**pipeline.components | {"vae": scaled})),
    ]
    found = [fingerprint(one) for one in (pipeline, *others)]
    assert len(set(found)) == len(found)
    pipeline(["Clear lungs.", "Large right pleural effusion."], num_inference_steps=2)
    assert fingerprint(pipeline) == fingerprint(ChexGenPipeline(**pipeline.components)) == found[0]


def test_the_code_of_another_generator_counts(pipeline, monkeypatch):
    before, of = fingerprint(BaselinePipeline(**pipeline.components)), code_digest.of
    mended = Path(inspect.getfile(BaselinePipeline))
    monkeypatch.setattr(code_digest, "of", lambda file: of(file) + "mended" * (Path(file) == mended))
    assert fingerprint(BaselinePipeline(**pipeline.components)) != before
