"""Datasets of a dozen images and more, in their publishers' layouts, that a network can be trained on.

What is to be seen is bright: so a few steps on a few images suffice.
"""

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from chexgen_lib.sources import chest_dr, nih
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
    if path.suffix not in (".dcm", ".dicom", ""):
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
