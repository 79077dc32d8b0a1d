"""A pool's images carry the labels of the records that they were drawn from, and nothing that is wrong passes."""

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError
from chexgen_lib.models.metadata import ATTRIBUTES, encode_records
from chexgen_lib.pools import labelled as pools
from chexgen_lib.records import FINDINGS, SCHEMA, conform


@pytest.fixture
def cohort():
    n = 6
    columns = {"image_id": [f"i{k}" for k in range(n)], "patient_id": [f"p{k // 2}" for k in range(n)]}
    columns |= {"split": ["train"] * n, "source": ["s"] * n, "view": ["PA"] * n, "age": [50.0] * n}
    columns |= {"sex": ["F", "M"] * 3, "race": [None] * n}
    states = {f: [float((k + i) % 3 == 0) for k in range(n)] for i, f in enumerate(FINDINGS)}
    return pl.DataFrame(columns | states, schema_overrides={"race": pl.String})


@pytest.fixture
def folder(tmp_path, cohort):
    """A pool of the records i4 and i0, three images each, brightness 10 * record + copy."""
    samples = np.array([[40, 41, 42], [10, 11, 12]], np.uint8)[:, :, None, None].repeat(8, 2).repeat(8, 3)
    np.save(tmp_path / "samples.npy", samples)
    pl.DataFrame({"image_id": ["i4", "i0"]}).write_parquet(tmp_path / "manifest.parquet")
    return tmp_path


def test_images_keep_their_record(folder, cohort):
    pool = pools.load(folder, cohort, 8)
    bright = pool.images[:, 0, 0].tolist()
    assert sorted(zip(bright, pool.table["image_id"], strict=True)) == [
        *((k, "i0") for k in (10, 11, 12)),
        *((k, "i4") for k in (40, 41, 42)),
    ]
    row = bright.index(11)
    np.testing.assert_array_equal(pool.labels[row], cohort[0].select(FINDINGS).row(0))


def test_real_and_synthetic_add_up(folder, cohort):
    both = pools.real(cohort, np.zeros((6, 16, 16), np.uint8), 8) + pools.load(folder, cohort, 8)
    assert len(both) == 12 and both.images.shape == (12, 8, 8)
    assert both.where(pl.col("sex") == "F").table["sex"].unique().to_list() == ["F"]


def test_shuffled_labels_keep_images_and_prevalence(folder, cohort):
    pool = pools.load(folder, cohort, 8)
    shuffled = pool.shuffled_labels(0)
    np.testing.assert_array_equal(shuffled.images, pool.images)
    np.testing.assert_array_equal(np.sort(shuffled.labels, 0), np.sort(pool.labels, 0))
    assert (shuffled.labels != pool.labels).any()


def test_a_labelled_record_is_metadata_as_the_record_is(cohort):
    sides = pl.Series(
        [[{"finding": "Edema", "side": "left"}] * int(x) for x in cohort["Edema"]], dtype=SCHEMA["details"]
    )
    own = {"study_id": pl.col("image_id"), "details": sides, "No Finding": pl.lit(None, pl.Float64)}
    records = conform(cohort.with_columns(**own))
    labelled = pools.real(records, np.zeros((6, 8, 8), np.uint8), 8)
    codes = encode_records(records, ["s"])
    torch.testing.assert_close(encode_records(labelled.table, ["s"]), codes, equal_nan=True, rtol=0, atol=0)
    assert not codes[:, len(ATTRIBUTES) :].isnan().all(), "sides are among them"


def test_rare_findings_become_unknown(cohort):
    more = cohort.with_columns(Edema=pl.Series([1.0, 1.0, 1.0, 0.0, 0.0, None]), Fracture=pl.lit(None, pl.Float64))
    others = {finding: 2 for finding in FINDINGS} | {"Fracture": 0}
    del others["Edema"]
    assert pools.rare(more, 3) == others and pools.rare(more, 2) == {"Fracture": 0} and pools.rare(more, 0) == {}
    left = pools.without_rare(more, 3)
    assert left["Edema"].equals(more["Edema"]) and left.schema == more.schema
    assert left.select(list(others)).null_count().row(0) == (6,) * 13
    with pytest.raises(CohortError, match="no finding has 4 cases .*; most has 3"):
        pools.without_rare(more, 4)


def test_a_pool_of_other_records_is_refused(folder, cohort):
    with pytest.raises(CohortError, match="1 records are not in the cohort, first 'i4'"):
        pools.load(folder, cohort.filter(pl.col("image_id") != "i4"), 8)
    np.save(folder / "samples.npy", np.zeros((3, 2, 8, 8), np.uint8))
    with pytest.raises(CohortError, match="2 requests and samples"):
        pools.load(folder, cohort, 8)
    (folder / "samples.npy").unlink()
    with pytest.raises(CohortError, match="06_pools"):
        pools.load(folder, cohort, 8)


def test_another_generators_folder(tmp_path, cohort):
    for k in range(3):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (20, 20), np.uint8)).save(tmp_path / f"{k}.png")
    table = pl.DataFrame({"image": ["0.png", "1.png", "2.png"], "image_id": ["i3", "i0", "i3"]})
    table.write_csv(tmp_path / "labels.csv")
    pool = pools.load(tmp_path, cohort, 16)
    assert pool.table["copy"].to_list() == [0, 0, 1] and pool.images.shape == (3, 16, 16)
    np.testing.assert_array_equal(pool.labels[2], cohort[3].select(FINDINGS).row(0))


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"image": ["0.png"], "id": ["i0"]}, CohortError, r"columns \['image_id'\] are missing"),
        ({"image": ["0.png", "0.png"], "image_id": ["i0", "i1"]}, CohortError, "named twice"),
        ({"image": ["0.png", "1.png", "0.png"], "image_id": ["i0", "i1", "i1"]}, CohortError, r"row 3 .*named twice"),
        ({"image": ["0.png", "1.png"], "image_id": ["i0", None]}, CohortError, r"row 2 .*a value is missing"),
        ({"image": ["0.png"], "image_id": ["i0"], "Edema": ["1"]}, CohortError, r"\['Edema'\] would be ignored"),
        ({"image": [], "image_id": []}, CohortError, "names no image"),
        ({"image": ["0.png"], "image_id": ["i9"]}, CohortError, "first 'i9'"),
        ({"image": ["gone.png"], "image_id": ["i0"]}, ImageError, "gone.png: no such file"),
        ({"image": ["torn.png"], "image_id": ["i0"]}, ImageError, "torn.png"),
    ],
)
def test_a_bad_folder_names_what_is_wrong(tmp_path, cohort, table, error, message):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    with pytest.raises(CohortError, match=r"give a folder with labels\.csv"):
        pools.load(tmp_path, cohort, 16)
    pl.DataFrame(table).write_csv(tmp_path / "labels.csv")
    with pytest.raises(error, match=message):
        pools.load(tmp_path, cohort, 16)


def test_a_torn_table_is_named(tmp_path, cohort):
    (tmp_path / "labels.csv").write_text("image,image_id\n0.png,i0,1,1\n")
    with pytest.raises(CohortError, match="labels.csv cannot be read as a table"):
        pools.load(tmp_path, cohort, 16)


@pytest.fixture
def run(tmp_path, folder, cohort):
    """A run whose training patients are those of i0 and i4, with one test and one external image."""
    splits = ["train", "train", "test", "test", "train", "train"]
    flags = {"stage1": False, "stage2": [True, True, True, False, True, True]}
    flags |= {"external": [False, False, False, True, False, True]}
    table = cohort.with_columns(pl.Series("split", splits), patient_id=pl.Series(["p0", "p1", "p2", "p3", "p4", "p5"]))
    table = table.with_columns(pl.Series(k, v if isinstance(v, list) else [v] * 6) for k, v in flags.items())
    (tmp_path / "cohort").mkdir()
    table.write_parquet(tmp_path / "cohort/cohort.parquet")
    np.save(tmp_path / "cohort/images_16.npy", np.arange(6, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2))
    (tmp_path / "pools/text").mkdir(parents=True)
    for name in ("samples.npy", "manifest.parquet"):
        (folder / name).rename(tmp_path / "pools/text" / name)
    return tmp_path


def test_sets_of_a_run(run):
    sets = pools.assemble(run, run / "pools/text", 16, 8)
    ids = {name: sets.everything.table["image_id"].gather(rows).to_list() for name, rows in sets.rows.items()}
    assert ids == {
        "train": ["i0", "i4"], "further train": ["i1"], "val": [], "test": ["i2"],
        "external train": ["i5"], "external val": [], "external test": ["i3"],
        "few-shot train": [], "few-shot val": [], "few-shot test": [],
    }  # fmt: skip
    assert sets.everything.images[sets.copies(1), 0, 0].tolist() == [40, 10] and len(sets.copies(3)) == 6
    with pytest.raises(CohortError, match="holds 3 images a record, not 5"):
        sets.copies(5)


def test_rare_findings_are_unknown_in_all_sets(run):
    path = run / "cohort/cohort.parquet"
    pl.read_parquet(path).with_columns(Edema=pl.lit(1.0)).write_parquet(path)
    labels = pools.assemble(run, run / "pools/text", 16, 8, least_cases=3).everything.labels
    known = np.isfinite(labels).all(0)
    assert [finding for finding, k in zip(FINDINGS, known, strict=True) if k] == ["Edema"]
    assert np.isnan(labels[:, ~known]).all()


def test_no_patient_is_on_both_sides(run):
    table = pl.read_parquet(run / "cohort/cohort.parquet")
    shared = pl.when(pl.col("image_id") == "i2").then(pl.lit("p4")).otherwise("patient_id")
    table.with_columns(patient_id=shared).write_parquet(run / "cohort/cohort.parquet")
    with pytest.raises(CohortError, match="1 patients are in a training set and in 'test', first 'p4'"):
        pools.assemble(run, run / "pools/text", 16, 8)


def test_another_pool_stands_behind_the_first(run, cohort):
    sets = pools.assemble(run, run / "pools/text", 16, 8)
    first = pools.load(run / "pools/text", cohort, 8)
    both = sets.with_pool(first[[5, 0]])
    np.testing.assert_array_equal(both.everything.images[sets.copies(2)], sets.everything.images[sets.copies(2)])
    np.testing.assert_array_equal(both.everything.images[both.synthetic], first.images[[5, 0]])
    assert both.rows is sets.rows and not set(both.synthetic) & set(sets.synthetic)


def test_another_pool_of_a_smaller_size_is_brought_to_the_classifiers(run, cohort, tmp_path):
    (tmp_path / "small").mkdir()
    np.save(tmp_path / "small/samples.npy", np.full((2, 2, 4, 4), 77, np.uint8))
    pl.DataFrame({"image_id": ["i4", "i0"]}).write_parquet(tmp_path / "small/manifest.parquet")
    both = pools.assemble(run, run / "pools/text", 16, 8).with_pool(pools.load(tmp_path / "small", cohort, 8))
    assert (both.everything.images[both.copies(2)] == 77).all() and len(both.copies(1)) == 2


@pytest.mark.parametrize(
    ("records", "named"),
    [
        (["i4", "i2"], "2 records are in one of two pools alone, first 'i0' in the first"),
        (["i4", "i0", "i2"], "'i2' in the other"),
    ],
)
def test_another_pool_of_other_records_is_refused(run, cohort, tmp_path, records, named):
    """A test patient's images, for example; or fewer records, whose arm would be of fewer images."""
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/samples.npy", np.zeros((len(records), 1, 8, 8), np.uint8))
    pl.DataFrame({"image_id": records}).write_parquet(tmp_path / "other/manifest.parquet")
    with pytest.raises(CohortError, match=named):
        pools.assemble(run, run / "pools/text", 16, 8).with_pool(pools.load(tmp_path / "other", cohort, 8))


def real_and_synthetic(n=12, trained=6, copies=2):
    """Images of n patients with two each, of whom the first `trained` images have a pool; i is image i's brightness."""
    about = {
        c: [f"{c}{i // 2}" for i in range(2 * n)] for c in ("patient_id", "split", "source", "view", "sex", "race")
    }
    about |= {"image_id": [f"i{i}" for i in range(2 * n)], "age": [50.0] * 2 * n, "copy": [0] * 2 * n}
    table = pl.DataFrame(about | {f: [0.0] * 2 * n for f in FINDINGS})
    everything = pools.LabelledSet(table, np.arange(2 * n, dtype=np.uint8)[:, None, None] * np.ones((4, 4), np.uint8))
    for copy in range(copies):
        everything = everything + pools.LabelledSet(
            table[:trained].with_columns(copy=pl.lit(copy, pl.Int64)), everything.images[:trained]
        )
    none = np.zeros(0, np.int64)
    rows = {
        "train": np.arange(trained),
        "further train": np.arange(trained, 2 * n - 4),
        "test": np.arange(2 * n - 4, 2 * n),
    }
    rows |= dict.fromkeys(("val", "external train", "few-shot train"), none)
    return pools.Splits(everything, rows, np.arange(2 * n, 2 * n + copies * trained))


def test_new_real_images_are_of_other_patients_than_all_others():
    sets = real_and_synthetic().few(3)
    train, further, tested = (set(sets.patients(name)) for name in ("train", "further train", "test"))
    assert len(sets.rows["train"]) == 3 and not further & train and not further & tested
    assert not further & set(sets.patients_of(sets.synthetic)) and set(sets.patients_of(sets.synthetic)) == train
    assert [len(sets.further(k)) for k in (1, 2, 6)] == [3, 6, 0]  # 15 or fewer are left: not six times as many
    assert set(sets.further(1)) < set(sets.further(2)) <= set(sets.rows["further train"])


@pytest.mark.parametrize("other", ["external train", "few-shot train"])
def test_records_left_over_are_no_further_ones_where_their_patient_trains_elsewhere(other):
    sets = real_and_synthetic()
    sets.rows[other] = sets.rows["train"][-2:]
    assert not set(sets.few(1).patients("further train")) & set(sets.patients(other))


def test_few_records_are_nested_and_keep_their_copies():
    sets = real_and_synthetic()
    two, four = sets.few(2), sets.few(4)
    assert set(two.rows["train"]) < set(four.rows["train"]) and sets.few(None).rows["train"].tolist() == [*range(6)]
    assert len(two.copies(1)) == 2 and len(two.copies(2)) == 4
    ids = two.everything.table["image_id"]
    assert set(ids.gather(two.copies(2))) == set(ids.gather(two.rows["train"]))
    assert len(sets.few(99).rows["train"]) == 6 and two.rows["test"].tolist() == sets.rows["test"].tolist()


def test_new_real_images_of_a_run(run):
    table = pl.read_parquet(run / "cohort/cohort.parquet")
    shared = pl.when(pl.col("image_id") == "i1").then(pl.lit("p0")).otherwise("patient_id")
    assert pools.assemble(run, run / "pools/text", 16, 8).patients("further train") == ["p1"]
    table.with_columns(patient_id=shared).write_parquet(run / "cohort/cohort.parquet")
    assert pools.assemble(run, run / "pools/text", 16, 8).patients("further train") == []  # i0's patient has it


@pytest.mark.parametrize("stands", ["first", "behind"])
def test_a_pool_with_more_images_of_some_records_is_refused(run, cohort, tmp_path, stands):
    """`copies(2)` would be two images of one record and one of the other."""
    (tmp_path / "uneven").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / f"uneven/{name}.png")
    (tmp_path / "uneven/labels.csv").write_text("image,image_id\na.png,i4\nb.png,i0\nc.png,i0\n")
    with pytest.raises(CohortError, match="1 images of 'i4' but 2 of 'i0'"):
        if stands == "first":
            pools.assemble(run, tmp_path / "uneven", 16, 8)
        else:
            pools.assemble(run, run / "pools/text", 16, 8).with_pool(pools.load(tmp_path / "uneven", cohort, 8))
