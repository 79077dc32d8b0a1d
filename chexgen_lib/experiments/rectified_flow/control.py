"""Does control work? One attribute is varied at a time, and probes trained on real images predict it from the samples.

`control_table` measures how well the probes distinguish the requested poles, beside the same probes on held-out real
images; `off_target` measures how far attributes move that were not requested to change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from chexgen_lib.estimates import wording
from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import auroc, correlation, mean, pair_sums
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.rectified_flow.requests import requested_value
from chexgen_lib.records import FINDINGS

MACRO = "findings, macro"
BARS = {MACRO: 0.75, "sex": 0.9, "view": 0.9, "age": 0.5}  # AUROC, for age the correlation, that control should reach


@dataclass(frozen=True)
class Answers:
    """The probes' predictions [N, A] on real images, the truth [N, A] (`requests.truth`), and the patients [N]."""

    answers: np.ndarray
    truth: np.ndarray
    patients: Sequence[str]


def control_table(
    requests: pl.DataFrame,
    answers: np.ndarray,
    real: Answers,
    attributes: Sequence[str],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """How well the probes recover what was requested, beside the same probes on held-out real images.

    Args:
        requests: of `requests.pairs`.
        answers: [2, R, A] of the probes on the samples of both poles, in the order of the requests.

    Returns:
        attribute, measure, images ("samples" or "real"), value, low, high, n. Measures: "AUROC" of the poles; for age
        "correlation" of requested and predicted years, and "mean error (years)". Patients are resampled; for samples,
        those whose records supplied the other attributes. The rows of "findings, macro" average the findings' AUROC.
    """
    rows, macro = [], {"samples": [], "real": []}
    drawn = Resampling(real.patients, n_resamples, seed).weights
    for a, name in enumerate(attributes):
        own = requests.filter(attribute=name)
        read = answers[:, (requests["attribute"] == name).to_numpy(), a]  # [2, n]
        wanted = np.zeros(read.shape) + [[0.0], [1.0]]
        if name == "age":
            wanted = np.array(
                [[requested_value(name, pole, k, len(own), ()) for k in range(len(own))] for pole in (0, 1)]
            )
        known = ~np.isnan(real.truth[:, a])
        sides = {
            "samples": (wanted.T, read.T, Resampling(own["patient_id"], n_resamples, seed).weights),
            "real": (real.truth[known, a, None], real.answers[known, a, None], drawn[:, known]),
        }
        for images, (want, have, weights) in sides.items():
            measured = _age(want, have, weights) if name == "age" else {"AUROC": _auroc(want, have, weights)}
            if name in FINDINGS:
                macro[images].append(measured["AUROC"])
            about = {"attribute": name, "images": images, "n": want.size}
            rows += [about | {"measure": measure} | estimate(values) for measure, values in measured.items()]
    sizes = {"samples": 2 * int(requests["attribute"].is_in(FINDINGS).sum()), "real": len(real.answers)}
    for images, values in macro.items():
        if values:
            about = {"attribute": MACRO, "measure": "AUROC", "images": images, "n": sizes[images]}
            rows.append(about | estimate(np.mean(values, axis=0)))
    return pl.DataFrame(rows).select("attribute", "measure", "images", "value", "low", "high", "n")


def _auroc(want: np.ndarray, have: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC [1 + B] of labels and scores [n, k]; the k values of a row are resampled together."""
    return auroc(want.ravel(), have.ravel(), weights.repeat(want.shape[1], axis=1))


def _age(want: np.ndarray, have: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    sums = pair_sums(want, have).sum(1)  # [n, 6]
    return {
        "correlation": correlation(weights @ sums),
        "mean error (years)": mean(np.abs(want - have).mean(1), weights),
    }


def against_bars(table: pl.DataFrame) -> pl.DataFrame:
    """Which of `BARS` the samples of a `control_table` reach: attribute, measure, value, bar, verdict."""
    rows = []
    for name, bar in BARS.items():
        own = table.filter(pl.col("measure") != "mean error (years)", attribute=name, images="samples")
        rows += [(name, r["measure"], r["value"], bar, wording.against_bar(r["value"], bar)) for r in own.to_dicts()]
    return pl.DataFrame(rows, ["attribute", "measure", "value", "bar", "verdict"], orient="row")


def off_target(
    requests: pl.DataFrame,
    answers: np.ndarray,
    real: Answers,
    attributes: Sequence[str],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """How far the probe of `measured` moves, at a fixed seed, where `asked` goes from its low pole to its high one.

    Arguments as for `control_table`. In standard deviations of the probe's predictions on the real images, mean over
    the pairs.

    Returns:
        asked (the requested attribute), measured, value, low, high, n (pairs), and `real`: the same difference between
        real images of the two poles (ages: at least 55 against under 55), which is partly cause and partly correlation.
    """
    spread, rows = real.answers.std(0), []
    for a, asked in enumerate(attributes):
        of = (requests["attribute"] == asked).to_numpy()
        moved = (answers[1, of] - answers[0, of]) / spread  # [n, A]
        resampled = mean(moved, Resampling(requests.filter(of)["patient_id"], n_resamples, seed).weights)  # [1 + B, A]
        is_high = real.truth[:, a] >= (55 if asked == "age" else 1)
        known = ~np.isnan(real.truth[:, a])
        between = (real.answers[known & is_high].mean(0) - real.answers[known & ~is_high].mean(0)) / spread
        for b, measured in enumerate(attributes):
            about = {"asked": asked, "measured": measured} | estimate(resampled[:, b])
            rows.append(about | {"n": len(moved), "real": float(between[b])})
    return pl.DataFrame(rows)
