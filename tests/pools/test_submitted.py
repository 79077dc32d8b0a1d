"""A folder of somebody's images: each kind of bad input is one clear error, or counted and listed."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError
from chexgen_lib.pools.submitted import ABSENT, FEW, MANY, UNKNOWN, read_submitted

WANTED = ["r2", "r0", "r1"]
SIZE = 16


def pixels(seed, side=SIZE, top=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, top, (side, side)).astype(dtype)


def folder(tmp_path, rows, images):
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / name)
    pl.DataFrame(rows, ["image", "image_id"], orient="row").write_csv(tmp_path / "labels.csv")
    return tmp_path


@pytest.fixture
def whole(tmp_path):
    """Two images of each record."""
    names = [(f"{k}.png", f"r{k // 2}") for k in range(6)]
    return folder(tmp_path, names, {f"{k}.png": pixels(k) for k in range(6)})


def test_images_come_in_the_order_of_the_prompts(whole):
    found = read_submitted(whole, WANTED, SIZE, 2)
    assert found.image_ids == WANTED and found.images.shape == (3, 2, SIZE, SIZE)
    np.testing.assert_array_equal(found.images[0, 1], pixels(5))
    assert found.excluded.is_empty() and found.remarks == []


def test_a_missing_or_broken_image_is_an_error_that_names_it(whole):
    (whole / "3.png").unlink()
    with pytest.raises(ImageError, match="3.png: no such file, though labels.csv names it; paths in it begin at"):
        read_submitted(whole, WANTED, SIZE, 2)
    (whole / "3.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(ImageError, match="3.png"):
        read_submitted(whole, WANTED, SIZE, 2)


def test_unknown_records_and_surplus_images_are_excluded_and_listed(tmp_path):
    rows = [("0.png", "r0"), ("1.png", "r0"), ("2.png", "r1"), ("3.png", "mars"), ("4.png", "r2"), ("5.png", "r2")]
    path = folder(tmp_path, [*rows, ("6.png", "r2")], {f"{k}.png": pixels(k) for k in range(7)})
    found = read_submitted(path, WANTED, SIZE, 2)
    assert found.image_ids == ["r2", "r0"] and found.images.shape == (2, 2, SIZE, SIZE)
    listed = {(row["image_id"], row["reason"]) for row in found.excluded.to_dicts()}
    assert listed == {("r1", FEW), ("mars", UNKNOWN), ("r2", MANY)}
    without = read_submitted(path, [*WANTED, "r3"], SIZE, 2).excluded
    assert without.filter(reason=ABSENT).rows() == [("r3", None, ABSENT)] and len(without) == len(found.excluded) + 1
    with pytest.raises(
        CohortError, match="none of its 4 records is prompted for, first 'r0': generate from prompts.csv"
    ):
        read_submitted(path, ["other"], SIZE, 2)


def test_size_depth_and_colour_are_read_and_remarked_upon(tmp_path):
    wide = np.concatenate([pixels(1, 32), pixels(2, 32)], 1)
    colour = np.stack([pixels(3), pixels(4), pixels(5)], -1)
    deep = pixels(6, top=65536, dtype=np.uint16)
    path = folder(tmp_path, [(f"{k}.png", f"r{k}") for k in range(3)], {"0.png": wide, "1.png": colour, "2.png": deep})
    found = read_submitted(path, WANTED, SIZE, 1)
    assert sorted(found.remarks) == [
        "1 images in 16 bits: divided by 65535",
        "1 images in colour (RGB): judged by their luma",
        "1 images of 64 x 32 px: judged at 16 px, the largest square in the middle",
    ]
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(found.images[2, 0], luma)
    np.testing.assert_allclose(found.images[0, 0], deep / 65535 * 255, atol=0.51)


def test_grey_with_opacity_is_no_colour_and_black_and_white_is_said(tmp_path):
    path = folder(tmp_path, [(f"{k}.png", f"r{k}") for k in range(3)], {f"{k}.png": pixels(k) for k in range(3)})
    Image.fromarray(pixels(0)).convert("LA").save(path / "0.png")
    Image.fromarray(pixels(1)).convert("1").save(path / "1.png")
    found = read_submitted(path, WANTED, SIZE, 1)
    assert found.remarks == ["1 images in black and white alone, without greys"]


@pytest.mark.parametrize(
    "content",
    [
        b"image;image_id\r\n\xe9.png;r0\r\n",
        "sep=;\nimage; image_id\n\u00e9.png;r0\n".encode("utf-16"),
        "\ufeffimage,image_id\n\u00e9.png,r0\n".encode(),
    ],
)
def test_a_table_as_spreadsheets_save_it_is_read(tmp_path, content):
    """In a folder whose name polars takes for a pattern, too."""
    place = tmp_path / "pool [v2]"
    place.mkdir()
    Image.fromarray(pixels(0)).save(place / "\u00e9.png")
    (place / "labels.csv").write_bytes(content)
    found = read_submitted(place, ["r0"], SIZE, 1)
    np.testing.assert_array_equal(found.images[0, 0], pixels(0))


def test_spaces_around_a_record_are_none_of_its_name(tmp_path):
    path = folder(tmp_path, [("0.png", " r0"), ("1.png", "r1 ")], {f"{k}.png": pixels(k) for k in range(2)})
    assert read_submitted(path, ["r0", "r1"], SIZE, 1).image_ids == ["r0", "r1"]
    folder(tmp_path, [("0.png", "r0"), ("1.png", "  ")], {})
    with pytest.raises(CohortError, match="labels.csv, row 2 .*: a value is missing"):
        read_submitted(path, ["r0"], SIZE, 1)


@pytest.mark.parametrize("name", ["samples.npy", "manifest.parquet"])
@pytest.mark.parametrize("left", [0, 100, -50])
def test_a_pool_that_was_cut_off_is_named(tmp_path, name, left):
    np.save(tmp_path / "samples.npy", np.stack([pixels(k) for k in range(3)])[:, None])
    pl.DataFrame({"image_id": WANTED}).write_parquet(tmp_path / "manifest.parquet")
    assert len(read_submitted(tmp_path, WANTED, SIZE, 1).images) == 3
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:left])
    with pytest.raises(CohortError, match=f"{name} is cut off or damaged: redo stage 06_pools"):
        read_submitted(tmp_path, WANTED, SIZE, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"image,image_id\n0.png,r0,x,y\n",
        b"0.png,r0\n",
        b"",
    ],
)
def test_a_table_of_another_kind_is_named_with_what_it_should_be(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(CohortError, match="labels.csv.*save it as UTF-8 with the columns image, image_id"):
        read_submitted(tmp_path, WANTED, SIZE, 1)


def test_equal_images_are_counted_and_stay(tmp_path):
    path = folder(tmp_path, [(f"{k}.png", f"r{k}") for k in range(3)], {f"{k}.png": pixels(k // 2) for k in range(3)})
    found = read_submitted(path, WANTED, SIZE, 1)
    assert len(found.images) == 3
    assert found.remarks == ["2 images are equal to another one, 2 of 3 differ: all count"]


def test_a_runs_pool_is_read_too(tmp_path):
    np.save(tmp_path / "samples.npy", np.stack([pixels(k, 32) for k in range(6)]).reshape(3, 2, 32, 32))
    pl.DataFrame({"image_id": ["r0", "r1", "r2"]}).write_parquet(tmp_path / "manifest.parquet")
    found = read_submitted(tmp_path, WANTED, SIZE, 1)
    assert found.image_ids == WANTED and set(found.excluded["reason"]) == {MANY} and len(found.excluded) == 3
    assert found.remarks == ["all images have 32 px: judged at 16"]


def test_a_table_of_windows_with_row_names_of_pandas_is_read(tmp_path):
    for k in range(3):
        (tmp_path / f"r{k}").mkdir()
        Image.fromarray(pixels(k)).save(tmp_path / f"r{k}/0.png")
    rows = [f"{k},r{k}\\0.png,r{k}" for k in range(3)]
    (tmp_path / "labels.csv").write_text("\n".join([",image,image_id", *rows]))
    found = read_submitted(tmp_path, WANTED, SIZE, 1)
    assert found.image_ids == WANTED and found.remarks == []
    np.testing.assert_array_equal(found.images[1, 0], pixels(0))


def test_images_that_the_table_does_not_name_are_listed(whole):
    for k in (6, 7):
        Image.fromarray(pixels(k)).save(whole / f"{k}.png")
    reasons = ["6.png is not in labels.csv", "7.png is not in labels.csv"]
    assert read_submitted(whole, WANTED, SIZE, 2).excluded["reason"].to_list() == reasons


def test_empty_rows_of_a_spreadsheet_are_none_and_numbers_of_rows_count_them(whole):
    table = (whole / "labels.csv").read_text()
    (whole / "labels.csv").write_text(table.replace("2.png", ",\n2.png") + ",\n,\n")
    assert read_submitted(whole, WANTED, SIZE, 2).excluded.is_empty()
    (whole / "labels.csv").write_text(table.replace("2.png", ",\n2.png") + ",r2\n")
    with pytest.raises(CohortError, match="labels.csv, row 8 .None, 'r2'.: a value is missing"):
        read_submitted(whole, WANTED, SIZE, 2)
