"""What prompts ask for beside what images show: findings, sex, age, view, severity and side.

Probes trained on real images answer on samples, and beside them on the prompts' own radiographs: what they cannot tell
there, no generator can be blamed for. A generator may also exaggerate: easier for a probe than a radiograph is not
better. `BARS` are what a cohort has to reach before it is used as if it showed what was asked (fairness, notebook 11).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import ESTIMATE, difference, estimate, tidy
from chexgen_lib.estimates.measures import LEAST, auroc, auroc_interval, known_mean, pearson
from chexgen_lib.estimates.wording import UNMEASURABLE, against_bar
from chexgen_lib.experiments.judge.bench import GENERATOR, Arm, Bench
from chexgen_lib.experiments.rectified_flow import control
from chexgen_lib.experiments.rectified_flow.control import MACRO
from chexgen_lib.experiments.rectified_flow.requests import truth
from chexgen_lib.learners.regressor import OPAQUE
from chexgen_lib.quality.arms import REAL
from chexgen_lib.records import FINDINGS, SEVERITIES

SEVERITY, SIDE = "severity", "side"
ATTRIBUTES = ("sex", "age", "view", SEVERITY, SIDE, *FINDINGS)
REACHED = against_bar(1, 0)
GRADUAL = ("age", SEVERITY)  # the others have two poles
BARS = {**control.BARS, SEVERITY: 0.3, SIDE: 0.75}  # AUROC; of gradual ones the correlation
GRADED = (*OPAQUE, "Effusion", "Pneumothorax")  # findings whose severity a probe can see as one scale
COLUMNS = ("attribute", "measure", "arm", "role", *ESTIMATE, "n", "positives", "samples", "bar", "verdict")


def requested(records: pl.DataFrame) -> np.ndarray:
    """What prompts of records ask for, [N, A] in the order of `ATTRIBUTES`; NaN where they do not say.

    Age in years; severity 1 to 3, the highest that `details` grade; side 1 (left) or 0 (right) where all agree; sex 1
    for M, view 1 for AP, a finding 1 or 0.
    """
    known = truth(records, [a for a in ATTRIBUTES if a not in (SEVERITY, SIDE)], ())
    placed = np.array([_place(details or []) for details in records["details"].to_list()], float).reshape(-1, 2)
    return np.concatenate([known[:, :3], placed, known[:, 3:]], axis=1)


def _place(details: Sequence[Mapping]) -> tuple[float, float]:
    grades = [SEVERITIES.index(d["severity"]) + 1.0 for d in details if d["severity"] and d["finding"] in GRADED]
    sides = {d["side"] for d in details if d["side"]}
    side = {frozenset({"left"}): 1.0, frozenset({"right"}): 0.0}.get(frozenset(sides), np.nan)
    return max(grades, default=np.nan), side


def measurable(values: np.ndarray) -> list[int]:
    """The attributes, as columns of `requested`, of which a probe can be trained: both poles, or several values."""
    return [a for a, name in enumerate(ATTRIBUTES) if _is_enough(name, values[:, a])]


def _is_enough(name: str, values: np.ndarray) -> bool:
    """Whether an attribute's values [N] have two poles of `LEAST`, or are gradual, several and twice as many."""
    known = values[~np.isnan(values)]
    counts = np.unique(known, return_counts=True)[1]
    return len(counts) > 1 and bool(len(known) >= 2 * LEAST if name in GRADUAL else counts.min() >= LEAST)


def table(bench: Bench) -> pl.DataFrame:
    """How well the probes recover what was asked, on each generator's images and on the prompts' own radiographs.

    Returns:
        `COLUMNS`: attribute, measure ("AUROC", or "correlation" of gradual ones), arm, role, the estimate over patients
        and its difference from the real images (paired), n (prompts that ask), positives, samples, bar, verdict. The
        rows of "findings, macro" average the findings.
    """
    values = requested(bench.reference.prompted.table)
    arms = {REAL: bench.real, **bench.generators, **bench.ignoring}
    names = list(bench.instruments.attributes)
    rows, of_findings = [], {arm: [] for arm in arms}
    for name in names:
        asked = values[:, ATTRIBUTES.index(name)]
        measured = {arm: _measure(name, asked, a.answers[..., names.index(name)], bench) for arm, a in arms.items()}
        if name in FINDINGS and np.isfinite(measured[REAL][0]):
            for arm, resampled in measured.items():
                of_findings[arm].append(resampled)
        rows += _rows(name, asked, measured, arms)
    if of_findings[REAL]:
        averaged = {arm: known_mean(np.array(v), 0) for arm, v in of_findings.items()}
        rows += _rows(MACRO, np.full(bench.n, np.nan), averaged, arms, n=bench.n)
    return tidy(rows, COLUMNS)


def _measure(name: str, asked: np.ndarray, answers: np.ndarray, bench: Bench) -> np.ndarray:
    """AUROC or correlation [1 + B] of answers [N, S]; the S images of a prompt are resampled together.

    NaN where too few prompts ask (`_is_enough`).
    """
    weights, s = bench.patients.weights, answers.shape[1]
    if not _is_enough(name, asked):
        return np.full(len(weights), np.nan)
    if name in GRADUAL:
        return pearson(np.repeat(asked[:, None], s, 1), answers, weights)
    return auroc(np.repeat(asked, s), answers.ravel(), weights.repeat(s, axis=1))


def _rows(
    name: str, asked: np.ndarray, measured: Mapping[str, np.ndarray], arms: Mapping[str, Arm], n: int | None = None
) -> list[dict]:
    positives = None if name in (*GRADUAL, MACRO) else int((asked == 1).sum())
    rows = []
    for arm, resampled in measured.items():
        row = {"attribute": name, "measure": "correlation" if name in GRADUAL else "AUROC", "arm": arm}
        row |= {"role": arms[arm].role, "n": int(np.isfinite(asked).sum()) if n is None else n}
        row |= {"positives": positives, "samples": arms[arm].samples, "bar": BARS.get(name), "verdict": ""}
        if np.isfinite(resampled[0]):
            row |= estimate(resampled) | (difference(resampled - measured[REAL]) if arm != REAL else {})
            if positives is not None:
                low, high = auroc_interval(row["value"], positives, row["n"] - positives)
                row |= {"low": min(low, row["low"]), "high": max(high, row["high"])}
            row["verdict"] = _verdict(row, measured[REAL][0])
        rows.append(row)
    return rows


def _verdict(row: Mapping, real: float) -> str:
    """Whether a generator reaches the bar; not measurable where the probe misses it on radiographs."""
    if row["bar"] is None or row["role"] != GENERATOR:
        return ""
    return against_bar(row["value"], row["bar"]) if real >= row["bar"] else f"{UNMEASURABLE} (real: {real:.2f})"


def unfit(found: pl.DataFrame) -> dict[str, tuple[list[str], list[str]]]:
    """For each generator the attributes whose bar it misses, and those of which nothing could be measured."""
    barred = found.filter(pl.col("bar").is_not_null(), role=GENERATOR)
    missed = pl.col("verdict").str.starts_with("missed")
    unknown = ~missed & (pl.col("verdict") != REACHED)
    every = {arm: barred.filter(arm=arm) for arm in barred["arm"].unique(maintain_order=True)}
    return {
        arm: tuple(rows.filter(which)["attribute"].to_list() for which in (missed, unknown))
        for arm, rows in every.items()
    }
