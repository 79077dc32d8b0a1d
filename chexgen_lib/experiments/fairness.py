"""Fairness: F1 by group of patients, its agreement between a real and a synthetic test cohort, and between arms.

The paper computes the weighted F1 over the 14 findings for each sex, race and age group and for their combinations,
on the real test cohort and on its matched synthetic copy; correlates the two over the groups; and trains again with
synthetic images of the under-represented groups (Methods, "Model bias detection and mitigation experiments";
Figure 5). Here

- patients, not images, are resampled, once for all groups, cohorts and training arms, so that differences are paired;
- groups with fewer than a stated number of patients are listed with their n and have no estimate;
- beside each disparity stands what equal groups would show: the best of several noisy groups always beats the worst;
- each decision threshold comes from validation data.

F1 rises with the share of positive labels. A gap therefore says that the groups fare differently, not why: the
prevalence stands beside each F1, and the equalised-odds difference depends on it less. For the same reason two
cohorts with the same labels agree somewhat even where the classifier sees nothing: compare `agreement` with that of
the synthetic scores dealt to the wrong rows (`quality.factuality.derangement`).

The path through this module: `groups.groups` and `thresholds`, then `evaluate` for a classifier and a test cohort,
then the tables `group_table`, `agreement`, `disparity` and `compare`. The training arms are made in `balancing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from scipy import stats
from sklearn.metrics import precision_recall_curve

from chexgen_lib.estimates.resampling import (
    LEVEL,
    correlation,
    format_interval,
    format_p,
    interval_of,
    pair_sums,
    resample_counts,
)
from chexgen_lib.learners.classifier import auroc
from chexgen_lib.pools.groups import EVERYONE, Groups
from chexgen_lib.records import FINDINGS

ALL_GROUPS = "all groups"
PEARSON, SPEARMAN, SHIFT = "Pearson r", "Spearman rho", "mean difference, synthetic - real"
WORST, GAP = "worst-group F1", "best-worst gap of F1"
ODDS, PARITY = "equalised-odds difference", "demographic-parity difference"
MEASURES = (WORST, GAP, ODDS, PARITY)
AUROC, MACRO, WEIGHTED = "macro AUROC", "macro F1", "weighted F1"
TOO_FEW = "fewer than 2 groups with an estimate"
# A two-sided test at 5 % sees a difference of this many standard errors in 80 % of studies.
DETECTABLE = stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(0.8)


# ------------------------------------------------------------------------------------------------- measuring


def thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The score from which each finding is called present: the one with the highest F1 on VALIDATION data.

    labels: [N, 14], 1, 0 or NaN; scores: [N, 14]; returns [14]. NaN where validation has no known positive of a
    finding, or where all its scores are NaN because the classifier does not know it: that finding then counts
    nowhere. Raises ValueError for bad labels or scores (naming the row), or if no finding has a threshold.
    """
    labels, scores = _check(labels, scores, ~np.isnan(np.asarray(scores, np.float64)).all(0))
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


def _check(labels: np.ndarray, scores: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or ValueError naming the row: scores must be numbers in the findings `scored` [14]."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.ndim != 2 or labels.shape[1] != len(FINDINGS) or scores.shape != labels.shape:
        raise ValueError(f"needs labels and scores [N, {len(FINDINGS)}], got {labels.shape} and {scores.shape}")
    wrong = ~(np.isnan(labels) | (labels == 0) | (labels == 1))
    if wrong.any():
        row, f = np.argwhere(wrong)[0]
        raise ValueError(f"row {row}, {FINDINGS[f]}: label {labels[row, f]}; use 1, 0 or NaN (unknown)")
    missing = ~np.isfinite(scores) & scored
    if missing.any():
        row, f = np.argwhere(missing)[0]
        raise ValueError(
            f"row {row}, {FINDINGS[f]}: the score is {scores[row, f]} ({missing.any(1).sum()} such rows); "
            "look for a diverged training or an unreadable image"
        )
    return labels, scores


def confusion(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """True positive, false positive, false negative, true negative of each row and finding: 0 or 1, [N, 14, 4].

    A score at or above the threshold calls the finding present. All four are 0 where the label is unknown (NaN) or
    the finding has no threshold. Sums over rows are all that F1 and rates need.
    """
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.shape != (len(FINDINGS),):
        raise ValueError(f"thresholds: needs [{len(FINDINGS)}], one for each finding, got {thresholds.shape}")
    if np.isnan(thresholds).all():
        raise ValueError("thresholds: all are NaN, so that nothing can be decided")
    labels, scores = _check(labels, scores, ~np.isnan(thresholds))
    called, known = scores >= thresholds, ~(np.isnan(labels) | np.isnan(thresholds))
    kinds = (called & (labels == 1), called & (labels == 0), ~called & (labels == 1), ~called & (labels == 0))
    return np.stack([known & kind for kind in kinds], -1).astype(np.float64)


def finding_f1(totals: np.ndarray) -> np.ndarray:
    """Summed `confusion` [..., 14, 4] -> F1 of each finding [..., 14]; NaN without a positive label."""
    tp, fp, fn, _ = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def weighted_f1(totals: np.ndarray) -> np.ndarray:
    """Summed `confusion` [..., 14, 4] -> F1 weighted by each finding's positive labels [...] (paper, Methods).

    As sklearn's f1_score(average="weighted"); NaN, where that is 0, without any positive label.
    """
    support = totals[..., 0] + totals[..., 2]
    with np.errstate(invalid="ignore"):
        return np.nansum(support * finding_f1(totals), -1) / support.sum(-1)


@dataclass(frozen=True)
class GroupScores:
    """A classifier's decisions on one test cohort by group, on the data and on B resamples; see `evaluate`.

    labels: [N, 14], NaN also where the finding has no threshold; scores: [N, 14]; hits: `confusion` [N, 14, 4];
    totals: [1 + B, G, 14, 4], its sums over each group, first on the data themselves; 0 for groups that are withheld.
    """

    groups: Groups
    labels: np.ndarray
    scores: np.ndarray
    hits: np.ndarray
    totals: np.ndarray
    seed: int

    @cached_property
    def f1(self) -> np.ndarray:
        """Weighted F1 [1 + B, G]; NaN where the group is withheld or has no positive label."""
        return weighted_f1(self.totals)

    @cached_property
    def auroc(self) -> np.ndarray:
        """AUROC of everyone [1 + B], mean over the findings with a threshold and both labels; NaN if withheld."""
        weights = np.ascontiguousarray(_weights(self.groups, len(self.totals) - 1, self.seed).T)
        each = [auroc(y, s, weights) for y, s in zip(self.labels.T, self.scores.T, strict=True)]
        return np.full(len(weights), np.nan) if self.groups.withheld[0] else _known_mean(np.stack(each), 0)

    def shown(self, attribute: str) -> np.ndarray:
        """Places of the attribute's groups that have an estimate."""
        of = self.groups.table["attribute"].to_numpy() == attribute
        return np.flatnonzero(of & np.isfinite(self.f1[0]))


def evaluate(
    groups: Groups,
    labels: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> GroupScores:
    """Decide, count and resample: what every table of this module is made from.

    labels: [N, 14], 1, 0 or NaN (unknown: the row does not count for that finding); scores: [N, 14] in the rows of
    the table that `groups` was made from; thresholds: [14] from the same classifier's validation scores. Patients
    are resampled; the same patients, `n_resamples` and `seed` give the same resamples. Raises ValueError naming the
    row and finding of a label or score that is none.
    """
    hits = confusion(labels, scores, thresholds)
    if len(hits) != len(groups.member):
        raise ValueError(f"needs a label and a score for each of the {len(groups.member)} rows, got {len(hits)}")
    weights, flat = _weights(groups, n_resamples, seed), hits.reshape(len(hits), -1).astype(np.float32)
    totals = np.zeros((1 + n_resamples, groups.member.shape[1], *hits.shape[1:]))
    for g in np.flatnonzero(~groups.withheld):
        rows = groups.member[:, g]
        totals[:, g] = (weights[rows].T @ flat[rows]).reshape(-1, *hits.shape[1:])
    labels = np.where(np.isnan(thresholds), np.nan, labels)
    return GroupScores(groups, labels, np.asarray(scores, np.float64), hits, totals, seed)


def _weights(groups: Groups, n_resamples: int, seed: int) -> np.ndarray:
    """How often each row counts, [N, 1 + B]: once in the data themselves, then as often as its patient is drawn.

    The counts are small whole numbers: single precision adds them without loss up to 16 million rows.
    """
    n = len(groups.patients)
    counts = resample_counts(n, n_resamples, np.random.default_rng(seed))
    return np.concatenate([np.ones((1, n), int), counts]).T.astype(np.float32)[groups.patient]


def _known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN where nothing is (np.nanmean also warns)."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis) / known.sum(axis)


def _numbers(resampled: np.ndarray) -> dict[str, float]:
    """value, low and high of a statistic [1 + B], first on the data themselves; all NaN where that is undefined."""
    interval = interval_of(resampled[0], resampled[1:] if np.isfinite(resampled[0]) else [], len(resampled))
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _around(resampled: np.ndarray) -> dict[str, float]:
    """value, and low and high 1.96 bootstrap standard errors from it, for a statistic [1 + B] that noise biases.

    Resamples are noisier than the sample, so the percentiles of such a statistic lie on one side of its value.
    """
    drawn = resampled[1:][np.isfinite(resampled[1:])]
    if not np.isfinite(resampled[0]) or len(drawn) < 2:
        return {}
    half = stats.norm.ppf(0.5 + LEVEL / 2) * drawn.std(ddof=1)
    return {"value": resampled[0], "low": resampled[0] - half, "high": resampled[0] + half}


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals [K] that hold all K true values at once in 95 % of studies; values: [1 + B, K]."""
    away = np.abs(values[1:] - values[0])
    error = np.maximum(np.nanstd(values[1:], 0, ddof=1), 1e-12)
    farthest = np.nanquantile((away / error).max(1), LEVEL)
    return values[0] - farthest * error, values[0] + farthest * error


def _worst(f1: np.ndarray) -> dict[str, float]:
    """F1 [1 + B, K] of K groups -> that of the worst, with an interval that holds whichever truly is the worst."""
    low, high = _band(f1)
    return {"value": f1[0].min(), "low": max(low.min(), 0), "high": min(high.min(), 1)}


def _gap(f1: np.ndarray) -> dict[str, float]:
    """F1 [1 + B, K] -> best less worst, with an interval from those of all pairs of groups at once."""
    one, other = np.triu_indices(f1.shape[1], 1)
    low, high = _band(f1[:, one] - f1[:, other])
    low, high = np.maximum(low, -high), np.maximum(high, -low)  # of the absolute difference; low < 0: may be equal
    return {"value": np.ptp(f1[0]), "low": max(low.max(), 0), "high": min(high.max(), 1)}


def _tidy(rows: list[dict], schema: dict[str, type[pl.DataType]]) -> pl.DataFrame:
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
        numbers = _numbers(scored.f1[:, g])
        note = "" if np.isfinite(numbers["value"]) else "no positive label"
        if row["withheld"]:
            note = f"withheld: fewer than {scored.groups.min_n} patients"
        more = {"prevalence": prevalence[g], "findings": None if row["withheld"] else int(findings[g]), "note": note}
        rows.append(row | {"f1": numbers.pop("value")} | numbers | more)
    return _tidy(rows, GROUP_TABLE)


# ---------------------------------------------------------------------------------------- detection of bias

AGREEMENT = {
    **dict.fromkeys(("attribute", "measure"), TEXT),
    **dict.fromkeys(("value", "low", "high"), REAL),
    **dict.fromkeys(("n_groups", "n_patients"), COUNT),
    "note": TEXT,
}


def agreement(real: GroupScores, synthetic: GroupScores) -> pl.DataFrame:
    """Do the groups rank alike on the real test cohort and on its synthetic copy? (paper, Figure 5c)

    Rows: each attribute, each combination and "all groups", by Pearson r, Spearman rho and the mean difference of F1
    (r does not see a shift). Columns: attribute, measure, value, low, high, n_groups, n_patients, note. Where a
    correlation says nothing it is null and `note` tells why: two groups always give 1 or -1 (as the paper's r = 1 for
    sex), equal values nothing.

    The 95 % interval is of the r that studies of this size find: 1.96 standard errors, of the patients resampled in
    both cohorts together (not the groups), cut at -1 and 1. Noise in the groups' F1 draws r to 0: between F1 without
    noise it would be farther from 0. Raises ValueError unless both have the same groups, patients, resamples and seed.
    """
    _check_paired({"real": real, "synthetic": synthetic})
    x, y = real.f1, synthetic.f1
    x, y = (np.where(np.isnan(x + y), np.nan, side) for side in (x, y))  # a group counts on both sides or on neither
    both, attribute = np.isfinite(x[0]), real.groups.table["attribute"].to_numpy()
    rows = []
    for name in [*real.groups.attributes, ALL_GROUPS]:
        of = both & ((attribute == name) if name != ALL_GROUPS else (attribute != EVERYONE))
        more = {"attribute": name, "n_groups": int(of.sum()), "n_patients": _patients(real.groups, of)}
        for measure, rank in ((PEARSON, False), (SPEARMAN, True)):
            if of.sum() < 3:
                rows.append(more | {"measure": measure, "note": "fewer than 3 groups: 1 or -1 whatever the data"})
                continue
            r = _r(x[:, of], y[:, of], rank)
            note = "" if np.isfinite(r[0]) else "all groups are equal on one side"
            numbers = {k: np.clip(v, -1, 1) for k, v in _around(r).items()}
            rows.append(more | {"measure": measure, "note": note} | numbers)
        note = "" if of.any() else "no group with an estimate"
        rows.append(more | {"measure": SHIFT, "note": note} | _numbers(_known_mean((y - x)[:, of], 1)))
    return _tidy(rows, AGREEMENT)


def _r(x: np.ndarray, y: np.ndarray, rank: bool) -> np.ndarray:
    """Correlation of values or of their ranks over the groups of each resample: [1 + B, K] twice -> [1 + B]."""
    if rank:
        x, y = (stats.rankdata(side, axis=1, nan_policy="omit") for side in (x, y))
    return correlation(pair_sums(x, y).sum(1))


def _patients(groups: Groups, of: np.ndarray) -> int:
    """Number of patients in any of the groups `of`."""
    return len(np.unique(groups.patient[groups.member[:, of].any(1)]))


def _check_paired(scored: Mapping[str, GroupScores]) -> None:
    """Raise ValueError unless all have the same groups (the same of them withheld), patients and resamples."""
    (first_name, first), *others = scored.items()
    for name, other in others:
        mine, yours = (run.groups.table.select("attribute", "group", "withheld") for run in (first, other))
        same = {
            "groups": mine.equals(yours),
            "patients": first.groups.patients == other.groups.patients,
            "resamples": len(first.totals) == len(other.totals) and first.seed == other.seed,
        }
        if wrong := [what for what, equal in same.items() if not equal]:
            raise ValueError(
                f"{first_name} and {name} differ in their {' and '.join(wrong)}; a paired comparison needs the same: "
                "leave a patient out of both, and use one min_n, seed and n_resamples"
            )


DISPARITY = {
    **dict.fromkeys(("attribute", "measure"), TEXT),
    **dict.fromkeys(("value", "low", "high", "equal", "equal_low", "equal_high", "p"), REAL),
    **dict.fromkeys(("n_groups", "n_patients", "findings"), COUNT),
    "note": TEXT,
}


def disparity(scored: GroupScores) -> pl.DataFrame:
    """How unequal are the groups of each attribute, and how unequal would equal groups look?

    Measures: worst-group F1; best-worst gap of F1 (paper, Figure 5d; 0 to 1); equalised-odds difference (the larger
    of the largest differences in true and in false positive rates) and demographic-parity difference (in the rate of
    calls), as fairlearn defines them, for each finding and averaged over the `findings` that have both labels in every
    group: a rate of no patients is not 0.

    Columns: attribute, measure, value, low, high, equal, equal_low, equal_high, p, n_groups, n_patients, findings,
    note. low, high: 95 % interval of F1's worst and gap, whichever groups they truly are (a simultaneous interval
    over the groups, from resampled patients). equal: the mean and 95 % range of the measure when the groups are dealt
    to other patients at random, as often as there are resamples. p: one-sided, the share of deals at least as
    unequal. The more and the smaller the groups, the farther `value` lies from 0 by chance: read it beside `equal`.
    The two differences have no interval, since resampling adds to them what chance has already added; they have
    `equal` and p. Withheld groups take part in the deals only.
    """
    rows = []
    for attribute in scored.groups.attributes:
        shown = scored.shown(attribute)
        totals = scored.totals[0, shown]  # [K, 14, 4]
        # [14] findings of which every group has a positive and a negative label
        usable = ((totals[..., [0, 1]] + totals[..., [2, 3]]) > 0).all((0, 2))
        common = {
            "attribute": attribute,
            "n_groups": len(shown),
            "n_patients": _patients(scored.groups, shown),
            "findings": int(usable.sum()),
        }
        if len(shown) < 2:
            rows += [common | {"measure": measure, "note": TOO_FEW} for measure in MEASURES]
            continue
        f1 = scored.f1[:, shown]
        measured = {k: {"value": v[0]} for k, v in _unequal(totals[None], usable).items()}
        measured |= {WORST: _worst(f1), GAP: _gap(f1)}
        for measure, equal in _unequal(_dealt(scored, attribute, shown), usable).items():
            numbers = measured[measure] | _beside(measured[measure]["value"], equal, measure)
            note = "" if np.isfinite(numbers["value"]) else "no finding has both labels in every group"
            rows.append(common | {"measure": measure, "note": note} | numbers)
    return _tidy(rows, DISPARITY)


def _unequal(totals: np.ndarray, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Totals [B, K, 14, 4] of K groups -> each measure [B]; rates over the `usable` findings [14]."""
    f1 = weighted_f1(totals)  # [B, K]
    tp, fp, fn, tn = np.moveaxis(totals[:, :, usable], -1, 0)
    with np.errstate(invalid="ignore"):
        rates = (tp / (tp + fn), fp / (fp + tn), (tp + fp) / (tp + fp + fn + tn))
    hit, false_alarm, called = (np.ptp(rate, axis=1) for rate in rates)  # [B, findings]
    return {
        WORST: f1.min(1),
        GAP: np.ptp(f1, axis=1),
        ODDS: _known_mean(np.maximum(hit, false_alarm), 1),
        PARITY: _known_mean(called, 1),
    }


def _dealt(scored: GroupScores, attribute: str, shown: np.ndarray) -> np.ndarray:
    """Totals [B, K, 14, 4] of the groups `shown`, dealt B times to other patients at random.

    A patient receives the groups of another patient's images, in turn. Only rows of known groups take part.
    """
    groups = scored.groups
    of = groups.table["attribute"].to_numpy() == attribute
    rows = np.flatnonzero(groups.member[:, of].any(1))
    rows = rows[np.argsort(groups.patient[rows], kind="stable")]
    _, first, patient, n = np.unique(groups.patient[rows], return_index=True, return_inverse=True, return_counts=True)
    turn = np.arange(len(rows)) - first[patient]
    member = groups.member[np.ix_(rows, shown)].astype(np.float32)
    flat = scored.hits[rows].reshape(len(rows), -1).astype(np.float32)
    rng, totals = np.random.default_rng(scored.seed), np.empty((len(scored.totals) - 1, len(shown), flat.shape[1]))
    for b in range(len(totals)):
        giver = rng.permutation(len(n))[patient]
        totals[b] = member[first[giver] + turn % n[giver]].T @ flat
    return totals.reshape(len(totals), len(shown), *scored.hits.shape[1:])


def _beside(value: float, equal: np.ndarray, measure: str) -> dict[str, float]:
    """Mean and 95 % range of a measure when groups are equal, and p: the share at least as unequal as `value`."""
    equal = equal[np.isfinite(equal)]
    if not len(equal) or not np.isfinite(value):
        return {}
    interval = interval_of(equal.mean(), equal, len(equal))
    # a sum of the same numbers in another order may differ in the last digit
    extreme = (equal <= value + 1e-12) if measure == WORST else (equal >= value - 1e-12)
    p = (1 + extreme.sum()) / (1 + len(equal))
    return {"equal": interval.value, "equal_low": interval.low, "equal_high": interval.high, "p": p}


# --------------------------------------------------------------------------------------- mitigation of bias

COMPARISON = {
    **dict.fromkeys(("attribute", "measure", "arm"), TEXT),
    **dict.fromkeys(("value", "low", "high", "difference", "difference_low", "difference_high"), REAL),
    **dict.fromkeys(("p", "detectable"), REAL),
    **dict.fromkeys(("n_groups", "n_patients", "trainings"), COUNT),
    "note": TEXT,
}


def compare(arms: Mapping[str, Sequence[GroupScores]], *, before: str) -> pl.DataFrame:
    """Training arms beside each other on the same real test cohort, and each against the arm `before`.

    arms: name -> one `evaluate` result for each training (seed) of the arm. A group's F1 is averaged over the
    trainings before the worst or best is taken. Measures: macro AUROC, macro F1 and weighted F1 of everyone;
    worst-group F1 and best-worst gap of each attribute. A smaller gap with the same worst group is levelling down:
    read the two together.

    Columns: attribute, measure, arm, value, low, high (worst and gap as in `disparity`); difference (to `before`), its
    interval of 1.96 standard errors, from the same resamples of patients, and two-sided p; detectable: the smallest
    true difference that this design would find at p < 0.05 in 80 % of its repetitions, 2.8 standard errors; n_groups,
    n_patients, trainings, note. The trainings of an arm are resampled with the patients; with a single one, nothing
    here covers what another seed would have changed. p is not adjusted for the number of comparisons. Raises
    ValueError for unequal groups, patients, labels, findings or resamples.
    """
    if before not in arms or any(not runs for runs in arms.values()):
        raise ValueError(f"needs at least one evaluation of every arm and of {before!r}; got {list(arms)}")
    _check_arms(arms)
    measured = {name: _arm(runs, k) for k, (name, runs) in enumerate(arms.items())}
    first, rows = arms[before][0], []
    for key, (reference, _) in measured[before].items():
        attribute, measure = key
        shown = first.shown(attribute)
        common = {
            "attribute": attribute,
            "measure": measure,
            "n_groups": len(shown),
            "n_patients": _patients(first.groups, shown),
            "note": "" if np.isfinite(reference[0]) else "no estimate" if attribute == EVERYONE else TOO_FEW,
        }
        for name, runs in arms.items():
            resampled, numbers = measured[name][key]
            row = common | {"arm": name, "trainings": len(runs)} | numbers
            rows.append(row if name == before else row | _difference(resampled - reference))
    return _tidy(rows, COMPARISON)


def _arm(runs: Sequence[GroupScores], stream: int) -> dict[tuple[str, str], tuple[np.ndarray, dict[str, float]]]:
    """(attribute, measure) -> its resamples [1 + B] and its value with interval, averaged over the trainings."""
    first = runs[0]
    rng = np.random.default_rng((first.seed, stream))  # trainings of different arms are not paired
    draws = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=len(first.totals) - 1)
    draws = np.concatenate([np.ones((1, len(runs)), int), draws]) / len(runs)  # [1 + B, trainings]

    def average(values: list[np.ndarray]) -> np.ndarray:
        return np.einsum("bt,tb...->b...", draws, np.stack(values))

    f1 = average([run.f1 for run in runs])  # [1 + B, G]
    macro = average([_known_mean(finding_f1(run.totals[:, 0]), 1) for run in runs])
    overall = {AUROC: average([run.auroc for run in runs]), MACRO: macro, WEIGHTED: f1[:, 0]}
    measured = {(EVERYONE, measure): (values, _numbers(values)) for measure, values in overall.items()}
    for attribute in first.groups.attributes:
        own = f1[:, first.shown(attribute)]
        if own.shape[1] < 2:
            nothing = np.full(len(f1), np.nan), {}
            measured |= {(attribute, WORST): nothing, (attribute, GAP): nothing}
        else:
            measured[attribute, WORST] = own.min(1), _worst(own)
            measured[attribute, GAP] = np.ptp(own, axis=1), _gap(own)
    return measured


def _difference(resampled: np.ndarray) -> dict[str, float]:
    """Difference [1 + B], first on the data: its interval, two-sided p and the smallest detectable difference."""
    if not (around := _around(resampled)):
        return {}
    error = np.nanstd(resampled[1:], ddof=1)
    return {
        "difference": around["value"],
        "difference_low": around["low"],
        "difference_high": around["high"],
        "p": float(2 * stats.norm.sf(abs(resampled[0]) / error)) if error > 0 else float(resampled[0] == 0),
        "detectable": DETECTABLE * error,
    }


def _check_arms(arms: Mapping[str, Sequence[GroupScores]]) -> None:
    """Raise ValueError unless all were evaluated with the same groups, patients, resamples, labels and findings."""
    runs = {f"{name}, training {k + 1}": run for name, runs in arms.items() for k, run in enumerate(runs)}
    _check_paired(runs)
    first = next(iter(runs.values()))
    for name, run in runs.items():
        alike = np.array_equal(first.labels, run.labels, equal_nan=True)
        if not alike or not np.array_equal(first.groups.member, run.groups.member):
            raise ValueError(
                f"{name}: evaluated on other rows, labels or findings than {next(iter(runs))}; a finding counts where "
                "the arm has a threshold, so choose all thresholds on the same validation labels"
            )


# ------------------------------------------------------------------------------------------------- in words


def said(row: Mapping, value: str = "value") -> str:
    """ "0.412 [0.350, 0.470]" of a row of any table here, or why it has no estimate."""
    if row[value] is None:
        return row["note"].partition(":")[0]
    if row["low"] is None:
        return f"{row[value]:.3f}"
    return format_interval(row[value], row["low"], row["high"], 3)


def verdict(row: Mapping) -> str:
    """ "+0.021 [0.004, 0.038], p = 0.01" of a `compare` row; or "no detectable difference", and what could be seen."""
    if row["difference"] is None:
        return ""
    span = f"{row['difference']:+.3f} [{row['difference_low']:.3f}, {row['difference_high']:.3f}]"
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return f"{span}: no detectable difference (could see {row['detectable']:.3f})"
    return f"{span}, {format_p(row['p'])}"
