"""Stress tests of a classifier: how its answers move when one thing of a film changes, by edits beside the truth.

    table = responses(classifier.predict, bench, {"inversion": edited}, n_bootstrap=1000)
    verdicts(table, "inversion")

A classifier that sees findings alone does not move when age, sex, view or site change. Where no true counterfactual
exists, as for patients, edits have to say so; here both are measured, and `verdicts` says how often edits are right.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import compare
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.counterfactuals.films import ATTRIBUTES, Films, values
from chexgen_lib.experiments.counterfactuals.measures import PROBED, weighted_mean, with_own_pairs
from chexgen_lib.experiments.rectified_flow.probes import Probes
from chexgen_lib.images import from_uint8, reduced, resize
from chexgen_lib.phantom.counterfactual_benchmark import PERSON, Pair
from chexgen_lib.records import FINDINGS, SEVERITIES

TRUTH = "true counterfactual"
Classify = Callable[[np.ndarray], np.ndarray]


def responses(
    classify: Classify,
    films: Films,
    arms: Mapping[str, np.ndarray],
    n_bootstrap: int = 1000,
    seed: int = 0,
    labels: Sequence[str] = FINDINGS,
) -> pl.DataFrame:
    """Mean change of a classifier's answers, by what is changed, on the true counterfactuals and on edits.

    Changes count towards older, female, AP, site B, worse, and a finding's coming; a side and a device have no
    direction and are left out.

    Args:
        classify: films float32 [N, S, S] in 0..1 -> answers [N, L], finite.
        arms: editor -> edited films, uint8 [N, S, S].
        labels: L names of the answers.

    Returns:
        attribute, label, arm, `comparison.ESTIMATE` (differences from `TRUTH`), patients (pairs of that attribute),
        seeds.

    Raises:
        ValueError: for answers of another shape, or that are not finite.
    """
    sign = np.array([_direction(pair) for pair in films.pairs])
    resampling = Resampling([pair.name for pair in films.pairs], n_bootstrap, seed)
    groups = {name: films.attributes == name for name in dict.fromkeys(films.attributes[sign != 0])}
    about = [{"attribute": group, "label": label} for group in groups for label in labels]
    before = _answers(classify, films.before, labels)
    measured = {}
    for arm, images in ({TRUTH: films.after} | dict(arms)).items():
        moved = sign[:, None] * (_answers(classify, images, labels) - before)
        means = [weighted_mean(x, rows, resampling.weights) for rows in groups.values() for x in moved.T]
        measured[arm] = np.stack(means, axis=1)[None]  # [1, 1 + B, M]
    return with_own_pairs(compare(measured, about, resampling, TRUTH), groups)


def verdicts(table: pl.DataFrame, arm: str) -> pl.DataFrame:
    """What a stress test by the edits of `arm` concludes, beside one by the truth, over the rows of `responses`.

    An answer moves where the interval of its mean change leaves 0 out.

    Returns:
        attribute, n, moves (on the truth), found (of these, by edits in the same direction), false (moves by edits
        alone, or in the other direction).
    """
    moved = (
        pl.when(pl.col("low") > 0).then(1).when(pl.col("high") < 0).then(-1).when(pl.col("low").is_not_null()).then(0)
    )
    told = table.with_columns(moved=moved)
    both = told.filter(arm=TRUTH).join(told.filter(arm=arm), on=["attribute", "label"], suffix="_edited")
    true, edited = pl.col("moved"), pl.col("moved_edited")
    return (
        both.drop_nulls(["moved", "moved_edited"])
        .group_by("attribute", maintain_order=True)
        .agg(
            n=pl.len(),
            moves=(true != 0).sum(),
            found=((true != 0) & (true == edited)).sum(),
            false=((edited != 0) & (true != edited)).sum(),
        )
    )


def probe_classifier(images: np.ndarray, records: Sequence[Mapping[str, Any]]) -> Classify:
    """A classifier of the findings that learns from a few hundred films, uint8 [N, S, S], in seconds."""
    probes = Probes(reduced(images, PROBED), values(records)[:, len(PERSON) :])
    return lambda films: probes(resize(films, PROBED))


def _answers(classify: Classify, images: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    answers = np.asarray(classify(from_uint8(images)), np.float64)
    if answers.shape != (len(images), len(labels)) or not np.isfinite(answers).all():
        raise ValueError(
            f"the classifier gave {answers.shape} answers for {len(images)} films and {len(labels)} labels, or some "
            "that are not finite: return one finite number a film and label, and name them in `labels`"
        )
    return answers


def _direction(pair: Pair) -> int:
    """1 or -1 towards more of what is changed; 0 where there is no more."""
    if pair.attribute == "severity":
        (finding, asked), *_ = pair.change.items()
        own = next(detail for detail in pair.record["details"] if detail["finding"] == finding)
        return int(np.sign(SEVERITIES.index(asked["severity"]) - SEVERITIES.index(own["severity"])))
    if pair.attribute not in ATTRIBUTES:
        return 0
    before, after = values([pair.record, pair.target])[:, ATTRIBUTES.index(pair.attribute)]
    return int(np.sign(after - before))
