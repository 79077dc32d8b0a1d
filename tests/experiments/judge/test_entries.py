"""Generators and folders enter alike; what one lacks is left out for all, and listed; too little is refused."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments.judge import rendered
from chexgen_lib.experiments.judge.entries import ELSEWHERE, FEWER_ELSEWHERE, enter, shared
from chexgen_lib.experiments.judge.reference import load_reference
from chexgen_lib.images import from_uint8, write_png
from chexgen_lib.pools.folder import read_pool
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.pools.submitted import ABSENT
from chexgen_lib.records import FINDINGS
from chexgen_lib.rehearsal import weights as stand_ins
from chexgen_lib.sampling.generators import Parts
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from tests.builders import curated_records
from tests.experiments.judge import toy

SAMPLING = Sampling(copies=2, num_inference_steps=1, batch_size=32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return load_reference(toy.cohort(tmp_path_factory.mktemp("cohort")), 24)


def entered(source, reference, folder, **changes):
    settings = dict(sampling=SAMPLING, int8=False, parts=Parts()) | changes
    return enter(str(source), reference, folder, **settings)


def handed_in(folder, table, copies=1, seed=0):
    """A folder of toy images with labels.csv."""
    rows = []
    for copy in range(copies):
        for k, (image_id, image) in enumerate(zip(table["image_id"], toy.films(table, seed + copy), strict=True)):
            write_png(folder / f"{k}_{copy}.png", from_uint8(image))
            rows.append((f"{k}_{copy}.png", image_id))
    pl.DataFrame(rows, ["image", "image_id"], orient="row").write_csv(folder / "labels.csv")
    return folder


def test_a_pipeline_is_sampled_for_the_prompts_and_its_pool_stays(reference, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "ours")
    entry = entered(tmp_path / "ours", reference, tmp_path / "pool")
    assert entry.images.shape == (24, 2, 64, 64) and entry.kind == "ChexGenPipeline" and entry.seconds > 0
    assert entry.remarks == ["sampled at 32 px, judged at 64 px"]
    table, images = read_pool(entry.pool, 64)
    np.testing.assert_array_equal(images[table["copy"].to_numpy() == 1], entry.images[:, 1])
    other = entered(stand_ins.pipeline(tmp_path / "sd"), reference, tmp_path / "sd_pool")
    assert other.kind == "GreyStableDiffusionPipeline" and not np.array_equal(other.images, entry.images)


def test_prompts_that_a_pipeline_cuts_are_counted(reference, tmp_path):
    position = pl.int_range(pl.len())
    prompts = pl.when(position < 3).then(pl.lit("effusion " * 90)).otherwise(pl.lit("Clear."))
    films = replace(reference.prompted, table=reference.prompted.table.with_columns(prompt=prompts))
    source = stand_ins.pipeline(tmp_path / "sd")
    entry = entered(source, replace(reference, prompted=films), tmp_path / "pool", sampling=Sampling(1, 1))
    assert "3 prompts are longer than it reads, and cut" in entry.remarks


def test_a_model_of_metadata_is_asked_by_metadata(reference, pipeline, tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    flow = type(pipeline.transformer)(**{**config, "metadata_sources": [], "text_tokens": 1})
    parts = {**pipeline.components, "transformer": flow, "text_encoder": None, "tokenizer": None}
    ChexGenPipeline(**parts).save_pretrained(tmp_path / "flow")
    asked, call = [], ChexGenPipeline.__call__

    def spy(self, prompt=None, **settings):
        asked.append((prompt, settings["metadata"]))
        return call(self, prompt, **settings)

    monkeypatch.setattr(ChexGenPipeline, "__call__", spy)
    ill = reference.prompted.table.with_columns(pl.lit(0.0).alias("No Finding"))  # the toy's findings contradict it
    some = replace(reference, prompted=replace(reference.prompted, table=ill))
    entry = entered(tmp_path / "flow", some, tmp_path / "pool")
    assert "asked by metadata" in entry.remarks
    prompts, metadata = asked[0]
    assert prompts is None and {"sex", "age", "view", "details", *FINDINGS} < set(metadata[0])
    assert {row["source"] for row in metadata} == {None}  # the model knows none
    both = type(pipeline.transformer)(**{**config, "metadata_sources": []})
    ChexGenPipeline(**{**pipeline.components, "transformer": both}).save_pretrained(tmp_path / "both")
    entry = entered(tmp_path / "both", some, tmp_path / "others")  # as all that read prompts
    prompts, metadata = asked[-1]
    assert set(prompts) <= set(some.prompted.table["prompt"]) and metadata is None
    assert "asked by metadata" not in entry.remarks


def test_all_are_judged_on_what_each_has(reference, tmp_path):
    table = reference.prompted.table
    whole = entered(handed_in(tmp_path / "a", table, copies=2), reference, tmp_path)
    part = entered(handed_in(tmp_path / "b", table[2:]), reference, tmp_path)
    left, found = shared(reference, {"whole": whole, "part": part})
    assert left.prompted.table["image_id"].to_list() == table["image_id"].to_list()[2:]
    assert len(left.others) == 22 and {e.images.shape for e in found.values()} == {(22, 1, 64, 64)}
    np.testing.assert_array_equal(found["whole"].images[:, 0], whole.images[2:, 0])
    ids = table["image_id"].to_list()
    without, surplus = ([(i, None, ELSEWHERE) for i in ids[:2]], [(i, 1, FEWER_ELSEWHERE) for i in ids[2:]])
    assert found["whole"].excluded.rows() == [*without, *surplus]
    assert found["part"].excluded["reason"].to_list() == [ABSENT] * 2
    few = entered(handed_in(tmp_path / "c", table[:6]), reference, tmp_path)
    with pytest.raises(
        CohortError, match=r"4 prompts have an image in every entry \(part: 22, few: 6\), judging needs 20: generate"
    ):
        shared(reference, {"part": part, "few": few})


def test_a_pool_of_other_prompts_is_remarked_upon(reference, tmp_path):
    table = reference.prompted.table
    np.save(tmp_path / "samples.npy", toy.films(table, 3)[:, None])
    manifest = table.select(pl.col("image_id") + ":box", "prompt", record="image_id")
    manifest.write_parquet(tmp_path / "manifest.parquet")
    assert entered(tmp_path, reference, tmp_path / "none").remarks == []
    others = pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("Clear.")).otherwise("prompt").alias("prompt")
    manifest.with_columns(others).write_parquet(tmp_path / "manifest.parquet")
    said = entered(tmp_path, reference, tmp_path / "none").remarks
    assert said == ["images of 3 records were requested with another text than the prompt"]
    manifest.drop("prompt").write_parquet(tmp_path / "manifest.parquet")
    assert entered(tmp_path, reference, tmp_path / "none").remarks == []


def test_the_embedded_reference_shows_and_states_what_is_asked(tmp_path, monkeypatch):
    records = {s: curated_records(source=s).drop("qc", "split").with_columns(details=[]) for s in rendered.SOURCES}
    monkeypatch.setattr(rendered.registry, "load", lambda source: (records[source], None))
    counts = {"train": 4, "val": 2, "test": 4}
    rendered.render_reference(tmp_path, counts, 32, 0)
    table = pl.read_parquet(tmp_path / "cohort.parquet")
    assert dict(table["split"].value_counts().iter_rows()) == counts
    assert table.filter(split="test")["patient_id"].is_unique().all()
    assert table.filter(split="train").filter(~rendered.is_reserved(table.filter(split="train"))).is_empty()
    sick = table.filter(pl.col("Effusion") == 1).row(0, named=True)
    place = next(d for d in sick["details"] if d["finding"] == "Effusion")
    words = {"mild": ("mild", "small", "slight"), "moderate": ("moderate",), "severe": ("large", "severe", "marked")}
    assert place["side"] in sick["prompt"] and any(word in sick["prompt"] for word in words[place["severity"]])
    before = (tmp_path / "records.parquet").read_bytes()
    (tmp_path / "cohort.parquet").unlink()
    monkeypatch.setattr(rendered.registry, "load", lambda source: pytest.fail("chosen anew"))
    rendered.render_reference(tmp_path, counts, 32, 0)
    assert (tmp_path / "records.parquet").read_bytes() == before
