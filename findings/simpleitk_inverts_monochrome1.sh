#!/usr/bin/env bash
# SimpleITK inverts MONOCHROME1 before the rescale and still reports MONOCHROME1.
#
# SimpleITK 2.5.7 beside pydicom 3.0.2 and imageio 2.38.1; seen 2026-11-29.
# Stored values 0, 1, 2000 in 12 bits. SimpleITK returns 4095 - x (not the range of the data), while pydicom and
# imageio return x. The metadata of the SimpleITK image still says MONOCHROME1, so code that inverts by that
# element turns the film back into a negative. The inversion comes before the rescale: with slope -1 and
# intercept 4095 the two cancel.
# Written again by SimpleITK, the file says MONOCHROME2 with inverted values.
# Guessed before: SimpleITK leaves the values as stored, as pydicom does.
# Seen:
#   pydicom                     [0, 1, 2000]
#   imageio.v2                  [0, 1, 2000]
#   SimpleITK                   [4095, 4094, 2095]
#   SimpleITK's metadata        MONOCHROME1
#   SimpleITK, slope 0.5        [2047.5, 2047.0, 1047.5]
#   SimpleITK, slope -1 + 4095  [0, 1, 2000]
#   written again, pydicom      [4095, 4094, 2095]
#   written again, says         MONOCHROME2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    simpleitk==2.5.7 pydicom==3.0.2 imageio==2.38.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import sys

import imageio.v2
import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

VALUES = np.array([[0, 1], [2000, 2000]], np.uint16)


def write(path, slope="1", intercept="0"):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = DigitalXRayImageStorageForPresentation
    film.SOPInstanceUID, film.StudyInstanceUID, film.SeriesInstanceUID = (generate_uid() for _ in range(3))
    film.PatientID, film.Modality, film.InstanceNumber = "p", "DX", 1
    film.Rows, film.Columns = VALUES.shape
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME1"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.RescaleSlope, film.RescaleIntercept = slope, intercept
    film.PixelData = VALUES.tobytes()
    film.save_as(path, enforce_file_format=True)


def three(pixels):
    return np.asarray(pixels).ravel()[:3].tolist()


def by_simpleitk(path):
    return three(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)))


write("film.dcm")
reader = SimpleITK.ImageFileReader()
reader.SetFileName("film.dcm")
image = reader.Execute()
SimpleITK.WriteImage(image, "again.dcm")
again = dcmread("again.dcm")
write("half.dcm", slope="0.5")
write("negative.dcm", slope="-1", intercept="4095")
seen = {
    "pydicom": three(dcmread("film.dcm").pixel_array),
    "imageio.v2": three(imageio.v2.imread("film.dcm")),
    "SimpleITK": by_simpleitk("film.dcm"),
    "SimpleITK's metadata": reader.GetMetaData("0028|0004").strip(),
    "SimpleITK, slope 0.5": by_simpleitk("half.dcm"),
    "SimpleITK, slope -1 + 4095": by_simpleitk("negative.dcm"),
    "written again, pydicom": three(again.pixel_array),
    "written again, says": again.PhotometricInterpretation,
}
for name, value in seen.items():
    print(f"{name:27} {value}")
stored, inverted = [0, 1, 2000], [4095, 4094, 2095]
sys.exit(
    list(seen.values())
    != [stored, stored, inverted, "MONOCHROME1", [2047.5, 2047.0, 1047.5], stored, inverted, "MONOCHROME2"]
)
PYTHON
