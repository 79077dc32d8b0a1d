"""How often the interval of a causal effect contains the known one, beside plain conditioning, on simulated tables.

    python -m benchmarks.causal_coverage [--runs 100]

Age confounds a device with edema: the old have both, and a device prevents edema. Writes causal_coverage.csv beside
this file: by way (intervention, conditioning) the share of runs whose 95 % interval contains the true effect, the mean
estimate, and the true one from a million simulated patients under each intervention.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from chexgen_lib.causal.effects import effect
from chexgen_lib.causal.graph import make_graph

ROWS, RESAMPLES = 1000, 50
KINDS = {"age": "number", "sex": "choice", "device": "choice", "edema": "choice"}
ARROWS = [
    {"from": ["age"], "to": ["device", "edema"], "because": "simulated"},
    {"from": ["sex", "device"], "to": ["edema"], "because": "simulated"},
]


def simulated(n: int, seed: int, device: int | None = None) -> pl.DataFrame:
    """`n` patients; `device`: all are given one (1), or none (0)."""
    random = np.random.default_rng(seed)
    age, sex = 20 + 70 * random.beta(2, 2, n), random.choice(["F", "M"], n)
    own = (random.random(n) < 1 / (1 + np.exp((55 - age) / 8))).astype(int)
    own = own if device is None else np.full(n, device)
    odds = np.exp((age - 60) / 8 - own + 0.3 * (sex == "M"))
    return pl.DataFrame({"age": age, "sex": sex, "device": own, "edema": (random.random(n) < odds / (1 + odds)) * 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="simulated tables (default: 100)")
    runs, graph = parser.parse_args().runs, make_graph(KINDS, ARROWS)
    true = simulated(1_000_000, 0, 1)["edema"].mean() - simulated(1_000_000, 0, 0)["edema"].mean()
    found = pl.concat(
        effect(simulated(ROWS, 1 + k), graph, "device", (0, 1), ("edema", 1), RESAMPLES, 5000, k)
        for k in tqdm(range(runs), unit="table")
    )
    covered = pl.col("low").le(true) & pl.col("high").ge(true)
    width = (pl.col("high") - pl.col("low")).mean()
    by_way = found.group_by("way", maintain_order=True).agg(
        covered=covered.mean(), mean=pl.col("value").mean().round(4), width=width.round(4), runs=pl.len()
    )
    by_way = by_way.with_columns(true=pl.lit(round(true, 4)), rows=ROWS)
    by_way.write_csv(Path(__file__).with_suffix(".csv"))
    print(by_way)


if __name__ == "__main__":
    main()
