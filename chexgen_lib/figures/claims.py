"""The paper's claims that a run could test, and its verdict on each.

Each claim is of a gain: AUROC, Dice or F1 from synthetic images, agreement with the prompt from training on it. Each is
read from a table that another notebook wrote beside its figure. Better is positive everywhere, also where the measure
itself should be small (an error, a gap).
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from chexgen_lib.estimates import wording, worth
from chexgen_lib.estimates.wording import (
    UNMEASURABLE,
    VERDICTS,
    claim_verdict,
    format_interval,
)
from chexgen_lib.experiments.arms import (
    AS_MANY_STEPS,
    IMAGENET,
    augmented,
    pretrained,
    pretraining_copies,
    reference_among,
    shuffled,
)
from chexgen_lib.figures import fig5
from chexgen_lib.figures.style import THIS_RUN
from chexgen_lib.paper import published
from chexgen_lib.pools.arms import REPEATED, SYNTHETIC
from chexgen_lib.quality.arms import GENERATOR, IGNORES

SCHEMA = {
    "item": pl.String,
    "claim": pl.String,
    "measure": pl.String,
    "gain": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "detectable": pl.Float64,
    "n": pl.Int64,
    "needed": pl.Int64,
    "control": pl.Float64,
    "control_of": pl.String,
    "beyond": pl.Float64,
    "beyond_low": pl.Float64,
    "beyond_high": pl.Float64,
    "oracle": pl.String,
    "worth": pl.Float64,
    "worth_low": pl.Float64,
    "worth_high": pl.Float64,
    "paper": pl.Float64,
    "paper_of": pl.String,
    "verdict": pl.String,
}
BESIDE = ("oracle", *worth.NUMBERS)
NO_GAIN = dict.fromkeys(("gain", "low", "high", "n", "detectable", *BESIDE))  # fmt: skip
TASKS = [  # Figure 3: task, category, metric, test set, the paper's table, dataset and category, whether less is better
    ("classification", "Average", "AUROC", "test", "table6", "MIMIC-CXR p19", "Average", False),
    ("classification", "Average", "AUROC", "external test", "table6", "VinDr-CXR (external)", "Average", False),
    ("pneumothorax", "all", "Positive Dice", "test", "table8", "SIIM-ACR-PTX", "all", False),
    ("pneumothorax", "all", "Positive Dice", "external test", "table8", "Candid-PTX (external)", "all", False),
    ("ribs", "all", "Dice", "test", "table8", "VinDr-RibCXR", "all", False),
    ("detection", "Overall", "mAP50", "test", "table7", "ChestX-Det", "Overall", False),
    ("severity", "all", "Pearson r", "test", "table9", "RALO", "all", False),
    ("severity", "all", "MAE", "test", "table9", "RALO", "all", True),
]
BALANCED = {"sex": "gender", "age group": "age"}  # attribute of Figure 5 -> the paper's name
MEASURES = {"worst-group F1": "worst-group weighted F1", "best-worst gap of F1": "best-worst gap (%)"}  # likewise


def read(folder: str | Path) -> pl.DataFrame:
    """The claims, one a row, with the columns of `SCHEMA`.

    `gain`, `low` and `high` are this run's, with a 95 % interval; `detectable` is the minimum detectable gain, and
    `needed` the least n that could detect the paper's where this run's n could not (if trainings did not differ, whose
    spread more images leave as it is); `control` is the gain of the claim's
    control arm, and `beyond` how far the claim's gain is above it; `worth` is the gain as a share of what as many new
    real images gain (`estimates.worth`); `paper` is the paper's gain of the same quantity on `paper_of`, null where the
    paper has none. Gains are fractions.

    The `verdict` is `wording.claim_verdict`. What the run has no rows for is "not measured".

    Args:
        folder: With fig2.csv, fig3.csv, fig4.csv, fig5.csv and fig5_arms.csv of a run.

    Raises:
        FileNotFoundError: If a table is missing; names it and the stage that makes it.
    """
    rows = [*_figure2(folder), *_figure3(folder), *_figure4(folder), *_figure5(folder)]
    return judged(rows)


def judged(rows: Iterable[dict]) -> pl.DataFrame:
    """Claims with their verdicts, as `read` returns them; what a claim lacks is null."""
    rows = [{name: row.get(name) for name in SCHEMA} for row in rows]
    rows = [row | {"verdict": claim_verdict(row)} for row in rows]
    return pl.DataFrame([row | {"needed": _needed(row)} for row in rows], SCHEMA)


def _needed(row: dict) -> int | None:
    """The least n at which the paper's gain is detectable: standard errors fall with the root of n at most."""
    if row["verdict"] != UNMEASURABLE or not row["paper"]:
        return None
    return math.ceil(row["n"] * (row["detectable"] / row["paper"]) ** 2)


def verdicts(table: pl.DataFrame) -> dict[str, int]:
    """How many claims have each verdict, the most frequent first."""
    return dict(table["verdict"].value_counts(sort=True).iter_rows())


def readable(table: pl.DataFrame) -> pl.DataFrame:
    """The claims in the order of their verdicts, for a notebook: gains with their intervals as text."""
    rows = [
        {
            "verdict": row["verdict"],
            "item": row["item"],
            "claim": row["claim"],
            "measure": row["measure"],
            "this run": "" if row["low"] is None else format_interval(row["gain"], row["low"], row["high"], 3),
            "n": row["n"],
            "paper": "" if row["paper"] is None else f"{row['paper']:+.3f}",
            "n, at least": "" if row["needed"] is None else f"{row['needed']:,}",
            "minimum detectable": "" if row["detectable"] is None else f"{row['detectable']:.3f}",
            "control": "" if row["control"] is None else f"{row['control']:+.3f}: {row['control_of']}",
            "worth": wording.worth(row),
            "of": row["paper_of"],
        }
        for name in VERDICTS
        for row in table.filter(verdict=name).iter_rows(named=True)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _figure2(folder: str | Path) -> Iterator[dict]:
    rows = read_table(folder, "fig2", "07_quality").filter(source=THIS_RUN, metric="Pearson r")
    yield dict(  # the paper compares with other generators, not with other prompts: no number of it stands beside
        item="Fig 2a",
        claim="prompt against other prompts' samples",
        measure="Pearson r",
        **_apart(_one(rows, arm=GENERATOR), _one(rows, arm=IGNORES)),
    )


def _figure3(folder: str | Path) -> Iterator[dict]:
    yield from figure3(read_table(folder, "fig3", "09_augmentation"))


def figure3(plotted: pl.DataFrame) -> Iterator[dict]:
    """The claims of Figure 3 from what it plots, without their verdicts."""
    table = plotted.filter(source=THIS_RUN)
    for task, category, metric, test, item, dataset, named, small in TASKS:
        rows = table.filter(task=task, category=category, metric=metric, test=test)
        where = "" if test == "test" else ", external"
        yield dict(
            item="Fig 3",
            claim=f"real + 2x synthetic, {task}{where}",
            measure=metric,
            **_gain(_one(rows, arm=augmented(2)), small),
            **_control(_one(rows, arm=shuffled(2)), "the same images with each other's labels", small),
            paper=_paper_gain(item, dataset, named, metric, small),
            paper_of=dataset,
        )


def _paper_gain(item: str, dataset: str, category: str, metric: str, small: bool) -> float:
    """Real + 2x ChexGen against real in one of ED Tables 6 to 9, as a share of 1; RALO's errors are of scores to 8."""
    rows = published.load(item).filter(pl.col("dataset") == dataset, pl.col("category") == category)
    rows = rows.filter(pl.col("metric").is_in([metric, f"{metric} (%)"]))
    value = dict(rows.select("arm", "value").iter_rows())
    scale = 100 if rows["metric"][0].endswith("(%)") else 8 if metric == "MAE" else 1
    change = (value["real+2x ChexGen"] - value["real"]) / scale
    return -change if small else change


def _figure4(folder: str | Path) -> Iterator[dict]:
    table = read_table(folder, "fig4", "10_supervised_pretraining").filter(finding="Average")
    arm = [name for name in table["arm"].unique(maintain_order=True) if pretraining_copies(name)][-1]
    reference = reference_among(table["arm"])
    shares = table.filter(group="internal")["set"].unique(maintain_order=True).to_list()
    wanted = [("internal", shares[0], "1% of real data"), ("internal", shares[-1], "100% of real data")]
    for group, name, category in [*wanted, *(("few-shot", shots, shots) for shots in ("1-shot", "10-shot"))]:
        theirs = published.load("fig4a").filter(category=category)
        value = dict(theirs.select("arm", "value").iter_rows())
        rows = table.filter(group=group, set=name)
        same = category.startswith(name.replace(" ", ""))  # a third of the images is not the paper's 1 %
        gain = (value[pretrained(5)] - value[IMAGENET]) / 100 if same and arm == pretrained(5) else None
        yield dict(
            item="Fig 4a",
            claim=f"{arm} first, then {name}",
            measure="AUROC",
            **_gain(_one(rows, arm=arm)),
            **_control(_one(rows, arm=AS_MANY_STEPS[reference]), "as many steps on the real images"),
            paper=gain,
            paper_of=None if gain is None else theirs["dataset"][0],
        )


def _figure5(folder: str | Path) -> Iterator[dict]:
    groups = read_table(folder, "fig5", "11_fairness").filter(
        source=THIS_RUN, attribute="all groups", measure="Pearson r"
    )
    yield dict(
        item="Fig 5c",
        claim="groups, matched against permuted copies",
        measure="Pearson r",
        **_apart(_one(groups, arm=fig5.COPY), _one(groups, arm=fig5.PERMUTED)),
    )
    arms = read_table(folder, "fig5_arms", "11_fairness").rename({"n_patients": "n"})
    for attribute, named in BALANCED.items():
        for measure, theirs in MEASURES.items():
            small = "gap" in measure
            paper = published.load("fig5d").filter(category=named, metric=theirs)
            value = dict(paper.select("arm", "value").iter_rows())
            change = value["balanced with synthetic"] - value["imbalanced"]
            rows = arms.filter(attribute=attribute, measure=measure)
            yield dict(
                item="Fig 5d",
                claim=f"{attribute} balanced",
                measure=measure,
                **_gain(_one(rows, arm=SYNTHETIC), small),
                **_control(_one(rows, arm=REPEATED), "real images repeated", small),
                paper=-change / 100 if small else change,
                paper_of="MIMIC-CXR",
            )


def read_table(folder: str | Path, name: str, stage: str) -> pl.DataFrame:
    """The table beside a figure. Raises FileNotFoundError, which names the stage that makes it."""
    path = Path(folder, f"{name}.csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run the stage {stage} first")
    return pl.read_csv(path, infer_schema_length=None, glob=False)


def _one(table: pl.DataFrame, **wanted: str) -> dict | None:
    """The one row of a table; None if there is none. Raises ValueError for several."""
    rows = table.filter(**wanted)
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows of {wanted}, expected one")
    return rows.row(0, named=True) if len(rows) else None


def _gain(row: dict | None, small: bool = False) -> dict:
    """Gain, interval, n, minimum detectable gain and `BESIDE` of a row with a paired difference.

    small: the measure should be small.
    """
    if row is None or row["difference_low"] is None:
        return NO_GAIN
    numbers = {"n": row["n"], "detectable": row["detectable"]} | {name: row.get(name) for name in BESIDE}
    ends = {"gain": "difference", "low": "difference_low", "high": "difference_high"}
    numbers |= {name: row[column] for name, column in ends.items()}
    if small:
        for value, low, high in (("gain", "low", "high"), ("beyond", "beyond_low", "beyond_high")):
            opposite = {value: numbers[value], low: numbers[high], high: numbers[low]}
            numbers |= {name: None if number is None else -number for name, number in opposite.items()}
    return numbers


def _control(row: dict | None, name: str, small: bool = False) -> dict:
    gain = _gain(row, small)["gain"]
    return {"control": gain, "control_of": None if gain is None else name}


def _apart(row: dict | None, control: dict | None) -> dict:
    """How far a value is above its control; the interval from the far ends of both, wider than a paired one."""
    if row is None or control is None or row["low"] is None or control["low"] is None:
        return NO_GAIN
    low, high = row["low"] - control["high"], row["high"] - control["low"]
    return NO_GAIN | {"gain": row["value"] - control["value"], "low": low, "high": high, "n": row["n"]}
