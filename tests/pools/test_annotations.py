"""Requests come from masks of the split that they are for, and their condition images show them."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError
from chexgen_lib.pools import annotations as an
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.conditions import LEGEND
from tests.builders import annotated_images, square_mask

SIZE = 32


def test_boxes_surround_findings_and_each_foreign_object():
    boxes = annotated_images().boxes(0)
    assert {box["class"] for box in boxes} == {"Effusion", "Pneumothorax", "Support Devices"} and len(boxes) == 4
    devices = sorted((box["x"], box["w"]) for box in boxes if box["class"] == "Support Devices")
    assert devices == [(1 / SIZE, 3 / SIZE), (20 / SIZE, 4 / SIZE)]  # the speck has none
    effusion = next(box for box in boxes if box["class"] == "Effusion")
    assert effusion == {"class": "Effusion", "x": 2 / SIZE, "y": 16 / SIZE, "w": 8 / SIZE, "h": 8 / SIZE}
    assert an.boxes_of(np.zeros((4, 4), bool)) == []


def test_requests_are_of_their_split_and_show_what_they_request():
    held = an.choose_requests(annotated_images(), "held out", per_kind=3)
    assert set(held["row"]) <= {2, 3, 4, 5} and held["image_id"].is_unique().all()
    counts = dict(held["kind"].value_counts().iter_rows())
    assert counts == {"pneumothorax": 2, "lungs": 3, "boxes": 3}  # nobody has rib masks
    assert set(held.filter(kind="pneumothorax")["row"]) == {2, 4}
    assert held["prompt"].to_list() == [f"Prompt {row}." for row in held["row"]]
    assert an.choose_requests(annotated_images(), "held out", 3, seed=1)["row"].to_list() != held["row"].to_list()
    with pytest.raises(CohortError, match="no train image"):
        empty = annotated_images()
        empty.masks[:] = False
        an.choose_requests(empty, "train", 3)


def test_datasets_of_one_kind_share_the_requests():
    """Found by the rehearsal: no request of the smaller dataset among the first, and 09 stopped for want of one."""
    names = [f"large:{i}" for i in range(40)] + [f"small:{i}" for i in range(10)]
    table = pl.DataFrame({"image_id": names}).with_columns(
        patient_id="image_id", split=pl.lit("train"), prompt=pl.lit("")
    )
    data = an.Annotated(table, np.zeros((50, 8, 8), np.uint8), np.zeros((50, 0, 8, 8), bool), (), kinds=("boxes",) * 50)
    for seed in range(20):
        for n in (5, 10, 50):
            chosen = an.choose_requests(data, "train", {"boxes": n}, seed)["image_id"]
            assert len(chosen) == n and chosen.str.starts_with("small").sum() == n // 5
    assert an.choose_requests(data, "train", {"boxes": 9}, 1)["row"].to_list() != list(range(9))


def test_condition_images_show_the_request():
    requests = pl.DataFrame({"row": [0, 0], "kind": ["pneumothorax", "boxes"]})
    mask, boxes = an.condition_images(annotated_images(), requests)
    np.testing.assert_array_equal((mask == LEGEND["Pneumothorax"]).all(-1), annotated_images().mask(0, "Pneumothorax"))
    assert (boxes[16, 2:10] == LEGEND["Effusion"]).all() and (boxes[18, 5] == 0).all()


def test_overlap_of_boxes():
    box = dict(x=0.0, y=0.0, w=0.5, h=0.5)
    assert an.overlap(box, box) == 1
    assert an.overlap(box, dict(x=0.25, y=0.0, w=0.5, h=0.5)) == pytest.approx(1 / 3)
    assert an.overlap(box, dict(x=0.6, y=0.6, w=0.2, h=0.2)) == 0


def test_a_figure_shows_every_kind():
    requests = pl.DataFrame({"kind": ["lungs"] * 5 + ["boxes"] * 2})
    assert an.varied(requests, 4) == [0, 1, 5, 6] and an.varied(requests, 99) == list(range(7))


def test_the_embedded_cohort(tmp_path):
    """Rows keep their masks when lateral views and surplus training images are left out."""
    n, views = 8, ["PA", "LATERAL", "AP", "PA", "PA", "PA", "PA", "LATERAL"]
    rng = np.random.default_rng(0)
    anatomy, findings = rng.random((n, 3, 16, 16)) < 0.5, rng.random((4, 16, 16)) < 0.5
    where, which = [2, 3, 3, 6], [FINDINGS.index(f) for f in ("Effusion", "Pneumothorax", "Edema", "Lung Lesion")]
    table = pl.DataFrame(
        {
            "image_id": [f"a:{i}" for i in range(n)],
            "patient_id": [f"a:{i}" for i in range(n)],
            "view": views,
            "split": ["train"] * 6 + ["test"] * 2,
            "prompt": [f"Prompt {i}." for i in range(n)],
            "Pneumothorax": [float(i == 3) for i in range(n)],
        }
    )
    table.write_parquet(tmp_path / "cohort.parquet")
    np.save(tmp_path / "images_16.npy", np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((16, 16), np.uint8))
    packed = dict(anatomy=np.packbits(anatomy, axis=-1), findings=np.packbits(findings, axis=-1))
    np.savez(tmp_path / "masks.npz", **packed, finding_row=np.array(where), finding_index=np.array(which))
    found = an.load_embedded(tmp_path, 16, train_images=3)
    rows = found.images[:, 0, 0].tolist()
    assert len(rows) == 4 and rows == sorted(rows) and {3, 6} <= set(rows) <= {0, 2, 3, 4, 5, 6}
    assert found.table["image_id"].to_list() == [f"a:{row}" for row in rows]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(found.masks[place, :3], anatomy[row])
        for mask, at, finding in zip(findings, where, which, strict=True):
            shown = found.mask(place, FINDINGS[finding])
            assert (shown == mask).all() if at == row else not shown.any()
    assert found.table["split"].to_list() == ["train"] * 3 + ["test"] and found.of("held out").tolist() == [3]
    np.savez(tmp_path / "masks.npz")
    with pytest.raises(CohortError, match="real radiographs come without masks"):
        an.load_embedded(tmp_path, 16, train_images=3)


def test_a_folder_of_lung_masks(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    names = [f"patient{i}-{k}" for i in range(10) for k in range(2)]
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(square_mask(4, 4, 20)).convert("1").resize((64, 64)).save(tmp_path / "masks" / f"{name}.png")
    for hidden in (".DS_Store", "Thumbs.db", f"._{names[0]}.png"):
        (tmp_path / "masks" / hidden).write_bytes(b"not a mask")
    labels = np.asarray(Image.fromarray(square_mask(4, 4, 20)).resize((64, 64), Image.Resampling.NEAREST)).astype(
        np.uint8
    )
    Image.fromarray(labels).save(tmp_path / "masks" / f"{names[0]}.PNG")  # 0 and 1, as label images have it
    (tmp_path / "masks" / f"{names[0]}.png").unlink()
    found = an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    assert found.images.shape == (20, SIZE, SIZE) and found.masks.shape == (20, 1, SIZE, SIZE)
    np.testing.assert_array_equal(found.mask(0, "lungs"), square_mask(4, 4, 20))
    splits = found.table.group_by("patient_id").agg(pl.col("split").n_unique())
    assert splits["split"].max() == 1 and set(found.table["split"]) == {"train", "test"}
    Image.fromarray(square_mask(4, 4, 20)).convert("1").resize((64, 32)).save(tmp_path / "masks" / f"{names[3]}.png")
    with pytest.raises(CohortError, match=f"{names[3]}.png: 64 x 32 px, but {names[3]}.jpg has 64 x 64"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    other = tmp_path / "masks" / f"{names[3]}.gif"
    other.touch()
    with pytest.raises(CohortError, match=f"{names[3]}.gif and {names[3]}.png have one name"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    other.unlink()
    Image.new("1", (64, 64)).save(tmp_path / "masks" / f"{names[3]}.png")
    with pytest.raises(ImageError, match=f"{names[3]}.png: every pixel has the same value"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    (tmp_path / "masks" / f"{names[3]}.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=names[3]):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    (tmp_path / "masks" / f"{names[3]}.png").unlink()
    with pytest.raises(CohortError, match=f"1 images or masks have no partner, first '{names[3]}'"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    with pytest.raises(CohortError, match="holds no images"):
        an.load_lung_masks(tmp_path / "none", SIZE, "Lungs.")


def pairs(folder, names):
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True)
        for name in names:
            Image.fromarray(square_mask(4, 4, 20).astype(np.uint8) * 255).save(folder / place / f"{name}.png")
    return an.load_lung_masks(folder, SIZE, "Lungs.").table


def test_where_most_names_begin_alike_each_is_a_patient(tmp_path):
    """Shenzhen's and Montgomery's: with 8 letters all would be one patient's, who is held out."""
    china = [f"CHNCXR_{i:04}_{i % 2}" for i in range(12)]
    table = pairs(tmp_path / "both", [*china, "MCUCXR_0001_0", "00000001_000", "00000001_001"])
    patients = [*sorted(["00000001", "00000001", *china]), "MCUCXR_0001_0"]
    assert table["patient_id"].to_list() == [f"lung-masks:{patient}" for patient in patients]
    assert table.filter(split="test").height == 3  # a fifth of 14 patients
    few = pairs(tmp_path / "few", china[:10])  # which one patient may have
    assert few["patient_id"].unique().to_list() == ["lung-masks:CHNCXR_0"]


def test_of_two_hospitals_or_diseases_each_image_is_a_patient(tmp_path):
    """By 8 letters a folder of half of each is two patients, of whom one is held out."""
    names = [f"{place}_{i:04}_1" for place in ("CHNCXR", "MCUCXR") for i in range(12)]
    names += [f"{disease}-{i}" for disease in ("Lung_Opacity", "Viral Pneumonia") for i in range(1, 15)]
    table = pairs(tmp_path, names)
    assert table["patient_id"].n_unique() == len(names) and table.filter(split="test").height == 10


def test_names_that_tell_a_patient_in_more_than_8_letters(tmp_path):
    films = [f"patient{i:05}_study{k}_view1_frontal" for i in range(1, 8) for k in (1, 2)]
    films += [f"sub-S{i:05}_ses-E{k}_run-1" for i in range(1, 8) for k in (1, 2)]
    films += [f"person{i}_bacteria_{k}" for i in range(100, 107) for k in (1, 2)]
    table = pairs(tmp_path, [*films, "p10000032_s50414267", "p10000032_s53189527"])
    assert table["patient_id"].n_unique() == 22 and "lung-masks:patient00007" in table["patient_id"]


@pytest.mark.parametrize("form", [("{}", "{}_mask"), ("{}", "mask_{}"), ("{}_0000", "{}"), ("{}", "{}_lung_mask")])
def test_names_of_pairs_as_datasets_and_tools_give_them(tmp_path, form):
    """Shenzhen's masks at Kaggle, QaTa-COV19's, nnU-Net's images; and JSRT's masks of half the size."""
    for place, name, size in zip(("images", "masks"), form, (128, 64), strict=True):
        (tmp_path / place).mkdir()
        for number in ("CHNCXR_0001_0", "CHNCXR_0002_1"):
            film = Image.fromarray(square_mask(4, 4, 20).astype(np.uint8) * 255).resize((size, size))
            film.save(tmp_path / place / f"{name.format(number)}.png")
    found = an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    assert found.table["image_id"].to_list() == ["lung-masks:CHNCXR_0001_0", "lung-masks:CHNCXR_0002_1"]
    np.testing.assert_array_equal(found.mask(0, "lungs"), square_mask(4, 4, 20))
    (tmp_path / "images").rename(tmp_path / "imagesTr")
    (tmp_path / "labelsTr").symlink_to(tmp_path / "masks")
    with pytest.raises(CohortError, match="holds masks/ and labelsTr/; move away"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")
    (tmp_path / "labelsTr").unlink()
    assert an.load_lung_masks(tmp_path, SIZE, "Lungs.").table.equals(found.table)
    (tmp_path / "masks/CHNCXR_0001_0-mask.png").touch()
    with pytest.raises(CohortError, match="CHNCXR_0001_0.*png and .*CHNCXR_0001_0.*png have one name|no partner"):
        an.load_lung_masks(tmp_path, SIZE, "Lungs.")


def test_where_most_names_begin_with_one_number_patients_are_not_told_apart(tmp_path):
    with pytest.raises(CohortError, match="12 of 12 names begin with '20200401', so that all these would be one"):
        pairs(tmp_path, [f"20200401_{i:03}" for i in range(12)])


def test_real_lung_masks(shared):
    found = an.load_lung_masks(shared / "data/lung-masks", 64, "Lungs.")
    assert len(found.images) == 57 and 0.1 < found.masks.mean() < 0.6
    assert 5 <= len(found.of("held out")) <= 20
