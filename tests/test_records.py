"""The Record contract: what validate accepts and refuses, atomic files, patient-disjoint splits."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib import records, storage
from chexgen_lib.records import FINDINGS, SCHEMA, RecordError


def table(n: int = 4, **columns) -> pl.DataFrame:
    ids = [f"nih:{i}" for i in range(n)]
    base = {"image_id": ids, "source": ["nih"] * n, "patient_id": [f"nih:p{i // 2}" for i in range(n)]}
    base |= {"study_id": ids, "Edema": [1.0, 0.0, None, float("nan")][:n]}
    return pl.DataFrame(base).with_columns(**columns)


def test_validate_fills_orders_and_types():
    df = records.validate(table())
    assert df.schema == pl.Schema(SCHEMA)
    assert df["Edema"].to_list() == [1, 0, None, None]  # NaN is unknown too
    assert df["details"].to_list() == [[]] * 4


def test_empty_table_is_valid():
    assert records.validate(table().clear()).shape == (0, len(SCHEMA))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": pl.lit("nih:0")}, r"row 1 \(image_id 'nih:0'\), column 'image_id'.*unique"),
        ({"image_id": pl.lit(None, pl.String)}, "column 'image_id': None"),
        ({"patient_id": pl.lit("p1")}, "column 'patient_id'.*prefix"),
        ({"sex": pl.lit("male")}, r"column 'sex': 'male'.*4 such rows.*\['M', 'F'\]"),
        ({"view": pl.lit("pa")}, "column 'view'"),
        ({"age": pl.lit(412)}, "column 'age': 412.0"),
        ({"Edema": pl.lit(-1.0)}, "column 'Edema'.*null unknown"),
        ({"Edema": pl.lit("yes")}, "cannot be cast"),
        ({"uncertain": pl.lit(["Oedema"])}, "column 'uncertain': 'Oedema'"),
        ({"detail": pl.lit(1)}, "'detail'.*not part of a Record"),
        ({"split": pl.Series(["train", "test", "train", "val"])}, "patient 'nih:p0' is in several splits"),
    ],
)
def test_validate_names_row_column_and_remedy(change, message):
    with pytest.raises(RecordError, match=f"(?s){message}"):
        records.validate(table(**change))


@pytest.mark.parametrize("box", [(0.5, 0.1, 0.6, 0.1), (-0.1, 0, 0.2, 0.2), (0, 0, 0, 0.1), (0, 0.95, 0.1, 0.1)])
def test_boxes_must_lie_in_the_image(box):
    value = {"finding": "Edema", **dict(zip("xywh", box, strict=True))}
    with pytest.raises(RecordError, match="column 'boxes'.*fractions"):
        records.validate(table(boxes=pl.lit([value])))


def test_details_are_of_findings_or_own_labels():
    detail = {"finding": "kyphosis", "side": "left", "site": None, "severity": "mild"}
    assert records.validate(table(details=pl.lit([detail]), labels=pl.lit(["kyphosis"]))).height == 4
    with pytest.raises(RecordError, match="details"):
        records.validate(table(details=pl.lit([detail])))
    with pytest.raises(RecordError, match="side"):
        records.validate(table(details=pl.lit([detail | {"finding": "Edema", "side": "top"}])))


def test_missing_column_is_named():
    with pytest.raises(RecordError, match="patient_id"):
        records.validate(table().drop("patient_id"))


def test_write_and_read_are_inverse_and_atomic(tmp_path, monkeypatch):
    path = records.write(table(), tmp_path / "deep" / "records.parquet")
    assert records.read(path).equals(records.validate(table()))
    before = path.read_bytes()
    with pytest.raises(RecordError):
        records.write(table(sex=pl.lit("?")), path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        records.write(table(2), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def test_read_names_the_file(tmp_path):
    with pytest.raises(RecordError, match="absent.parquet: no such file"):
        records.read(tmp_path / "absent.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(RecordError, match="bad.parquet: not a readable parquet"):
        records.read(tmp_path / "bad.parquet")
    row = dict.fromkeys(("image_id", "patient_id", "study_id", "source"), "a") | {"age": "old"}
    pl.DataFrame([row]).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(RecordError, match="words.parquet: a column cannot be cast to its Record type"):
        records.read(tmp_path / "words.parquet")


def test_a_table_is_checked_block_after_block_and_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ROWS", 2)
    path = tmp_path / "records.parquet"
    many = table(4)
    assert records.scan(records.write(many, path)).collect().equals(records.validate(many))
    last = pl.int_range(pl.len()) == 3
    wrong = {
        r"row 3 .*'sex'": pl.when(last).then(pl.lit("?")).otherwise("sex").alias("sex"),
        r"row 3 .*'details'": pl.when(last)
        .then(pl.lit([dict.fromkeys(("finding", "side", "site", "severity"), "?")]))
        .otherwise("details")
        .alias("details"),
        r"row 3 .*unique": pl.when(last).then(pl.col("image_id").first()).otherwise("image_id").alias("image_id"),
    }
    for message, column in wrong.items():
        records.conform(many).with_columns(column).write_parquet(path)
        with pytest.raises(RecordError, match=f"records.parquet: {message}"):
            records.scan(path)


def test_splits_share_no_patient_and_do_not_move():
    many = pl.DataFrame({"image_id": [f"a:{i}" for i in range(6000)]})
    many = many.with_columns(patient_id=pl.format("a:p{}", pl.int_range(6000) // 3))
    split = records.assign_splits(many, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    assert split.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
    share = split["split"].value_counts(normalize=True)
    assert dict(share.iter_rows()) == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.03)
    fewer = records.assign_splits(many[::-1].head(900), {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    joined = fewer.join(split, on="image_id")
    assert (joined["split"] == joined["split_right"]).all()
    assert not split["split"].equals(records.assign_splits(many, seed=4)["split"])
    assert records.assign_splits(many, {"train": 1.0})["split"].unique().to_list() == ["train"]


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"training": 1.0}, {"train": 1.5, "val": -0.5}])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(RecordError, match="sum to 1"):
        records.assign_splits(table(), fractions)


def test_findings_are_the_paper_s_fourteen():
    assert len(FINDINGS) == len(set(FINDINGS)) == 14


def published(rows: list[tuple[str, str | None]]) -> pl.DataFrame:
    """Records of (patient id, the set that its dataset publishes)."""
    ids = [f"{patient.partition(':')[0]}:{i}" for i, (patient, _) in enumerate(rows)]
    named = {"source": [patient.partition(":")[0] for patient, _ in rows], "patient_id": [p for p, _ in rows]}
    return records.conform(
        pl.DataFrame({"image_id": ids, **named, "study_id": ids, "split": [split for _, split in rows]})
    )


def test_published_sets_stay_and_validation_is_cut_from_training():
    folders = [
        (f"mimic_cxr:{number}{i:06}", "test" if number == 19 else "train") for number in (12, 19) for i in range(900)
    ]
    table = published([*folders, *((f"object_cxr:{i}", "train") for i in range(50)), ("object_cxr:x", "test")])
    split = records.validate(records.assign_splits(table, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=1))
    counts = dict(split.filter(source="mimic_cxr").group_by("split").len().iter_rows())
    assert counts["test"] == 900 and counts["val"] == pytest.approx(900 / 4, abs=40)
    assert set(split.filter(split="test", source="mimic_cxr")["patient_id"].str.slice(10, 2)) == {"19"}
    objects = dict(split.filter(source="object_cxr").group_by("split").len().iter_rows())
    assert objects["test"] == 1 and objects["train"] + objects["val"] == 50 and 5 < objects["val"] < 20
    assert records.assign_splits(split[::-1], seed=1)["split"].to_list()[-900:].count("test") == 0


def test_people_shared_by_datasets_are_on_one_side():
    table = published(
        [
            *((f"nih:{i:08}", None) for i in range(60)),
            *((f"chestx_det:{i:08}", "test" if i % 2 else "train") for i in range(40)),
            *((f"ranczr_clip:{i:08}", None) for i in range(20, 60)),
            ("chestx_det:36199", "train"),
        ]
    )
    split = records.assign_splits(table)
    assert records.in_several_splits(split) == []
    assert split.filter(split="test", source="chestx_det")["patient_id"].len() == 20
    torn = split.with_columns(split=pl.when(source="nih").then(pl.lit("train")).otherwise(pl.lit("test")))
    assert records.in_several_splits(torn)[0] == "nih:00000000"
    with pytest.raises(RecordError, match="'nih:00000000' is in several splits"):
        records.validate(torn)


def test_a_patient_in_two_published_sets_is_held_out():
    table = published([("nih:00000001", "train"), ("nih:00000001", "test"), ("chestx_det:00000001", "train")])
    assert records.assign_splits(table)["split"].to_list() == ["test"] * 3


def test_few_shot_sets_of_a_publisher_are_all_trained_on():
    table = published([(f"chest_dr:{i}", "train") for i in range(60)])
    listed = table.with_columns(sets=pl.when(pl.int_range(60) < 40).then(["1-shot 1"]).otherwise([]))
    fractions = {"train": 0.5, "val": 0.5, "test": 0.0}
    split = records.assign_splits(listed, fractions)["split"].to_list()
    assert set(split[:40]) == {"train"} and "val" in split[40:]
    assert "val" in records.assign_splits(table, fractions)["split"].to_list()[:40]


def test_a_label_set_is_a_property_of_the_records():
    def rows(source, states):
        ids = [f"{source}:{i}" for i in range(len(states))]
        about = dict.fromkeys(("image_id", "patient_id", "study_id"), ids) | {"source": [source] * len(ids)}
        own = [[{"label": k, "state": v} for k, v in row.items()] for row in states]
        return records.conform(pl.DataFrame(about | {"states": own, "Consolidation": [0.0] * len(ids)}))

    own = rows("a", [{"ILD": 1.0, "Consolidation": None}, {"ILD": 0.0, "Consolidation": 1.0}])
    plain = rows("b", [{}])
    assert records.label_set(records.validate(own)) == ("ILD", "Consolidation")
    assert records.label_set(plain) == records.label_set(pl.concat([own, plain])) == FINDINGS
    both = records.label_states(pl.concat([own, plain]), ("ILD", "Consolidation"))
    np.testing.assert_array_equal(both, np.array([[1, np.nan], [0, 1], [np.nan, 0]], np.float32))
    findings = records.label_states(own)
    assert findings.shape == (2, 14) and (findings[:, FINDINGS.index("Consolidation")] == 0).all()
    with pytest.raises(RecordError, match="row 0 .*'states'.* 1 present, 0 absent, null unknown"):
        records.validate(rows("a", [{"ILD": 0.5}]))
