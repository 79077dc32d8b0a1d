"""Prompts are spread over findings, and pools are sampled for training records only."""

import polars as pl
import pytest

from chexgen_lib.pools.requests import (
    choose_prompts,
    choose_training,
    fitting_prompts,
    metadata_for,
    stated_findings,
    with_prompts,
)
from chexgen_lib.records import FINDINGS
from tests.builders import curated_records


def test_prompts_are_spread_over_findings_and_taken_once():
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


def test_records_of_prompts_that_are_too_long_are_left_out_and_counted(capsys):
    records = pl.DataFrame({"prompt": ["Clear.", "Small left effusion.", "Clear."]})
    kept = fitting_prompts(records, lambda prompts: [len(prompt) < 10 for prompt in prompts])
    assert kept["prompt"].to_list() == ["Clear."] * 2
    assert capsys.readouterr().out == "1 of 3 records left out: too long a description\n"
    assert fitting_prompts(kept, lambda prompts: [True] * len(prompts)).equals(kept)
    assert fitting_prompts(records.head(0), lambda prompts: []).is_empty() and not capsys.readouterr().out


def test_a_pool_is_sampled_for_training_records_of_stage_two():
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


def test_metadata_are_for_models_that_read_them():
    records = curated_records(4)
    assert metadata_for(records, None) is None
    rows = metadata_for(records, [records["source"][0]])
    assert [row["age"] for row in rows] == records["age"].to_list() and rows[0]["source"] == records["source"][0]


def test_a_description_states_every_label_and_an_impression_stays_as_it_is():
    records = curated_records(6).with_columns(prompt=pl.lit("No acute disease."))
    present = [{f for f in FINDINGS if row[f] == 1 and f != "No Finding"} for row in records.iter_rows(named=True)]
    assert stated_findings(with_prompts(records, "impression")["prompt"]) == [set()] * 6
    described = with_prompts(records, "description")
    assert stated_findings(described["prompt"]) == present and any(present)
    assert described.drop("prompt").equals(records.drop("prompt"))
    with pytest.raises(ValueError, match="pools.prompt 'report': use description or impression"):
        with_prompts(records, "report")
