#!/usr/bin/env bash
# SimpleITK gives a digital radiograph whose Pixel Spacing is 0.1 mm a spacing of 1.0.
#
# SimpleITK 2.5.7 beside pydicom 3.0.2; seen 2026-11-29.
# Of digital (DX) and computed (CR) radiographs only Imager Pixel Spacing counts: one that gives Pixel Spacing, as
# de-identified releases do, has 1.0 mm a pixel, silently. Where both are given, the spacing at the detector wins over
# the calibrated one at the patient. Of secondary captures it is the reverse, and Nominal Scanned Pixel Spacing counts,
# too. So a heart's width in mm depends on the SOP class that somebody chose when the film was exported.
# Guessed before: Pixel Spacing where it is given, Imager Pixel Spacing where it is not, for every kind.
# Seen (Pixel Spacing 0.1, Imager Pixel Spacing 0.2, Nominal Scanned Pixel Spacing 0.3):
#   kind               Pixel  Imager  both  Nominal
#   DX                 [1.0, 0.2, 0.2, 1.0]
#   CR                 [1.0, 0.2, 0.2, 1.0]
#   secondary capture  [0.1, 1.0, 0.1, 0.3]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

GIVEN = {"PixelSpacing": 0.1, "ImagerPixelSpacing": 0.2, "NominalScannedPixelSpacing": 0.3}
COLUMNS = {
    "Pixel": ["PixelSpacing"],
    "Imager": ["ImagerPixelSpacing"],
    "both": ["PixelSpacing", "ImagerPixelSpacing"],
    "Nominal": ["NominalScannedPixelSpacing"],
}
KINDS = {
    "DX": (DigitalXRayImageStorageForPresentation, [1.0, 0.2, 0.2, 1.0]),
    "CR": (ComputedRadiographyImageStorage, [1.0, 0.2, 0.2, 1.0]),
    "secondary capture": (SecondaryCaptureImageStorage, [0.1, 1.0, 0.1, 0.3]),
}


def spacing(kind, elements):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.Modality, film.PatientID = kind, "DX", "p"
    film.SOPInstanceUID, film.StudyInstanceUID, film.SeriesInstanceUID = (generate_uid() for _ in range(3))
    film.Rows = film.Columns = 2
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    for element in elements:
        setattr(film, element, [GIVEN[element]] * 2)
    film.PixelData = np.arange(4, dtype=np.uint16).tobytes()
    film.save_as("film.dcm", enforce_file_format=True)
    return round(SimpleITK.ReadImage("film.dcm").GetSpacing()[0], 3)


ok = []
print(f"{'kind':18} {'  '.join(COLUMNS)}")
for name, (kind, expected) in KINDS.items():
    seen = [spacing(kind, elements) for elements in COLUMNS.values()]
    print(f"{name:18} {seen}")
    ok.append(seen == expected)
sys.exit(not all(ok))
PYTHON
