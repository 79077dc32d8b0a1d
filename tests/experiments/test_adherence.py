"""What is asked comes from the masks, and adherence measures what the samples show of it."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments import adherence as a2i
from chexgen_lib.images import ImageError
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.conditions import CLASSES, LEGEND

SIZE = 32


def square(top, left, side=8):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def data(n=6) -> a2i.Annotated:
    """Each image has lungs and an effusion; even ones a pneumothorax and two clips, of which one is a speck."""
    masks = np.zeros((n, len(CLASSES), SIZE, SIZE), bool)
    for row in range(n):
        masks[row, CLASSES.index("lungs")] = square(4 + row, 4, 20)
        masks[row, CLASSES.index("Effusion")] = square(16, 2 + row)
        if row % 2 == 0:
            masks[row, CLASSES.index("Pneumothorax")] = square(2, 2 + row)
            masks[row, CLASSES.index("Support Devices")] = square(1, 1, 3) | square(20, 20, 4) | square(30, 30, 1)
    table = pl.DataFrame(
        {
            "image_id": [f"a:{i}" for i in range(n)],
            "patient_id": [f"a:{i}" for i in range(n)],
            "split": ["train", "train", "val", "test", "test", "test"],
            "prompt": [f"Prompt {i}." for i in range(n)],
        }
    )
    return a2i.Annotated(table, np.zeros((n, SIZE, SIZE), np.uint8), masks, CLASSES)


class Reader:
    """Stands in for a segmenter: a sample's grey values say whether it shows the asked masks (255) or nothing (0)."""

    classes = CLASSES

    def __init__(self, truth):
        self.truth = truth

    def predict(self, images):
        return np.stack([self.truth[i[0, 0] // 2] & (i[0, 1] > 0) for i in images])


def test_boxes_surround_findings_and_each_foreign_object():
    boxes = data().boxes(0)
    assert {box["class"] for box in boxes} == {"Effusion", "Pneumothorax", "Support Devices"} and len(boxes) == 4
    devices = sorted((box["x"], box["w"]) for box in boxes if box["class"] == "Support Devices")
    assert devices == [(1 / SIZE, 3 / SIZE), (20 / SIZE, 4 / SIZE)]  # the speck has none
    effusion = next(box for box in boxes if box["class"] == "Effusion")
    assert effusion == {"class": "Effusion", "x": 2 / SIZE, "y": 16 / SIZE, "w": 8 / SIZE, "h": 8 / SIZE}
    assert a2i.boxes_of(np.zeros((4, 4), bool)) == []


def test_requests_are_of_their_split_and_have_something_to_ask():
    held = a2i.requests(data(), "held out", per_kind=3)
    assert set(held["row"]) <= {2, 3, 4, 5} and held["image_id"].is_unique().all()
    counts = dict(held["kind"].value_counts().iter_rows())
    assert counts == {"pneumothorax": 2, "lungs": 3, "boxes": 3}  # nobody has rib masks
    assert set(held.filter(kind="pneumothorax")["row"]) == {2, 4}
    assert held["prompt"].to_list() == [f"Prompt {row}." for row in held["row"]]
    assert a2i.requests(data(), "held out", 3, seed=1)["row"].to_list() != held["row"].to_list()
    with pytest.raises(CohortError, match="no train image"):
        empty = data()
        empty.masks[:] = False
        a2i.requests(empty, "train", 3)


def test_drawings_show_the_request():
    asked = pl.DataFrame({"row": [0, 0], "kind": ["pneumothorax", "boxes"]})
    mask, boxes = a2i.drawings(data(), asked)
    np.testing.assert_array_equal((mask == LEGEND["Pneumothorax"]).all(-1), data().mask(0, "Pneumothorax"))
    assert (boxes[16, 2:10] == LEGEND["Effusion"]).all() and (boxes[18, 5] == 0).all()


def test_adherence_is_one_for_what_was_asked_and_none_for_nothing():
    truth = data()
    asked = pl.DataFrame({"row": [0, 0, 1], "kind": ["pneumothorax", "boxes", "lungs"]})
    samples = np.zeros((3, 2, SIZE, SIZE), np.uint8)
    samples[:, :, 0, 0] = 2 * np.array([0, 0, 1])[:, None]
    reader = Reader(truth.masks)
    np.testing.assert_array_equal(a2i.adherence(truth, asked, samples, reader), [0, 0, 0])
    samples[:, :, 0, 1] = 1
    np.testing.assert_array_equal(a2i.adherence(truth, asked, samples, reader), [1, 1, 1])
    samples[:, 1, 0, 1] = 0
    np.testing.assert_array_equal(a2i.adherence(truth, asked, samples, reader), [0.5, 0.5, 0.5])


def test_overlap_of_boxes():
    box = dict(x=0.0, y=0.0, w=0.5, h=0.5)
    assert a2i.overlap(box, box) == 1
    assert a2i.overlap(box, dict(x=0.25, y=0.0, w=0.5, h=0.5)) == pytest.approx(1 / 3)
    assert a2i.overlap(box, dict(x=0.6, y=0.6, w=0.2, h=0.2)) == 0


def test_table_compares_arms_request_by_request():
    asked = pl.DataFrame({"kind": ["lungs"] * 8 + ["boxes"]})
    scores = {a2i.CONTROLLED: np.linspace(0.8, 0.9, 9), a2i.FREE: np.linspace(0.3, 0.5, 9)}
    table = a2i.table(asked, scores, 100)
    assert table["kind"].to_list() == ["lungs", "lungs"]  # one box request gives no interval
    assert table["n"].to_list() == [8, 8] and table["metric"].to_list() == ["Dice", "Dice"]
    controlled, free = table.iter_rows(named=True)
    assert controlled["p"] is None and free["p"] < 0.05 and free["high"] < controlled["low"]
    scores[a2i.FREE][:3] = scores[a2i.CONTROLLED][:3]  # five pairs that differ cannot have a p below 0.05
    assert a2i.table(asked, scores, 100)["p"].to_list() == [None, None]


def test_a_figure_shows_every_kind():
    asked = pl.DataFrame({"kind": ["lungs"] * 5 + ["boxes"] * 2})
    assert a2i.varied(asked, 4) == [0, 1, 5, 6] and a2i.varied(asked, 99) == list(range(7))


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
    found = a2i.load_embedded(tmp_path, 16, train_images=3)
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
        a2i.load_embedded(tmp_path, 16, train_images=3)


def test_a_folder_of_lung_masks(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    names = [f"patient{i}-{k}" for i in range(10) for k in range(2)]
    for i, name in enumerate(names):
        pixels = np.random.default_rng(i).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(square(4, 4, 20)).convert("1").resize((64, 64)).save(tmp_path / "masks" / f"{name}.png")
    found = a2i.load_lung_masks(tmp_path, SIZE, "Lungs.")
    assert found.images.shape == (20, SIZE, SIZE) and found.masks.shape == (20, 1, SIZE, SIZE)
    np.testing.assert_array_equal(found.mask(0, "lungs"), square(4, 4, 20))
    splits = found.table.group_by("patient_id").agg(pl.col("split").n_unique())
    assert splits["split"].max() == 1 and set(found.table["split"]) == {"train", "test"}
    Image.fromarray(square(4, 4, 20)).convert("1").resize((64, 32)).save(tmp_path / "masks" / f"{names[3]}.png")
    with pytest.raises(CohortError, match=f"{names[3]}.png: 64 x 32 px, but {names[3]}.jpg has 64 x 64"):
        a2i.load_lung_masks(tmp_path, SIZE, "Lungs.")
    Image.new("1", (64, 64)).save(tmp_path / "masks" / f"{names[3]}.png")
    with pytest.raises(ImageError, match=f"{names[3]}.png: every pixel has the same value"):
        a2i.load_lung_masks(tmp_path, SIZE, "Lungs.")
    (tmp_path / "masks" / f"{names[3]}.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=names[3]):
        a2i.load_lung_masks(tmp_path, SIZE, "Lungs.")
    (tmp_path / "masks" / f"{names[3]}.png").unlink()
    with pytest.raises(CohortError, match=f"1 images or masks have no partner, first '{names[3]}'"):
        a2i.load_lung_masks(tmp_path, SIZE, "Lungs.")
    with pytest.raises(CohortError, match="holds no images"):
        a2i.load_lung_masks(tmp_path / "none", SIZE, "Lungs.")


def test_real_lung_masks(shared):
    found = a2i.load_lung_masks(shared / "data/lung-masks", 64, "Lungs.")
    assert len(found.images) == 57 and 0.1 < found.masks.mean() < 0.6
    assert 5 <= len(found.of("held out")) <= 20
