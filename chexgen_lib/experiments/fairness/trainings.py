"""The trainings of Figure 5, and their classifiers' scores for the test patients, their copies and permuted copies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.experiments.augmentation import train_and_score
from chexgen_lib.experiments.fairness import EQUAL, GAP, PEARSON, WORST
from chexgen_lib.experiments.fairness.scores import GroupScores, evaluate, thresholds
from chexgen_lib.experiments.repeats import Repeats, Results
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.pools import balancing
from chexgen_lib.pools.groups import TIMES, Groups
from chexgen_lib.pools.labelled import Splits
from chexgen_lib.quality.factuality import derangement

TESTS = ("val", "test", "matched")  # what the classifiers score, by first word; "matched" is the copies of "test"


def train_arms(
    sets: Splits, arms: Mapping[str, tuple], folder: Path, config: LearnerConfig, repeats: Repeats
) -> Results:
    """Train a classifier on each arm of `balancing.arms` and score the sets `TESTS`: arm -> scores of each seed."""
    shared = {"val": sets.rows["val"], "tests": {n: rows for n, rows in sets.rows.items() if n.split()[0] in TESTS}}
    jobs = {
        arm: [{"train": rows, "weights": weights, "config": one, **shared} for one in repeats.configs(config)]
        for arm, (rows, weights) in arms.items()
    }
    data = {"images": sets.everything.images, "labels": sets.everything.labels}
    return repeats.train(train_and_score, data, jobs, folder)


@dataclass(frozen=True)
class Tested:
    """Evaluates what `train_arms` scored by group of the test patients; thresholds are from validation images.

    Attributes:
        sets: of `balancing.assemble`.
        groups: of the test patients.
        repeats: gives the resamples.
    """

    sets: Splits
    groups: Groups
    repeats: Repeats

    def real(self, run: Mapping[str, np.ndarray]) -> GroupScores:
        """On the real test images."""
        return self._on(run, run["test"])

    def copies(self, run: Mapping[str, np.ndarray], name: str = "matched") -> GroupScores:
        """On the matched synthetic copies of the test images; name: of the set, "matched NAME" of another generator."""
        return self._on(run, run[name])

    def permuted(self, run: Mapping[str, np.ndarray]) -> GroupScores:
        """A control: the copies' scores permuted across the patients."""
        return self._on(run, run["matched"][derangement(len(run["matched"]), self.repeats.seed)])

    def _on(self, run: Mapping[str, np.ndarray], scores: np.ndarray) -> GroupScores:
        val, truth = (self.sets.everything.labels[self.sets.rows[name]] for name in ("val", "test"))
        options = {"n_resamples": self.repeats.n_resamples, "seed": self.repeats.seed}
        return evaluate(self.groups, truth, scores, thresholds(val, run["val"]), **options)


def mean_scores(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean score of several trainings, for each set."""
    return {name: np.stack([run[name] for run in runs]).mean(0) for name in runs[0]}


def patients_seen(root: str | Path, chosen: pl.DataFrame, sets: Splits) -> pl.DataFrame:
    """How many patients each model was trained on, and how many of these are validated or tested on."""
    everyone = cohort.load(Path(root, "cohort"))
    seen = {flag: everyone.filter(flag, pl.col("split") == "train")["patient_id"] for flag in cohort.purposes(everyone)}
    seen |= {
        "pool": sets.everything.table["patient_id"].gather(sets.synthetic),
        "classifier": chosen.filter(role="train")["patient_id"],
    }
    rows = [(n, p.n_unique(), len(balancing.patients_seen(chosen, p))) for n, p in seen.items()]
    return pl.DataFrame(rows, ["trained on", "patients", "validated or tested on"], orient="row")


def composition(training: Groups, tested: Groups) -> pl.DataFrame:
    """Groups of single attributes: images and share of the training set, test patients, whether withheld."""
    single = ~pl.col("attribute").str.contains(TIMES, literal=True)
    test = tested.table.select("attribute", "group", pl.col("n_patients").alias("test patients"), "withheld")
    share = (pl.col("n_images") / len(training.member)).round(2)
    return (
        training.table.filter(single)
        .select("attribute", "group", pl.col("n_images").alias("train images"), share.alias("share"))
        .join(test, on=["attribute", "group"], how="left", maintain_order="left")
    )


def beside_paper(plotted: pl.DataFrame, attributes: Sequence[str], arms: Sequence[str]) -> pl.DataFrame:
    """The paper's correlations, worst groups and gaps beside this run's, of some attributes and arms."""
    shown = (pl.col("source") != "this run") | (pl.col("attribute").is_in(attributes) & pl.col("arm").is_in(arms))
    rows = plotted.filter(pl.col("measure").is_in([PEARSON, WORST, GAP]), shown)
    columns = ["measure", "attribute", "source", "arm", "value", "low", "high", "n", "note"]
    return rows.sort("measure", "attribute", "source", maintain_order=True).select(columns)


def metrics(plotted: pl.DataFrame) -> dict:
    """This run's worst groups, gaps and correlations of Figure 5's table, as numbers for `dvc metrics`."""
    found: dict = {}
    rows = plotted.filter(pl.col("measure").is_in([PEARSON, WORST, GAP]), pl.col("arm") != EQUAL, source="this run")
    for r in rows.drop_nulls("value").sort("measure", maintain_order=True).iter_rows(named=True):
        numbers = {k: round(r[k], 5) for k in ("value", "low", "high")} | {"n": r["n"]}
        found.setdefault(r["measure"], {}).setdefault(r["attribute"], {})[r["arm"]] = numbers
    return found
