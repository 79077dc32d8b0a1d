"""How the papers trained (ChexGen: Methods and ED Table 4; RadiT: arXiv 2606.19460), from `training.csv`."""

from functools import cache
from pathlib import Path

import polars as pl

STAGE1, STAGE2, ANNOTATION = "ChexGen stage I", "ChexGen stage II", "annotation to image"
FLOW = "rectified flow"


@cache
def _table() -> pl.DataFrame:
    return pl.read_csv(Path(__file__).with_name("training.csv"), schema_overrides={"value": pl.Float64}, glob=False)


def load(training: str) -> pl.DataFrame:
    """The settings of one training: setting, value (null where it is no number), printed (as the paper writes it).

    A batch is the number of images in an optimiser step, of all GPUs together.

    Raises:
        ValueError: if the papers describe no such training.
    """
    rows = _table().filter(training=training)
    if rows.is_empty():
        known = ", ".join(_table()["training"].unique(maintain_order=True))
        raise ValueError(f"no published training {training!r}; choose one of {known}")
    return rows.drop("training")


def values(training: str) -> dict[str, int | float]:
    """Setting -> number of one training; whole numbers are integers."""
    numbers = load(training).drop_nulls("value").select("setting", "value").iter_rows()
    return {setting: int(value) if value.is_integer() else value for setting, value in numbers}


def beside(training: str, this_run: dict[str, str]) -> pl.DataFrame:
    """The paper's settings beside those of a run, in the run's order: setting, paper, this run.

    Args:
        training: of the papers.
        this_run: setting -> text; for a setting that the paper does not state, its column says "not stated".
    """
    printed = dict(load(training).select("setting", "printed").iter_rows())
    rows = [(setting, printed.get(setting, "not stated"), text) for setting, text in this_run.items()]
    return pl.DataFrame(rows, ["setting", "paper", "this run"], orient="row")
