"""A classifier's decisions by group of patients, on the data and on all resamples: the basis of fairness measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from sklearn.metrics import precision_recall_curve

from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import auroc, check_scores, confusion, finding_f1, known_mean, weighted_f1
from chexgen_lib.estimates.resampling import LEVEL, Resampling
from chexgen_lib.pools.groups import Groups
from chexgen_lib.records import FINDINGS


def thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The score at or above which each finding is called present: the one with the highest F1 on VALIDATION data.

    Args:
        labels: [N, 14], 1, 0 or NaN.
        scores: [N, 14].

    Returns:
        [14]; NaN where validation has no known positive of a finding, or where all its scores are NaN because the
        classifier does not know it: that finding is then excluded everywhere.

    Raises:
        ValueError: for bad labels or scores (naming the row), or if no finding has a threshold.
    """
    labels, scores = check_scores(labels, scores, ~np.isnan(np.asarray(scores, np.float64)).all(0))
    chosen = np.full(len(FINDINGS), np.nan)
    for f, (y, s) in enumerate(zip(labels.T, scores.T, strict=True)):
        known = ~(np.isnan(y) | np.isnan(s))
        if (y[known] == 1).any():
            precision, recall, at = precision_recall_curve(y[known], s[known])
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            chosen[f] = at[f1[:-1].argmax()]  # the last point of the curve has no threshold
    if np.isnan(chosen).all():
        raise ValueError("no finding has a known positive on validation, so no threshold can be chosen")
    return chosen


@dataclass(frozen=True)
class GroupScores:
    """A classifier's decisions on one test cohort by group, on the data and on B resamples; see `evaluate`.

    Attributes:
        labels: [N, 14], NaN also where the finding has no threshold.
        scores: [N, 14].
        hits: `confusion` [N, 14, 4].
        totals: [1 + B, G, 14, 4], its sums over each group, first on the data themselves; 0 for withheld groups.
        resampling: of the patients.
    """

    groups: Groups
    labels: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    totals: np.ndarray
    resampling: Resampling

    @cached_property
    def f1(self) -> np.ndarray:
        """Weighted F1 [1 + B, G]; NaN where the group is withheld or has no positive label."""
        return weighted_f1(self.totals)

    @cached_property
    def auroc(self) -> np.ndarray:
        """AUROC of everyone [1 + B], mean over the findings with a threshold and both labels; NaN if withheld."""
        weights = self.resampling.weights.astype(np.float32)
        each = [auroc(y, s, weights) for y, s in zip(self.labels.T, self.scores.T, strict=True)]
        return np.full(len(weights), np.nan) if self.groups.withheld[0] else known_mean(np.stack(each), 0)

    def shown(self, attribute: str) -> np.ndarray:
        """Indices of the attribute's groups that have an estimate."""
        of = self.groups.table["attribute"].to_numpy() == attribute
        return np.flatnonzero(of & np.isfinite(self.f1[0]))

    def patients(self, of: np.ndarray) -> int:
        """Number of patients in any of the groups `of` (indices, or a bool mask)."""
        return len(np.unique(self.groups.patient[self.groups.member[:, of].any(1)]))


def evaluate(
    groups: Groups,
    labels: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> GroupScores:
    """Apply the thresholds, count and resample: the basis of every fairness table.

    Args:
        groups: of the test table.
        labels: [N, 14] in the rows of that table, 1, 0 or NaN (unknown: the row does not count for that finding).
        scores: [N, 14], likewise.
        thresholds: [14], from the same classifier's validation scores.
        n_resamples, seed: of the patients; equal groups, n_resamples and seed give equal resamples.

    Raises:
        ValueError: naming the row and finding of an invalid label or score.
    """
    hits = confusion(labels, scores, thresholds)
    if len(hits) != len(groups.member):
        raise ValueError(f"needs a label and a score for each of the {len(groups.member)} rows, got {len(hits)}")
    resampling = Resampling(groups.patient, n_resamples, seed)
    # small whole numbers: single precision adds them without loss up to 16 million rows
    weights, flat = resampling.weights.T.astype(np.float32), hits.reshape(len(hits), -1).astype(np.float32)
    totals = np.zeros((1 + n_resamples, groups.member.shape[1], *hits.shape[1:]))
    for g in np.flatnonzero(~groups.withheld):
        rows = groups.member[:, g]
        totals[:, g] = (weights[rows].T @ flat[rows]).reshape(-1, *hits.shape[1:])
    labels = np.where(np.isnan(thresholds), np.nan, labels)
    return GroupScores(groups, labels, np.asarray(scores, np.float64), hits, totals, resampling)


def check_paired(scored: Mapping[str, GroupScores]) -> None:
    """Raise ValueError unless all have the same groups (the same of them withheld), patients and resamples."""
    (first_name, first), *others = scored.items()
    for name, other in others:
        mine, yours = (run.groups.table.select("attribute", "group", "withheld") for run in (first, other))
        same = {
            "groups": mine.equals(yours),
            "patients": first.groups.patients == other.groups.patients,
            "resamples": len(first.totals) == len(other.totals) and first.resampling.seed == other.resampling.seed,
        }
        if wrong := [what for what, equal in same.items() if not equal]:
            raise ValueError(
                f"{first_name} and {name} differ in their {' and '.join(wrong)}; a paired comparison needs the same: "
                "leave a patient out of both, and use one min_n, seed and n_resamples"
            )


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals [K] that cover all K true values at once in 95 % of studies; values: [1 + B, K].

    The 95th percentile over the resamples of the group that is farthest off, in standard errors. The worst group and
    the gap need it: percentiles of an extreme lie to one side of it, whichever group truly is the worst.
    """
    away = np.abs(values[1:] - values[0])
    error = np.maximum(np.nanstd(values[1:], 0, ddof=1), 1e-12)
    farthest = np.nanquantile((away / error).max(1), LEVEL)
    return values[0] - farthest * error, values[0] + farthest * error


def worst(f1: np.ndarray) -> dict[str, float]:
    """F1 [1 + B, K] of K groups -> that of the worst, with an interval that is valid whichever truly is the worst."""
    low, high = _band(f1)
    return {"value": f1[0].min(), "low": max(low.min(), 0), "high": min(high.min(), 1)}


def gap(f1: np.ndarray) -> dict[str, float]:
    """F1 [1 + B, K] -> best minus worst, with an interval from those of all pairs of groups at once."""
    one, other = np.triu_indices(f1.shape[1], 1)
    low, high = _band(f1[:, one] - f1[:, other])
    low, high = np.maximum(low, -high), np.maximum(high, -low)  # of the absolute difference; low < 0: may be equal
    return {"value": np.ptp(f1[0]), "low": max(low.max(), 0), "high": min(high.max(), 1)}


def table_of(rows: list[dict], schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """Rows -> table in which undefined numbers are null, never NaN."""
    return pl.DataFrame(rows, schema).fill_nan(None)


TEXT, REAL, COUNT = pl.String, pl.Float64, pl.Int64
GROUP_TABLE = {
    **dict.fromkeys(("attribute", "group"), TEXT),
    **dict.fromkeys(("n_images", "n_patients"), COUNT),
    **dict.fromkeys(("f1", "low", "high", "prevalence"), REAL),
    "findings": COUNT,
    "withheld": pl.Boolean,
    "note": TEXT,
}


def group_table(scored: GroupScores) -> pl.DataFrame:
    """One row per group: attribute, group, n_images, n_patients, f1, low, high, prevalence, findings, withheld, note.

    f1: weighted F1, 0 to 1, with its 95 % interval; prevalence: share of the known labels that are positive;
    findings: how many of the 14 have a positive label in the group and a threshold. A withheld group has its n and
    nothing else; a group without a positive label has no F1. `note` says so.
    """
    tp, fp, fn, tn = np.moveaxis(scored.totals[0].sum(1), -1, 0)  # [G] each
    findings = np.isfinite(finding_f1(scored.totals[0])).sum(-1)
    with np.errstate(invalid="ignore"):
        prevalence = (tp + fn) / (tp + fp + fn + tn)
    rows = []
    for g, row in enumerate(scored.groups.table.iter_rows(named=True)):
        numbers = estimate(scored.f1[:, g])
        note = "" if np.isfinite(numbers["value"]) else "no positive label"
        if row["withheld"]:
            note = f"withheld: fewer than {scored.groups.min_n} patients"
        more = {"prevalence": prevalence[g], "findings": None if row["withheld"] else int(findings[g]), "note": note}
        rows.append(row | {"f1": numbers.pop("value")} | numbers | more)
    return table_of(rows, GROUP_TABLE)
