"""Other generators beside this run's: what each is worth in Figures 2 to 5, in pairs of the same resamples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.estimates import wording
from chexgen_lib.experiments.arms import Role, arm, pretraining_copies
from chexgen_lib.figures.claims import read_table
from chexgen_lib.figures.style import THIS_RUN
from chexgen_lib.pools.arms import SYNTHETIC
from chexgen_lib.quality.arms import FLOOR, GENERATOR, IGNORES, NOISE

ENDS = ("difference", "difference_low", "difference_high")
BEYOND = ("beyond", "beyond_low", "beyond_high")  # how far an arm's gain is above that of its control
COLUMNS = {
    **dict.fromkeys(("item", "generator", "task", "measure", "better"), pl.String),
    **dict.fromkeys(("value", "low", "high", GENERATOR, *ENDS), pl.Float64),
    "n": pl.Int64,
}
LOWER = ("FID", "MAE", "MSE", "best-worst gap")  # how measures begin of which less is better
BETTER = {"MS-SSIM": "as between real images"}


def table(folder: str | Path) -> pl.DataFrame:
    """What another generator reaches, one number a row, and its difference from this run's generator.

    Of Figure 2 the metrics themselves; of Figures 3 to 5 what classifiers and others reach that learned from its
    images, beside those that learned from as many of ours.

    Args:
        folder: With fig2.csv, fig3.csv, fig4.csv and fig5_arms.csv of a run.

    Returns:
        The columns item, generator, task, measure, better (where), value with low and high (95 % interval), `this run`,
        difference with its interval, n (images; of Figure 5 patients). No row without another generator.

    Raises:
        FileNotFoundError: If a table is missing; names it and the stage that makes it.
    """
    parts = [_figure2(folder), _figure3(folder), _figure4(folder), _figure5(folder)]
    lower = pl.any_horizontal(pl.col("measure").str.starts_with(begins) for begins in LOWER)
    better = pl.when(lower).then(pl.lit("lower")).otherwise(pl.lit("higher"))
    better = pl.col("measure").replace_strict(BETTER, default=better)
    return pl.concat(part.with_columns(better=better).select(*COLUMNS).cast(COLUMNS) for part in parts)


def readable(found: pl.DataFrame) -> pl.DataFrame:
    """The table with intervals as text, for a notebook."""
    rows = [
        row
        | {
            "reaches": wording.estimate(row),
            "as this run": "" if row[GENERATOR] is None else f"{row[GENERATOR]:.3f}",
            "difference": _in_words(row),
        }
        for row in found.iter_rows(named=True)
    ]
    shown = ("item", "generator", "task", "measure", "better", "reaches", "as this run", "difference")
    return pl.DataFrame(rows, {name: pl.String for name in shown} | {"n": pl.Int64})


def _in_words(row: dict) -> str:
    if row["difference"] is None or row["difference_low"] is None:
        return "no estimate"
    span = wording.format_interval(*(row[name] for name in ENDS), 3)
    return span if wording.is_detectable(row) else f"{span}: {wording.NOT_DETECTABLE}"


def _figure2(folder: str | Path) -> pl.DataFrame:
    rows = read_table(folder, "fig2", "07_quality").filter(source=THIS_RUN, panel="a")
    ours = rows.filter(arm=GENERATOR).select("metric", pl.col("value").alias(GENERATOR))
    others = rows.filter(~pl.col("arm").is_in([FLOOR, IGNORES, NOISE, GENERATOR]))
    return others.join(ours, on="metric", how="left", maintain_order="left").with_columns(
        item=pl.lit("Fig 2a"), generator="arm", task=pl.lit("samples"), measure="metric"
    )


def _figure3(folder: str | Path) -> pl.DataFrame:
    rows = read_table(folder, "fig3", "09_augmentation").filter(source=THIS_RUN)
    rows = rows.filter(pl.col("category").is_in(["Average", "all", "Overall"]))

    def is_ours(name: str) -> bool:
        return arm(name).role == Role.AUGMENTED and not arm(name).other_generator

    found = _beside(rows, is_ours, lambda name: arm(name).generator, ["task", "test", "metric"])
    return found.with_columns(item=pl.lit("Fig 3"), task=pl.format("{}, {}", "task", "test"), measure="metric")


def _figure4(folder: str | Path) -> pl.DataFrame:
    rows = read_table(folder, "fig4", "10_supervised_pretraining").filter(finding="Average")
    found = _beside(rows, pretraining_copies, lambda name: name.partition(" ")[2], ["group", "set"])
    task = pl.format("pretraining, {}, {}", "group", "set")
    return found.with_columns(item=pl.lit("Fig 4a"), task=task, measure=pl.lit("AUROC"))


def _figure5(folder: str | Path) -> pl.DataFrame:
    rows = read_table(folder, "fig5_arms", "11_fairness").rename({"n_patients": "n"})
    found = _beside(
        rows, lambda name: name == SYNTHETIC, lambda name: name.partition(", ")[2], ["attribute", "measure"]
    )
    return found.with_columns(item=pl.lit("Fig 5d"), task=pl.format("balanced, {}", "attribute"))


def _beside(
    rows: pl.DataFrame, is_ours: Callable[[str], Any], generator: Callable[[str], str], keys: Sequence[str]
) -> pl.DataFrame:
    """The rows of arms whose control is one of ours, which has as many images, with what ours reaches.

    generator: name of an arm -> of its generator. keys: columns in which an arm has one row a value.
    """
    pairs = rows.select("arm", "control").drop_nulls().unique(maintain_order=True)
    pairs = pairs.filter(pl.Series([bool(is_ours(name)) for name in pairs["control"]], dtype=pl.Boolean))
    ours = rows.select(*keys, pl.col("arm").alias("control"), pl.col("value").alias(GENERATOR))
    found = rows.drop("control", *ENDS).join(pairs, on="arm", maintain_order="left")
    found = found.join(ours, on=["control", *keys], how="left", maintain_order="left", nulls_equal=True)
    names = pl.Series("generator", [generator(name) for name in found["arm"]], pl.String)
    return found.rename(dict(zip(BEYOND, ENDS, strict=True))).with_columns(names)
