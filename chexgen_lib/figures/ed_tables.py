"""ED Tables 6 to 9: this run's values with their intervals, and below them the paper's, distinguished by `source`."""

import polars as pl

from chexgen_lib.estimates import worth
from chexgen_lib.estimates.comparison import RUNS
from chexgen_lib.experiments.arms import arm
from chexgen_lib.figures.style import PAPER, THIS_RUN
from chexgen_lib.paper import published

TASKS = {
    "table6": ["classification"],
    "table7": ["detection"],
    "table8": ["pneumothorax", "ribs", "lungs"],
    "table9": ["severity"],
}
DATASETS = {  # of the paper -> task
    "ChestX-Det": "detection",
    "Object-CXR": "detection",
    "SIIM-ACR-PTX": "pneumothorax",
    "Candid-PTX (external)": "pneumothorax",
    "VinDr-RibCXR": "ribs",
    "RALO": "severity",
}
FROM_TEXT = ("classification", "severity")
NOT_APPLICABLE = "no arm: its images are drawn from masks or boxes, which a generator of text alone does not take"
COLUMNS = ("source", "task", "test", "arm", "category", "metric", "value", "sd", "low", "high", "difference",
           "difference_low", "difference_high", "p", "detectable", *worth.COLUMNS, "n", "seeds", "note")  # fmt: skip


def run_rows(auroc: dict[str, pl.DataFrame], measured: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """This run's rows of all tasks, with `COLUMNS`, and `p_runs` of enough runs.

    `note` gives the reason for a task without another generator.

    Args:
        auroc: Test set -> its table of AUROCs by finding.
        measured: Task -> a table of `augmentation_tasks`; empty if left out.
    """
    named = {"task": pl.lit("classification"), "metric": pl.lit("AUROC")}
    own = [t.rename({"finding": "category"}).with_columns(test=pl.lit(k), **named) for k, t in auroc.items()]
    own += [t.with_columns(task=pl.lit(k)) for k, t in measured.items() if len(t)]
    without = [task for task, t in measured.items() if len(t) and task not in FROM_TEXT]
    arms = [arm(name) for name in next(iter(auroc.values()))["arm"].unique(maintain_order=True)]
    rivals = dict.fromkeys(shown.generator for shown in arms if shown.other_generator)
    notes = [(task, rival, NOT_APPLICABLE) for task in without for rival in rivals]
    own.append(pl.DataFrame(notes, dict.fromkeys(("task", "arm", "note"), pl.String), orient="row"))
    rows = pl.concat(own, how="diagonal_relaxed").with_columns(source=pl.lit(THIS_RUN))
    return rows.select(*COLUMNS, RUNS)


def paper_rows() -> pl.DataFrame:
    """The paper's rows, with percentages as fractions. Severity: RALO's scores, 0 to 8 (this run's are 0 to 1)."""
    rows = pl.concat([published.load(item) for item in TASKS])
    percent = pl.col("metric").str.contains("%")
    shares = [pl.when(percent).then(pl.col(c) / 100).otherwise(c).alias(c) for c in ("value", "sd")]
    return rows.select(
        pl.lit(PAPER).alias("source"),
        pl.col("dataset").replace_strict(DATASETS, default="classification").alias("task"),
        pl.col("dataset").alias("test"),
        "arm",
        "category",
        pl.col("metric").str.replace(" (%)", "", literal=True),
        *shares,
        "note",
    )


def tables(auroc: dict[str, pl.DataFrame], measured: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Tables by name, "ed_table6" to "ed_table9" of this run's rows and the paper's."""
    both = pl.concat([run_rows(auroc, measured), paper_rows()], how="diagonal_relaxed")
    return {f"ed_{item}": both.filter(pl.col("task").is_in(tasks)) for item, tasks in TASKS.items()}
