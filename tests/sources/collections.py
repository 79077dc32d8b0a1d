"""Datasets of a dozen images and more, in their publishers' layouts, that a network can be trained on.

What is to be seen is bright: so a few steps on a few images suffice.
"""

import json
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from chexgen_lib.sources import chest_dr, nih, vindr_ribcxr
from tests.sources.layouts import image_labels, put, support_set

SIDE = 40  # pixels of an image


def film(number: int, ill: bool, width: int = SIDE) -> np.ndarray:
    """uint8 [SIDE, width]: noise, and a bright disc where it is ill."""
    pixels = np.random.default_rng(number).normal(90, 8, (SIDE, width))
    y, x = np.mgrid[:SIDE, :width]
    pixels[(y - 20) ** 2 + (x - width // 2) ** 2 < 60] += 120 * ill
    return np.clip(pixels, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    """An image file of the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(pixels).save(path)
        return
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, pixels.tobytes()
    data.save_as(path)


def vindr(folder: Path, train: int = 30, test: int = 12) -> Path:
    """VinDr-CXR: every second image has an effusion, which all readers see; one of them also an ILD."""
    labels = {}
    for split, n, readers in (("train", train, ("R1", "R2", "R3")), ("test", test, ("",))):
        rows = []
        for i in range(n):
            save(folder / f"{split}/{split}{i}.dicom", film(i, i % 2 == 1))
            named = {"Pleural effusion"} if i % 2 else {"No finding"}
            rows += [(f"{split}{i}", r, named | ({"ILD"} if r == "R1" and i % 4 == 1 else set())) for r in readers]
        labels[f"annotations/image_labels_{split}.csv"] = image_labels(split, *rows)
        reader = ",rad_id" if split == "train" else ""
        labels[f"annotations/annotations_{split}.csv"] = f"image_id{reader},class_name,x_min,y_min,x_max,y_max\n"
    return put(folder, labels)


def chest_dr_folder(folder: Path, train: int = 30, test: int = 12, draws: int = 2) -> Path:
    """MedFMC ChestDR: every second image has a tuberculosis; support sets of 1 and 5 shots."""
    tables = {}
    for name, n in (("chest_train.csv", train), ("chest_test_WithLabel.csv", test)):
        lines = [",".join(["img_id", "study", *chest_dr.LABELS])]
        for i in range(n):
            image = f"{name[6:8]}{i}.png"
            save(folder / "images" / image, film(i, i % 2 == 1))
            lines.append(",".join([image, "s", *(str(int(label == "TB" and i % 2)) for label in chest_dr.LABELS)]))
        tables[name] = "\n".join(lines) + "\n"
    put(folder, tables)
    for shots in (1, 5):
        for draw in range(1, draws + 1):
            chosen = [f"tr{i}.png" for i in range(2 * draw, 2 * draw + 2 * shots)]
            put(folder / "MedFMC", support_set(shots, draw, *chosen))
    return folder


def nih_folder(folder: Path, n: int = 30) -> Path:
    """NIH ChestX-ray14: every second image has an effusion, every fifth is tested on."""
    lines = [",".join(nih.COLUMNS)]
    for i in range(n):
        save(folder / f"images/{i:08}_000.png", film(i, i % 2 == 1))
        lines.append(f"{i:08}_000.png,{'Effusion' if i % 2 else 'No Finding'},{i:08},60,M,PA")
    tested = {i for i in range(n) if i % 5 == 4 or i % 5 == 3}
    lists = {"test_list.txt": tested, "train_val_list.txt": set(range(n)) - tested}
    names = {name: "".join(f"{i:08}_000.png\n" for i in sorted(rows)) for name, rows in lists.items()}
    return put(folder, {"Data_Entry_2017_v2020.csv": "\n".join(lines) + "\n"} | names)


def rle(frame: int, top: int, left: int, side: int) -> str:
    """A square in a frame, as SIIM-ACR writes it: down the columns, each offset counted from the previous run's end."""
    first = left * frame + top
    return " ".join([f"{first} {side}", *[f"{frame - side} {side}"] * (side - 1)])


PNEUMOTHORAX = rle(1024, 400, 400, 224)


def siim(folder: Path, n: int = 20) -> Path:
    """SIIM-ACR Pneumothorax: every second image has one."""
    for i in range(n):
        save(folder / f"dicom-images-train/1.2.{i}/1.3.{i}.dcm", film(i, i % 2 == 1))
    lines = [f"1.3.{i}, {PNEUMOTHORAX if i % 2 else -1}\n" for i in range(n)]
    return put(folder, {"train-rle.csv": "ImageId, EncodedPixels\n" + "".join(lines)})


def candid(folder: Path, n: int = 12) -> Path:
    """CANDID-PTX: as SIIM-ACR; no chest tube and no rib fracture."""
    header, lines = "StudyInstanceUID,SOPInstanceUID,filename,EncodedPixels,Report", []
    for i in range(n):
        save(folder / f"dataset/1.9.{i}", film(100 + i, i % 2 == 1))
        lines.append(f"st.{i},1.9.{i},P{i:04}_2010_01.dcm,{PNEUMOTHORAX if i % 2 else -1},Report.")
    others = dict.fromkeys(("chest_tube.csv", "acute_rib_fracture.csv"), "anon_SOPUID,annotation_ref,mask_rle\n")
    return put(folder, {"Pneumothorax_reports.csv": "\n".join([header, *lines]) + "\n"} | others)


def ribs(folder: Path, train: int = 14, test: int = 6) -> Path:
    """VinDr-RibCXR: two ribs of each image are drawn, in an image that is wider than high."""
    for split, n in (("train", train), ("val", test)):
        names, drawn = {}, {rib: dict.fromkeys(map(str, range(n)), "None") for rib in vindr_ribcxr.RIBS}
        for i in range(n):
            name = f"VinDr_RibCXR_{split}_{i:03}.png"
            save(folder / f"{split}/img/{name}", film(i, True, 60))
            names[str(i)] = f"data/{split}/img/{name}"
            for rib, top in (("R1", 14), ("L10", 22)):
                corners = ((24, top), (36, top), (36, top + 4), (24, top + 4))
                drawn[rib][str(i)] = [{"x": x, "y": y} for x, y in corners]
        put(folder / split, {f"Vindr_RibCXR_{split}_mask.json": json.dumps({"img": names} | drawn)})
    return folder


def objects(folder: Path, train: int = 16, test: int = 8) -> Path:
    """Object-CXR: every second image has a foreign object, in a box or an ellipse."""
    for split, n in (("train", train), ("dev", test)):
        lines = ["image_name,annotation"]
        for i in range(n):
            save(folder / f"{split}/{i:05}.jpg", film(i, i % 2 == 1))
            lines.append(f"{i:05}.jpg,{f'{i // 2 % 2} 12 12 28 28' if i % 2 else ''}")
        put(folder, {f"{split}.csv": "\n".join(lines) + "\n"})
    return folder


def chestx_det(folder: Path, train: int = 16, test: int = 8) -> Path:
    """ChestX-Det: every second image has an effusion, every fourth an emphysema, the others nothing."""
    left, top, right, bottom = 300, 300, 724, 724
    outline = [[left, top], [right, top], [right, bottom], [left, bottom]]
    for split, n, first in (("train", train, 36000), ("test", test, 50000)):
        items = []
        for i in range(n):
            save(folder / f"{split}/{first + i}.png", film(i, i % 2 == 1))
            names = {1: ["Effusion"], 3: ["Effusion", "Emphysema"]}.get(i % 4, [])
            marks = {"boxes": [[left, top, right, bottom]] * len(names), "polygons": [outline] * len(names)}
            items.append({"file_name": f"{first + i}.png", "syms": names} | marks)
        put(folder, {f"ChestX_Det_{split}.json": json.dumps(items)})
    return folder


def ralo(folder: Path, n: int = 30) -> Path:
    """RALO: every second image is scored 4 of 8, the others 0."""
    scores = "Right GEOGRAPHIC,Right OPACITY,Left GEOGRAPHIC,Left OPACITY,Total GEOGRAPHIC,Total OPACITY,Notes"
    lines = [",,Reader 1,,,,,,,Reader 2,,,,,,,,", f"Subject_ID,Exam_DateTime,{scores},{scores},Delta Geo-total,Delta"]
    for i in range(n):
        save(folder / f"CXR_images_scored/{i}.jpg", film(i, i % 2 == 1))
        half, whole = 2 * (i % 2), 4 * (i % 2)
        lines.append(f"A{i},20200401_1{i:05},{','.join([f'{half},{half},{half},{half},{whole},{whole},'] * 2)},0,0")
    return put(folder, {"ralo-dataset-metadata.csv": "\n".join(lines) + "\n"})
