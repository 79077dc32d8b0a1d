"""Small datasets with masks, boxes or scores in their publishers' layouts, and what tests ask of a reader's tables."""

import io
import json
import zipfile
from pathlib import Path

import polars as pl
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from chexgen_lib import records
from chexgen_lib.sources import chest_dr, vindr_cxr, vindr_ribcxr

SIIM = """ImageId, EncodedPixels
1.2.276.850819,-1
1.2.276.247117,557374 2 1015 8
1.2.276.247117,0 3
1.2.276.246952,514175 10 1008 29
"""

CANDID = {
    "Pneumothorax_reports.csv": """StudyInstanceUID,SOPInstanceUID,filename,EncodedPixels,Report
st.1,1.2.826.1,P0001_2010_01.dcm,0 3,"Left apical
pneumothorax, drain in place"
st.1,1.2.826.1,P0001_2010_01.dcm,10 2,again
st.2,1.2.826.2,P0002_2011_02.dcm,-1,Normal
""",
    "chest_tube.csv": "anon_SOPUID,annotation_ref,mask_rle\n1.2.826.1,a,2048 5\n",
    "acute_rib_fracture.csv": "anon_SOPUID,annotation_ref,mask_rle\n1.2.826.2,b,4096 5\n1.2.826.9,c,0 1\n",
}


def ribs(split: str) -> str:
    """Two images: all ribs of the first are the same square, of the second only R1 is drawn."""
    square = [{"x": x, "y": y} for x, y in ((1.5, 1.5), (10.25, 1.5), (10.25, 8.0), (1.5, 8.0))]
    names = {str(i): f"data/{split}/img/VinDr_RibCXR_{split}_{i:03}.png" for i in (0, 1)}
    return json.dumps(
        {"img": names} | {r: {"0": square, "1": square if r == "R1" else "None"} for r in vindr_ribcxr.RIBS}
    )


OBJECTS = {
    "train.csv": "image_name,annotation\n00001.jpg,0 10 5 30 15;1 0 0 8 8;2 1 1 9 1 5 9\n00002.jpg,\n",
    "dev.csv": "image_name,annotation\n00001.jpg,2 0 0 40 0 40 20\n",
}

CHESTX_DET = {
    "ChestX_Det_train.json": json.dumps(
        [
            {
                "file_name": "36302.png",
                "syms": ["Effusion", "Emphysema"],
                "boxes": [[512, 256, 1024, 512], [0, 0, 64, 64]],
                "polygons": [[[512, 256], [1024, 256], [1024, 512]], [[0, 0], [64, 0], [64, 64], [0, 64]]],
            },
            {"file_name": "36199.png", "syms": [], "boxes": [], "polygons": []},
        ]
    ),
    "ChestX_Det_test.json": json.dumps(
        [{"file_name": "7.png", "syms": ["Nodule"], "boxes": [[339, 575, 386, 625]], "polygons": [[[364, 581]] * 3]}]
    ),
}

RALO = """,,Reader 1,,,,,,,Reader 2,,,,,,,,
Subject_ID,Exam_DateTime,Right GEOGRAPHIC,Right OPACITY,Left GEOGRAPHIC,Left OPACITY,Total GEOGRAPHIC,Total OPACITY,\
Notes,Right GEOGRAPHIC,Right OPACITY,Left GEOGRAPHIC,Left OPACITY,Total GEOGRAPHIC,Total OPACITY,Notes,Delta Geo-total,\
Delta Opa total
A1,20200401_101500,2,1,2,1,4,2,,3,2,3,2,6,4,,2,2
A1,20200402_101500,0,0,0,0,0,0,,0,0,0,0,0,0,clear,0,0
A2,20200403_101500,0,0,0,0,0,0,,1,1,0,0,1,1,"subtle,
left",1,1
A3,20200404_101500,0,0,0,0,,0,,1,1,0,0,1,1,,1,1
"""

VINDR_LABELS = [*vindr_cxr._BOXED, *vindr_cxr._RELEASED]


def image_labels(split: str, *rows: tuple[str, str, set[str]]) -> str:
    """The publisher's wide table: an image, a reader (train only) and the labels that are 1."""
    labels = [*VINDR_LABELS, "Other diseases" if split == "train" else "Other disease"]
    lines = [",".join(["image_id", *["rad_id"] * (split == "train"), *labels])]
    for image, reader, named in rows:
        lines.append(",".join([image, *[reader] * (split == "train"), *(str(int(name in named)) for name in labels)]))
    return "\n".join(lines) + "\n"


VINDR = {
    "annotations/annotations_train.csv": """image_id,rad_id,class_name,x_min,y_min,x_max,y_max
a,R1,Pleural effusion,10,20,50,60
a,R2,Pleural effusion,14,20,54,60
a,R3,Nodule/Mass,80,80,90,90
b,R1,No finding,,,,
b,R2,No finding,,,,
b,R3,No finding,,,,
""",
    "annotations/image_labels_train.csv": image_labels(
        "train",
        ("a", "R1", {"Pneumonia", "Pleural effusion"}),
        ("a", "R2", {"Pneumonia"}),
        ("a", "R3", {"Other diseases"}),
    ),
    "annotations/annotations_test.csv": "image_id,class_name,x_min,y_min,x_max,y_max\nc,Rib fracture,1,2,11,12\n",
    "annotations/image_labels_test.csv": image_labels("test", ("c", "", {"Rib fracture", "Other disease"})),
}

CHEST_DR = {
    "chest_train.csv": ",".join(["img_id", "study", *chest_dr.FINDING_OF])
    + "\nDX.1.2.png,s,1,0,0,0,0,0,0,0,0,1,0,0,1,0,0,0,0,0,0\n5C2E.png,t,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0\n",
    "chest_test_WithLabel.csv": ",".join(["img_id", "study", *chest_dr.FINDING_OF]) + "\n5CF8.png,u" + ",0" * 19 + "\n",
}


def support_set(shots: int, draw: int, *images: str) -> dict[str, str]:
    """A file of MedFMC's `data_anns`: images and their 19 labels."""
    lines = [f"{image} {','.join('1' + '0' * 18)}\n" for image in images]
    return {f"chest_{shots}-shot_train_exp{draw}.txt": "".join(lines)}


def picture(path: Path, width: int = 40, height: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((width, height)).save(path)


def dicom(path: Path, rows: int, columns: int) -> None:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = rows, columns
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = Image.linear_gradient("L").resize((columns, rows)).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path)


def put(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def rib_folder(folder: Path) -> Path:
    for split in ("train", "val"):
        put(folder, {f"{split}/Vindr_RibCXR_{split}_mask.json": ribs(split)})
        for number in (0, 1):
            picture(folder / f"{split}/img/VinDr_RibCXR_{split}_{number:03}.png")
    return folder


def object_folder(folder: Path) -> Path:
    for name in ("train/00001.jpg", "train/00002.jpg", "dev/00001.jpg"):
        picture(folder / name)
    return put(folder, OBJECTS)


def vindr_folder(folder: Path) -> Path:
    dicom(folder / "train/a.dicom", rows=200, columns=100)
    dicom(folder / "test/c.dicom", rows=20, columns=20)
    return put(folder, VINDR)


def by_id(table: pl.DataFrame) -> dict[str, dict]:
    return {row["image_id"]: row for row in records.validate(table).to_dicts()}


def reasons(rejects: pl.DataFrame) -> dict[str, str]:
    return dict(rejects.select("row", "reason").iter_rows())


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__MACOSX_", "__MACOSX/"), text)
    return buffer.getvalue()
