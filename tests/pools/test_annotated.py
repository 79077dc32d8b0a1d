"""A synthetic image is labelled with its request; a pool that does not belong to the cohort is refused."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError
from chexgen_lib.pools import annotated as ap
from chexgen_lib.pools import annotations as an
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.records import FINDINGS

SIZE = 32
SPLITS = ["train"] * 4 + ["val", "test", "train", "test"]
SOURCES = ["nih"] * 6 + ["openi"] * 2


def fake_pool(pipeline, requests, folder, sampling, conditions):
    """In place of `sample_pool`: uniform samples of brightness 100 + 10 * copy + record."""
    (folder / "conditions").mkdir(parents=True, exist_ok=True)
    rows = np.array([int(i.split(":")[0][1:]) for i in requests["image_id"]])
    samples = (100 + 10 * np.arange(sampling.copies) + rows[:, None]).astype(np.uint8)[..., None, None]
    np.save(folder / "samples.npy", samples.repeat(SIZE, 2).repeat(SIZE, 3))
    requests.drop("row").write_parquet(folder / "manifest.parquet")
    for name, image in zip(requests["condition"], conditions, strict=True):
        Image.fromarray(image).save(folder / name)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Images 0, 1 and 6 have a pneumothorax, all have ribs and an effusion; a pool of nih's training images."""
    n = len(SPLITS)
    folder = tmp_path / "cohort"
    folder.mkdir()
    pl.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "patient_id": [f"p{k}" for k in range(n)],
            "view": ["PA"] * n,
            "split": SPLITS,
            "source": SOURCES,
            "prompt": [f"Prompt {k}." for k in range(n)],
            "Pneumothorax": [float(k in (0, 1, 6)) for k in range(n)],
        }
    ).write_parquet(folder / "cohort.parquet")
    np.save(
        folder / f"images_{SIZE}.npy", np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((SIZE, SIZE), np.uint8)
    )
    write_masks(folder, n)

    monkeypatch.setattr(an, "sample_pool", fake_pool)
    data = an.load_embedded(folder, SIZE, 9, sources=["nih"])
    for name, kinds in {"masks": {"pneumothorax": 9, "ribs": 2}, "boxes": {"boxes": 9}}.items():
        requests = an.choose_requests(data, "train", kinds)
        an.sample_annotated_pool(None, data, requests, tmp_path / "pools" / name, Sampling(copies=2))
    return tmp_path


def write_masks(folder, n, shift=0, pneumothoraces=(0, 1, 6)):
    anatomy = np.zeros((n, 3, SIZE, SIZE), bool)
    anatomy[:, 2, 4:8] = True
    where = [*range(n), *pneumothoraces]
    findings = np.zeros((len(where), SIZE, SIZE), bool)
    which = [FINDINGS.index("Effusion")] * n + [FINDINGS.index("Pneumothorax")] * len(pneumothoraces)
    for k, row in enumerate(where):
        findings[k, 10 + row : 18 + row, (2 if k < n else 20) + shift :][:, :8] = True
    packed = dict(anatomy=np.packbits(anatomy, axis=-1), findings=np.packbits(findings, axis=-1))
    np.savez(folder / "masks.npz", **packed, finding_row=np.array(where), finding_index=np.array(which))


def test_condition_images_are_kept_for_other_generators(run):
    manifest = pl.read_parquet(run / "pools/masks/manifest.parquet")
    (row,) = manifest.filter(record="i1", kind="pneumothorax").iter_rows(named=True)
    image = np.asarray(Image.open(run / "pools/masks" / row["condition"]))
    assert row["prompt"] == "Prompt 1." and an.condition_hash(image) == row["condition_hash"]
    assert (image.any(axis=2).nonzero()[0].min(), image.any(axis=2).sum()) == (11, 64)


def load(run):
    return ap.load(run, SIZE, [run / "pools/masks", run / "pools/boxes"])


def ids(sets, task, rows):
    return sets.data.table["image_id"].gather(task.origin[rows]).to_list()


def test_sources_that_were_sampled_from_are_internal(run):
    sets = load(run)
    task = sets.task("ribs", SIZE)
    assert len(task.rows["train"]) == 2 and set(ids(sets, task, task.rows["train"])) <= {"i0", "i1", "i2", "i3"}
    assert {name: ids(sets, task, task.rows[name]) for name in ("val", "test", "external test")} == {
        "val": ["i4"], "test": ["i5"], "external test": ["i7"],
    }  # fmt: skip
    assert sets.patients(task, "test") == ["p5"]


def test_each_training_image_has_its_copies(run):
    task = load(run).task("pneumothorax", SIZE)
    real = task.images[task.rows["train"], 0, 0]
    assert sorted(real) == [0, 1, 2, 3]  # two with, and two without, each once
    assert task.images[task.copies, 0, 0].tolist() == [(100 + real).tolist(), (110 + real).tolist()]


def test_new_real_images_are_of_other_patients_and_as_often_positive(run):
    """Of the pool's images 0 to 3 two have a pneumothorax; 8 to 13 are new, 8 and 9 with one, 13 of patient 0."""
    more(run, ["nih"] * 6, ["p8", "p9", "p10", "p11", "p12", "p0"])
    sets = load(run)
    assert sorted(ids(sets, sets.task("ribs", SIZE), sets.rows["further train"])) == ["i10", "i11", "i12", "i8", "i9"]
    task = sets.task("pneumothorax", SIZE)
    masks = sets.masks(task, "pneumothorax").any(axis=(1, 2))
    assert task.further.shape == (1, 4) and masks[task.further].sum() == masks[task.rows["train"]].sum() == 2
    patients = [
        set(sets.data.table["patient_id"].gather(task.origin[rows])) for rows in (task.rows["train"], task.further[0])
    ]
    assert not patients[0] & patients[1] and len(patients[1]) == 4
    assert not patients[1] & {p for name in ("val", "test", "external test") for p in sets.patients(task, name)}
    ribs = sets.task("ribs", SIZE)
    assert ribs.further.shape == (2, 2) and len(set(ribs.further.ravel())) == 4  # as many lines as copies
    assert "further train" not in task.rows


def test_without_new_images_or_of_other_sources_there_are_none(run):
    assert load(run).task("ribs", SIZE).further.shape == (0, 2)
    more(run, ["openi"] * 6, [f"p{k}" for k in range(8, 14)])
    assert load(run).task("ribs", SIZE).further.shape == (0, 2)


def more(run, sources, patients):
    """Further training images in the run's cohort, of which the first two have a pneumothorax."""
    folder, n = run / "cohort", len(SPLITS) + len(patients)
    table = pl.read_parquet(folder / "cohort.parquet")
    ids_ = [f"i{k}" for k in range(len(SPLITS), n)]
    new = {"image_id": ids_, "patient_id": patients, "source": sources, "prompt": ["New."] * len(ids_)}
    new |= {"view": ["PA"] * len(ids_), "split": ["train"] * len(ids_)}
    new |= {"Pneumothorax": [float(k < 2) for k in range(len(ids_))]}
    pl.concat([table, pl.DataFrame(new).select(table.columns)]).write_parquet(folder / "cohort.parquet")
    pixels = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((SIZE, SIZE), np.uint8)
    np.save(folder / f"images_{SIZE}.npy", pixels)
    write_masks(folder, n, pneumothoraces=(0, 1, 6, 8, 9))


def test_a_synthetic_image_has_the_annotation_that_was_requested(run):
    sets = load(run)
    task = sets.task("pneumothorax", SIZE)
    masks = sets.masks(task, "pneumothorax")
    for image, mask in zip(task.images[:, 0, 0] % 10, masks, strict=True):
        assert mask.any() == (image in (0, 1))
        if mask.any():
            assert mask[10 + image : 18 + image, 20:28].all() and mask.sum() == 64
    assert sets.masks(sets.task("pneumothorax", 16), "pneumothorax").shape[1:] == (16, 16)
    task = sets.task("boxes", SIZE)
    boxes = sets.boxes(task, ["Effusion"])
    assert len(boxes) == len(task.images)
    for image, found in zip(task.images[:, 0, 0] % 10, boxes, strict=True):
        assert [(b["class"], b["y"]) for b in found] == [("Effusion", (10 + image) / SIZE)]


def test_what_does_not_belong_together_is_refused(run):
    write_masks(run / "cohort", len(SPLITS), shift=1)
    with pytest.raises(CohortError, match="were sampled from other masks than the cohort's, first 'i"):
        load(run)
    write_masks(run / "cohort", len(SPLITS))
    table = pl.read_parquet(run / "cohort/cohort.parquet")
    table.with_columns(patient_id=pl.col("patient_id").replace("p5", "p0")).write_parquet(run / "cohort/cohort.parquet")
    with pytest.raises(CohortError, match="first 'p0'"):
        load(run)
    table.filter(pl.col("image_id") != "i1").write_parquet(run / "cohort/cohort.parquet")
    with pytest.raises(CohortError, match="1 records of the pools are no frontal images of the cohort, first 'i1'"):
        load(run)
    np.save(run / "pools/boxes/samples.npy", np.zeros((1, 2, SIZE, SIZE), np.uint8))
    with pytest.raises(CohortError, match="4 requests and samples"):
        load(run)
    (run / "pools/boxes/samples.npy").unlink()
    with pytest.raises(CohortError, match="run the stage 06_pools first"):
        load(run)


@pytest.fixture
def folder(tmp_path):
    """Another generator's images of five requests, two of each; brightness 100 + 10 * copy + record."""
    folder = tmp_path / "other"
    folder.mkdir()
    rows = []
    for copy in range(2):
        for row, kind in ((1, "pneumothorax"), (0, "ribs"), (0, "pneumothorax"), (2, "ribs"), (3, "boxes")):
            image = np.full((2 * SIZE, 2 * SIZE), 100 + 10 * copy + row, np.uint8)
            image[-1, -1] = 0  # an image of one value shows nothing
            Image.fromarray(image).save(folder / f"{row}-{kind}-{copy}.png")
            rows.append({"image": f"{row}-{kind}-{copy}.png", "image_id": f"i{row}", "kind": kind})
    pl.DataFrame(rows).write_csv(folder / "labels.csv")
    return folder


def test_another_generators_folder_stands_in_for_pools(run, folder):
    sets = ap.load(run, SIZE, [folder])
    task = sets.task("pneumothorax", SIZE)
    real = task.images[task.rows["train"], 0, 0]
    assert sorted(real) == [0, 1, 2, 3]  # two with, and two without, each once
    assert task.images[task.copies, 0, 0].tolist() == [(100 + real).tolist(), (110 + real).tolist()]
    masks = sets.masks(task, "pneumothorax")
    for image, mask in zip(task.images[:, 0, 0] % 10, masks, strict=True):
        assert mask.any() == (image in (0, 1)) and (not mask.any() or mask[10 + image : 18 + image, 20:28].all())
    boxes = sets.task("boxes", SIZE)
    assert boxes.images[[boxes.rows["train"], boxes.copies[0]], 0, 0].tolist() == [[3], [103]]
    mixed = ap.load(run, SIZE, [folder, run / "pools/boxes"])
    assert len(mixed.requests) == 5 + 4 and mixed.samples.shape == (9, 2, SIZE, SIZE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.drop("kind"), CohortError, r"columns \['kind'\] are missing"),
        (lambda t: t.with_columns(mask=pl.lit("m.png")), CohortError, r"\['mask'\] would be ignored.*the cohort has"),
        (lambda t: t[[0, 1, 0]], CohortError, "row 3 .*named twice"),
        (lambda t: t.with_columns(kind=pl.lit("heart")), CohortError, "row 1: unknown kind 'heart'; use one of pneumo"),
        (lambda t: t[:6], CohortError, "1 images of 'i0:ribs' but 2 of 'i1:pneumothorax'"),
        (lambda t: t.with_columns(pl.col("image_id").replace("i1", "i9")), CohortError, "first 'i9'"),
        (lambda t: t.with_columns(pl.col("image_id").replace("i1", "i3")), CohortError, "not show, first 'i3:pneumo"),
        (lambda t: t.with_columns(pl.col("image_id").replace("i2", "i5")), CohortError, "1 patients .*first 'p5'"),
        (
            lambda t: t.with_columns(pl.col("image").replace("0-ribs-1.png", "gone.png")),
            ImageError,
            "gone.png: no such",
        ),
        (lambda t: t.with_columns(pl.col("image").replace("0-ribs-1.png", "torn.png")), ImageError, "torn.png: not a"),
        (
            lambda t: t.with_columns(pl.col("image").replace("0-ribs-1.png", "wide.png")),
            ImageError,
            "wide.png: 40 x 32",
        ),
    ],
)
def test_a_bad_folder_names_what_is_wrong(run, folder, change, error, message):
    png = (folder / "0-ribs-0.png").read_bytes()
    (folder / "torn.png").write_bytes(png[:40])
    Image.fromarray(np.arange(40, dtype=np.uint8)[None].repeat(32, 0)).save(folder / "wide.png")
    change(pl.read_csv(folder / "labels.csv")).write_csv(folder / "labels.csv")
    with pytest.raises(error, match=message):
        ap.load(run, SIZE, [folder])


def test_a_kind_without_requests_is_named(run):
    sets = ap.load(run, SIZE, [run / "pools/boxes"])
    with pytest.raises(CohortError, match="no request for 'ribs'"):
        sets.task("ribs", SIZE)
