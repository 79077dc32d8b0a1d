"""How often 95 % intervals of a difference contain the true one, and how often p is below 0.05 without one, by seeds.

    python -m benchmarks.seed_coverage [--simulations 400]

Two arms of S trainings each, seeds paired, tested on 100 patients; the true difference is zero. Between arms differ
patients (standard error 1) and trainings (a multiple of that). Writes seed_coverage.csv beside this file: for each
number of seeds and ratio of the two standard errors the coverage and the share of p below 0.05 of
`estimates.comparison.compare`, and the coverage of percentiles over resampled patients and seeds alone. Then for a
worth of 0.5 (`estimates.worth`; real images gain six standard errors): in how many studies it can be measured, and how
many of these intervals contain it.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from chexgen_lib.estimates.comparison import compare
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.worth import worth

PATIENTS, RESAMPLES = 100, 300
SEEDS, RATIOS = (3, 5, 10), (0, 1, 2, 10)


def differences(rng: np.random.Generator, seeds: int, ratio: float, weights: np.ndarray) -> np.ndarray:
    """Values [S, 1 + B] of the difference of one study."""
    of_patients = weights / weights.sum(1, keepdims=True) @ rng.standard_normal(PATIENTS)
    error = ratio / np.sqrt(PATIENTS)  # of the mean over seeds
    return of_patients + error * np.sqrt(seeds) * rng.standard_normal((seeds, 1))


def study(rng: np.random.Generator, seeds: int, ratio: float) -> tuple[bool, bool, bool]:
    """Whether our interval and plain percentiles contain zero, and whether p is below 0.05."""
    resampling = Resampling(np.arange(PATIENTS), RESAMPLES, seed=int(rng.integers(2**31)))
    change = differences(rng, seeds, ratio, resampling.weights)
    arms = {"a": np.zeros_like(change)[..., None], "b": change[..., None]}
    row = compare(arms, [{"measure": "m"}], resampling, "a").row(1, named=True)
    shares = resampling.seed_counts(seeds) / seeds
    low, high = np.quantile(np.einsum("bs,sb->b", shares, change[:, 1:]), [0.025, 0.975])
    return row["difference_low"] <= 0 <= row["difference_high"], low <= 0 <= high, row["p"] < 0.05


def worth_study(rng: np.random.Generator, seeds: int, ratio: float) -> bool | None:
    """Whether the interval of a worth of 0.5 contains it; None where it cannot be measured."""
    resampling = Resampling(np.arange(PATIENTS), RESAMPLES, seed=int(rng.integers(2**31)))
    error = np.hypot(1, ratio) / np.sqrt(PATIENTS)
    synthetic, real = (
        resampling.seeds_mean(differences(rng, seeds, ratio, resampling.weights) + gain * error) for gain in (3, 6)
    )
    found = worth(synthetic, real)
    return found["worth_low"] <= 0.5 <= found["worth_high"] if found else None


def measure(simulations: int) -> pl.DataFrame:
    rows = []
    for seeds in SEEDS:
        for ratio in RATIOS:
            rng = np.random.default_rng([seeds, ratio])
            found = np.mean([study(rng, seeds, ratio) for _ in range(simulations)], axis=0)
            worths = [worth_study(rng, seeds, ratio) for _ in range(simulations)]
            known = [covered for covered in worths if covered is not None]
            of_worth = len(known) / simulations, np.mean(known) if known else None
            rows.append((seeds, ratio, *found.round(3), *of_worth, simulations))
    columns = ["seeds", "seeds' error over patients'", "coverage", "coverage of percentiles", "p below 0.05"]
    table = pl.DataFrame(rows, [*columns, "worths measured", "coverage of worths", "studies"], orient="row")
    return table.with_columns(cs.float().round(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    table = measure(parser.parse_args().simulations)
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
