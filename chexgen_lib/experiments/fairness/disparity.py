"""How unequal are the groups of patients, and how unequal would equal groups look?"""

import numpy as np
import polars as pl

from chexgen_lib.estimates.measures import known_mean, weighted_f1
from chexgen_lib.estimates.resampling import percentile_interval
from chexgen_lib.experiments.fairness import GAP, ODDS, PARITY, TOO_FEW, WORST
from chexgen_lib.experiments.fairness.scores import COUNT, REAL, TEXT, GroupScores, gap, table_of, worst

MEASURES = (WORST, GAP, ODDS, PARITY)
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
    group, because a rate without patients is undefined.

    Columns: attribute, measure, value, low, high, equal, equal_low, equal_high, p, n_groups, n_patients, findings,
    note. low, high: 95 % interval of the worst F1 and of the gap, whichever groups truly attain them (a simultaneous
    interval over the groups, from resampled patients). equal: the mean and 95 % range of the measure when the groups
    are permuted across patients, as often as there are resamples. p: one-sided, the share of permutations at least as
    unequal. The more groups and the smaller they are, the farther `value` lies from 0 by chance: compare it with
    `equal`. The two differences have no interval, because resampling would add the bias of chance a second time; they
    have `equal` and p. Withheld groups take part in the permutations only.
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
            "n_patients": scored.patients(shown),
            "findings": int(usable.sum()),
        }
        if len(shown) < 2:
            rows += [common | {"measure": measure, "note": TOO_FEW} for measure in MEASURES]
            continue
        f1 = scored.f1[:, shown]
        measured = {k: {"value": v[0]} for k, v in unequal(totals[None], usable).items()}
        measured |= {WORST: worst(f1), GAP: gap(f1)}
        for measure, equal in unequal(permuted(scored, attribute, shown), usable).items():
            numbers = measured[measure] | beside(measured[measure]["value"], equal, measure)
            note = "" if np.isfinite(numbers["value"]) else "no finding has both labels in every group"
            rows.append(common | {"measure": measure, "note": note} | numbers)
    return table_of(rows, DISPARITY)


def unequal(totals: np.ndarray, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Totals [B, K, 14, 4] of K groups -> each measure [B]; rates over the `usable` findings [14]."""
    f1 = weighted_f1(totals)  # [B, K]
    tp, fp, fn, tn = np.moveaxis(totals[:, :, usable], -1, 0)
    with np.errstate(invalid="ignore"):
        rates = (tp / (tp + fn), fp / (fp + tn), (tp + fp) / (tp + fp + fn + tn))
    hit, false_alarm, called = (np.ptp(rate, axis=1) for rate in rates)  # [B, findings]
    return {
        WORST: f1.min(1),
        GAP: np.ptp(f1, axis=1),
        ODDS: known_mean(np.maximum(hit, false_alarm), 1),
        PARITY: known_mean(called, 1),
    }


def permuted(scored: GroupScores, attribute: str, shown: np.ndarray) -> np.ndarray:
    """Totals [B, K, 14, 4] of the groups `shown`, permuted B times across patients.

    Each patient's images receive the groups of another patient's images, in turn. Rows of unknown groups are excluded.
    """
    groups = scored.groups
    of = groups.table["attribute"].to_numpy() == attribute
    rows = np.flatnonzero(groups.member[:, of].any(1))
    rows = rows[np.argsort(groups.patient[rows], kind="stable")]
    _, first, patient, n = np.unique(groups.patient[rows], return_index=True, return_inverse=True, return_counts=True)
    turn = np.arange(len(rows)) - first[patient]
    member = groups.member[np.ix_(rows, shown)].astype(np.float32)
    flat = scored.hits[rows].reshape(len(rows), -1).astype(np.float32)
    rng = np.random.default_rng(scored.resampling.seed)
    totals = np.empty((len(scored.resampling), len(shown), flat.shape[1]))
    for b in range(len(totals)):
        giver = rng.permutation(len(n))[patient]
        totals[b] = member[first[giver] + turn % n[giver]].T @ flat
    return totals.reshape(len(totals), len(shown), *scored.hits.shape[1:])


def beside(value: float, equal: np.ndarray, measure: str) -> dict[str, float]:
    """Mean and 95 % range of a measure when groups are equal, and p: the share at least as unequal as `value`."""
    equal = equal[np.isfinite(equal)]
    if not len(equal) or not np.isfinite(value):
        return {}
    interval = percentile_interval(np.concatenate([[equal.mean()], equal]))
    # a sum of the same numbers in another order may differ in the last digit
    extreme = (equal <= value + 1e-12) if measure == WORST else (equal >= value - 1e-12)
    p = (1 + extreme.sum()) / (1 + len(equal))
    return {"equal": interval.value, "equal_low": interval.low, "equal_high": interval.high, "p": p}
