"""object-CXR: foreign objects as boxes, ellipses and polygons."""

import pytest
from PIL import Image

from chexgen_lib.images import read_image
from chexgen_lib.records import RecordError
from chexgen_lib.sources import masks, object_cxr
from tests.sources.layouts import OBJECTS, by_id, object_folder, picture, put, reasons


def test_objects_of_every_shape_are_masks_and_boxes(tmp_path):
    table, rejects = object_cxr.load(object_folder(tmp_path))
    found = by_id(table)
    row = found["object_cxr:train/00001"]
    assert rejects.is_empty() and len(found) == 3  # train and dev may use the same file names
    assert row["boxes"][0] == pytest.approx({"finding": "Support Devices", "x": 0.25, "y": 0.25, "w": 0.5, "h": 0.5})
    assert len(row["boxes"]) == 3 and row["labels"] == ["foreign object"]
    assert row["Support Devices"] is None  # the publisher excluded them
    assert masks.read(row["mask"])[5:15, 10:30].all()
    assert (found["object_cxr:train/00002"]["mask"], found["object_cxr:train/00002"]["boxes"]) == (None, [])
    assert found["object_cxr:dev/00001"]["split"] == "test"


def test_a_damaged_annotation_rejects_its_image(tmp_path):
    folder = object_folder(tmp_path)
    rows = ["00001.jpg,3 1 2 3 4", "00002.jpg,0 1 2 99 4", "00003.jpg,0 1 2 3 4", "00004.jpg,", "../x.jpg,", "a.jpg"]
    put(folder, {"train.csv": "\n".join(["image_name,annotation", *rows, "00004.jpg,", ""])})
    kept, rejects = object_cxr.load(folder)
    assert kept["image_id"].to_list() == ["object_cxr:train/00004", "object_cxr:dev/00001"]
    found = list(reasons(rejects).values())
    assert found[0].startswith("unknown type of shape '3'")
    assert found[1] == "box outside its 20 x 40 frame"
    assert found[2].startswith("no readable image")
    assert found[3].startswith("not the name of an image")
    assert found[4].startswith("broken row") and found[5] == "duplicate image id"


def test_of_two_files_of_an_image_none_gives_the_frame(tmp_path):
    folder = put(
        tmp_path,
        {"train.csv": "image_name,annotation\n1.JPG,0 1 1 5 5\n2.jpg,\n", "dev.csv": "image_name,annotation\n"},
    )
    for place, width in (("a", 40), ("b", 80)):
        picture(folder / place / "train/1.jpg", width)
    kept, rejects = object_cxr.load(folder)
    assert kept["image_id"].to_list() == ["object_cxr:train/2"]
    assert rejects["reason"].to_list() == [masks.SEVERAL]
    (folder / "b/train/1.jpg").unlink()
    assert masks.frame(object_cxr.load(folder)[0]["mask"][0]) == (20, 40)


def test_an_image_of_the_other_set_gives_no_frame(tmp_path):
    folder = object_folder(tmp_path)
    for name in ("00001.jpg", "00002.jpg"):
        (folder / "train" / name).unlink()
    kept, rejects = object_cxr.load(folder)  # train.zip is not unpacked, and dev/00001.jpg is another image
    assert kept["image_id"].to_list() == ["object_cxr:train/00002", "object_cxr:dev/00001"]
    assert rejects["reason"].to_list() == ["no readable image, which alone gives the frame of its annotation"]


def test_an_image_that_its_note_turns_upright_is_annotated_so(tmp_path):
    folder = object_folder(tmp_path)
    image = Image.linear_gradient("L").resize((20, 40))
    note = image.getexif()
    note[0x0112] = 6  # Orientation: to be turned by 90 degrees
    image.save(folder / "train/00001.jpg", exif=note)
    row = by_id(object_cxr.load(folder)[0])["object_cxr:train/00001"]
    assert masks.frame(row["mask"]) == read_image(folder / "train/00001.jpg").shape == (20, 40)
    assert row["boxes"][0] == pytest.approx({"finding": "Support Devices", "x": 0.25, "y": 0.25, "w": 0.5, "h": 0.5})


def test_reduced_images_are_refused(tmp_path):
    """Some annotations fit by chance, and would be drawn in the wrong place."""
    rows = [f"{n}.jpg,0 {x} 1 {x + 9} 9" for n, x in enumerate((5, 20, 50, 60, 70))]
    folder = put(tmp_path, {"train.csv": "\n".join(["image_name,annotation", *rows]), "dev.csv": OBJECTS["dev.csv"]})
    for n in range(5):
        picture(folder / f"train/{n}.jpg", 40, 20)
    with pytest.raises(RecordError, match="annotations of 3 of 6 images leave them .*fetch the publisher's"):
        object_cxr.load(folder)
