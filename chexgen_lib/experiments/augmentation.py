"""Training data augmentation: does a network gain from synthetic images beside the real ones? (paper, Figure 3)

Each arm trains the same network for the same number of optimiser steps, on the real images alone or with one or two
synthetic copies of each (Methods, Training data augmentation experiments). Here are the arms, what measures them, and
classification (ED Table 6); `augmentation_tasks` has segmentation, severity and detection. The moment is chosen on real
validation images; each test set is used once. Several seeds an arm; the interval of a mean over seeds resamples both
the test patients and the seeds, and a difference between arms is taken within each resample.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import interval_of, paired_wilcoxon
from chexgen_lib.experiments.arms import BASELINE, CHEXGEN, REAL, augmented  # noqa: F401
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import balanced_weights, train_classifier
from chexgen_lib.pools.labelled import Sets
from chexgen_lib.records import FINDINGS

ESTIMATE = ("value", "sd", "low", "high", "difference", "difference_low", "difference_high", "p", "visible")
LEAST_POSITIVES = 5  # in a test set, and as many negatives; an AUROC, or a mean, of fewer is noise


def train_and_score(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    seed: int,
    weights: np.ndarray | None = None,
    **settings,
) -> dict[str, np.ndarray]:
    """One run: ``scores`` float32 [len(test), 14] of a classifier trained on the rows `train`, chosen on `val`.

    images, labels: of all arms. weights: [len(train)], how often each is drawn; None balances the findings.
    """
    weights = balanced_weights(labels[train]) if weights is None else weights
    config = LearnerConfig(seed=seed, **settings)
    model = train_classifier(images[train], labels[train], config, val=(images[val], labels[val]), weights=weights)
    return {"scores": model.predict(images[test])}


def pool_arms(sets: Mapping[str, Sets]) -> dict[str, np.ndarray]:
    """Arm -> rows to train on: the real images alone, and with one and two (if there are) synthetic copies of each.

    sets: generator -> its pool with the real images, each `with_pool` of the one before. The generator that the run is
    about is "", the other `BASELINE`: "real + 1x", "real + 1x baseline".
    """
    arms = {}
    for generator, own in sets.items():
        train, copies = own.rows["train"], own.everything.table["copy"].to_numpy()[own.synthetic].max() + 1
        arms[REAL] = train
        for k in range(1, min(2, copies) + 1):
            arms[augmented(k, generator or CHEXGEN)] = np.concatenate([train, own.copies(k)])
    return arms


def jobs(arms: Mapping[str, Sequence[int]], seeds: int, seed: int, **settings) -> dict[str, dict]:
    """Runs of `train_and_score` by name "arm / seed k": rows to train on for each arm, and what all share."""
    return {
        f"{arm} / seed {k}": {"train": np.asarray(rows), "seed": 1000 * seed + k, **settings}
        for arm, rows in arms.items()
        for k in range(seeds)
    }


def scores_of(results: Mapping[str, dict[str, np.ndarray]], key: str = "scores") -> dict[str, np.ndarray]:
    """Arm -> scores [S, N, 14] of its seeds, from the results of `jobs`."""
    return {arm: np.stack([run[key] for run in runs]) for arm, runs in by_arm(results).items()}


def by_arm(results: Mapping[str, Any]) -> dict[str, list]:
    """Arm -> the results of its seeds, from the results of `jobs`."""
    arms: dict[str, list] = {}
    for name, result in results.items():
        arms.setdefault(name.rsplit(" / ", 1)[0], []).append(result)
    return arms


# ------------------------------------------------------------------------------------------------- measuring


def auroc_table(
    scores: Mapping[str, np.ndarray],
    labels: np.ndarray,
    patients: Sequence[str],
    reference: str = REAL,
    n_resamples: int = 1000,
    seed: int = 0,
    draws: int = 1,
) -> pl.DataFrame:
    """AUROC of each arm, by finding and on average (ED Table 6), and its difference from the arm `reference`.

    scores: arm -> [S * draws, N, 14]; the arms' seeds are paired. draws: consecutive runs that share a seed (a
    pretraining, say); S seeds are resampled, each with all its draws, for the spread of a seed's mean holds that of its
    draws already (Davison and Hinkley 1997, section 3.8). labels: [N, 14]. patients: of each image; they are
    what is resampled. Findings with fewer than `LEAST_POSITIVES` of either label are not in the average, and listed
    without an estimate.

    Columns: arm, finding, value, sd (over seeds), low, high; difference, difference_low, difference_high, p (two-sided,
    of the difference's resamples), visible (the smallest difference this design could see: 2.8 standard errors, 80 %
    power at 5 %), n, positives, seeds. The row "Average" also has p_findings: Wilcoxon over the findings.
    """
    labels = np.asarray(labels, np.float64)
    runs = {arm: np.asarray(values, np.float64) for arm, values in scores.items()}
    shapes = {values.shape for values in runs.values()}
    if len(shapes) != 1 or next(iter(shapes))[1:] != labels.shape or reference not in runs:
        raise ValueError(f"arms need scores [S, {len(labels)}, 14] of equal S, one of them {reference!r}; got {shapes}")
    for arm, values in runs.items():
        if not np.isfinite(values).all():
            raise ValueError(f"arm {arm!r}: scores of run {np.argwhere(~np.isfinite(values))[0][0]} are not finite")
    if next(iter(shapes))[0] % draws:
        raise ValueError(f"{next(iter(shapes))[0]} runs are not whole seeds of {draws} draws")
    counts, seeds = _resamples(patients, next(iter(shapes))[0] // draws, n_resamples, seed)
    by_seed = {arm: values.reshape(-1, draws, *labels.shape) for arm, values in runs.items()}
    estimates = {arm: _estimate(values, labels, counts, seeds) for arm, values in by_seed.items()}
    rows = []
    for arm, (single, resampled) in estimates.items():
        base = None if arm == reference else estimates[reference]
        for f, finding in enumerate((*FINDINGS, "Average")):
            about = {"arm": arm, "finding": finding, "n": len(labels), "seeds": len(single)}
            about["positives"] = int(np.nansum(labels[:, f])) if finding in FINDINGS else None
            if finding in FINDINGS:
                about["n"] = int(np.isfinite(labels[:, f]).sum())
            rows.append(about | _row(single[:, f], resampled[:, f], base and tuple(x[:, f] for x in base)))
            if finding == "Average" and base:
                known = np.isfinite(single[:, :-1]).all(0)
                means = single.mean(0)[:-1][known], base[0].mean(0)[:-1][known]
                rows[-1]["p_findings"] = paired_wilcoxon(*means) if known.sum() > 1 else None
    columns = ["arm", "finding", "value", "sd", "low", "high", "difference", "difference_low", "difference_high", "p",
               "p_findings", "visible", "n", "positives", "seeds"]  # fmt: skip
    table = pl.DataFrame(rows, infer_schema_length=None)
    missing = [pl.lit(None, pl.Float64).alias(c) for c in columns if c not in table.columns]
    return table.with_columns(missing).select(columns)


def compare(
    arms: Mapping[str, Sequence[Any]],
    measure: Callable[[Any, np.ndarray], np.ndarray],
    about: Sequence[Mapping],
    patients: Sequence[str],
    reference: str = REAL,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Measures of each arm with their intervals, and their differences from the arm `reference`, as in `auroc_table`.

    Args:
        arms: arm -> what each of its seeds found; the arms' seeds are paired.
        measure: (what one seed found, counts [B, N]) -> [B, M]: M numbers, where image i counts counts[b, i] times; NaN
            where it is undefined. A number that is undefined for the images as they are is listed without an estimate.
        about: M dicts, what each number is: the first columns of the table.
        patients: of each of N images; they are what is resampled.

    Columns: those of `about`, arm, value, sd (over seeds), low, high, difference, difference_low, difference_high, p,
    visible, seeds.

    Raises:
        ValueError: if arms differ in their seeds, or the reference is none of them.
    """
    if reference not in arms or len({len(runs) for runs in arms.values()}) != 1:
        raise ValueError(f"arms need equally many seeds, one of them {reference!r}; got {list(arms)}")
    counts, seeds = _resamples(patients, len(arms[reference]), n_resamples, seed)
    share, once = seeds / seeds.sum(1, keepdims=True), np.ones((1, len(patients)), int)
    estimates = {}
    for arm, runs in arms.items():
        measured = np.stack([measure(run, np.concatenate([once, counts])) for run in runs])  # [S, 1 + B, M]
        estimates[arm] = measured[:, 0], np.einsum("bs,sbm->bm", share, measured[:, 1:])
    rows = []
    for m, named in enumerate(about):
        own = {arm: (single[:, m], resampled[:, m]) for arm, (single, resampled) in estimates.items()}
        for arm, (single, resampled) in own.items():
            base = None if arm == reference else own[reference]
            rows.append({**named, "arm": arm, "seeds": len(single)} | _row(single, resampled, base))
    columns = [*about[0], "arm", *ESTIMATE, "seeds"]
    table = pl.DataFrame(rows, infer_schema_length=None)
    return table.with_columns(pl.lit(None, pl.Float64).alias(c) for c in columns if c not in table.columns)[columns]


def weighted_mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean [B] of values [N], each as often as counts [B, N] says; NaN of fewer than `LEAST_POSITIVES` values."""
    if len(values) < LEAST_POSITIVES:
        return np.full(len(counts), np.nan)
    with np.errstate(invalid="ignore"):  # a resample may hold none of them
        return counts @ values / counts.sum(1)


def _resamples(patients: Sequence[str], seeds: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each image [B, N] and each seed [B, S] is drawn; whole patients are drawn."""
    rng = np.random.default_rng(seed)
    return patient_counts(patients, n, rng), rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=n)


def patient_counts(patients: Sequence[str], n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each image is drawn in each of n resamples of whole patients, [n, N]; patients: of each image."""
    names, member = np.unique(np.asarray(patients), return_inverse=True)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)[:, member]


def _estimate(
    scores: np.ndarray, labels: np.ndarray, counts: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC of each seed [S, 14 + 1] and of each resample, averaged over its seeds [B, 14 + 1]; last the mean.

    scores: [S, draws, N, 14]; a seed's AUROC is the mean of its draws'.
    """
    single = np.full((len(scores), len(FINDINGS)), np.nan)
    resampled = np.full((len(scores), len(counts), len(FINDINGS)), np.nan)
    for f, own in enumerate(labels.T):
        positive, negative = own == 1, own == 0
        if min(positive.sum(), negative.sum()) < LEAST_POSITIVES:
            continue
        drawn = counts[:, positive].astype(float), counts[:, negative].astype(float)
        pairs = drawn[0].sum(1) * drawn[1].sum(1)
        for s, draws in enumerate(scores[..., f]):
            won = _won(draws[:, positive], draws[:, negative])
            single[s, f] = won.mean()
            with np.errstate(invalid="ignore"):
                resampled[s, :, f] = np.einsum("bm,bm->b", drawn[0] @ won, drawn[1]) / pairs
    mixed = np.einsum("bs,sbf->bf", seeds / seeds.sum(1, keepdims=True), resampled)
    known = np.isfinite(single).all(0)
    if not known.any():
        raise ValueError(
            f"no finding has {LEAST_POSITIVES} known positives and negatives in the test set; use more records"
        )
    with np.errstate(invalid="ignore"):
        average = np.nanmean(mixed[:, known], axis=1)
    return (
        np.column_stack([single, single[:, known].mean(1)]),
        np.column_stack([mixed, average]),
    )


def _won(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """How often each positive [draws, P] scores above each negative [draws, M], ties half: [P, M], mean over draws.

    An AUROC is the mean of this over pairs (Mann and Whitney), so a resample of the rows only weights it: one product
    of matrices for all draws and resamples, where sorting would go through every one.
    """
    pairs = positive[:, :, None], negative[:, None, :]
    return ((pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])).mean(0)


def _row(single: np.ndarray, resampled: np.ndarray, base: tuple[np.ndarray, np.ndarray] | None) -> dict:
    """Value, spread over seeds and interval of an arm; and its difference from the reference's, if that is defined.

    single, resampled: of each seed [S] and resample [B]; base: the reference's; None where the arm is the reference.
    """
    if not np.isfinite(single).all():
        return {}
    own = interval_of(single.mean(), resampled, 0)
    sd = float(single.std(ddof=1)) if len(single) > 1 else None
    row = {"value": own.value, "sd": sd, "low": own.low, "high": own.high}
    if base is None or not np.isfinite(base[0]).all():
        return row
    differences = resampled - base[1]
    found = interval_of(single.mean() - base[0].mean(), differences, 0)
    return row | {"difference": found.value, "difference_low": found.low, "difference_high": found.high,
                  "p": two_sided(differences), "visible": visible(differences)}  # fmt: skip


def two_sided(differences: np.ndarray) -> float:
    """p of "no difference" from bootstrap differences [B]: twice the smaller share beyond zero, at least 1 / B."""
    differences = differences[np.isfinite(differences)]
    beyond = min((differences <= 0).mean(), (differences >= 0).mean())
    return float(np.clip(2 * beyond, 1 / len(differences), 1))


def visible(differences: np.ndarray, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that would be seen with `power` at this standard error."""
    return float(np.nanstd(differences) * (stats.norm.ppf(power) + stats.norm.ppf(1 - level / 2)))


def verdict(row: Mapping) -> str:
    """ "+0.021 [0.004, 0.038]", or "no detectable difference" with the smallest that could have been seen."""
    span = f"{row['difference']:+.3f} [{row['difference_low']:.3f}, {row['difference_high']:.3f}]"
    if row["difference_low"] == row["difference_high"] == 0:
        return "+0.000: the same in every resample"
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return f"{span}: no detectable difference (could see {row['visible']:.3f})"
    return span
