"""How often 95 % intervals of an AUROC contain the true one, for few positives: which interval tables should show.

    python -m benchmarks.auroc_coverage [--simulations 150]

Scores of n patients are drawn from two normal distributions whose true AUROC is known. "spread" draws positives twice
as far apart as negatives; "repeated" gives each patient two images and three networks, whose scores share a part.
Writes auroc_coverage.csv beside this file: for each number of patients, positives and AUROC the share of intervals that
contain the truth and their mean width, by method. `ours` is what `estimates.comparison.auroc_table` shows: the
percentile interval over patients and networks, widened to Newcombe's.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.measures import auroc_interval, auroc_of_draws
from chexgen_lib.estimates.resampling import Resampling, percentile_interval

RESAMPLES = 200
PATIENTS, POSITIVES, AUROCS = (60, 300), (1, 2, 5, 20), (0.6, 0.8, 0.95, 0.99)
DESIGNS = {"plain": (1, 1, 1.0), "spread": (1, 1, 2.0), "repeated": (2, 3, 1.0)}  # images, networks, sd of positives
SIDES = stats.norm.ppf([0.025, 0.975])


def scores(rng: np.random.Generator, labels: np.ndarray, auroc: float, design: str) -> np.ndarray:
    """Scores [networks, N] of images with these labels, whose expected AUROC is `auroc`."""
    images, networks, spread = DESIGNS[design]
    noise = rng.standard_normal((networks, len(labels)))
    if design == "repeated":
        patients = np.repeat(rng.standard_normal(len(labels) // images), images)
        noise = np.sqrt(0.5) * (patients + noise)
    shift = stats.norm.ppf(auroc) * np.sqrt(1 + spread**2)
    return np.where(labels == 1, shift + spread * noise, noise)


def percentiles(drawn: np.ndarray) -> np.ndarray:
    return np.nanquantile(drawn, [0.025, 0.975])


def logistic(centre: float, error: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(centre + SIDES * error)))


def other_methods(y: np.ndarray, x: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Intervals by method of one network's AUROC, scores x [N] with one image a patient; drawn: its resamples."""
    positive, negative = x[y == 1], x[y == 0]
    p, n = len(positive), len(negative)
    won = (positive[:, None] > negative).astype(float)
    strata = [rng.multinomial(k, np.full(k, 1 / k), RESAMPLES) for k in (p, n)]
    dirichlet = [rng.standard_exponential((RESAMPLES, k)) for k in (p, n)]
    jitter = [1.06 * k ** (-0.2) * (v.std(ddof=1) if k > 1 else 0) for k, v in ((p, positive), (n, negative))]
    smooth = stats.norm.cdf((positive[:, None] - negative) / np.hypot(*jitter))

    def by_weights(pairs: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.einsum("bm,bm->b", rows @ pairs, columns) / (rows.sum(1) * columns.sum(1))

    few = min(p, n)
    shrunk = (drawn * few + 0.5) / (few + 1)  # an AUROC of 1 has no logit
    logits = np.log(shrunk / (1 - shrunk))
    value = np.clip(won.mean(), 1e-9, 1 - 1e-9)
    variance = sum(won.mean(axis).var(ddof=1) / k for axis, k in ((1, p), (0, n)) if k > 1)
    return {
        "stratified percentile": percentiles(by_weights(won, *strata)),
        "smoothed percentile": percentiles(by_weights(smooth, *strata)),
        "Bayesian bootstrap": percentiles(by_weights(won, *dirichlet)),
        "logit of the bootstrap": logistic(logits[0], np.nanstd(logits[1:], ddof=1)),
        "DeLong, logit": logistic(np.log(value / (1 - value)), np.sqrt(variance) / (value * (1 - value))),
    }


def simulate(patients: int, positives: int, auroc: float, design: str, rng: np.random.Generator) -> dict:
    """Intervals by method of one simulated test set."""
    images, _, _ = DESIGNS[design]
    labels = np.repeat(np.arange(patients) < positives, images).astype(float)
    x = scores(rng, labels, auroc, design)
    resampling = Resampling(np.repeat(np.arange(patients), images), RESAMPLES, int(rng.integers(2**31)))
    runs = np.stack([auroc_of_draws(labels, one[None], resampling.weights, 1) for one in x])
    mean = percentile_interval(resampling.over_seeds(runs))
    newcombe = auroc_interval(mean.value, positives, patients - positives)
    ours = (min(mean.low, newcombe[0]), max(mean.high, newcombe[1]))
    found = {"ours": ours, "percentile": (mean.low, mean.high), "Newcombe": newcombe}
    return found | (other_methods(labels, x[0], runs[0], rng) if design == "plain" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=150)
    arguments = parser.parse_args()
    rows = []
    for design, patients in [("plain", n) for n in PATIENTS] + [("spread", PATIENTS[1]), ("repeated", PATIENTS[0])]:
        for positives, auroc in ((p, a) for p in POSITIVES for a in AUROCS):
            rng = np.random.default_rng([patients, positives, int(100 * auroc), len(design)])
            simulated = [simulate(patients, positives, auroc, design, rng) for _ in range(arguments.simulations)]
            for method in simulated[0]:
                low, high = np.array([one[method] for one in simulated], float).T
                contained = ((low <= auroc) & (auroc <= high)).mean()
                about = (design, patients, positives, positives / patients, auroc, method)
                rows.append((*about, contained, (high - low).mean(), arguments.simulations))
    columns = "design patients positives prevalence auroc method coverage width simulations".split()
    table = pl.DataFrame(rows, columns, orient="row")
    table.write_csv(Path(__file__).with_suffix(".csv"), float_precision=3)
    summary = table.group_by("method", "positives").agg(pl.min("coverage"), pl.mean("width"))
    with pl.Config(tbl_rows=-1, float_precision=3):
        print(summary.sort("positives", "method"))


if __name__ == "__main__":
    main()
