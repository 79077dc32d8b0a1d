"""A study shows records that every arm has, at one size, and refuses what would give an arm away."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import read_image, resize, to_uint8
from chexgen_lib.quality.readers.material import StudyError, load


def test_images_of_a_row_belong_to_its_record(folders):
    shown = load(folders["cohort"], {"other": folders["other"], "ours": folders["synthesis"]})
    assert shown.size == 64 and list(shown.images) == ["real", "other", "ours"]
    assert len(shown.records) == 63  # `other` lacks the last record
    row = shown.records["image_id"].to_list().index("src:017")
    assert (shown.images["real"][row] == np.load(folders["cohort"] / "images_64.npy")[17]).all()
    assert (shown.images["ours"][row] == np.load(folders["synthesis"] / "samples.npy")[17, 0]).all()
    assert (shown.images["other"][row] == to_uint8(read_image(folders["other"] / "17.png"))).all()


def test_all_arms_are_reduced_to_one_size(shown, folders):
    assert {images.shape[1:] for images in shown.images.values()} == {(32, 32)}
    row = shown.records["image_id"].to_list().index("src:003")
    expected = to_uint8(resize(read_image(folders["other"] / "3.png"), 32))
    assert (shown.images["other"][row] == expected).all()


@pytest.mark.parametrize("size", [65, 128])
def test_no_arm_is_enlarged(folders, size):
    with pytest.raises(StudyError, match=f"real: images of 64 px, fewer than size {size}.*--size 64"):
        load(folders["cohort"], {"ours": folders["synthesis"]}, size)


def test_the_smallest_arm_sets_the_size(folders, tmp_path):
    np.save(tmp_path / "samples.npy", np.zeros((64, 1, 16, 16), np.uint8))
    pl.read_parquet(folders["synthesis"] / "manifest.parquet").write_parquet(tmp_path / "manifest.parquet")
    assert load(folders["cohort"], {"ours": folders["synthesis"], "small": tmp_path}).size == 16
    with pytest.raises(StudyError, match="small: images of 16 px"):
        load(folders["cohort"], {"small": tmp_path}, 32)


@pytest.mark.parametrize("name", ["real", "alone", ""])
def test_names_that_mean_something_else(folders, name):
    with pytest.raises(StudyError, match="named neither"):
        load(folders["cohort"], {name: folders["synthesis"]})


def test_samples_of_other_records_or_texts(folders, tmp_path):
    np.save(tmp_path / "samples.npy", np.zeros((64, 1, 64, 64), np.uint8))
    manifest = pl.read_parquet(folders["synthesis"] / "manifest.parquet")
    manifest.with_columns(image_id="x:" + pl.col("image_id")).write_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(StudyError, match="no record.*ours, elsewhere"):
        load(folders["cohort"], {"ours": folders["synthesis"], "elsewhere": tmp_path})
    manifest.with_columns(prompt="No " + pl.col("prompt")).write_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(StudyError, match="src:000.*another text.*64 such"):
        load(folders["cohort"], {"reworded": tmp_path})


def test_samples_of_records_that_the_cohort_lacks_are_counted(folders, tmp_path):
    (tmp_path / "0.png").write_bytes((folders["other"] / "0.png").read_bytes())
    (tmp_path / "1.png").write_bytes((folders["other"] / "1.png").read_bytes())
    (tmp_path / "labels.csv").write_text("image,image_id\n0.png,src:000\n1.png,src:1\n")
    with pytest.warns(UserWarning, match="typed: 1 of 2 records are not in .*cohort, first 'src:1': .* not shown"):
        assert len(load(folders["cohort"], {"typed": tmp_path}).records) == 1


@pytest.mark.parametrize("name", ["samples.npy", "manifest.parquet"])
@pytest.mark.parametrize("left", [0, 20, -20])
def test_a_pool_that_was_cut_off_is_named(folders, tmp_path, name, left):
    for file in ("samples.npy", "manifest.parquet"):
        (tmp_path / file).write_bytes((folders["synthesis"] / file).read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:left])
    with pytest.raises(CohortError, match=f"{name} is cut off or damaged"):
        load(folders["cohort"], {"ours": tmp_path})


def test_a_folder_without_images_is_named(folders, tmp_path):
    with pytest.raises(CohortError, match="manifest.parquet|samples.npy"):
        load(folders["cohort"], {"ours": tmp_path})
    pl.read_parquet(folders["cohort"] / "cohort.parquet").write_parquet(tmp_path / "cohort.parquet")
    with pytest.raises(CohortError, match="no images_"):
        load(tmp_path, {"ours": folders["synthesis"]})
