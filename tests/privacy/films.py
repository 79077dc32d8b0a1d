"""Made-up radiographs for the tests: a common layout with every patient's own structure, and second studies of one."""

import numpy as np
import polars as pl
from scipy import ndimage

from chexgen_lib.images import to_uint8, write_png
from chexgen_lib.privacy.folders import Images

SIZE = 64


def films(patients: int, seed: int, studies: int = 1) -> np.ndarray:
    """uint8 [patients * studies, 64, 64]; a patient's studies follow each other and share half of their structure."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(-1, 1, SIZE)
    layout = 0.5 + 0.25 * np.cos(3 * rows)[:, None] * np.cos(4 * rows)

    def structure(n: int) -> np.ndarray:
        fields = ndimage.gaussian_filter(rng.standard_normal((n, SIZE, SIZE)), (0, 1.5, 1.5))
        return fields / fields.std((1, 2), keepdims=True)

    own = np.repeat(structure(patients), studies, axis=0)
    x = layout + 0.08 * (own + structure(patients * studies)) / np.sqrt(2)
    return to_uint8(np.clip(x, 0, 1).astype(np.float32))


def named(pixels: np.ndarray, name: str, studies: int = 1) -> Images:
    """Images with made-up ids; `studies` consecutive ones are of one patient."""
    n = len(pixels)
    columns = {
        "file": [f"{name}/{i}.png" for i in range(n)],
        "image_id": [f"{name}:{i}" for i in range(n)],
        "patient_id": [f"{name}:p{i // studies}" for i in range(n)],
        "study_id": [f"{name}:s{i}" for i in range(n)],
        "prompt": ["Effusion."] * n,
    }
    return Images(pl.DataFrame(columns), pixels)


def write(folder, pixels: np.ndarray, studies: int = 1) -> None:
    """A folder of the images with a `labels.csv` of image, image_id and patient_id."""
    images = named(pixels, folder.name, studies)
    for i, x in enumerate(pixels):
        write_png(folder / f"{i}.png", x.astype(np.float32) / 255)
    table = images.table.select("image_id", "patient_id", image=pl.Series([f"{i}.png" for i in range(len(pixels))]))
    table.write_csv(folder / "labels.csv")
