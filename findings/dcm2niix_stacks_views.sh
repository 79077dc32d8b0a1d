#!/usr/bin/env bash
# dcm2niix makes one volume of the views of a chest study, and films of another kind are read as if they were the first.
#
# dcm2niix 1.0.20260724 (written by pydicom 3.0.2, read by nibabel 5.4.2); seen 2026-12-01.
# Digital radiographs have no place in space. Two that share series and size become one file of two "slices", PA and
# lateral, whatever else says that they differ: view, pixel spacing, photometric interpretation, bits. The header of the
# first film goes for all: the other one has a spacing that is not its own, a negative lies beside a positive, and of 16
# bits after 12 the upper 4 are gone (40000 comes as 3136). Imager Pixel Spacing, the one that a digital radiograph
# must have, is not read: a pixel is 1.0 mm. dcm2niix warns of an unknown slice direction and returns 0. The option
# -m n, that slices are not merged, changes nothing.
# Guessed before: a file for each film, with its own values and spacing, also from Imager Pixel Spacing.
# Seen (every pixel of the first film is 1000, of the second 2000, of the one in 16 bits 40000):
#   PA and lateral      2 films, 1 file: 1.0 mm, [1000, 2000]
#   asked not to merge  2 films, 1 file: 1.0 mm, [1000, 2000]
#   0.1 and 0.2 mm      2 films, 1 file: 0.1 mm, [1000, 2000]
#   0.2 and 0.1 mm      2 films, 1 file: 0.2 mm, [1000, 2000]
#   a negative          2 films, 1 file: 1.0 mm, [1000, 2000]
#   12 and 16 bits      2 films, 1 file: 1.0 mm, [1000, 3136]
#   16 bits alone       1 film,  1 file: 1.0 mm, [40000]
#   Imager alone, 0.2   1 film,  1 file: 1.0 mm, [1000]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
    dcm2niix==1.0.20260724 pydicom==3.0.2 nibabel==5.4.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import pathlib
import subprocess
import sys

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def write(path, number, study, series, value, **elements):
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID, film.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    film.StudyInstanceUID, film.SeriesInstanceUID = study, series
    film.PatientID, film.Modality, film.SeriesNumber, film.InstanceNumber = "p", "DX", 1, number
    film.StudyDate, film.StudyTime = "20200101", "101010"
    film.Rows, film.Columns = 3, 4
    film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 16, 12, 11, 0
    film.PixelData = np.full((3, 4), value, np.uint16).tobytes()
    for element, given in elements.items():
        setattr(film, element, given)
    film.save_as(path, enforce_file_format=True)


def convert(name, films, *options):
    """Return (spacing, value of each slice) of every file that dcm2niix makes of one series."""
    inside, out = pathlib.Path(name, "in"), pathlib.Path(name, "out")
    inside.mkdir(parents=True)
    out.mkdir()
    study, series = generate_uid(), generate_uid()
    for number, film in enumerate(films, 1):
        write(inside / f"{number}.dcm", number, study, series, **film)
    command = [pathlib.Path(sys.executable).with_name("dcm2niix"), "-b", "n", *options, "-o", out, inside]
    subprocess.run(command, check=True, capture_output=True)
    volumes = [nibabel.load(path) for path in sorted(out.glob("*.nii"))]
    return [
        (round(float(volume.header.get_zooms()[0]), 3), np.unique(np.asarray(volume.dataobj)).astype(int).tolist())
        for volume in volumes
    ]


pa, lateral = {"value": 1000, "ViewPosition": "PA"}, {"value": 2000, "ViewPosition": "LL"}
small, large = {"PixelSpacing": [0.1, 0.1]}, {"PixelSpacing": [0.2, 0.2]}
wide = {"BitsStored": 16, "HighBit": 15, "value": 40000}
CASES = {
    "PA and lateral": ([pa, lateral], [], [(1.0, [1000, 2000])]),
    "asked not to merge": ([pa, lateral], ["-m", "n"], [(1.0, [1000, 2000])]),
    "0.1 and 0.2 mm": ([pa | small, lateral | large], [], [(0.1, [1000, 2000])]),
    "0.2 and 0.1 mm": ([pa | large, lateral | small], [], [(0.2, [1000, 2000])]),
    "a negative": ([pa, lateral | {"PhotometricInterpretation": "MONOCHROME1"}], [], [(1.0, [1000, 2000])]),
    "12 and 16 bits": ([pa, lateral | wide], [], [(1.0, [1000, 3136])]),
    "16 bits alone": ([lateral | wide], [], [(1.0, [40000])]),
    "Imager alone, 0.2": ([pa | {"ImagerPixelSpacing": [0.2, 0.2]}], [], [(1.0, [1000])]),
}
ok = []
for name, (films, options, expected) in CASES.items():
    seen = convert(name.replace(" ", "_"), films, *options)
    count = "2 films," if len(films) == 2 else "1 film, "
    print(f"{name:18}  {count} {len(seen)} file: " + ", ".join(f"{mm} mm, {values}" for mm, values in seen))
    ok.append(seen == expected)
sys.exit(not all(ok))
PYTHON
