"""The corpus: parts that add up, whatever the shard, the interruption and the size of a part."""

import json

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.descriptions import corpus, grammar
from chexgen_lib.descriptions.check import PASS, check
from chexgen_lib.records import FINDINGS, RecordError
from chexgen_lib.sources.table import REJECTS


def table(source: str = "nih", n: int = 90, start: int = 0) -> corpus.Table:
    """n Records, three per patient, and one reject."""
    number = pl.int_range(start, start + n, eager=True)
    ids = {"image_id": pl.format("{}:{}", pl.lit(source), "i"), "study_id": pl.format("{}:{}", pl.lit(source), "i")}
    ids |= {"patient_id": pl.format("{}:p{}", pl.lit(source), pl.col("i") // 3), "source": pl.lit(source)}
    states = {f: ((pl.col("i") + k) % 4 == 0).cast(pl.Float32) for k, f in enumerate(FINDINGS[1:])}
    df = pl.DataFrame({"i": number}).select(**ids, **states, age=pl.col("i") % 90, sex=pl.lit("F"), view=pl.lit("PA"))
    lost = pl.DataFrame([(source, str(start), None, "no image id")], schema=REJECTS, orient="row")
    return records.conform(df), lost


def directly(*tables: corpus.Table) -> pl.DataFrame:
    df = pl.concat(df for df, _ in tables)
    return records.validate(check(grammar.describe(records.assign_splits(df))))


def read(folder) -> pl.DataFrame:
    return corpus.stream(folder).collect()


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_hold_what_one_table_would(tmp_path, workers):
    tables = [table("nih"), table("brax", 20)]
    manifest = corpus.build(tables, tmp_path, rows_per_file=40, workers=workers)
    assert [part["rows"] for part in manifest["parts"]] == [40, 40, 10, 20]
    assert manifest["complete"] and manifest["rows"] == 110
    assert read(tmp_path)["qc"].unique().to_list() == [PASS]
    assert read(tmp_path).equals(directly(*tables))
    assert pl.read_parquet(tmp_path / manifest["rejects"]["file"]).height == 2


def test_shards_divide_patients_and_add_up(tmp_path):
    tables = [table("nih"), table("brax", 60)]
    for i in range(3):
        corpus.build(tables, tmp_path, (i, 3), workers=0)
    whole = read(tmp_path)
    assert whole.sort("image_id").equals(directly(*tables).sort("image_id"))
    files = sorted(tmp_path.glob("part-*"))
    patients = pl.concat(pl.read_parquet(f).select("patient_id", file=pl.lit(f.name.split("-of-")[0])) for f in files)
    assert patients["file"].n_unique() == 3
    assert patients.group_by("patient_id").agg(pl.col("file").n_unique())["file"].max() == 1
    assert sum(pl.read_parquet(f).height for f in tmp_path.glob("rejects-*")) == 2
    train = whole.filter(pl.col("split") == "train").select("patient_id")
    assert patients.join(train, on="patient_id", how="semi")["file"].n_unique() == 3  # shards are not splits


def test_duplicates_in_other_tables_are_rejected_whatever_the_shard(tmp_path):
    again = table("nih", 12, start=84)  # 6 of them in the first table, there of other patients
    again = (again[0].with_columns(patient_id=pl.format("{}x", "patient_id")), again[1])
    for i in range(2):
        corpus.build([table("nih"), again], tmp_path, (i, 2), workers=0)
    assert read(tmp_path)["image_id"].n_unique() == read(tmp_path).height == 96
    lost = pl.concat(pl.read_parquet(f) for f in tmp_path.glob("rejects-*"))
    assert lost.filter(pl.col("reason").str.starts_with("duplicate")).height == 6
    assert lost.height == 8


def of_nih(source: str, patients: range, split: str | None) -> corpus.Table:
    """A Record for each of NIH's patients, in a published set, and no reject."""
    ids = [f"{source}:{patient:08}" for patient in patients]
    df = pl.DataFrame({"patient_id": ids, "study_id": ids, "image_id": ids, "source": source, "split": split})
    df = df.with_columns(pl.col("split").cast(pl.String), view=pl.lit("PA"), Edema=pl.lit(1.0))
    return records.conform(df), pl.DataFrame(schema=REJECTS)


@pytest.mark.parametrize("shares", [1, 2])
def test_nobody_who_is_tested_on_in_one_dataset_or_part_is_trained_on_in_another(tmp_path, shares):
    tables = [
        of_nih("nih", range(60), "train"),
        of_nih("siim_acr_ptx", range(30), None),
        of_nih("chestx_det", range(20), "test"),
    ]
    for i in range(shares):
        corpus.build(tables, tmp_path, (i, shares), rows_per_file=7, workers=0)
    whole = read(tmp_path)
    assert whole.height == 110 and records.in_several_splits(whole) == []
    assert whole.sort("image_id").equals(directly(*tables).sort("image_id"))
    known = whole.with_columns(number=pl.col("patient_id").str.tail(8).cast(int))
    assert known.filter(pl.col("number") < 20)["split"].unique().to_list() == ["test"]
    files = pl.concat(
        pl.read_parquet(f).select(person=records.person(), file=pl.lit(f.name.split("-of-")[0]))
        for f in tmp_path.glob("part-*")
    )
    assert files.group_by("person").agg(pl.col("file").n_unique())["file"].max() == 1
    assert not list(tmp_path.glob(".*"))


def test_a_part_that_was_made_elsewhere_does_not_put_a_person_into_two_splits(tmp_path, monkeypatch):
    def into_train(chunk, path):
        return curate(chunk.with_columns(split=pl.lit("train")), path) if chunk["source"][0] == "nih" else 0

    curate = corpus._curate
    tables = [of_nih("nih", range(9), "test"), of_nih("chestx_det", range(9), "test")]
    monkeypatch.setattr(corpus, "_curate", lambda chunk, path: into_train(chunk, path) or curate(chunk, path))
    with pytest.raises(RecordError, match="9 people are in several splits, first 'nih:00000000'; delete it and"):
        corpus.build(tables, tmp_path, workers=0)


def test_an_interrupted_build_goes_on_and_redoes_only_what_is_missing(tmp_path, monkeypatch):
    def breaking(chunk, path):
        if chunk["source"][0] == "brax":
            raise KeyboardInterrupt
        return curate(chunk, path)

    made, curate, tables = [], corpus._curate, [table("nih"), table("brax", 20)]
    monkeypatch.setattr(corpus, "_curate", breaking)
    with pytest.raises(KeyboardInterrupt):
        corpus.build(tables, tmp_path, rows_per_file=40, workers=0)
    with pytest.raises(RecordError, match="not a finished corpus"):
        corpus.stream(tmp_path)
    parts = sorted(tmp_path.glob("part-*"))
    parts[1].write_bytes(b"damaged")
    monkeypatch.setattr(corpus, "_curate", lambda chunk, path: made.append(path.name) or curate(chunk, path))
    corpus.build(tables, tmp_path, rows_per_file=40, workers=0)
    assert made == ["part-000-of-001-00001.parquet", "part-000-of-001-00003.parquet"]
    assert read(tmp_path).equals(directly(*tables))
    made.clear()
    corpus.build(tables, tmp_path, rows_per_file=40, workers=0, seed=1)  # other splits: nothing can be kept
    assert len(made) == 4


def test_parts_of_records_that_are_no_more_go(tmp_path):
    """Who reads all parquet files of the folder would have them twice, or of another split."""
    corpus.build([table("nih", 90)], tmp_path, rows_per_file=20, workers=0)
    (tmp_path / ".part-000-of-001-00009.partial.parquet").touch()
    corpus.build([table("nih", 50)], tmp_path, rows_per_file=20, workers=0)
    assert sorted(p.name[-13:] for p in tmp_path.glob("*part-*")) == [f"{k:05d}.parquet" for k in range(3)]


def test_a_disk_that_the_tables_fill_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr(corpus, "_share", full)
    with pytest.raises(OSError, match=f"{tmp_path}: cannot be written .No space left on device.; make room"):
        corpus.build([table()], tmp_path, workers=0)


def test_parts_and_shards_of_other_code_are_not_mixed(tmp_path, monkeypatch):
    made, curate = [], corpus._curate
    monkeypatch.setattr(corpus, "_curate", lambda chunk, path: made.append(path.name) or curate(chunk, path))
    for i in range(2):
        corpus.build([table()], tmp_path, (i, 2), workers=0)
    monkeypatch.setattr(corpus.code_digest, "of", lambda file: "later")
    corpus.build([table()], tmp_path, (1, 2), workers=0)
    assert made == [f"part-{i:03d}-of-002-00000.parquet" for i in (0, 1, 1)]
    with pytest.raises(RecordError, match="shard 001-of-002 was made by other code or settings; run all shards again"):
        corpus.stream(tmp_path)
    corpus.build([table()], tmp_path, (0, 2), workers=0)
    assert read(tmp_path).height == 90


def test_shards_of_other_datasets_are_not_mixed(tmp_path):
    corpus.build([table()], tmp_path, (0, 2), workers=0)
    corpus.build([table("openi")], tmp_path, (1, 2), workers=0)
    with pytest.raises(RecordError, match="shard 001-of-002 was made from other datasets"):
        corpus.stream(tmp_path)
    corpus.build([table()], tmp_path, (1, 2), workers=0)
    assert read(tmp_path).height == 90


def test_a_missing_or_cut_part_is_named(tmp_path):
    manifest = corpus.build([table()], tmp_path, rows_per_file=40, workers=0)
    path = tmp_path / manifest["parts"][1]["file"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match="00001.parquet: missing or cut off"):
        corpus.stream(tmp_path)
    with pytest.raises(RecordError, match="no shards"):
        corpus.stream(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="0 <= i < n"):
        corpus.build([], tmp_path, (2, 2))


def test_another_shard_is_missed(tmp_path):
    corpus.build([table()], tmp_path, (0, 2), workers=0)
    with pytest.raises(RecordError, match="000-of-002"):
        corpus.stream(tmp_path)


def test_an_empty_corpus_and_the_manifest_on_disk(tmp_path):
    manifest = corpus.build([], tmp_path, workers=0)
    assert json.loads((tmp_path / "manifest-000-of-001.json").read_text()) == manifest
    assert read(tmp_path).schema == pl.Schema(records.SCHEMA)


def test_a_record_that_is_not_valid_stops_the_build(tmp_path):
    df, lost = table()
    with pytest.raises(RecordError, match="column 'sex'"):
        corpus.build([(df.with_columns(sex=pl.lit("?")), lost)], tmp_path, workers=0)
    assert not list(tmp_path.glob("part-*"))
