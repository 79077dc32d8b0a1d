"""Every lung is tested once, by a network that saw nothing of its patient; and no adapter's images where it did."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments import augmentation_tasks
from chexgen_lib.experiments.augmentation import REAL
from chexgen_lib.pools import annotations, lungs

SIZE, PATIENTS = 16, 10
ARMS = [REAL, "real + 1x", "real + 2x"]
SETTINGS = {"size": "ci", "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "checks": 2}
PLAN = {"seeds": 2, "seed": 0, "workers": 0, "n_resamples": 20}


@pytest.fixture
def folder(tmp_path):
    """Ten patients with one to three images, two bright lungs on a dark ground each."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for name in (f"patient{i}-{k}" for i in range(PATIENTS) for k in range(1 + i % 3)):
        mask = np.zeros((32, 32), bool)
        top = rng.integers(2, 10)
        mask[top : top + 16, 4:12] = mask[top : top + 16, 20:28] = True
        Image.fromarray((40 + 150 * mask + rng.integers(0, 30, mask.shape)).astype(np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture
def pool(folder):
    """What stage 06 leaves: two images for each mask of a training patient; the pixels do not matter."""
    data = annotations.load_lung_masks(folder, SIZE)
    requests = annotations.choose_requests(data, "train", {"lungs": 100})
    manifest = requests.with_columns(
        record=data.table["image_id"].gather(requests["row"]),
        condition_hash=pl.Series(
            [annotations.condition_hash(image) for image in annotations.condition_images(data, requests)]
        ),
    )
    (folder / "pool").mkdir()
    manifest.drop("row").write_parquet(folder / "pool/manifest.parquet")
    rng = np.random.default_rng(1)
    np.save(folder / "pool/samples.npy", rng.integers(0, 255, (len(requests), 2, SIZE, SIZE), np.uint8))
    return folder / "pool"


def test_patients_share_a_fold_and_the_adapters_held_out_have_their_own(folder):
    data = annotations.load_lung_masks(folder, SIZE)
    fold = lungs.folds(data)
    assert np.flatnonzero(fold == lungs.UNSEEN).tolist() == data.of("held out").tolist()
    assert set(fold) == set(range(lungs.FOLDS))
    each = data.table.with_columns(fold=pl.Series(fold)).group_by("patient_id").agg(pl.col("fold").n_unique())
    assert each["fold"].max() == 1
    few = annotations.Annotated(data.table[:5], data.images[:5], data.masks[:5], data.classes)
    with pytest.raises(CohortError, match="do not make 5 folds"):
        lungs.folds(few)


def test_nothing_of_a_tested_patient_is_trained_on(folder, pool):
    sets = lungs.load(folder, pool, SIZE)
    task, fold = sets.task("lungs", SIZE), lungs.folds(sets.data)
    patients = sets.data.table["patient_id"].to_numpy()[task.origin]
    for k in range(lungs.FOLDS):
        arms = lungs.fold_arms(task, fold, k)
        assert list(arms) == (ARMS if k == lungs.UNSEEN else [REAL])
        for rows in arms.values():
            kept_back = np.isin(fold, [k, (k + 1) % lungs.FOLDS])
            assert not set(patients[rows]) & set(patients[: len(fold)][kept_back])
    real, once, twice = (len(rows) for rows in lungs.fold_arms(task, fold, lungs.UNSEEN).values())
    assert (once, twice) == (2 * real, 3 * real)


def test_every_image_counts_once(folder, pool):
    sets = lungs.load(folder, pool, SIZE)
    fold = lungs.folds(sets.data)
    truth = np.random.default_rng(0).random(len(fold))
    results = {f"{REAL} / fold {k} / seed {s}": {"dice": truth[fold == k]} for k in range(lungs.FOLDS) for s in (0, 1)}
    results |= {f"real + 1x / fold 0 / seed {s}": {"dice": truth[fold == 0] + 0.1} for s in (0, 1)}
    patients = sets.data.table["patient_id"].to_list()
    table = lungs.lungs_table(results, fold, patients, n_resamples=20)
    everyone, held_out, more = table.rows(named=True)
    assert (everyone["test"], everyone["n"], everyone["note"]) == (lungs.EVERYONE, len(fold), f"{PATIENTS} patients")
    direct = augmentation_tasks.segmentation_table(  # images in the folder's order, not the folds'
        {f"{REAL} / seed {s}": {"dice": truth} for s in (0, 1)}, {"all": np.arange(len(fold))},
        np.ones((len(fold), 1, 1), bool), {"all": patients}, n_resamples=20,
    ).row(0, named=True)  # fmt: skip
    for key in ("value", "low", "high"):
        assert everyone[key] == pytest.approx(direct[key])
    assert held_out["test"] == more["test"] == lungs.HELD_OUT and held_out["n"] == (fold == 0).sum()
    assert held_out["value"] == pytest.approx(truth[fold == 0].mean())
    assert more["difference"] == pytest.approx(0.1)


def test_all_arms_are_trained(folder, pool, tmp_path):
    note, table = lungs.segment(lungs.load(folder, pool, SIZE), tmp_path / "runs", SETTINGS, **PLAN)
    assert note.startswith("19 real images of 10 patients in 5 folds of ")
    assert table["arm"].to_list() == [REAL, *ARMS] and table["seeds"].unique().to_list() == [2]
    assert table["value"].is_between(0, 1).all() and len(list((tmp_path / "runs").glob("*/result.npz"))) == 2 * (5 + 2)


def test_a_pool_of_other_masks_is_refused(folder, pool):
    manifest = pl.read_parquet(pool / "manifest.parquet")
    manifest.with_columns(condition_hash=pl.lit("0")).write_parquet(pool / "manifest.parquet")
    with pytest.raises(CohortError, match="were sampled from other masks"):
        lungs.load(folder, pool, SIZE)
    samples = np.load(pool / "samples.npy")
    manifest[1:].write_parquet(pool / "manifest.parquet")
    np.save(pool / "samples.npy", samples[1:])
    with pytest.raises(CohortError, match="no sample for 1 training images"):
        lungs.load(folder, pool, SIZE)
    np.save(pool / "samples.npy", samples)
    held_out = annotations.load_lung_masks(folder, SIZE).table.filter(split="test")["image_id"][0]
    manifest.with_columns(record=pl.lit(held_out)).write_parquet(pool / "manifest.parquet")
    with pytest.raises(CohortError, match="1 records are no training images"):
        lungs.load(folder, pool, SIZE)
