"""A selection follows its counts, sources and splits, over-represents rare findings and keeps patients apart."""

from dataclasses import replace

import polars as pl
import pytest

from chexgen_lib import storage
from chexgen_lib.cohort import select as selecting
from chexgen_lib.cohort.layout import FLAGS, CohortError, rows
from chexgen_lib.cohort.select import RESERVED, SPLITS_SEED, Selection, is_reserved, select
from chexgen_lib.records import FRONTAL, assign_splits, person
from tests.builders import curated_records

STAGE1 = Selection("stage1", ["nih"], {"train": 20, "val": 4})
STAGE2 = Selection("stage2", ["openi"], {"train": 10, "val": 2, "test": 4}, prompt="impression", views=FRONTAL)
EXTERNAL = Selection("external", ["nih"], {"train": 6, "test": 5}, views=FRONTAL, optional=True)


def choose(table, *, stage1=STAGE1, stage2=STAGE2, external=EXTERNAL, max_tokens=120, seed=0):
    def words(texts):
        return [len(text.split()) for text in texts]

    return pl.concat(select(table, [stage1, stage2, external], words, max_tokens, seed))


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return pl.concat([curated_records(), curated_records(source="openi")])


def test_selection_follows_counts_splits_and_stages(table):
    chosen = choose(table)
    assert set(FLAGS) <= set(chosen.columns)
    counts = {(s, f): len(rows(chosen, f, s)) for s in ("train", "val", "test") for f in FLAGS}
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


def test_a_natural_selection_keeps_the_long_tail_and_all_can_be_taken(table):
    pool = table.filter(pl.col("source") == "nih", pl.col("split") == "train")
    half = replace(STAGE1, counts={"train": len(pool) // 2}, natural=True)
    share = choose(table, stage1=half).filter("stage1")["Cardiomegaly"].mean()
    assert share < choose(table, stage1=replace(half, natural=False)).filter("stage1")["Cardiomegaly"].mean()
    every = choose(table, stage1=replace(STAGE1, counts={"train": None}, natural=True)).filter("stage1")
    assert len(every) == len(pool)


def test_pa_alone(table):
    ap = table.with_columns(view=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("AP")).otherwise("view"))
    assert set(choose(ap).filter("stage2")["view"]) == {"PA", "AP"}
    assert set(choose(ap, stage2=replace(STAGE2, views=["PA"])).filter("stage2")["view"]) == {"PA"}


def test_images_that_no_text_goes_with_need_no_description(table):
    failed = table.with_columns(qc=pl.lit("fail: nothing to describe"))
    renamed = (pl.col(c).str.replace("nih", "object_cxr") for c in ("image_id", "patient_id", "study_id", "source"))
    both = pl.concat([table, failed.filter(source="nih").with_columns(*renamed)])
    marked = Selection("annotated", ["object_cxr"], dict.fromkeys(("train", "val", "test")), labels_alone=True)
    chosen = choose(both, external=marked)
    assert len(chosen.filter("annotated")) == len(failed.filter(source="nih")) == 120
    with pytest.raises(CohortError, match="no training record for annotated"):
        choose(both, external=replace(marked, labels_alone=False))


def test_one_source_can_serve_both_stages(table):
    chosen = choose(table, stage2=replace(STAGE2, sources=["nih"]))
    both = chosen.filter("stage1", "stage2")
    assert chosen["image_id"].is_unique().all() and both.height > 0
    assert both["prompt"].str.contains("radiograph").all()


def test_a_stage_without_records_is_an_error(table):
    with pytest.raises(CohortError, match="hold nothing of mimic: put it below the data root"):
        choose(table, stage2=replace(STAGE2, sources=["mimic"]))
    with pytest.raises(CohortError, match="no training record for stage2"):
        choose(table.with_columns(split=pl.when(source="openi").then(pl.lit("test")).otherwise("split")))
    with pytest.raises(CohortError, match="no training record for stage1"):
        choose(table, max_tokens=1)


def test_there_need_be_no_external_images(table):
    chosen = choose(table, external=replace(EXTERNAL, sources=[], counts={"train": 0, "test": 0}))
    assert not chosen["external"].any() and chosen.height > 0


def mimic() -> pl.DataFrame:
    """Curated records of MIMIC-CXR with impressions, in all folders, as the reader and notebook 01 give them."""
    table = curated_records(600)
    number = pl.int_range(pl.len())
    subject = (10 + number % 10) * 1_000_000 + number
    ids = pl.format("mimic_cxr:{}", number)
    table = table.with_columns(
        source=pl.lit("mimic_cxr"),
        image_id=ids,
        study_id=ids,
        patient_id=pl.format("mimic_cxr:{}", subject),
        view=pl.lit("PA"),
        impression=pl.format("Impression {}.", number),
        split=pl.when(number % 10 == 9).then(pl.lit("test")).otherwise(pl.lit("train")),
    )
    return assign_splits(table, seed=0)


def test_mimic_serves_both_stages_or_the_second_alone():
    both = choose(
        mimic(),
        stage1=replace(STAGE1, sources=["mimic_cxr"]),
        stage2=replace(STAGE2, sources=["mimic_cxr"]),
        external=replace(EXTERNAL, sources=["mimic_cxr"]),
    )
    assert both.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
    tested = pl.col("patient_id").str.starts_with("mimic_cxr:19")
    assert both.filter(tested)["split"].unique().to_list() == ["test"] and not both.filter(tested)["stage1"].any()
    assert not both.filter(~tested)["split"].is_in(["test"]).any()
    twice = both.filter("stage1", "stage2")
    assert twice.height > 0 and twice["prompt"].equals(twice["impression"], check_names=False)
    second = choose(pl.concat([curated_records(), mimic()]), stage2=replace(STAGE2, sources=["mimic_cxr"]))
    for table in (both, second):
        counts = [len(rows(table, "stage2", split)) for split in ("train", "val", "test")]
        assert counts == list(STAGE2.counts.values())


def test_a_patient_in_two_splits_is_refused_before_any_image_is_read(table):
    torn = table.with_columns(patient_id=pl.lit("nih:00000001"), source=pl.lit("nih"))
    with pytest.raises(CohortError, match="patients are in several splits, first 'nih:00000001'"):
        choose(torn, stage2=replace(STAGE2, sources=["nih"]))


def test_what_is_reserved_is_never_in_the_foundation():
    people = [f"nih:{i:08d}" for i in range(4000)]
    table = pl.DataFrame({"patient_id": people + people[:10], "image_id": [str(i) for i in range(4010)]})
    reserved = is_reserved(table)
    assert abs(reserved[:4000].mean() - RESERVED) < 0.02
    assert reserved[:10].to_list() == reserved[4000:].to_list()  # by person
    assert is_reserved(table.reverse()).reverse().equals(reserved)
    other = table.head(50).with_columns(pl.col("patient_id").str.replace("nih:", "chestx_det:"))
    assert is_reserved(other).to_list() == reserved[:50].to_list()  # the same people in another dataset


def test_a_selection_trains_on_reserved_people_or_on_the_others(table):
    few = replace(STAGE1, counts={"train": 2, "val": 4})
    sides = {flag: choose(table, stage1=replace(few, reserved=flag)).filter("stage1") for flag in (True, False)}
    people = {flag: chosen.filter(split="train") for flag, chosen in sides.items()}
    assert is_reserved(people[True]).all() and not is_reserved(people[False]).any()
    assert {flag: len(chosen.filter(split="val")) for flag, chosen in sides.items()} == {True: 4, False: 4}


def other_source(table: pl.DataFrame, source: str) -> pl.DataFrame:
    ids = ("image_id", "patient_id", "study_id", "source")
    return table.with_columns(pl.col(c).str.replace("^nih", source) for c in ids)


def as_published(table: pl.DataFrame) -> pl.DataFrame:
    last = pl.col("patient_id").str.tail(1)
    return table.with_columns(split=last.replace_strict({"1": "val", "2": "test"}, default="train"))


SPLIT_OTHERWISE = {
    "another seed": lambda table: assign_splits(table, seed=1),
    "other fractions": lambda table: assign_splits(table, {"train": 0.4, "val": 0.3, "test": 0.3}, SPLITS_SEED),
    "lists of the publisher": as_published,
    "lists of a dataset of the same people": lambda table: as_published(other_source(table, "chestx_det")),
}


@pytest.mark.parametrize("otherwise", SPLIT_OTHERWISE)
def test_nobody_who_trained_the_foundation_is_tested_whatever_the_splits(otherwise):
    number = pl.col("patient_id").str.extract(r"(\d+)").str.zfill(8)
    table = curated_records(900).drop("split").with_columns(patient_id=pl.format("nih:{}", number))
    known = assign_splits(table, seed=SPLITS_SEED).filter(pl.col("split") == "train", ~is_reserved(table))
    split = SPLIT_OTHERWISE[otherwise](table).select(pl.exclude("split"), "split")
    stage1, stage2 = (curated_records(source=source).select(split.columns) for source in ("brax", "openi"))
    asked = replace(EXTERNAL, sources=split["source"].unique(), counts={"val": None, "test": None}, reserved=True)
    both = pl.concat([stage1, stage2, split])
    chosen = choose(both, stage1=replace(STAGE1, sources=["brax"]), external=asked)
    chosen = chosen.filter("external").with_columns(person=person())
    assert set(chosen["split"]) == {"val", "test"} and not set(chosen["person"]) & set(
        known.select(person=person())["person"]
    )
    assert not is_reserved(chosen).all()  # whom the foundation was not trained on need not be reserved


def test_with_the_splits_of_the_foundation_and_in_datasets_that_it_never_saw_all_are_tested(table):
    tested = other_source(table.filter(source="nih"), "vindr_cxr").with_columns(split=pl.lit("test"))
    both = pl.concat([table, tested])
    for source in ("nih", "openi", "vindr_cxr"):
        asked = replace(EXTERNAL, sources=[source], counts={"val": None, "test": None}, views=None)
        chosen = [choose(both, external=replace(asked, reserved=how)).filter("external") for how in (True, None)]
        assert len(chosen[0]) and chosen[0].equals(chosen[1]), source


def test_records_on_the_disk_are_selected_in_blocks(table, tmp_path, monkeypatch):
    def words(texts):
        return [len(text.split()) for text in texts]

    whole, how = choose(table), ([STAGE1, STAGE2, EXTERNAL], words, 120)
    table.write_parquet(tmp_path / "records.parquet", row_group_size=50)
    stored = pl.scan_parquet(tmp_path / "records.parquet")
    for module in (storage, selecting):
        monkeypatch.setattr(module, "ROWS", 20)
    parts = list(select(stored, *how))
    assert max(map(len, parts)) == 20 and pl.concat(parts).equals(whole)
    nothing = select(stored, [replace(EXTERNAL, counts={"train": 0})], words, 120)
    assert pl.concat(nothing).equals(whole.head(0))
