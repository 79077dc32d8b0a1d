"""VinDr-CXR: several readers vote."""

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import image_sizes, masks, registry, vindr_cxr
from chexgen_lib.sources.table import read_table, shipped
from tests.sources.layouts import VINDR, by_id, dicom, image_labels, picture, put, reasons, vindr_folder


def test_readers_vote(tmp_path):
    table, rejects = vindr_cxr.load(vindr_folder(tmp_path))
    found = by_id(table)
    ill, well, test = (found[f"vindr_cxr:{name}"] for name in "abc")
    assert (ill["Effusion"], ill["Lung Lesion"], ill["Cardiomegaly"], ill["Pneumonia"]) == (1, None, 0, 1)
    assert ill["uncertain"] == ["Lung Lesion"] and ill["Support Devices"] is None
    assert set(ill["labels"]) == {"Pleural effusion", "Pneumonia"}
    assert ill["Lung Opacity"] is None  # pneumonia is one, whether or not a reader says so
    # The mean of two readers' boxes; the third box is one reader's alone.
    assert ill["boxes"] == [pytest.approx({"finding": "Effusion", "x": 0.12, "y": 0.1, "w": 0.4, "h": 0.2})]
    assert (well["No Finding"], well["Effusion"]) == (1, 0)
    assert (test["Fracture"], test["split"], set(test["labels"])) == (1, "test", {"Rib fracture", "Other disease"})
    assert test["boxes"] == [pytest.approx({"finding": "Fracture", "x": 0.05, "y": 0.1, "w": 0.5, "h": 0.5})]
    assert table.height + rejects.height == 6 + 3 + 1 + 1


def test_its_label_set_are_15_labels_in_dispute_where_a_minority_names_them(tmp_path):
    table, _ = vindr_cxr.load(vindr_folder(tmp_path))
    assert records.label_set(table) == vindr_cxr.LABELS and len(vindr_cxr.LABELS) == 15
    states = dict(zip(vindr_cxr.LABELS, records.label_states(table, vindr_cxr.LABELS).T, strict=True))
    assert states["Pleural effusion"].tolist() == [1, 0, 0] and states["No finding"].tolist() == [0, 1, 0]
    assert str(states["Nodule/Mass"].tolist()) == "[nan, 0.0, 0.0]"


def test_a_box_outside_its_image_rejects_the_image(tmp_path):
    folder = vindr_folder(tmp_path)
    dicom(folder / "train/a.dicom", rows=200, columns=52)
    table, rejects = vindr_cxr.load(folder)
    assert "vindr_cxr:a" not in table["image_id"]
    assert reasons(rejects)["annotations_train.csv 2"] == "box is empty or leaves the image"
    assert reasons(rejects)["annotations_train.csv 1"] == masks.SPOILED


def test_boxes_that_overlap_less_are_two(tmp_path):
    folder = vindr_folder(tmp_path)
    text = VINDR["annotations/annotations_train.csv"].replace("R2,Pleural effusion,14", "R2,Pleural effusion,40")
    put(folder, {"annotations/annotations_train.csv": text})
    row = by_id(vindr_cxr.load(folder)[0])["vindr_cxr:a"]
    assert row["Effusion"] == 1 and row["boxes"] == []


def boxes_of(tmp_path, *rows):
    """Boxes of the image a, 100 x 200 pixels, from rows of a reader, a name and four corners."""
    text = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n" + "".join(f"a,{row}\n" for row in rows)
    put(vindr_folder(tmp_path), {"annotations/annotations_train.csv": text})
    return by_id(vindr_cxr.load(tmp_path)[0])["vindr_cxr:a"]["boxes"]


def test_a_region_with_several_names_is_one_box(tmp_path):
    """One reader gives it two names, and two readers other ones: it is requested and found once."""
    names = ["Pleural thickening", "Pleural effusion"]
    both = [f"{reader},{name},10,20,50,60" for reader in ("R1", "R2") for name in names]
    assert [box["finding"] for box in boxes_of(tmp_path, *both)] == ["Pleural Other"]
    more = [*both, "R3,Pleural effusion,12,20,52,60"]
    assert [box["finding"] for box in boxes_of(tmp_path, *more)] == ["Effusion"]
    vague = [f"{reader},{name},10,20,50,60" for reader in ("R1", "R2") for name in ("Lung Opacity", "Consolidation")]
    assert [box["finding"] for box in boxes_of(tmp_path, *vague)] == ["Consolidation"]
    one = boxes_of(tmp_path, "R1,Infiltration,10,20,50,60", "R2,Lung Opacity,10,20,50,60", "R3,Atelectasis,80,9,90,19")
    assert one == [pytest.approx({"finding": "Lung Opacity", "x": 0.1, "y": 0.1, "w": 0.4, "h": 0.2})]


def test_readers_who_name_a_region_differently_do_not_agree(tmp_path):
    rows = [f"R{k},{name},10,20,50,60" for k, name in enumerate(("Nodule/Mass", "Consolidation", "Atelectasis"))]
    assert boxes_of(tmp_path, *rows) == []


def test_the_shipped_table_is_accounted_for():
    table, rejects = vindr_cxr.load()
    assert (table.height, rejects.height, table.height + rejects.height) == (15_000, 52_914, 67_914)
    assert rejects["reason"].unique().to_list() == [masks.MERGED]
    records.validate(table)
    assert table["No Finding"].value_counts(sort=True).rows() == [(1.0, 10_606), (0.0, 4_394)]
    # Of the images in which readers name atelectasis, 124 have one who does, 44 two and 18 three.
    assert (table["Atelectasis"].sum(), table["Atelectasis"].null_count()) == (44 + 18, 124)
    assert table["boxes"].list.len().sum() == 0  # the table has no image sizes


def test_the_competitions_folder_is_read(tmp_path):
    """Kaggle's: one table, the images of training beside it."""
    rows = ["a,No finding,R1,,,,", *(f"b,Cardiomegaly,R{reader},10,20,50,60" for reader in (1, 2, 3))]
    put(tmp_path, {"train.csv": "\n".join([f"image_id,class_name,rad_id,{','.join(vindr_cxr.CORNERS)}", *rows])})
    for name in "ab":
        dicom(tmp_path / f"train/{name}.dicom", rows=200, columns=100)
    table, _ = vindr_cxr.load(tmp_path)
    assert table["Cardiomegaly"].to_list() == [0, 1] and table["Fracture"].null_count() == 2
    box = {"finding": "Cardiomegaly", "x": 0.1, "y": 0.1, "w": 0.4, "h": 0.2}
    assert table["boxes"].to_list() == [[], [pytest.approx(box)]]


def test_what_the_datasheet_says_of_the_readers():
    votes = read_table(shipped(vindr_cxr.TABLE), ("image_id", "rad_id", "class_name", *vindr_cxr.CORNERS))
    normal = pl.col("class_name") == "No finding"
    assert not votes.group_by("image_id").agg(both=normal.any() & ~normal.all())["both"].any()
    boxes = votes.filter(~normal)
    readers = boxes["rad_id"].value_counts(sort=True)["count"]
    assert len(votes["rad_id"].unique()) == 17 and round(readers.head(3).sum() / boxes.height, 2) == 0.95
    again = pl.col("class_name").n_unique().over("image_id", "rad_id", *vindr_cxr.CORNERS) > 1
    assert round(boxes.select(again.mean()).item(), 2) == 0.22
    assert all(said in vindr_cxr.DATASHEET.caution for said in ("95 %", "22 %", "17 readers", "never disputed"))


def test_an_image_in_which_no_reader_names_anything_is_a_record(tmp_path):
    folder = vindr_folder(tmp_path)
    nothing = image_labels("train", *(("n", f"R{i}", set()) for i in (1, 2, 3)))
    put(folder, {"annotations/image_labels_train.csv": nothing})
    table, rejects = vindr_cxr.load(folder)
    row = by_id(table)["vindr_cxr:n"]
    assert row["labels"] == [] and row["Effusion"] == 0 and row["uncertain"] == []
    assert table.height + rejects.height == 6 + 3 + 1 + 1


def test_of_two_files_of_an_image_none_gives_the_size(tmp_path):
    folder = vindr_folder(tmp_path)
    (folder / "train").rename(folder / "large")
    dicom(folder / "small/a.dicom", rows=100, columns=60)
    assert [len(by_id(vindr_cxr.load(folder)[0])[f"vindr_cxr:{name}"]["boxes"]) for name in "ac"] == [0, 1]
    (folder / "small/a.dicom").unlink()
    assert len(by_id(vindr_cxr.load(folder)[0])["vindr_cxr:a"]["boxes"]) == 1


def test_an_image_has_one_id_with_and_without_its_ending(tmp_path):
    folder = vindr_folder(tmp_path)
    expected, table = vindr_cxr.load(folder)[0], folder / "annotations/annotations_train.csv"
    table.write_text(table.read_text().replace("\na,", "\na.dicom,"))
    assert vindr_cxr.load(folder)[0].equals(expected)


def test_an_image_that_no_table_of_diagnoses_lists_denies_none(tmp_path):
    folder = put(vindr_folder(tmp_path), {"annotations/image_labels_train.csv": image_labels("train")})
    ill, well, _ = (by_id(vindr_cxr.load(folder)[0])[f"vindr_cxr:{name}"] for name in "abc")
    assert (ill["Effusion"], ill["Pneumonia"], ill["Lung Lesion"]) == (1, None, None)
    assert (well["No Finding"], well["Pneumonia"]) == (1, 0)


def reduced_mirror(folder):
    """The release with images of 16 x 16 pixels as PNG in place of the DICOM files."""
    for path in vindr_folder(folder).rglob("*.dicom"):
        picture(path.with_suffix(".png"), 16, 16)
        path.unlink()
    return folder


def test_boxes_of_a_reduced_mirror_are_placed_by_a_table_of_the_originals_sizes(tmp_path):
    expected = vindr_cxr.load(vindr_folder(tmp_path / "release"))[0]["boxes"].to_list()
    mirror = reduced_mirror(tmp_path / "mirror")
    put(mirror, {"train_meta.csv": "image_id,dim0,dim1\na,200,100\nc.dicom,20,20\nother,9,9\n"})
    assert vindr_cxr.load(mirror)[0]["boxes"].to_list() == expected and vindr_cxr.repairs(mirror).is_empty()
    put(mirror, {"train_meta.csv": "image_id;dim0;dim1\na;200;100\na;100;200\nc;20;20\n"})  # which is a's?
    assert [len(boxes) for boxes in vindr_cxr.load(mirror)[0]["boxes"]] == [0, 0, 1]
    repairs = vindr_cxr.repairs(mirror)
    assert repairs["image_id"].unique().to_list() == ["vindr_cxr:a"]
    assert repairs["value"].str.ends_with(f": {image_sizes.DIFFERENT}").all()


def test_the_size_of_a_dicom_file_is_right_whatever_a_table_says(tmp_path):
    expected = vindr_cxr.load(vindr_folder(tmp_path))[0]["boxes"].to_list()
    put(tmp_path, {"train_meta.csv": "image_id,dim0,dim1\na,100,200\na,16,16\nc,16,16\n"})
    assert vindr_cxr.load(tmp_path)[0]["boxes"].to_list() == expected and vindr_cxr.repairs(tmp_path).is_empty()


def test_boxes_of_kaggles_table_are_placed_by_its_width_and_height(tmp_path):
    rows = [f"b,Cardiomegaly,R{reader},10,20,50,60,100,200" for reader in (1, 2, 3)]
    head = f"image_id,class_name,rad_id,{','.join(vindr_cxr.CORNERS)},width,height"
    put(tmp_path, {"train.csv": "\n".join([head, "a,No finding,R1,0,0,1,1,100,200", *rows])})
    for name in "ab":
        picture(tmp_path / f"train/{name}.png", 16, 16)
    box = {"finding": "Cardiomegaly", "x": 0.1, "y": 0.1, "w": 0.4, "h": 0.2}
    assert vindr_cxr.load(tmp_path)[0]["boxes"].to_list() == [[], [pytest.approx(box)]]


def test_boxes_without_a_size_are_counted_with_a_remedy(tmp_path):
    mirror = reduced_mirror(tmp_path / "vindr_cxr")
    said, fine = registry.check("vindr_cxr", tmp_path)
    assert not fine and "4 boxes of 2 images are left out" in said and "a table *meta*.csv of image_id, dim0" in said
    put(mirror, {"train_meta.csv": "image_id,dim0,dim1\na,200,100\n"})
    said, fine = registry.check("vindr_cxr", tmp_path)
    assert fine and "1 of 3 records have boxes" in said and "1 boxes of 1 images are left out" in said


def test_of_two_sizes_of_an_image_it_is_said_first(tmp_path):
    folder = vindr_folder(tmp_path / "vindr_cxr")
    (folder / "train").rename(folder / "large")
    dicom(folder / "small/a.dicom", rows=100, columns=60)
    (folder / "test/c.dicom").unlink()
    assert "first remedy: 1 images have several files" in registry.check("vindr_cxr", tmp_path)[0]


def test_sizes_of_the_reduced_images_are_not_taken_for_the_originals(tmp_path):
    mirror = put(reduced_mirror(tmp_path), {"train_meta.csv": "image_id,dim0,dim1\na,16,16\nc,16,16\n"})
    with pytest.raises(RecordError, match="1 of 2 images have boxes beyond the sizes that a table gives"):
        vindr_cxr.load(mirror)


def test_boxes_in_fractions_are_refused(tmp_path):
    text = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max\nb,Cardiomegaly,R1,0.1,0.1,0.5,0.6\n"
    with pytest.raises(RecordError, match="train.csv: boxes in fractions of their images, at most 0.6"):
        vindr_cxr.load(put(tmp_path, {"train.csv": text}))
