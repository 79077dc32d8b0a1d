"""Tables of arms beside each other, and each against a reference: value, interval, difference, p, minimum detectable.

A table has one row for each number and arm, with the columns of `ESTIMATE`:

- `value`, `low`, `high`: mean over the seeds with its 95 % percentile interval over patients and seeds, by t where
  there are few seeds (`resampling.SeedsMean`), which for the AUROC of a finding is never narrower than
  `measures.auroc_interval`; `sd`: standard deviation over the seeds;
- `difference`, `difference_low`, `difference_high`: value minus that of the reference, paired within each resample;
- `p`: two-sided, twice the share of resampled differences beyond zero; it is below 0.05 where the interval of the
  difference excludes zero. The paper's Wilcoxon test over repeated trainings has a column of its own, `p_runs`, where
  there are `FEWEST_RUNS`: with fewer no result is below 0.1, and five runs cannot give less than 0.0625
  (`wording.over_runs`), whatever the paper prints;
- `detectable`: the minimum detectable difference, which a study of this size finds at p < 0.05 with 80 % power: 2.8
  standard errors of the paired difference.

A table whose arms are held against others, too (`worth.Against`), also has the columns of `worth`.

No p-value is adjusted for multiple comparisons.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import polars.selectors as cs
from scipy import stats

from chexgen_lib.estimates import worth
from chexgen_lib.estimates.measures import ANY, ERRORS, LEAST, auroc_interval, auroc_of_draws, known_mean, range_of
from chexgen_lib.estimates.resampling import LEVEL, Resampling, centre, percentile_interval
from chexgen_lib.estimates.worth import Against
from chexgen_lib.records import FINDINGS

ESTIMATE = ("value", "sd", "low", "high", "difference", "difference_low", "difference_high", "p", "detectable")
# A two-sided test at 5 % detects a difference of this many standard errors with 80 % power.
STANDARD_ERRORS = stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(0.8)


RUNS = cs.by_name("p_runs", require_all=False)
FEWEST_RUNS = 5  # of each arm, for the signed-rank test over them


def estimate(resampled: np.ndarray, centred: bool = False, within: tuple[float, float] = ANY) -> dict[str, float]:
    """`value`, `low`, `high` of a measure [1 + B], first on the data themselves; NaN where it is undefined there.

    within: the least and the largest value that the measure can have, which an interval that was widened or shifted may
    pass.
    """
    value, low, high = percentile_interval(resampled, centred)
    return {"value": value, "low": float(np.clip(low, *within)), "high": float(np.clip(high, *within))}


def difference(change: np.ndarray, centred: bool = False, within: tuple[float, float] = ANY) -> dict[str, float]:
    """`difference` to `detectable` of a measure minus the reference's on the same resamples, [1 + B].

    Empty where the difference is undefined. within: the least and the largest difference that there can be.
    """
    change = centre(change) if centred else change
    if not np.isfinite(change[0]) or np.isfinite(change[1:]).sum() < 2:
        return {}
    value, low, high = percentile_interval(change)
    numbers = {"difference": value}
    numbers |= {"difference_low": float(np.clip(low, *within)), "difference_high": float(np.clip(high, *within))}
    return numbers | {"p": two_sided_p(change[1:]), "detectable": minimum_detectable(change[1:])}


def two_sided_p(differences: np.ndarray) -> float:
    """p of "no difference" from resampled differences [B]: twice the smaller share beyond zero, at least 1 / B."""
    differences = differences[np.isfinite(differences)]
    beyond = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(np.clip(2 * beyond, 1 / len(differences), 1))


def minimum_detectable(differences: np.ndarray) -> float:
    """The smallest true difference that is detected with 80 % power, given resampled differences [B]."""
    return float(np.nanstd(differences, ddof=1) * STANDARD_ERRORS)


def paired_wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test of paired values a, b [n] (the paper's test); 1 if all are equal.

    Raises:
        ValueError: when lengths differ, a value is not finite or there are fewer than 2 pairs.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"needs two lists of at least 2 paired values, got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("paired values must be finite; remove the pair, not one side of it")
    if (a == b).all():
        return 1.0
    return float(stats.wilcoxon(a, b, alternative="two-sided").pvalue)


def compare(
    arms: Mapping[str, np.ndarray],
    about: Sequence[Mapping],
    resampling: Resampling,
    reference: str | None = None,
    against: Mapping[str, Against] | None = None,
    over_runs: bool = False,
) -> pl.DataFrame:
    """M measures of each arm with intervals, and their differences from the arm `reference`.

    Args:
        arms: arm -> values [S, 1 + B, M] of its seeds on the data and on all resamples; seeds of all arms are paired.
            A measure that is undefined (NaN) on the data is listed without an estimate.
        about: M dicts that describe the measures: the first columns of the table. Of a "metric" in `measures.ERRORS`
            less is better. An interval stays within the `measures.range_of` its "metric" or "measure".
        against: arm -> what else it is held against; needs a reference.
        over_runs: test the seeds' values as well (`p_runs`), if there are enough.

    Returns:
        The columns of `about`, arm, those of `ESTIMATE`, `p_runs` and with `against` of `worth`, patients, seeds;
        grouped by measure, then by arm.

    Raises:
        ValueError: if arms differ in their seeds, or the reference is not among them.
    """
    if len({len(values) for values in arms.values()}) != 1 or reference not in (None, *arms):
        raise ValueError(f"arms need equally many seeds, one of them {reference!r}; got {list(arms)}")
    over_runs = over_runs and len(next(iter(arms.values()))) >= FEWEST_RUNS
    rows = []
    for m, named in enumerate(about):
        means = {arm: resampling.seeds_mean(values[..., m]) for arm, values in arms.items()}
        for arm, own in means.items():
            single = own.of_seeds
            row = {**named, "arm": arm, "patients": resampling.patients, "seeds": len(single)}
            if np.isfinite(single).all():
                within = range_of(named.get("metric", named.get("measure", "")))
                row |= estimate(own.widened(), within=within)
                row |= {"sd": float(single.std(ddof=1)) if len(single) > 1 else None}
                if reference not in (None, arm):
                    apart = _apart(within, means[reference].resampled)
                    row |= difference((own - means[reference]).widened(), within=apart)
                    row |= _over_runs(single, means[reference].of_seeds) if over_runs else {}
                if against and arm in against:
                    row |= worth.columns(own, means, against[arm], reference, named.get("metric") in ERRORS)
            rows.append(row)
    further = (*(["p_runs"] if over_runs else []), *(() if against is None else worth.COLUMNS))
    return tidy(rows, [*about[0], "arm", *ESTIMATE, *further, "patients", "seeds"])


def _apart(within: tuple[float, float], reference: np.ndarray) -> tuple[float, float]:
    """The least and the largest difference of two values within these; the reference's [1 + B] may be one for all."""
    least, most = (reference[0], reference[0]) if np.ptp(reference) < 1e-12 else within
    return within[0] - most, within[1] - least


def _over_runs(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The signed-rank test of paired runs [S]; empty where the reference is undefined."""
    return {"p_runs": paired_wilcoxon(values, reference)} if np.isfinite(reference).all() else {}


def tidy(rows: Sequence[Mapping], columns: Sequence[str]) -> pl.DataFrame:
    """Rows as a table of these columns; numbers that are missing or undefined are null, never NaN."""
    table = pl.DataFrame(list(rows), infer_schema_length=None)
    missing = [pl.lit(None, pl.Float64).alias(c) for c in columns if c not in table.columns]
    table = table.with_columns(missing).select(columns)
    floats = [c for c in (*ESTIMATE, "p_runs", *worth.NUMBERS) if c in columns]
    texts = [c for c in worth.NAMES if c in columns]
    return table.with_columns(pl.col(floats).cast(pl.Float64), pl.col(texts).cast(pl.String)).fill_nan(None)


def auroc_table(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    resampling: Resampling,
    reference: str | None = None,
    draws: int = 1,
    fewest: int = LEAST,
    against: Mapping[str, Against] | None = None,
    names: Sequence[str] = FINDINGS,
) -> pl.DataFrame:
    """AUROC of each arm by finding and on average (ED Table 6), and its difference from the arm `reference`.

    Findings with fewer than `fewest` patients of either label have no estimate; those with fewer than `LEAST` are not
    in the average, unless all are such.

    Args:
        scores: arm -> [S * draws, N, L].
        labels: [N, L], 1, 0 or NaN.
        draws: consecutive runs that share a seed; a seed's AUROC is the mean of its draws'.
        against: arm -> what else it is held against.
        names: of the L labels, in the column `finding`.

    Returns:
        arm, finding, `ESTIMATE`, with `against` the columns of `worth`, n, positives, patients, seeds; in the row
        "Average" also `p_findings`, the Wilcoxon test over the findings. Rows are grouped by arm.

    Raises:
        ValueError: for scores that do not fit or are not finite, or if no finding has enough cases.
    """
    labels = np.asarray(labels, np.float64)
    runs = {arm: np.asarray(values, np.float64) for arm, values in scores.items()}
    _check_runs(runs, labels, reference, draws)
    arms = {arm: aurocs(x.reshape(-1, draws, *labels.shape), labels, resampling, fewest) for arm, x in runs.items()}
    about = [
        {"finding": f, "metric": "AUROC", "n": int(np.isfinite(y).sum()), "positives": int(np.nansum(y))}
        for f, y in zip(names, labels.T, strict=True)
    ]
    about.append({"finding": "Average", "metric": "AUROC", "n": len(labels), "positives": None})
    table = compare(arms, about, resampling, reference, against, over_runs=True)
    table = _widen(table, labels, resampling, names)
    single = {arm: values[:, 0, :-1].mean(0) for arm, values in arms.items()}  # [L]
    known = np.isfinite(next(iter(single.values())))
    p = {
        arm: paired_wilcoxon(values[known], single[reference][known])
        for arm, values in single.items()
        if reference not in (None, arm) and known.sum() > 1
    }
    p_findings = pl.col("arm").replace_strict(list(p), list(p.values()), default=None, return_dtype=pl.Float64)
    table = table.with_columns(p_findings=pl.when(finding="Average").then(p_findings))
    order = pl.col("arm").replace_strict({arm: k for k, arm in enumerate(arms)}, return_dtype=pl.Int64)
    further = (*table.select(RUNS).columns, *(() if against is None else worth.COLUMNS))
    columns = ["arm", "finding", *ESTIMATE, *further, "p_findings", "n", "positives", "patients", "seeds"]
    return table.sort(order, maintain_order=True).select(columns)


def aurocs(scores: np.ndarray, labels: np.ndarray, resampling: Resampling, fewest: int = LEAST) -> np.ndarray:
    """Scores [S, draws, N, L] -> AUROC of the labels and last their mean (see `auroc_table`), [S, 1 + B, L + 1].

    Raises:
        ValueError: if no finding has `fewest` patients of either label.
    """
    fewer = _patients(labels, resampling).min(1)
    each = [
        [
            auroc_of_draws(y, s, resampling.weights, 1 if n >= fewest else np.inf)
            for y, s, n in zip(labels.T, np.moveaxis(seed, -1, 0), fewer, strict=True)
        ]
        for seed in scores
    ]
    values = np.moveaxis(np.array(each), 1, -1)  # [S, 1 + B, L]
    known = np.isfinite(values[:, 0]).all(0)
    if not known.any():
        raise ValueError(f"no finding has {fewest} patients with and without it in the test set; use more records")
    averaged = _averaged(known, fewer)
    return np.concatenate([values, known_mean(values[..., averaged], axis=-1)[..., None]], axis=-1)


def _patients(labels: np.ndarray, resampling: Resampling) -> np.ndarray:
    """How many patients have the finding in an image, and how many lack it in one, [L, 2]; labels [N, L]."""
    return np.array([[len(np.unique(resampling.patient_of[y == state])) for state in (1, 0)] for y in labels.T])


def _averaged(known: np.ndarray, fewer: np.ndarray) -> np.ndarray:
    """Which of the findings [L] with an estimate are in the average: those with `LEAST` patients of either label.

    All that are known, if none has as many.
    """
    enough = known & (fewer >= LEAST)
    return enough if enough.any() else known


def _widen(table: pl.DataFrame, labels: np.ndarray, resampling: Resampling, names: Sequence[str]) -> pl.DataFrame:
    """A table of AUROCs, its intervals by finding widened to `auroc_interval` of the patients with either label.

    Resamples of few positives resemble each other more than new patients would resemble them. An average of findings
    that all have few is too narrow as well: its ends move by the squared sum of what the findings' ends move
    (Zou and Donner 2008).
    """
    counts = dict(zip(names, _patients(labels, resampling), strict=True))
    rows = table.to_dicts()
    found = [row for row in rows if row["value"] is not None]
    most = max(counts[row["finding"]].min() for row in found if row["finding"] in counts)
    moved: dict[str, list[np.ndarray]] = {}  # arm -> of each finding, what is added to its ends' squared distances
    for row in found:
        ends = np.array([row["low"], row["high"]])
        if row["finding"] in counts:
            low, high = auroc_interval(row["value"], *counts[row["finding"]])
            row |= {"low": min(low, row["low"]), "high": max(high, row["high"])}
            wider = np.array([row["low"], row["high"]])
            moved.setdefault(row["arm"], []).append((wider - row["value"]) ** 2 - (ends - row["value"]) ** 2)
        elif most < LEAST:
            added = moved[row["arm"]]
            away = np.sqrt((ends - row["value"]) ** 2 + np.sum(added, 0) / len(added) ** 2)
            row |= zip(("low", "high"), np.clip(row["value"] + [-1, 1] * away, 0, 1).tolist(), strict=True)
    return pl.DataFrame(rows, schema=table.schema)


def _check_runs(runs: Mapping[str, np.ndarray], labels: np.ndarray, reference: str | None, draws: int) -> None:
    shapes = {values.shape for values in runs.values()}
    if len(shapes) != 1 or next(iter(shapes))[1:] != labels.shape or reference not in (None, *runs):
        raise ValueError(f"arms need scores {['S', *labels.shape]} of equal S, one of them {reference!r}; got {shapes}")
    for arm, values in runs.items():
        if not np.isfinite(values).all():
            raise ValueError(f"arm {arm!r}: scores of run {np.argwhere(~np.isfinite(values))[0][0]} are not finite")
    if next(iter(shapes))[0] % draws:
        raise ValueError(f"{next(iter(shapes))[0]} runs are not whole seeds of {draws} draws")
