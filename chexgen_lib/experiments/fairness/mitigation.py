"""Training arms compared by how they serve groups of patients (paper, Figure 5d)."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from chexgen_lib.estimates import worth
from chexgen_lib.estimates.comparison import difference, estimate
from chexgen_lib.estimates.measures import SHARE, finding_f1, known_mean
from chexgen_lib.estimates.resampling import SeedsMean
from chexgen_lib.estimates.worth import Against
from chexgen_lib.experiments.fairness import AUROC, GAP, MACRO, TOO_FEW, WEIGHTED, WORST
from chexgen_lib.experiments.fairness.scores import COUNT, REAL, TEXT, GroupScores, check_paired, gap, table_of, worst
from chexgen_lib.pools.groups import EVERYONE

COMPARISON = {
    **dict.fromkeys(("attribute", "measure", "arm"), TEXT),
    **dict.fromkeys(("value", "low", "high", "difference", "difference_low", "difference_high"), REAL),
    **dict.fromkeys(("p", "detectable"), REAL),
    **dict.fromkeys(worth.NAMES, TEXT),
    **dict.fromkeys(worth.NUMBERS, REAL),
    **dict.fromkeys(("n_groups", "n_patients", "seeds"), COUNT),
    "note": TEXT,
}


def compare(
    arms: Mapping[str, Sequence[GroupScores]], *, before: str, against: Mapping[str, Against] | None = None
) -> pl.DataFrame:
    """Training arms beside each other on the same real test cohort, and each against the arm `before`.

    A group's F1 is averaged over the trainings before the worst or best is taken. A smaller gap with the same worst
    group is levelling down: read the two together. With a single training per arm, the intervals do not cover the
    variation between seeds.

    Args:
        arms: name -> one `evaluate` result for each training (seed) of the arm.
        against: arm -> what else it is held against.

    Returns:
        attribute, measure (macro AUROC, macro F1 and weighted F1 of everyone; worst-group F1 and best-worst gap of each
        attribute), arm, the estimate as in `estimates.comparison` (worst and gap with the simultaneous interval of
        `disparity`, their differences centred), the columns of `estimates.worth`, n_groups, n_patients, seeds, note.

    Raises:
        ValueError: for unequal groups, patients, labels, findings or resamples.
    """
    if before not in arms or any(not runs for runs in arms.values()):
        raise ValueError(f"needs at least one evaluation of every arm and of {before!r}; got {list(arms)}")
    _check_arms(arms)
    measured = {name: _arm(runs) for name, runs in arms.items()}
    first, rows = arms[before][0], []
    for key, (reference, _) in measured[before].items():
        attribute, measure = key
        shown = first.shown(attribute)
        common = {
            "attribute": attribute,
            "measure": measure,
            "n_groups": len(shown),
            "n_patients": first.patients(shown),
            "note": "" if np.isfinite(reference.resampled[0]) else "no estimate" if attribute == EVERYONE else TOO_FEW,
        }
        for name, runs in arms.items():
            own, numbers = measured[name][key]
            row = common | {"arm": name, "seeds": len(runs)} | numbers
            centred = measure in (WORST, GAP)
            if name != before:
                row |= difference((own - reference).widened(), centred)
            if against and name in against:
                means = {arm: values[key][0] for arm, values in measured.items()}
                row |= worth.columns(own, means, against[name], before, measure == GAP, centred)
            rows.append(row)
    return table_of(rows, COMPARISON)


def _arm(runs: Sequence[GroupScores]) -> dict[tuple[str, str], tuple[SeedsMean, dict[str, float]]]:
    """(attribute, measure) -> it and its value with interval, averaged over the trainings."""
    first = runs[0]

    def average(values: list[np.ndarray]) -> SeedsMean:
        return first.resampling.seeds_mean(np.stack(values))

    f1 = average([run.f1 for run in runs])  # of [1 + B, G]
    macro = average([known_mean(finding_f1(run.totals[:, 0]), 1) for run in runs])
    overall = {AUROC: average([run.auroc for run in runs]), MACRO: macro, WEIGHTED: f1.of(0)}
    measured = {
        (EVERYONE, measure): (values, estimate(values.widened(), within=SHARE)) for measure, values in overall.items()
    }
    for attribute in first.groups.attributes:
        own = f1.of(first.shown(attribute))
        if own.resampled.shape[1] < 2:
            nothing = SeedsMean(np.full(len(f1.resampled), np.nan), np.full(len(runs), np.nan)), {}
            measured |= {(attribute, WORST): nothing, (attribute, GAP): nothing}
        else:
            low, high = (own.of(find(own.resampled[0])).of_seeds for find in (np.argmin, np.argmax))
            measured[attribute, WORST] = SeedsMean(own.resampled.min(1), low), worst(own.widened())
            measured[attribute, GAP] = SeedsMean(np.ptp(own.resampled, axis=1), high - low), gap(own.widened())
    return measured


def _check_arms(arms: Mapping[str, Sequence[GroupScores]]) -> None:
    """Raise ValueError unless all were evaluated with the same groups, patients, resamples, labels and findings."""
    runs = {f"{name}, training {k + 1}": run for name, runs in arms.items() for k, run in enumerate(runs)}
    check_paired(runs)
    first = next(iter(runs.values()))
    for name, run in runs.items():
        alike = np.array_equal(first.labels, run.labels, equal_nan=True)
        if not alike or not np.array_equal(first.groups.member, run.groups.member):
            raise ValueError(
                f"{name}: evaluated on other rows, labels or findings than {next(iter(runs))}; a finding counts where "
                "the arm has a threshold, so choose all thresholds on the same validation labels"
            )
