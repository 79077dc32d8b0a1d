"""A pool is a function of its prompts and seed: batches, order and interruptions leave no trace."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import choose_prompts, choose_training, synthesise
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.pipeline import ChexGenPipeline

RECORDS = pl.DataFrame(
    {
        "image_id": ["a", "b", "c"],
        "prompt": ["No acute disease.", "Large right pleural effusion with atelectasis.", "Cardiomegaly."],
    }
)
SETTINGS = dict(images_per_prompt=2, num_inference_steps=3, seed=7)


def close(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1  # batches may round differently


def test_batch_size_and_neighbours_change_nothing(pipeline, tmp_path):
    whole = synthesise(pipeline, RECORDS, tmp_path / "a", batch_size=6, **SETTINGS)
    assert whole.shape == (3, 2, 32, 32) and whole.dtype == np.uint8
    assert close(synthesise(pipeline, RECORDS, tmp_path / "b", batch_size=2, **SETTINGS), whole)
    assert close(synthesise(pipeline, RECORDS[[2, 0]], tmp_path / "c", batch_size=4, **SETTINGS), whole[[2, 0]])
    assert not close(whole[:, 0], whole[:, 1])
    manifest = pl.read_parquet(tmp_path / "a/manifest.parquet")
    assert manifest["image_id"].to_list() == ["a", "b", "c"] and manifest["seeds"].list.len().to_list() == [2] * 3
    assert np.array_equal(np.load(tmp_path / "a/samples.npy"), whole)


def test_each_record_follows_its_drawing(pipeline, controlled, tmp_path):
    drawings = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    free = synthesise(controlled, RECORDS, tmp_path / "free", **SETTINGS)
    assert close(free, synthesise(pipeline, RECORDS, tmp_path / "base", **SETTINGS))
    asked = synthesise(controlled, RECORDS, tmp_path / "asked", **SETTINGS, conditions=drawings)
    assert not close(asked, free)
    other = synthesise(controlled, RECORDS[[2, 0]], tmp_path / "two", 2, 3, seed=7, conditions=drawings[[2, 0]])
    assert close(other, asked[[2, 0]])
    with pytest.raises(ValueError, match="2 conditions for 3 records"):
        synthesise(controlled, RECORDS, tmp_path / "bad", conditions=drawings[:2])


def test_each_record_follows_its_metadata(pipeline, tmp_path):
    torch.manual_seed(0)
    flow = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, metadata_sources=[]).eval()
    for parameter in flow.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    pipe = ChexGenPipeline(**{**pipeline.components, "transformer": flow})
    people, ids = [{"sex": "F"}, {"age": 80}, {"Effusion": 1}], RECORDS.select("image_id")
    asked = synthesise(pipe, ids, tmp_path / "all", metadata=people, **SETTINGS)
    assert pl.read_parquet(tmp_path / "all/manifest.parquet").columns == ["image_id", "seeds"]
    two = synthesise(pipe, ids[[2, 0]], tmp_path / "two", metadata=[people[2], people[0]], batch_size=3, **SETTINGS)
    assert close(two, asked[[2, 0]])
    assert not close(synthesise(pipe, ids, tmp_path / "same", metadata=[people[0]] * 3, **SETTINGS)[1:], asked[1:])
    weighed = synthesise(pipe, ids, tmp_path / "w", metadata=[people[0]] * 3, metadata_guidance={"sex": 9}, **SETTINGS)
    assert not close(weighed[:1], asked[:1])
    assert not close(synthesise(pipe, RECORDS, tmp_path / "both", metadata=people, **SETTINGS), asked)
    with pytest.raises(ValueError, match="2 metadata for 3 records"):
        synthesise(pipe, ids, tmp_path / "bad", metadata=people[:2])
    with pytest.raises(ValueError, match="no column prompt, and no metadata"):
        synthesise(pipe, ids, tmp_path / "bad")


def test_interrupted_with_other_metadata_starts_anew(pipeline, tmp_path, monkeypatch):
    call, calls = type(pipeline).__call__, []

    def stop_at_second(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        synthesise(pipeline, RECORDS, tmp_path, batch_size=2, metadata=[{"sex": "F"}] * 3, **SETTINGS)
    men = synthesise(pipeline, RECORDS, tmp_path, batch_size=2, metadata=[{"sex": "M"}] * 3, **SETTINGS)
    assert len(calls) == 5
    assert np.array_equal(men, synthesise(pipeline, RECORDS, tmp_path, 2, 3, 4.0, 2, 7, None, [{"sex": "M"}] * 3))


def test_interrupted_equals_uninterrupted(pipeline, tmp_path, monkeypatch):
    expected = synthesise(pipeline, RECORDS, tmp_path / "whole", batch_size=2, **SETTINGS)
    call, calls = type(pipeline).__call__, []

    def stop_at_third(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        synthesise(pipeline, RECORDS, tmp_path / "cut", batch_size=2, **SETTINGS)
    again = synthesise(pipeline, RECORDS, tmp_path / "cut", batch_size=2, **SETTINGS)
    assert len(calls) == 4 and np.array_equal(again, expected)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["manifest.parquet", "samples.npy"]


def test_prompts_are_dealt_over_findings_and_taken_once():
    n = 40
    states = {f: [0.0] * n for f in FINDINGS}
    prompts = [f"p{i}" for i in range(n)]
    for i in (5, 6, 7):
        states["Fracture"][i] = 1.0
    prompts[6] = "Healing rib fracture."
    prompts[7] = "No rib fracture."
    for i in range(n):
        states["No Finding"][i] = float(i not in (5, 6, 7))
    pool = pl.DataFrame(
        dict(
            image_id=[f"i{i}" for i in range(n)],
            prompt=prompts,
            split="test",
            stage2=True,
        )
        | states
    )
    chosen = choose_prompts(pool, 6, FINDINGS)
    assert len(chosen) == 6 and chosen["image_id"].is_unique().all()
    assert set(chosen["image_id"]) & {"i5", "i6", "i7"} == {"i6"}  # the one whose prompt says so
    assert len(choose_prompts(pool, 100, FINDINGS)) == n  # when no prompt says more, the others are taken
    assert choose_prompts(pool.with_columns(split=pl.lit("train")), 6, FINDINGS).is_empty()


def test_needs_distinct_records(pipeline, tmp_path):
    for bad in (RECORDS.head(0), RECORDS[[0, 0]]):
        with pytest.raises(ValueError, match="distinct image_id"):
            synthesise(pipeline, bad, tmp_path, **SETTINGS)


def test_a_pool_is_drawn_from_training_records_of_stage_two():
    n = 30
    table = pl.DataFrame(
        dict(
            image_id=[f"i{i}" for i in range(n)],
            split=["train", "test", "val"] * (n // 3),
            stage2=[i < 24 for i in range(n)],
        )
    )
    few, all_of_them = choose_training(table, 4, seed=0), choose_training(table, 100, seed=0)
    assert set(few["image_id"]) < set(all_of_them["image_id"]) == {f"i{i}" for i in range(0, 24, 3)}
    assert set(all_of_them["split"]) == {"train"} and len(few) == 4
    assert any(set(choose_training(table, 4, seed)["image_id"]) != set(few["image_id"]) for seed in range(1, 5))
