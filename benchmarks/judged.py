"""Images judged as by `chexgen judge` (docs/judging.md), for benchmarks that compare ways of making them.

Held-out prompts of the embedded cohort; Frechet distance and Pearson r of a classifier trained on real images, macro
AUROC of the findings that are asked for, each beside its bounds. What the command keeps in runs/judge is used again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.experiments.judge import asked_and_shown, metrics
from chexgen_lib.experiments.judge.bench import Bench
from chexgen_lib.experiments.judge.instruments import trained
from chexgen_lib.experiments.judge.reference import Reference, load_reference
from chexgen_lib.experiments.judge.rendered import COUNTS, RESOLUTION, render_reference
from chexgen_lib.experiments.rectified_flow.control import MACRO
from chexgen_lib.kept import kept
from chexgen_lib.learners.base import LearnerConfig

KEPT = Path("runs/judge")
FID, R, ASKED = "FID-classifier", "Pearson r", "asked findings, macro AUROC"
COLUMNS = ("metric", "arm", "role", "value", "low", "high", "n", "samples")


def reference(prompts: int) -> Reference:
    """The rendered radiographs that images are judged by, with so many prompts."""
    settings = {"counts": COUNTS, "resolution": RESOLUTION}
    return load_reference(kept(render_reference, KEPT / "reference", {"workers": 2}, **settings), prompts)


def table(
    real: Reference,
    images: Mapping[str, np.ndarray],
    resamples: int = 1000,
    every_attribute: bool = False,
    embedders: Sequence[str] = ("classifier",),
) -> pl.DataFrame:
    """A row of `COLUMNS` for each metric and arm, or bound: value and interval over patients.

    Args:
        images: arm -> uint8 [N, S, R, R], for the prompts in their order.
        every_attribute: a row for each attribute that is asked for, too, not for the findings' average alone.
        embedders: that a Frechet distance is taken with.
    """
    config = LearnerConfig(600, 0, "laptop", checks=8, device="cpu")  # as `chexgen judge` trains it by default
    bench = Bench(real, images, trained(real, embedders, KEPT / "classifier", config), resamples)
    wanted = [*(f"FID-{name}" for name in embedders), R]
    found = metrics.table(bench).filter(pl.col("metric").is_in(wanted), group="all")
    shown = asked_and_shown.table(bench).filter(pl.lit(every_attribute) | (pl.col("attribute") == MACRO))
    names = (
        pl.when(pl.col("attribute") == MACRO).then(pl.lit(ASKED)).otherwise(pl.format("{}, {}", "attribute", "measure"))
    )
    shown = shown.with_columns(metric=names)
    return pl.concat([found.select(COLUMNS), shown.select(COLUMNS)], how="vertical_relaxed")
