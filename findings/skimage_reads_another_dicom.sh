#!/usr/bin/env bash
# skimage.io.imread(FILE) and imageio.v3.imread(FILE) return the pixels of another DICOM file.
#
# imageio 2.38.1, scikit-image 0.26.0; seen 2026-11-29.
# Valid DICOM radiographs lie in one folder, each a series of its own, as every dataset of radiographs is
# stored. Asked for one file, both functions open every file of the folder, sort the series by their UID and
# return the first series: the same radiograph whatever name was passed, with no warning (a count of files is
# printed to stdout). imageio.v2.imread opens the one file and returns it.
# Guessed before: one file is read, by all three.
# Seen:
#   imageio.v2.imread      right pixels for 8 of 8 files, files opened for one: 1
#   imageio.v3.imread      right pixels for 1 of 8 files, files opened for one: 8
#   skimage.io.imread      right pixels for 1 of 8 files, files opened for one: 8
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    imageio==2.38.1 scikit-image==0.26.0 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import contextlib
import io
import os
import sys

import imageio.v2
import imageio.v3
import numpy as np
import skimage.io
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

FILES = 8
os.mkdir("films")
for number in range(FILES):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = DigitalXRayImageStorageForPresentation
    film.SOPInstanceUID = generate_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(), generate_uid()
    film.PatientID, film.Modality, film.InstanceNumber = f"patient{number}", "DX", 1
    film.Rows = film.Columns = 16
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = np.full((16, 16), number, np.uint16).tobytes()
    film.save_as(f"films/{number}.dcm", enforce_file_format=True)

opened = set()


def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".dcm"):
        opened.add(os.path.basename(arguments[0]))


sys.addaudithook(note)
readers = {
    "imageio.v2.imread": imageio.v2.imread,
    "imageio.v3.imread": imageio.v3.imread,
    "skimage.io.imread": skimage.io.imread,
}
seen = {}
for name, read in readers.items():
    right = []
    for number in range(FILES):
        opened.clear()
        with contextlib.redirect_stdout(io.StringIO()):
            right.append(bool((np.asarray(read(f"films/{number}.dcm")) == number).all()))
    seen[name] = sum(right), len(opened)
    print(f"{name:22} right pixels for {sum(right)} of {FILES} files, files opened for one: {len(opened)}")
sys.exit(seen != {"imageio.v2.imread": (8, 1), "imageio.v3.imread": (1, 8), "skimage.io.imread": (1, 8)})
PYTHON
