"""Stand-ins of the datasets with masks, boxes, scores or label sets of their own (Extended Data Tables 2 and 3)."""

import json
from itertools import groupby
from pathlib import Path

import numpy as np
from skimage import measure

from chexgen_lib.rehearsal import files
from chexgen_lib.rehearsal.cases import Case, cases
from chexgen_lib.rehearsal.stage1 import CORNERS, corners, table
from chexgen_lib.sources import chest_dr as chest_dr_reader
from chexgen_lib.sources import chestx_det as chestx_det_reader
from chexgen_lib.sources import vindr_cxr as vindr_cxr_reader
from chexgen_lib.sources import vindr_ribcxr as ribs_reader

# First numbers of patients whose hash leaves every split enough cases for an estimate (`records.assign_splits`).
SIIM_ACR_PTX, RALO = 7100, 300
FRAME = 1024  # px, the side in which the masks of SIIM-ACR, CANDID-PTX and ChestX-Det are given


def relative_runs(mask: np.ndarray) -> str:
    """A mask [S, S] as SIIM-ACR writes it in a frame of 1024 px; "-1" where it marks nothing."""
    if not mask.any():
        return "-1"
    at = (np.arange(FRAME) * len(mask) // FRAME).astype(int)
    flat = mask[np.ix_(at, at)].T.ravel()  # down the columns
    lengths = [(marked, len(list(run))) for marked, run in groupby(flat)]
    lengths = lengths if not lengths[0][0] else [(False, 0), *lengths]
    return " ".join(str(length) for _, length in (lengths if lengths[-1][0] else lengths[:-1]))


def outline(mask: np.ndarray, size: int) -> list[list[float]]:
    """The longest outline of a mask [S, S] as corners (x, y) in pixels of a picture of `size` px."""
    found = measure.find_contours(np.pad(mask, 1).astype(float), 0.5)
    points = measure.approximate_polygon(max(found, key=len), 0.5)[:-1] - 1  # the last corner is the first
    scaled = np.clip((points[:, ::-1] + 0.5) * size / len(mask), 0, size)
    return np.round(scaled, 1).tolist()


def siim_acr_ptx(folder: Path) -> None:
    """DICOM with baseline JPEG, masks as relative run lengths; the competition's second-stage table."""
    rows = []
    for case in cases("siim_acr_ptx", 64, ["Pneumothorax", "Effusion"]):
        name = f"1.2.276.0.7230010.3.1.4.8323329.{SIIM_ACR_PTX + case.number}.1517875201"
        files.dicom(folder / f"dicom-images-train/{name}/{name}.dcm", files.enlarged(case.picture.image, 256), "jpeg")
        rows.append([name, relative_runs(_mask(case, "Pneumothorax"))])
    table(folder / "stage_2_train.csv", "ImageId,EncodedPixels", rows)


def candid_ptx(folder: Path) -> None:
    """DICOM files without a suffix, three tables of run lengths, reports."""
    reports, tubes, fractures = [], [], []
    for case in cases("candid_ptx", 18, ["Pneumothorax", "Support Devices", "Fracture"]):
        name = f"1.2.826.0.1.{case.number}"
        files.dicom(folder / f"dataset/{name}", files.enlarged(case.picture.image, 256))
        file = f"P{case.number:04}_2010_01.dcm"
        runs = [relative_runs(_mask(case, f)) for f in ("Pneumothorax", "Support Devices", "Fracture")]
        reports.append([f"study.{case.number}", name, file, runs[0], case.impression])
        tubes += [[name, "a", runs[1]]] if runs[1] != "-1" else []
        fractures += [[name, "a", runs[2]]] if runs[2] != "-1" else []
    columns = ["StudyInstanceUID", "SOPInstanceUID", "filename", "EncodedPixels", "Report"]
    table(folder / "Pneumothorax_reports.csv", columns, reports)
    for file, rows in (("chest_tube.csv", tubes), ("acute_rib_fracture.csv", fractures)):
        table(folder / file, ["anon_SOPUID", "annotation_ref", "mask_rle"], rows)


def vindr_ribcxr(folder: Path) -> None:
    """PNGs of 8 bits; a JSON file for each set with an outline for each of 20 ribs."""
    made = cases("vindr_ribcxr", 44, ["Effusion", "Cardiomegaly"])
    for split, own in (("train", made[:32]), ("val", made[32:])):
        content: dict[str, dict] = {"img": {}} | {rib: {} for rib in ribs_reader.RIBS}
        for number, case in enumerate(own):
            name = f"VinDr_RibCXR_{split}_{number:03}.png"
            files.png(folder / f"{split}/img/{name}", files.enlarged(case.picture.image, 256))
            content["img"][str(number)] = f"data/{split}/img/{name}"
            drawn = _ribs(case.picture.masks["ribs"])
            for rib in ribs_reader.RIBS:
                points = [{"x": x, "y": y} for x, y in outline(drawn[rib], 256)] if rib in drawn else "None"
                content[rib][str(number)] = points
        files.text(folder / f"{split}/Vindr_RibCXR_{split}_mask.json", json.dumps(content))


def _ribs(mask: np.ndarray) -> dict[str, np.ndarray]:
    """The connected parts of a mask of ribs, named from above; the patient's right is the picture's left."""
    parts = [part for part in measure.regionprops(measure.label(mask)) if part.area >= 8]
    found: dict[str, np.ndarray] = {}
    for part in parts:  # `regionprops` begins above
        side = "R" if part.centroid[1] < mask.shape[1] / 2 else "L"
        rib = next((r for r in ribs_reader.RIBS if r[0] == side and r not in found), None)
        if rib:
            found[rib] = np.zeros_like(mask)
            found[rib][tuple(part.coords.T)] = True
    return found


def object_cxr(folder: Path) -> None:
    """JPEGs; boxes, ellipses and polygons of foreign objects in a text of the table."""
    made = cases("object_cxr", 48, ["Support Devices", "Effusion"])
    for split, own in (("train", made[:36]), ("dev", made[36:])):
        rows = []
        for number, case in enumerate(own):
            files.jpg(folder / f"{split}/{number:05}.jpg", files.enlarged(case.picture.image, 240, 10))
            boxes = [box for box in case.picture.boxes if box["finding"] == "Support Devices"]
            shapes = [(i % 2, corners(box, 240, 10)) for i, box in enumerate(boxes, start=number)]
            said = ";".join(f"{kind} {' '.join(str(int(v)) for v in box)}" for kind, box in shapes)
            rows.append([f"{number:05}.jpg", said])
        table(folder / f"{split}.csv", ["image_name", "annotation"], rows)


def chestx_det(folder: Path) -> None:
    """PNGs of 8 bits; JSON lists with a box and an outline for each label.

    Labels that no rendered finding means (emphysema, fibrosis, ...) take turns on the lungs of every third case.
    """
    labels = {finding: label for label, finding in reversed(chestx_det_reader.FINDING_OF.items()) if finding}
    others = [label for label, finding in chestx_det_reader.FINDING_OF.items() if finding is None]
    made = cases("chestx_det", 60, list(labels))
    for split, own in (("train", made[:44]), ("test", made[44:])):
        items = []
        for case in own:
            name = f"{case.number + 30000}.png"
            files.png(folder / f"{split}/{name}", files.enlarged(case.picture.image, 256))
            shown = [box for box in case.picture.boxes if box["finding"] in labels]
            item = {"file_name": name, "syms": [labels[box["finding"]] for box in shown]}
            item["boxes"] = [[round(v) for v in corners(box, FRAME, 0)] for box in shown]
            item["polygons"] = [outline(_mask(case, box["finding"]), FRAME) for box in shown]
            if case.number % 3 == 1:
                item["syms"].append(others[case.number // 3 % len(others)])
                item["polygons"].append(outline(_mask(case, "lungs"), FRAME))
                x, y = zip(*item["polygons"][-1], strict=True)
                item["boxes"].append([min(x), min(y), max(x), max(y)])
            items.append(item)
        files.text(folder / f"ChestX_Det_{split}.json", json.dumps(items))


def ralo(folder: Path) -> None:
    """JPEGs by row number; two readers' scores below a line that names the readers."""
    rows = []
    for case in cases("ralo", 48, ["Lung Opacity", "Consolidation", "Edema"], views=("AP",)):
        files.jpg(folder / f"CXR_images_scored/{case.number}.jpg", files.enlarged(case.picture.image, 224, 10))
        share = max(case.picture.severity.get(f, 0.0) for f in ("Lung Opacity", "Consolidation", "Edema"))
        scores = []
        for more in (0, case.number % 2):  # the second reader sees a little more in every other film
            total = min(8, round(8 * share) + more * (share > 0))
            right, left = (total + 1) // 2, total // 2
            scores += [right, right, left, left, total, total, ""]
        rows.append([f"A{RALO + case.number}", f"20200401_{case.number:06}", *scores, 0, 0])
    names = [f"{place} {kind}" for place in ("Right", "Left", "Total") for kind in ("GEOGRAPHIC", "OPACITY")]
    header = ",,Reader 1,,,,,,,Reader 2,,,,,,,,\n"
    header += ",".join(["Subject_ID", "Exam_DateTime", *[*names, "Notes"] * 2, "Delta Geo-total", "Delta Opa total"])
    table(folder / "ralo-dataset-metadata.csv", header, rows)


def vindr_cxr(folder: Path) -> None:
    """DICOM with lossless JPEG 2000, every third a negative; three readers of training images, one of test images."""
    boxed = {f: label for label, f in reversed(vindr_cxr_reader.FINDING_OF.items()) if f}
    made = cases("vindr_cxr", 84, [finding for finding in boxed if finding != "No Finding"])
    wide = [*vindr_cxr_reader._BOXED, *vindr_cxr_reader._RELEASED]
    for split, own in (("train", made[:60]), ("test", made[60:])):
        readers = [[reader] for reader in ("R8", "R9", "R10")] if split == "train" else [[]]
        boxes, named = [], []
        for case in own:
            name = f"{case.number:032x}"
            image, negative = files.enlarged(case.picture.image, 192, 12), case.number % 3 == 0
            files.dicom(folder / f"{split}/{name}.dicom", image, "jpeg2000", negative, PatientSex=case.record["sex"])
            drawn = [(boxed[b["finding"]], corners(b, 192, 12)) for b in case.picture.boxes if b["finding"] in boxed]
            labels = {label for label, _ in drawn} or {"No finding"}
            for reader in readers:
                rows = [[name, label, *reader, *box] for label, box in drawn]
                boxes += rows or [[name, "No finding", *reader, *[""] * 4]]
                named.append([name, *reader, *(int(label in labels) for label in wide), 0])
        rad_id = ["rad_id"] * len(readers[0])
        table(folder / f"annotations/annotations_{split}.csv", ["image_id", "class_name", *rad_id, *CORNERS], boxes)
        header = ["image_id", *rad_id, *wide, vindr_cxr_reader._SPELLINGS[split]]
        table(folder / f"annotations/image_labels_{split}.csv", header, named)


def chest_dr(folder: Path) -> None:
    """PNGs of 8 bits, 19 labels; lists of the official 1-, 5- and 10-shot training sets, five draws of each."""
    labels = list(chest_dr_reader.FINDING_OF)
    rendered = [f for f in dict.fromkeys(chest_dr_reader.FINDING_OF.values()) if f]
    made = cases("chest_dr", 108, rendered, ("AP", "PA"))
    rows = [_chest_dr_row(case, labels) for case in made]
    for case, row in zip(made, rows, strict=True):
        files.png(folder / f"images/{row[0]}", files.enlarged(case.picture.image, 224, 12))
    table(folder / "chest_train.csv", ["img_id", "study", *labels], rows[:78])
    table(folder / "chest_test_WithLabel.csv", ["img_id", "study", *labels], rows[78:])
    for shots in (1, 5, 10):
        for draw in range(1, 6):
            text = "\n".join(_shots(rows[:44], len(labels), shots, draw))  # the others are validated on
            files.text(folder / f"chest_{shots}-shot_train_exp{draw}.txt", text)


def _chest_dr_row(case: Case, labels: list[str]) -> list[str | int]:
    """Labels that no rendered finding means go to every seventh case in turn, tuberculosis to every fourth as well."""
    others = [label for label in labels if chest_dr_reader.FINDING_OF[label] is None]
    extra = {others[case.number // 7 % len(others)]} if case.number % 7 == 0 else set()
    extra |= {"TB"} if case.number % 4 == 1 else set()
    shown = [chest_dr_reader.FINDING_OF[name] in case.findings or name in extra for name in labels]
    return [f"DX.1.2.{case.number}.png", f"study{case.number}", *map(int, shown)]


def _shots(rows: list[list], n_labels: int, shots: int, draw: int) -> list[str]:
    """Lines of a list of few shots: for each label up to `shots` images that show it, and all labels of each image."""
    chosen: dict[str, list] = {}
    for label in range(n_labels):
        showing = [row for row in rows if row[2 + label]]
        for i in range(min(shots, len(showing))):
            row = showing[(i + draw) % len(showing)]
            chosen[row[0]] = row
    return [f"{name} {','.join(str(v) for v in row[2:])}" for name, row in chosen.items()]


def _mask(case: Case, finding: str) -> np.ndarray:
    mask = case.picture.masks.get(finding)
    return np.zeros_like(case.picture.masks["lungs"]) if mask is None else mask


def lung_masks(folder: Path) -> None:
    """A folder of films with lung masks, as the setting `annotation_to_image.lung_masks` names one; it may be there."""
    if folder.is_dir():
        return
    for case in cases("lung_masks", 20, ["Effusion", "Cardiomegaly"]):
        name = f"P{case.number:07}.png"
        files.png(folder / "images" / name, case.picture.image)
        files.png(folder / "masks" / name, case.picture.masks["lungs"].astype(np.float32))
