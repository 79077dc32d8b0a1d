"""Do the groups of patients rank alike on the real test cohort and on its synthetic copy? (paper, Figure 5c)"""

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import CORRELATION, correlation, known_mean, pair_sums
from chexgen_lib.experiments.fairness import ALL_GROUPS, FEWER_THAN_3, PEARSON, SHIFT, SPEARMAN
from chexgen_lib.experiments.fairness.scores import COUNT, REAL, TEXT, GroupScores, check_paired, table_of
from chexgen_lib.pools.groups import EVERYONE

AGREEMENT = {
    **dict.fromkeys(("attribute", "measure"), TEXT),
    **dict.fromkeys(("value", "low", "high"), REAL),
    **dict.fromkeys(("n_groups", "n_patients"), COUNT),
    "note": TEXT,
}


def agreement(real: GroupScores, synthetic: GroupScores) -> pl.DataFrame:
    """Pearson r, Spearman rho and mean difference of the groups' F1 on both cohorts.

    Rows: each attribute, each combination and "all groups", by Pearson r, Spearman rho and the mean difference of F1
    (r does not see a shift). Columns: attribute, measure, value, low, high, n_groups, n_patients, note. A meaningless
    correlation is null and `note` says why: two groups always give 1 or -1 (as the paper's r = 1 for sex), and constant
    values have none.

    The 95 % interval describes the r of studies of this size: percentiles over patients resampled in both cohorts
    together (groups are not resampled), centred on r and clipped to -1 and 1. Noise in the groups' F1 attenuates r:
    between noise-free F1 it would be farther from 0.

    Raises:
        ValueError: unless both have the same groups, patients, resamples and seed.
    """
    check_paired({"real": real, "synthetic": synthetic})
    x, y = real.f1, synthetic.f1
    x, y = (np.where(np.isnan(x + y), np.nan, side) for side in (x, y))  # a group counts on both sides or on neither
    both, attribute = np.isfinite(x[0]), real.groups.table["attribute"].to_numpy()
    rows = []
    for name in [*real.groups.attributes, ALL_GROUPS]:
        of = both & ((attribute == name) if name != ALL_GROUPS else (attribute != EVERYONE))
        more = {"attribute": name, "n_groups": int(of.sum()), "n_patients": real.patients(of)}
        for measure, rank in ((PEARSON, False), (SPEARMAN, True)):
            if of.sum() < 3:
                rows.append(more | {"measure": measure, "note": FEWER_THAN_3})
                continue
            r = _correlation(x[:, of], y[:, of], rank)
            note = "" if np.isfinite(r[0]) else "all groups are equal on one side"
            numbers = estimate(r, centred=True, within=CORRELATION)
            rows.append(more | {"measure": measure, "note": note} | numbers)
        note = "" if of.any() else "no group with an estimate"
        rows.append(more | {"measure": SHIFT, "note": note} | estimate(known_mean((y - x)[:, of], 1)))
    return table_of(rows, AGREEMENT)


def _correlation(x: np.ndarray, y: np.ndarray, rank: bool) -> np.ndarray:
    """Correlation of values or of their ranks over the groups of each resample: [1 + B, K] twice -> [1 + B]."""
    if rank:
        x, y = (stats.rankdata(side, axis=1, nan_policy="omit") for side in (x, y))
    return correlation(pair_sums(x, y).sum(1))
