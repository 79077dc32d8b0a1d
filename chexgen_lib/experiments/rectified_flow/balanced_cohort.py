"""Test cohorts that no hospital has: equally many patients of every kind, and one factor changed at a time.

`balanced` requests every combination of sex, age group, view, source and finding equally often; a classifier's F1 by
group on it (`Tester.surface`) is its performance surface. Each group has the same findings, so that differences in
prevalence, on which F1 depends, cannot explain differences between groups, as they can among real patients.
`rank_agreement` measures whether groups rank alike there. `stress` starts from one kind of patient and changes one
factor, with the same noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.comparison import compare, estimate, tidy
from chexgen_lib.estimates.measures import CORRELATION, confusion, weighted_f1
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.fairness import ALL_GROUPS, FEWER_THAN_3
from chexgen_lib.experiments.fairness.scores import GroupScores, evaluate, group_table, thresholds
from chexgen_lib.experiments.rectified_flow.requests import ControlError
from chexgen_lib.images import from_uint8
from chexgen_lib.pools.groups import AGE_GROUPS, EVERYONE, TIMES, age_group, groups
from chexgen_lib.pools.labelled import LabelledSet
from chexgen_lib.quality.bench import Scorer
from chexgen_lib.records import FINDINGS

AGES = {"19-40": 30, "41-65": 53, "66+": 76}  # years that are requested
ATTRIBUTES = ("sex", "age group", "view", "source")  # and the finding
BASE = {"sex": "M", "age group": "41-65", "view": "AP"}  # where the stress set starts; its source is the first one


def levels(sources: Sequence[str]) -> dict[str, list[str]]:
    """The values of each factor."""
    return {"sex": ["F", "M"], "age group": list(AGES), "view": ["PA", "AP"], "source": list(sources)}


def balanced(sources: Sequence[str], findings: Sequence[str], copies: int) -> tuple[pl.DataFrame, list[dict]]:
    """`copies` patients of every combination: their table and metadata.

    findings: of which one is present in a patient ("No Finding": none); the others are absent.

    The table: image_id, patient_id, the factors, `finding`, and labels 1, 0 or null (what the finding may imply).
    Raises ControlError for an unknown finding or no copies.
    """
    _check(findings, copies, "copies")
    cells = product(*levels(sources).values(), findings, range(copies))
    return _table([dict(zip((*ATTRIBUTES, "finding", "copy"), cell, strict=True)) for cell in cells])


def stress(sources: Sequence[str], findings: Sequence[str], n: int) -> dict[str, tuple[pl.DataFrame, list[dict]]]:
    """Arm -> table and metadata of `n` patients; "base", and "<factor>: <level>" for each other level of a factor.

    Patient k has the same id, finding and, if noise is seeded by id, noise in every arm. Raises ControlError.
    """
    _check(findings, n, "patients")
    base = BASE | {"source": sources[0]}
    changed = {f"{name}: {level}": {name: level} for name, own in levels(sources).items() for level in own}
    arms = {"base": {}} | {arm: change for arm, change in changed.items() if not change.items() <= base.items()}
    return {
        arm: _table([base | change | {"finding": findings[k % len(findings)], "copy": k} for k in range(n)], "{copy}")
        for arm, change in arms.items()
    }


def labels(table: pl.DataFrame) -> np.ndarray:
    """The findings requested of the patients of `balanced` or `stress`: [N, 14], 1, 0 or NaN."""
    return table.select(pl.col(FINDINGS).cast(pl.Float64)).fill_null(np.nan).to_numpy()


def _check(findings: Sequence[str], n: int, name: str) -> None:
    if unknown := [f for f in findings if f not in FINDINGS]:
        raise ControlError(f"unknown finding {unknown[0]!r}: use some of {', '.join(FINDINGS)}")
    if n < 1 or not findings:
        raise ControlError(f"{n} {name} of {len(findings)} findings: needs at least one of each")


def _table(
    cells: Sequence[Mapping], name: str = "{sex}/{age group}/{view}/{source}/{finding}/{copy}"
) -> tuple[pl.DataFrame, list[dict]]:
    findings = [_states(cell["finding"]) for cell in cells]
    metadata = [
        {"sex": c["sex"], "age": AGES[c["age group"]], "view": c["view"], "source": c["source"]} | states
        for c, states in zip(cells, findings, strict=True)
    ]
    ids = [name.format(**cell) for cell in cells]
    rows = [
        {"image_id": i, "patient_id": i} | {k: v for k, v in cell.items() if k != "copy"} | states
        for i, cell, states in zip(ids, cells, findings, strict=True)
    ]
    schema = {f: pl.Float64 for f in FINDINGS} | {"age group": pl.Enum(list(AGE_GROUPS))}
    return pl.DataFrame(rows, schema_overrides=schema), metadata


def _states(finding: str) -> dict[str, int | None]:
    """One finding present, the others absent; a lung opacity is left unknown where the finding may be one."""
    states: dict[str, int | None] = dict.fromkeys(FINDINGS, 0) | {finding: 1}
    if finding not in ("No Finding", "Lung Opacity"):
        states["Lung Opacity"] = None
    if finding == "Support Devices":
        states["No Finding"] = None
    return states


def grouped(real: LabelledSet, sources: Sequence[str]) -> pl.DataFrame:
    """The table of real images with the factors `ATTRIBUTES`; any other view or source is in no group (null)."""
    table, known = real.table.with_columns(age_group(real.table["age"])), levels(sources)
    return table.with_columns(pl.when(pl.col(n).is_in(known[n])).then(pl.col(n)) for n in ("view", "source"))


@dataclass(frozen=True)
class Tester:
    """A classifier that is tested on cohorts, with thresholds from real validation images.

    Attributes:
        findings: those that are evaluated; all others have no threshold.
        min_patients: of a group with an estimate.
        n_resamples, seed: of the patients.
    """

    classifier: Scorer
    validation: LabelledSet
    findings: Sequence[str]
    min_patients: int
    n_resamples: int = 1000
    seed: int = 0

    @cached_property
    def thresholds(self) -> np.ndarray:
        """The score at or above which each finding is called present, [14]; NaN for findings that are not evaluated."""
        chosen = thresholds(self.validation.labels, self.classifier.predict(self.validation.images))
        return np.where([f in self.findings for f in FINDINGS], chosen, np.nan)

    def surface(self, table: pl.DataFrame, labels: np.ndarray, images: np.ndarray) -> GroupScores:
        """The performance surface: decisions on uint8 images by groups of one or two of the factors `ATTRIBUTES`."""
        formed = groups(table, ATTRIBUTES, min_n=self.min_patients, combine=2)
        scores = self.classifier.predict(from_uint8(images))
        return evaluate(formed, labels, scores, self.thresholds, n_resamples=self.n_resamples, seed=self.seed)

    def stress_table(self, labels: np.ndarray, images: Mapping[str, np.ndarray]) -> pl.DataFrame:
        """`stress_table` of the arms' uint8 images."""
        scores = {arm: self.classifier.predict(from_uint8(own)) for arm, own in images.items()}
        return stress_table(labels, scores, self.thresholds, self.n_resamples, self.seed)


def surface_table(surfaces: Mapping[str, GroupScores]) -> pl.DataFrame:
    """`group_table` of several cohorts, with the column `cohort`."""
    return pl.concat(group_table(scored).with_columns(cohort=pl.lit(name)) for name, scored in surfaces.items())


def single_attributes(surface: pl.DataFrame) -> pl.DataFrame:
    """The rows of a `surface_table` of groups of one attribute."""
    return surface.filter(~pl.col("attribute").str.contains(TIMES, literal=True))


def rank_agreement(real: GroupScores, synthetic: GroupScores) -> pl.DataFrame:
    """Do the groups rank alike on real patients and on a cohort of other, synthetic ones?

    Spearman's rho and Kendall's tau-b of the groups' F1, for each attribute and over all. Real and synthetic patients
    are resampled, each in their own cohort; the intervals are centred (noise attenuates rank agreement) and clipped to
    -1 and 1.

    Returns:
        attribute, measure, value, low, high, n (groups with an F1 in both), note; fewer than 3 groups have no value.
    """
    names = [scored.groups.table.select("attribute", "group").rows() for scored in (real, synthetic)]
    place = {name: g for g, name in enumerate(names[1])}
    matched = np.array([place.get(name, -1) for name in names[0]])
    x, y = real.f1, np.where(matched >= 0, synthetic.f1[:, matched], np.nan)  # [1 + B, G]
    attribute, both = real.groups.table["attribute"].to_numpy(), np.isfinite(x[0] + y[0])
    rows = []
    for name in [*real.groups.attributes, ALL_GROUPS]:
        of = both & ((attribute == name) if name != ALL_GROUPS else (attribute != EVERYONE))
        for measure, function in (("Spearman rho", stats.spearmanr), ("Kendall tau", stats.kendalltau)):
            row = {"attribute": name, "measure": measure, "n": int(of.sum()), "note": FEWER_THAN_3 * bool(of.sum() < 3)}
            if of.sum() >= 3:
                r = np.array([function(a, b).statistic for a, b in zip(x[:, of], y[:, of], strict=True)])
                row |= estimate(r, centred=True, within=CORRELATION)
            rows.append(row)
    return tidy(rows, ["attribute", "measure", "value", "low", "high", "n", "note"])


def stress_table(
    labels: np.ndarray, scores: Mapping[str, np.ndarray], thresholds: np.ndarray, n_resamples: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Weighted F1 of each arm of `stress`, and its difference from "base" for the same patients.

    Args:
        labels: [N, 14] of all arms.
        scores: arm -> [N, 14].
        thresholds: [14], as for `measures.confusion`.

    Returns:
        n, arm, and the estimate as in `estimates.comparison`.
    """
    resampling = Resampling(np.arange(len(labels)), n_resamples, seed)
    f1 = {
        arm: weighted_f1(np.tensordot(resampling.weights, confusion(labels, own, thresholds), 1))[None, :, None]
        for arm, own in scores.items()
    }
    return compare(f1, [{"n": len(labels), "metric": "weighted F1"}], resampling, "base").drop("metric")
