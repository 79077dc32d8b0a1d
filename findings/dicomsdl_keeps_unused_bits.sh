#!/usr/bin/env bash
# dicomsdl, the fast reader of DICOM, returns unused bits as part of the pixel and loses the sign of 12-bit values.
#
# dicomsdl 0.109.4 beside pydicom 3.0.2 and SimpleITK 2.5.7; seen 2026-11-29.
# Bits Stored 12 in Bits Allocated 16. Where the four upper bits hold something else (old films keep overlays there),
# dicomsdl adds it to the value: 1 becomes 61441. Where Pixel Representation says signed, -1 comes as 4095 and -2048 as
# 2048, so that dark and bright change places. There is no warning; the same film is right where the writer has
# extended the sign into the unused bits. Rescale slopes, also fractional and negative ones, are applied rightly.
# Guessed before: both right, as pydicom and SimpleITK have them.
# Seen:
#   unused bits set   dicomsdl [61440, 61441, 63440, 65440]  pydicom [0, 1, 2000, 4000]  SimpleITK [0, 1, 2000, 4000]
#   signed, 12 bits   dicomsdl [4095, 0, 2048, 2047]  pydicom [-1, 0, -2048, 2047]  SimpleITK [-1, 0, -2048, 2047]
#   sign extended     dicomsdl [-1, 0, -2048, 2047]  pydicom [-1, 0, -2048, 2047]  SimpleITK [-1, 0, -2048, 2047]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    dicomsdl==0.109.4 simpleitk==2.5.7 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import dicomsdl
import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

GREY, SIGNED = [0, 1, 2000, 4000], [-1, 0, -2048, 2047]


def write(values, signed):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.Modality, film.PatientID = DigitalXRayImageStorageForPresentation, "DX", "p"
    film.SOPInstanceUID, film.StudyInstanceUID, film.SeriesInstanceUID = (generate_uid() for _ in range(3))
    film.Rows = film.Columns = 2
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, int(signed)
    film.PixelData = np.array(values, np.uint16).tobytes()
    film.save_as("film.dcm", enforce_file_format=True)


def read():
    return {
        "dicomsdl": dicomsdl.open("film.dcm").pixelData(),
        "pydicom": dcmread("film.dcm").pixel_array,
        "SimpleITK": SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("film.dcm")),
    }


CASES = {
    "unused bits set": ([value | 0xF000 for value in GREY], False, GREY, [61440, 61441, 63440, 65440]),
    "signed, 12 bits": ([value & 0xFFF for value in SIGNED], True, SIGNED, [4095, 0, 2048, 2047]),
    "sign extended": ([value & 0xFFFF for value in SIGNED], True, SIGNED, SIGNED),
}
ok = []
for name, (values, signed, right, expected) in CASES.items():
    write(values, signed)
    seen = {reader: np.asarray(pixels).ravel().astype(int).tolist() for reader, pixels in read().items()}
    print(f"{name:17} " + "  ".join(f"{reader} {pixels}" for reader, pixels in seen.items()))
    ok.append(seen == {"dicomsdl": expected, "pydicom": right, "SimpleITK": right})
sys.exit(not all(ok))
PYTHON
