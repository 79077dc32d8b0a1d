"""A cohort holds every record or its reject, is built alike after an interruption, and keeps patients apart."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort import build as cohort_building
from chexgen_lib.cohort import layout as cohort
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.descriptions import check as quality_control
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.images import read_image, resize, to_uint8
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, assign_splits, conform


def records(n=120, source="nih", findings=("Effusion", "Cardiomegaly")) -> pl.DataFrame:
    rows = []
    for i in range(n):
        state = dict.fromkeys(FINDINGS, 0.0)
        positive = findings[0] if i % 2 else "No Finding"
        state[findings[1] if i % 30 == 0 else positive] = 1.0
        rows.append(
            dict(
                image_id=f"{source}:{i}", source=source, patient_id=f"{source}:p{i // 2}", study_id=f"{source}:s{i}",
                image=f"{i}.png", view="PA" if i % 3 else "LATERAL", age=30.0 + i % 50, sex="MF"[i % 2],
                impression="Small effusion." if source == "openi" else None, **state,
            )
        )  # fmt: skip
    table = describe.describe(assign_splits(conform(pl.DataFrame(rows)), seed=0))
    return quality_control.check(table)


def choose(table, **changes):
    arguments = dict(
        stage1={"train": 20, "val": 4},
        stage2={"train": 10, "val": 2, "test": 4},
        external={"train": 6, "test": 5},
        stage1_sources=["nih"],
        stage2_sources=["openi"],
        external_sources=["nih"],
        token_counts=lambda texts: [len(t.split()) for t in texts],
        max_tokens=120,
    )
    return cohort_building.select(table, **{**arguments, **changes})


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return pl.concat([records(), records(source="openi")])


def test_selection_follows_counts_splits_and_stages(table):
    chosen = choose(table)
    counts = {(s, f): chosen.filter(pl.col("split") == s, pl.col(f)).height for s in ("train", "val", "test")
              for f in cohort.FLAGS}  # fmt: skip
    assert counts[("train", "stage1")] == 20 and counts[("train", "stage2")] == 10
    assert counts[("test", "stage1")] == 0 and counts[("test", "stage2")] == 4
    assert counts[("train", "external")] == 6 and counts[("test", "external")] == 5
    assert set(chosen.filter("external")["source"]) == {"nih"}
    assert set(chosen.filter("external")["view"]) == {"PA"}  # frontal ones only
    assert chosen.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert set(chosen.filter("stage2")["prompt"]) == {"Small effusion."}
    assert set(chosen.filter("stage2")["view"]) == {"PA"}
    assert choose(table).equals(chosen) and not choose(table, seed=1).equals(chosen)


def test_rare_findings_are_over_represented(table):
    pool = table.filter(pl.col("source") == "nih", pl.col("split") == "train")
    share = choose(table).filter("stage1")["Cardiomegaly"].mean()
    assert share > 1.5 * pool["Cardiomegaly"].mean()


def test_one_source_can_serve_both_stages(table):
    chosen = choose(table, stage2_sources=["nih"])
    both = chosen.filter("stage1", "stage2")
    assert chosen["image_id"].is_unique().all() and both.height > 0
    assert both["prompt"].str.contains("radiograph").all()


def test_a_stage_without_records_is_an_error(table):
    with pytest.raises(CohortError, match="hold nothing of mimic: put it below the data root"):
        choose(table, stage2_sources=["mimic"])
    with pytest.raises(CohortError, match="no training record for stage2"):
        choose(table.with_columns(split=pl.when(source="openi").then(pl.lit("test")).otherwise("split")))
    with pytest.raises(CohortError, match="no training record for stage1"):
        choose(table, max_tokens=1)


def test_there_need_be_no_external_images(table):
    chosen = choose(table, external={"train": 0, "test": 0}, external_sources=[])
    assert not chosen["external"].any() and chosen.height > 0


def test_rendered_cohort(table, tmp_path):
    chosen = choose(table).head(6)
    built, rejects = cohort_building.build(chosen, tmp_path, [32, 64], workers=0)
    assert len(built) == 6 and rejects.is_empty()
    assert cohort.load(tmp_path).equals(built)
    images = cohort.load_images(tmp_path, 64)
    assert images.shape == (6, 64, 64) and images.std() > 20
    small = cohort.load_images(tmp_path, 32, [2])
    assert np.array_equal(small[0], to_uint8(resize(images[2] / np.float32(255), 32)))
    lungs = cohort.load_anatomy_masks(tmp_path, [0])[0, 0]
    assert 0.05 < lungs.mean() < 0.6
    assert built[FINDINGS[1:]].null_count().sum_horizontal().item() == 0
    assert built["image"].str.starts_with("phantom:").all()


def test_an_interrupted_build_goes_on_where_it_was(table, tmp_path, monkeypatch):
    chosen = choose(table).head(6)
    monkeypatch.setattr(cohort_building, "CHUNK", 2)
    whole, _ = cohort_building.build(chosen, tmp_path / "whole", [32], workers=0)
    render, calls = phantom.render, []

    def stop_at_fourth(record, size):
        calls.append(record["image_id"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render(record, size)

    with monkeypatch.context() as m:
        m.setattr(phantom, "render", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            cohort_building.build(chosen, tmp_path / "cut", [32], workers=0)
        again, _ = cohort_building.build(chosen, tmp_path / "cut", [32], workers=0)
    assert calls == [chosen["image_id"][i] for i in (0, 1, 2, 3, 2, 3, 4, 5)]  # the first chunk was kept
    assert again.equals(whole)
    for name in ("images_32.npy", "masks.npz"):
        assert (tmp_path / "cut" / name).stat().st_size == (tmp_path / "whole" / name).stat().st_size
    assert not list((tmp_path / "cut").glob("unfinished-*"))


def test_unreadable_images_are_rejects_with_their_reason(tmp_path, table):
    chosen = choose(table, with_images=True).filter("stage1").head(4)
    rng = np.random.default_rng(0)
    names = chosen["image"].to_list()
    for name in names[:2]:
        Image.fromarray(rng.integers(0, 255, (50, 40), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / names[2]).write_bytes(b"")
    built, rejects = cohort_building.build(chosen, tmp_path / "out", [32], image_root=tmp_path)
    assert built["image"].to_list() == names[:2] and len(cohort.load_images(tmp_path / "out", 32)) == 2
    assert rejects["image_id"].to_list() == chosen["image_id"].to_list()[2:]
    assert "0 bytes" in rejects["reason"][0] and "no such file" in rejects["reason"][1]
    expected = to_uint8(resize(read_image(tmp_path / names[0]), 32))
    assert np.array_equal(cohort.load_images(tmp_path / "out", 32)[0], expected)
    assert built["Effusion"].to_list() == chosen["Effusion"].to_list()[:2]


def test_missing_cohorts_are_named(tmp_path, table):
    with pytest.raises(CohortError, match="run the stage 02_cohort"):
        cohort.load(tmp_path)
    with pytest.raises(CohortError, match="has not made 64 px"):
        cohort.load_images(tmp_path, 64)
    with pytest.raises(CohortError, match="no record to make an image of"):
        cohort_building.build(choose(table).head(0), tmp_path, [32])


def test_varied_rows_show_different_findings(table):
    rows = cohort.varied_rows(table, 3)
    assert len(set(rows)) == 3
    assert table[rows[0], "Cardiomegaly"] == 1 and table[rows[1], "Effusion"] == 1
