"""VinDr-PCXR: diagnoses and boxes together give the states; sizes, ages and views come from DICOM headers."""

import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import image_sizes, vindr_pcxr
from tests.sources.layouts import picture

DIAGNOSES = tuple(vindr_pcxr.DIAGNOSES)
BOX_HEADER = "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max\n"


def labels(**images: tuple[str, ...]) -> str:
    """The table of an image -> its diagnoses."""
    rows = [f"{image},R1," + ",".join(str(int(d in listed)) for d in DIAGNOSES) for image, listed in images.items()]
    return "\n".join(["image_id,rad_ID," + ",".join(DIAGNOSES), *rows]) + "\n"


def write(folder, images: str, boxes: str | None = None, split: str = "train"):
    (folder / f"image_labels_{split}.csv").write_text(images)
    if boxes is not None:
        (folder / f"annotations_{split}.csv").write_text(BOX_HEADER + boxes)
    return folder


def write_dicom(path, **elements):
    path.parent.mkdir(exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for name, value in ({"Rows": 200, "Columns": 100} | elements).items():
        setattr(data, name, value)
    pydicom.dcmwrite(path, data)


def test_boxes_are_fractions_of_the_size_in_the_header(tmp_path):
    folder = write(
        tmp_path, labels(a=("Pneumonia",)), "a,R1,Consolidation,10,20,60,120\na,R1,Bronchial thickening,0,0,100,200\n"
    )
    write_dicom(folder / "train/a.dicom", PatientAge="018M", PatientSex="F", ViewPosition="AP")
    row = records.validate(vindr_pcxr.load(folder)[0]).to_dicts()[0]
    boxes = [(box["finding"], *(round(box[k], 4) for k in "xywh")) for box in row["boxes"]]
    assert boxes == [("Consolidation", 0.1, 0.1, 0.5, 0.5), ("Bronchial thickening", 0, 0, 1, 1)]
    assert (row["age"], row["sex"], row["view"]) == (1.5, "F", "AP")
    assert row["labels"] == ["Pneumonia", "Consolidation", "Bronchial thickening"]
    assert (row["Pneumonia"], row["Consolidation"], row["Effusion"], row["No Finding"]) == (1, 1, 0, 0)
    assert row["Lung Opacity"] is None  # consolidation is one
    assert row["Fracture"] is None  # only the clavicle's is looked for
    assert vindr_pcxr.repairs(folder).is_empty()


def test_of_two_files_of_an_image_none_gives_the_size(tmp_path):
    folder = write(tmp_path, labels(a=()), "a,R1,Edema,1,2,3,4\n")
    for place, rows in (("large", 200), ("small", 100)):
        write_dicom(folder / place / "a.dicom", Rows=rows)
    assert vindr_pcxr.load(folder)[0]["boxes"].to_list() == [[]]
    assert vindr_pcxr.repairs(folder)["field"].to_list() == ["boxes"]


def test_without_images_boxes_are_left_out_and_listed(tmp_path):
    folder = write(tmp_path, labels(a=("Pneumonia",), b=("No finding",)), "a,R1,Edema,1,2,3,4\nb,R1,No finding,,,,\n")
    df, _ = vindr_pcxr.load(folder)
    assert df["boxes"].list.len().to_list() == [0, 0] and df["Edema"].to_list() == [1, 0]
    assert df["view"].to_list() == ["FRONTAL"] * 2 and df["age"].null_count() == 2
    assert vindr_pcxr.repairs(folder).select("row", "field", "value").rows() == [
        ("train box:1", "boxes", f"Edema at 1 2 3 4: {image_sizes.UNKNOWN}")
    ]


def test_boxes_of_a_reduced_mirror_are_placed_by_a_table_of_the_originals_sizes(tmp_path):
    folder = write(tmp_path, labels(a=("Pneumonia",)), "a,R1,Edema,10,20,60,120\n")
    picture(folder / "train/a.png", 16, 16)
    (folder / "train_meta.csv").write_text("image_id,dim0,dim1\na,200,100\n")
    assert vindr_pcxr.load(folder)[0]["boxes"].to_list()[0] == [
        pytest.approx({"finding": "Edema", "x": 0.1, "y": 0.1, "w": 0.5, "h": 0.5})
    ]
    (folder / "train_meta.csv").write_text("image_id,dim0,dim1\na,16,16\n")
    with pytest.raises(RecordError, match="1 of 1 images have boxes beyond the sizes"):
        vindr_pcxr.load(folder)


def test_the_size_in_the_header_is_right_whatever_a_table_says(tmp_path):
    folder = write(tmp_path, labels(a=()), "a,R1,Edema,10,20,60,120\n")
    write_dicom(folder / "train/a.dicom")
    (folder / "train_meta.csv").write_text("image_id,dim0,dim1\na,16,16\n")
    assert vindr_pcxr.load(folder)[0]["boxes"].list.len().to_list() == [1]
    (folder / "train_meta.csv").write_text("image_id,dim0,dim1\na,200,100\na,100,200\n")
    (folder / "train/a.dicom").unlink()
    assert vindr_pcxr.load(folder)[0]["boxes"].list.len().to_list() == [0]
    assert vindr_pcxr.repairs(folder)["value"].to_list() == [f"Edema at 10 20 60 120: {image_sizes.DIFFERENT}"]


def test_boxes_whose_corners_are_interchanged_say_nothing_of_the_size(tmp_path):
    folder = write(tmp_path, labels(a=(), b=()), "a,R1,Edema,60,20,10,120\nb,R1,Edema,10,20,60,120\n")
    (folder / "train_meta.csv").write_text("image_id,dim0,dim1\na,200,100\nb,200,100\n")
    assert vindr_pcxr.load(folder)[0]["boxes"].list.len().to_list() == [0, 1]
    assert vindr_pcxr.repairs(folder)["value"].to_list() == ["Edema at 60 20 10 120"]


@pytest.mark.parametrize("edges", ["-1,0,5,5", "0,0,101,5", "5,0,5,5", "a,0,5,5", "0,0,5,"])
def test_boxes_that_leave_the_image(tmp_path, edges):
    folder = write(tmp_path, labels(a=()), f"a,R1,Edema,{edges}\n")
    write_dicom(folder / "train/a.dicom")
    assert records.validate(vindr_pcxr.load(folder)[0])["boxes"].list.len().to_list() == [0]
    assert vindr_pcxr.repairs(folder)["field"].to_list() == ["boxes"]


def test_without_boxes_file_what_only_boxes_show_is_unknown(tmp_path):
    df, _ = vindr_pcxr.load(write(tmp_path, labels(a=("Bronchitis",), b=("No finding",))))
    ill, well = df.to_dicts()
    assert (ill["Effusion"], ill["Lung Lesion"], ill["Pneumonia"], ill["No Finding"]) == (None, None, 0, 0)
    assert (well["Effusion"], well["Lung Lesion"], well["No Finding"]) == (0, 0, 1)


def test_an_image_that_the_table_of_boxes_does_not_list_denies_nothing(tmp_path):
    folder = write(tmp_path, labels(a=("Pneumonia",), b=()), "b,R1,No finding,,,,\nc,R1,Edema,1,2,3,4\n")
    assert vindr_pcxr.load(folder)[0].select("Edema", "Effusion").rows() == [(None, None), (0, 0)]
    assert vindr_pcxr.repairs(folder)["value"].to_list() == [f"Edema at 1 2 3 4: {image_sizes.UNKNOWN}"]
    write(tmp_path, labels(a=("Pneumonia",)), "a.dicom,R1,Edema,1,2,3,4\n")
    assert vindr_pcxr.load(folder)[0].select("Edema", "Effusion").rows() == [(1, 0)]


def test_unknown_box_name_denies_nothing(tmp_path):
    folder = write(tmp_path, labels(a=(), b=()), "a,R1,Haemothorax,1,1,2,2\nb,R1,pleural effusion,1,1,2,2\n")
    df, _ = vindr_pcxr.load(folder)
    assert df["Effusion"].to_list() == [None, 1] and df["Edema"].to_list() == [None, 0]
    assert ("labels", "Haemothorax at 1 1 2 2") in vindr_pcxr.repairs(folder).select("field", "value").rows()


def test_publishers_split(tmp_path):
    write(tmp_path, labels(a=("Lung tumor",)), "")
    write(tmp_path, labels(b=("No finding",)), "", split="test")
    df, _ = vindr_pcxr.load(tmp_path)
    assert df.select("split", "image").rows() == [("train", "train/a.dicom"), ("test", "test/b.dicom")]
    assert df["Lung Lesion"].to_list() == [1, 0]


def test_contradiction_and_damaged_header_are_listed(tmp_path):
    folder = write(tmp_path, labels(a=("No finding", "Pneumonia")), "")
    (folder / "train").mkdir()
    (folder / "train/a.dicom").write_bytes(b"not a DICOM file")
    df, rejects = vindr_pcxr.load(folder)
    assert (df["No Finding"].to_list(), df["Pneumonia"].to_list(), rejects.height) == ([0], [1], 0)
    assert vindr_pcxr.repairs(folder)["field"].to_list() == ["header", "No Finding"]


def test_rejects_add_up(tmp_path):
    text = labels(a=(), b=()) + labels(a=()).splitlines()[1] + "\nc,R1,7" + ",0" * 14 + "\nd,R1\n"
    df, rejects = vindr_pcxr.load(write(tmp_path, text))
    assert df.height + rejects.height == 5
    assert rejects.select("row", "reason").rows() == [
        ("train:3", "duplicate image id"),
        ("train:4", "unknown state No finding '7'"),
        ("train:5", "broken row: wrong number of fields"),
    ]


def test_renamed_column(tmp_path):
    with pytest.raises(RecordError, match="image_labels_train.csv.*CPAM"):
        vindr_pcxr.load(write(tmp_path, labels(a=()).replace("CPAM", "cpam_")))
