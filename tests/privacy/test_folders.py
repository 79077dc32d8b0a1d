"""Every folder that users have can be audited; what cannot be used is listed or refused, never replaced."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.images import write_png
from chexgen_lib.privacy.folders import HELD_OUT, POOL, TRAINING, AuditError, read_all
from tests.privacy.films import films, write


@pytest.fixture
def root(tmp_path):
    """A pool, training and held-out folder of 64 px images with labels.csv; two training images a patient."""
    write(tmp_path / "pool", films(4, 2))
    write(tmp_path / "training", films(3, 0, studies=2), studies=2)
    write(tmp_path / "held", films(5, 1))
    return tmp_path


def read(root, **options):
    return read_all(root / "pool", root / "training", root / "held", **options)


def test_images_with_a_table(root):
    sets, excluded = read(root)
    assert [len(sets[name]) for name in (POOL, TRAINING, HELD_OUT)] == [4, 6, 5] and excluded.is_empty()
    assert sets[TRAINING].patients.tolist() == [f"training:p{i // 2}" for i in range(6)]
    np.testing.assert_array_equal(sets[POOL].pixels, films(4, 2))


def test_images_without_a_table_are_each_of_another_patient(root):
    (root / "training/labels.csv").unlink()
    sets, _ = read(root)
    assert sets[TRAINING].patients.tolist() == [f"training/{i}.png" for i in range(6)]


def test_files_of_one_name_are_nobody_of_another_folder(root):
    """Everybody numbers their files from 0."""
    for name in ("pool", "training", "held"):
        (root / name / "labels.csv").unlink()
    sets, _ = read(root)
    ids = [set(images.table["image_id"]) for images in sets.values()]
    assert [len(each) for each in ids] == [4, 6, 5] and len(set.union(*ids)) == 15


def test_ids_as_tables_hold_them(root):
    """Numbers beside empty cells become decimal, and cells get spaces: they are of the same patients still."""
    rows = [f"{i}.png,{patient}" for i, patient in enumerate(("12.0", " 13 ", "", "nan", "p1.0", "14"))]
    (root / "training/labels.csv").write_text("\n".join(["image,patient_id", *rows]))
    table = read(root)[0][TRAINING].table
    assert table["patient_id"].to_list() == ["12", "13", "training/2.png", "training/3.png", "p1.0", "14"]
    (root / "held/labels.csv").write_text("image\n0.png\n1.png\n")
    assert read(root)[0][HELD_OUT].patients.tolist() == ["held-out/0.png", "held-out/1.png"]
    (root / "held/labels.csv").write_text("image,patient_id\n0.png,12\n1.png,15\n")
    with pytest.raises(AuditError, match="first '12': .* if they are others of the same names, give them other ids"):
        read(root)


def test_pictures_of_another_kind_are_listed_and_those_without_a_suffix_read(root):
    """A training image that is passed by cannot be recognised in the pool."""
    (root / "training/labels.csv").unlink()
    Image.open(root / "training/0.png").save(root / "training/0.tif")
    (root / "training/1.png").rename(root / "training/IM000001")
    (root / "training/notes.txt").write_text("of 2019")
    sets, excluded = read(root)
    assert sets[TRAINING].table["file"].to_list() == ["0.png", "2.png", "3.png", "4.png", "5.png", "IM000001"]
    assert excluded.select("set", "file").rows() == [(TRAINING, "0.tif")]
    assert "TIFF file; save it as PNG" in excluded["reason"][0]


def test_images_behind_links_to_folders_count(root):
    """As archives are unpacked on another disk, and linked; a loop of links ends."""
    (root / "training/labels.csv").unlink()
    (root / "all").mkdir()
    (root / "all/part").symlink_to(root / "training", target_is_directory=True)
    (root / "training/up").symlink_to(root / "all", target_is_directory=True)
    sets, excluded = read_all(root / "pool", root / "all", root / "held")
    assert sets[TRAINING].table["file"].to_list() == [f"part/{i}.png" for i in range(6)] and excluded.is_empty()


def test_a_pool_of_a_run(root):
    (root / "pool/labels.csv").unlink()
    pixels = films(6, 3).reshape(3, 2, 64, 64)
    np.save(root / "pool/samples.npy", pixels)
    manifest = pl.DataFrame({"image_id": ["a", "b", "c"], "prompt": ["x", "y", "z"], "seeds": [[1, 2]] * 3})
    manifest.write_parquet(root / "pool/manifest.parquet")
    pool = read(root)[0][POOL]
    np.testing.assert_array_equal(pool.pixels, pixels.reshape(6, 64, 64))
    assert pool.table["prompt"].to_list() == list("xxyyzz") and pool.patients.tolist() == list("aabbcc")
    assert pool.table["file"][3] == "samples.npy[1, 1]"
    manifest[:2].write_parquet(root / "pool/manifest.parquet")
    with pytest.raises(AuditError, match="2 requests and samples"):
        read(root)
    whole = (root / "pool/samples.npy").read_bytes()
    for part in (whole[:-1], whole[:20], b"", b"no array"):
        (root / "pool/samples.npy").write_bytes(part)
        with pytest.raises(AuditError, match="pool/samples.npy is cut off or no array: copy it again"):
            read(root)
    manifest.select("prompt").write_parquet(root / "pool/manifest.parquet")
    (root / "pool/samples.npy").write_bytes(whole)
    with pytest.raises(AuditError, match="pool: its table or arrays are damaged or of another layout"):
        read(root)
    (root / "bare").mkdir()
    (root / "pool/samples.npy").rename(root / "bare/samples.npy")
    with pytest.raises(AuditError, match="holds samples.npy without manifest.parquet"):
        read_all(root / "bare", root / "training", root / "held")


def test_a_cohort_of_a_run_gives_what_was_trained_on_and_what_was_not(root):
    pixels, cohort = films(4, 3), root / "cohort"
    cohort.mkdir()
    np.save(cohort / "images_64.npy", pixels)
    ids = list("abcd")
    flags = {"stage1": [True, False, True, True], "stage2": [False] * 4, "split": ["train", "train", "val", "test"]}
    pl.DataFrame({"image_id": ids, "patient_id": ids, **flags}).write_parquet(cohort / "cohort.parquet")
    sets, _ = read_all(root / "pool", cohort, cohort)
    assert sets[TRAINING].table["image_id"].to_list() == ["a"]
    assert sets[HELD_OUT].table["image_id"].to_list() == ["c", "d"]
    np.testing.assert_array_equal(sets[HELD_OUT].pixels, pixels[2:])
    np.save(cohort / "images_64.npy", pixels[:3])
    with pytest.raises(AuditError, match="4 records and 3 images do not fit"):
        read_all(root / "pool", cohort, cohort)


def test_unreadable_missing_flat_and_small_images_are_listed(root):
    (root / "pool/0.png").write_bytes(b"no image")
    (root / "pool/1.png").unlink()
    write_png(root / "pool/2.png", films(1, 4)[0, :40, :40].astype(np.float32) / 255)
    sets, excluded = read(root)
    assert len(sets[POOL]) == 1 and excluded["set"].to_list() == [POOL] * 3
    assert dict(excluded.select("file", "reason").iter_rows())["2.png"] == "40 px, fewer than 64"
    assert excluded["file"].to_list() == ["0.png", "1.png", "2.png"]


def test_repeated_images_count_once_and_are_listed(root):
    write(root / "pool", films(4, 2)[[0, 1, 0, 0]])
    sets, excluded = read(root)
    assert len(sets[POOL]) == 2
    assert excluded.filter(set=POOL)["reason"].to_list() == ["the same pixels as 0.png"] * 2


def test_images_of_other_sizes_are_compared_at_the_smallest(root):
    big = np.kron(films(2, 5), np.ones((3, 3))).astype(np.float32) / 255
    for i, x in enumerate(big):
        write_png(root / f"held/{i}.png", x)
    sets, _ = read(root)
    assert {images.pixels.shape[1:] for images in sets.values()} == {(64, 64)}
    for i in range(3, 5):
        (root / f"held/{i}.png").unlink()
    assert len(read(root, size=64)[0][HELD_OUT]) == 3
    with pytest.raises(AuditError, match="no usable image for the pool set; the first: 64 px, fewer than 128"):
        read(root, size=128)


@pytest.mark.parametrize("size", [16, 100, 256])
def test_a_size_out_of_range(root, size):
    with pytest.raises(AuditError, match="multiple of 16 from 64 to 128"):
        read(root, size=size)


def test_an_empty_or_absent_folder(root):
    for file in (root / "training").iterdir():
        file.unlink()
    with pytest.raises(AuditError, match="training: no usable image for the training set: give PNG, JPEG or DICOM"):
        read(root)
    (root / "training").rmdir()
    with pytest.raises(AuditError, match="training: no such folder"):
        read(root)


def test_a_table_that_names_no_image(root):
    (root / "pool/labels.csv").write_text("image,image_id\n0.png,a\n,\n,b\n")
    with pytest.raises(AuditError, match=r"labels.csv, row 3: no image is named"):
        read(root)
    (root / "pool/labels.csv").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(AuditError, match=r"labels.csv: damaged or unreadable .*; save it as CSV with a column image"):
        read(root)
    (root / "pool/labels.csv").write_text("name\n0.png\n")
    with pytest.raises(AuditError, match="column 'image' is missing"):
        read(root)


def test_held_out_images_are_of_nobody_who_was_trained_on(root):
    write(root / "held", np.concatenate([films(5, 1), films(3, 0, studies=2)[:1]]))
    with pytest.raises(AuditError, match="held-out 5.png has the same pixels as training 0.png"):
        read(root)
    write(root / "held", films(5, 1))
    (root / "held/labels.csv").write_text("image,patient_id\n0.png,training:p1\n")
    with pytest.raises(AuditError, match="1 patients are both in training and held out, first 'training:p1'"):
        read(root)


def test_images_that_the_table_does_not_name_are_listed(root):
    """A training image that is left out by oversight cannot be recognised in the pool."""
    write_png(root / "training/more/9.png", films(1, 9)[0] / np.float32(255))
    sets, excluded = read(root)
    assert len(sets[TRAINING]) == 6 and excluded.rows() == [(TRAINING, "more/9.png", "not in labels.csv")]
