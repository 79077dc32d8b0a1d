"""Test cohorts that no hospital has: as many of each kind of patient, and one thing changed at a time.

`balanced` asks for every combination of sex, age group, view, source and finding equally often; a classifier's F1 by
group on it (`fairness.evaluate`) is its performance surface. Each group has the same findings, so that prevalence,
which F1 follows, does not tell the groups apart; among real patients it does. `rank_agreement` says whether the groups
come in the same order there. `stress` starts from one kind of patient and changes one factor, with the same noise.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import LEVEL, interval_of, resample_counts
from chexgen_lib.experiments.fairness import GroupScores, confusion, weighted_f1
from chexgen_lib.experiments.rectified_flow.control import ControlError
from chexgen_lib.pools.groups import AGE_GROUPS, EVERYONE
from chexgen_lib.records import FINDINGS

AGES = {"19-40": 30, "41-65": 53, "66+": 76}  # years that are asked for
ATTRIBUTES = ("sex", "age group", "view", "source")  # and the finding
BASE = {"sex": "M", "age group": "41-65", "view": "AP"}  # where the stress set starts; its source is the first one
ALL_GROUPS = "all groups"


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

    Patient k has the same id, finding and, where images are drawn by id, noise in every arm. Raises ControlError.
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
    """What the patients of `balanced` or `stress` were asked to have: [N, 14], 1, 0 or NaN."""
    return table.select(pl.col(FINDINGS).cast(pl.Float64)).fill_null(np.nan).to_numpy()


def _check(findings: Sequence[str], n: int, name: str) -> None:
    if unknown := [f for f in findings if f not in FINDINGS]:
        raise ControlError(f"unknown finding {unknown[0]!r}: use some of {', '.join(FINDINGS)}")
    if n < 1 or not findings:
        raise ControlError(f"{n} {name} of {len(findings)} findings: needs at least one of each")


def _table(
    cells: Sequence[Mapping], name: str = "{sex}/{age group}/{view}/{source}/{finding}/{copy}"
) -> tuple[pl.DataFrame, list[dict]]:
    asked = [_states(cell["finding"]) for cell in cells]
    metadata = [
        {"sex": c["sex"], "age": AGES[c["age group"]], "view": c["view"], "source": c["source"]} | states
        for c, states in zip(cells, asked, strict=True)
    ]
    ids = [name.format(**cell) for cell in cells]
    rows = [
        {"image_id": i, "patient_id": i} | {k: v for k, v in cell.items() if k != "copy"} | states
        for i, cell, states in zip(ids, cells, asked, strict=True)
    ]
    schema = {f: pl.Float64 for f in FINDINGS} | {"age group": pl.Enum(list(AGE_GROUPS))}
    return pl.DataFrame(rows, schema_overrides=schema), metadata


def _states(finding: str) -> dict[str, int | None]:
    """One finding present, the others absent; a lung opacity is unsaid where the finding may be one."""
    states: dict[str, int | None] = dict.fromkeys(FINDINGS, 0) | {finding: 1}
    if finding not in ("No Finding", "Lung Opacity"):
        states["Lung Opacity"] = None
    if finding == "Support Devices":
        states["No Finding"] = None
    return states


# --------------------------------------------------------------------------------------------------- measuring


def rank_agreement(real: GroupScores, synthetic: GroupScores) -> pl.DataFrame:
    """Do the groups come in the same order on real patients and on a cohort of other, synthetic ones?

    Spearman's rho and Kendall's tau-b of the groups' F1, for each attribute and over all. Columns: attribute, measure,
    value, low, high, n (groups with an F1 in both), note. The 95 % interval is 1.96 standard errors of real and
    synthetic patients resampled, each in their own cohort, cut at -1 and 1; fewer than 3 groups have no value.
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
            row = {"attribute": name, "measure": measure, "n": int(of.sum())}
            if of.sum() < 3:
                rows.append(row | {"note": "fewer than 3 groups: 1 or -1 whatever the data"})
                continue
            drawn = np.array([function(a, b).statistic for a, b in zip(x[:, of], y[:, of], strict=True)])
            half = stats.norm.ppf(0.5 + LEVEL / 2) * np.nanstd(drawn[1:], ddof=1)
            low, high = np.clip([drawn[0] - half, drawn[0] + half], -1, 1)
            rows.append(row | {"value": float(drawn[0]), "low": float(low), "high": float(high), "note": ""})
    columns = {"attribute": pl.String, "measure": pl.String, "value": pl.Float64, "low": pl.Float64,
               "high": pl.Float64, "n": pl.Int64, "note": pl.String}  # fmt: skip
    return pl.DataFrame(rows, schema=columns).fill_nan(None)


def stress_table(
    labels: np.ndarray,
    scores: Mapping[str, np.ndarray],
    thresholds: np.ndarray,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Weighted F1 of each arm of `stress`, and its difference from "base" for the same patients.

    labels: [N, 14] of all arms; scores: arm -> [N, 14]; thresholds: [14], as for `fairness.confusion`. Columns: arm,
    value, low, high, difference, difference_low, difference_high, n; patients are resampled.
    """
    n = len(labels)
    counts = resample_counts(n, n_resamples, np.random.default_rng(seed))
    counts = np.concatenate([np.ones((1, n), int), counts])
    f1 = {
        arm: weighted_f1(np.tensordot(counts, confusion(labels, own, thresholds), 1)) for arm, own in scores.items()
    }  # [1 + B]
    rows = []
    for arm, values in f1.items():
        own, moved = (interval_of(v[0], v[1:], n) for v in (values, values - f1["base"]))
        row = {"arm": arm, "value": own.value, "low": own.low, "high": own.high, "n": n}
        if arm != "base":
            row |= {"difference": moved.value, "difference_low": moved.low, "difference_high": moved.high}
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)
