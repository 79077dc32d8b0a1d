"""DICOM files of one small film, and the frames that encoders make of it."""

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from chexgen_lib import images

EXPLICIT = "1.2.840.10008.1.2.1"
RAMP = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)  # 0 to 4080, twelve bits
PLAIN = (RAMP / RAMP.max()).astype(np.float32)
EIGHT = dict(BitsAllocated=8, BitsStored=8, HighBit=7)
# RAMP as encoders write it that `pydicom` has no counterpart of.
FRAMES = {
    "JPEG Lossless": (
        "1.2.840.10008.1.2.4.57",
        "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAICQUM/8MACwwAEAAQAQARAP/aAAgBAAAGAADn/wDQ0NDQ0NDQ0NDQ0NDQ0NCgCAQCAQCAQCAQCAQC"
        "AQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIB"
        "AIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQC"
        "AQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgKAIBAIBAIBAIBAIBAIBAIBAICgCAQCAQCAQCAQCAQCAQCAQCAoAgEAgEAgEAgEAgEAgEAgEAgK"
        "AIBAIBAIBAIBAIBAIBAIBAIA/9k=",
    ),
    "JPEG-LS": (
        "1.2.840.10008.1.2.4.80",
        "/9j/6AAgU1BJRkYAAgAAAQAAABAAAAAQChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQABAAEAEBEQD/+AANAf//ABIAQwEUAED/2gAIAQEA"
        "AAAAoPwfg/B2G4PwdhuGYvFYnEY+NwBCCD0OQ1GItFIlIR0ZGRUVCDAERERERGjRo0aNEiRIkHr/IkSJEiRIkSFCiiiihz/Ioooooooooooo"
        "ooa/qKKKKKKKKKKKKKCMfxBCEIQhCEIQhCLftCEIQhCEIQhCEU/SEIQhEREREREvyiIiIiIiIiJD8IiIiIiJJJHfdJJJJJJJGfZJJJJJJUZ9"
        "VVVVVRX0VVVVVFfNX/8I/9k=",
    ),
    "HTJ2K": (
        "1.2.840.10008.1.2.4.201",
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
        "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAH4AAf+TwAAmSfYFB3QAAMAAEsAAEwAiAYd0AEbyA4d0AMAAE0AA"
        "E4AQyAECdAAe6ZEAw1QAwAAVEAAFYIZhGKpwgnUAfvTDDz/+wFKB7LYAwAArIAAWkO7u7u7nwKenp8J4AP79/f39/f39/Yxge/Yxgey6AP/Z",
    ),
}


def dataset(pixels=RAMP, kind="MONOCHROME2", syntax=EXPLICIT, frame=None, **elements) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, kind
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.tobytes() if frame is None else encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = ("OW", False) if frame is None else ("OB", True)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


def saved(folder, data: Dataset):
    data.save_as(folder / "x.dcm", enforce_file_format=True)
    return folder / "x.dcm"


def read(folder, *arguments, **elements) -> np.ndarray:
    return images.read_image(saved(folder, dataset(*arguments, **elements)))
