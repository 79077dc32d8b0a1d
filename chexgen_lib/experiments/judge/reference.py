"""What generators are judged against: held-out patients of a cohort, and others to train instruments on.

Any folder in the layout of `cohort.layout` will do; `rendered` makes one where there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.records import FINDINGS, FRONTAL
from chexgen_lib.storage import hash_key

FEWEST = 20  # prompts, and reference patients, below which nothing is measured


@dataclass(frozen=True)
class Films:
    """Real radiographs and their records.

    Attributes:
        table: Records with `prompt`, a row an image.
        images: uint8 [N, R, R].
    """

    table: pl.DataFrame
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """Float [N, 14], 1, 0 or NaN."""
        return self.table.select(pl.col(FINDINGS).cast(pl.Float64)).fill_null(np.nan).to_numpy()

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> "Films":
        return Films(self.table[rows], self.images[rows])


@dataclass(frozen=True)
class Reference:
    """Held-out patients in two halves, and those that instruments are trained on; no patient is in two of them.

    Attributes:
        prompted: one image of each patient whose prompt generators get.
        others: as many other held-out patients, one image each: the real images that sets are compared with.
        train, val: what classifier and probes are trained on.
    """

    prompted: Films
    others: Films
    train: Films
    val: Films

    @property
    def resolution(self) -> int:
        """Pixels a side, at which every image is judged."""
        return self.prompted.images.shape[-1]


def load_reference(folder: Path, prompts: int, resolution: int | None = None) -> Reference:
    """Read a cohort's folder: at most `prompts` patients to prompt for, as many others, and the rest.

    Only frontal films count. Which patients are prompted for depends on their images' ids alone, and a smaller number
    is part of a larger one.

    Args:
        resolution: one that the cohort has images of; None: the largest.

    Raises:
        CohortError: if something is missing, or there are too few patients.
    """
    sizes = layout.resolutions(folder)
    if resolution not in (None, *sizes):
        raise CohortError(f"{folder}: images of {sizes} px, not {resolution}: run 02_cohort for them")
    table = layout.load(folder).with_row_index("row")
    if missing := [column for column in ("patient_id", "split", "view", "prompt") if column not in table.columns]:
        raise CohortError(f"{folder}/cohort.parquet has no column {missing[0]}: give the folder that 02_cohort wrote")
    frontal = table.filter(pl.col("view").is_in(FRONTAL) & (pl.col("prompt").fill_null("") != ""))

    def films(rows: pl.DataFrame) -> Films:
        return Films(rows.drop("row"), layout.load_images(folder, resolution or sizes[-1], rows["row"]))

    test = frontal.filter(split="test").unique("patient_id", keep="first", maintain_order=True)
    keys = pl.Series("key", [hash_key(f"judge:{i}") for i in test["image_id"]], pl.String)
    test = test.with_columns(keys).sort("key").drop("key")
    n = min(prompts, len(test) // 2)
    train, val = (frontal.filter(split=split) for split in ("train", "val"))
    for name, held, least in (("test", n, FEWEST), ("train", len(train), 2 * FEWEST), ("val", len(val), FEWEST)):
        if held < least:
            raise CohortError(
                f"{folder}: {held} frontal {'patients to prompt for' if name == 'test' else f'{name} images'} with a "
                f"prompt, judging needs {least}: take a larger cohort, or leave --cohort out"
            )
    return Reference(films(test[:n]), films(test[n : 2 * n]), films(train), films(val))
