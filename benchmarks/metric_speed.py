"""Metrics on n = 3,500 images of 1,024 features, as the paper measures FID, beside torchmetrics on the same features.

    python benchmarks/metric_speed.py [--images 3500] [--features 1024] [--repeats 3]

FID of torchmetrics takes the eigenvalues of the product of two covariances, ours the singular values of the product of
their roots; KID of torchmetrics averages 100 subsets of 1,000 images, ours takes all pairs once, without sampling error
of its own. Values must agree (FID to 1e-6, KID within the spread of the subsets) or the benchmark stops. Both run in
one process and in turn; the median counts, in seconds of processor time, which other programs change little. Writes
metric_speed.csv.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from threadpoolctl import threadpool_info
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from chexgen_lib.quality.frechet import frechet_distance
from chexgen_lib.quality.kernel_distance import kernel_distance
from chexgen_lib.quality.manifold import manifold

SUBSETS, SUBSET = 100, 1000  # torchmetrics' defaults


class Features(torch.nn.Module):
    """The feature extractor of images that are features already."""

    def __init__(self, dim: int):
        super().__init__()
        self.num_features = dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def features(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets whose variances fall off as those of a network's features do."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, dim + 1) ** -0.5
    return rng.normal(size=(n, dim)) * scale, rng.normal(0.05, 1.1, (n, dim)) * scale


def torchmetrics_fid(real: np.ndarray, generated: np.ndarray) -> float:
    metric = FrechetInceptionDistance(Features(real.shape[1]))
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    return float(metric.compute())


def torchmetrics_kid(real: np.ndarray, generated: np.ndarray) -> float:
    metric = KernelInceptionDistance(Features(real.shape[1]), subsets=SUBSETS, subset_size=min(SUBSET, len(real)))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    mean, spread = metric.compute()
    torchmetrics_kid.error = 4 * float(spread) / SUBSETS**0.5
    return float(mean)


def timed(functions: dict[str, Callable], sets: tuple, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median processor seconds and the value of each, called in turn."""
    seconds, values = {name: [] for name in functions}, {}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            values[name] = function(*sets)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=3500)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sets, rows = features(options.images, options.features), []
    for metric, ours, theirs in (
        ("FID", frechet_distance, torchmetrics_fid),
        ("KID", kernel_distance, torchmetrics_kid),
        ("precision, recall, density, coverage", lambda *x: float(manifold(*x).coverage.mean()), None),
    ):
        functions = {"ours": ours} | ({"torchmetrics": theirs} if theirs else {})
        seconds, values = timed(functions, sets, options.repeats)
        if metric == "FID" and abs(values["ours"] / values["torchmetrics"] - 1) > 1e-6:
            raise SystemExit(f"FID differs: {values}")
        if metric == "KID" and abs(values["ours"] - values["torchmetrics"]) > torchmetrics_kid.error:
            raise SystemExit(f"KID differs: {values}")
        for name, value in values.items():
            ratio = round(seconds["torchmetrics"] / seconds[name], 2) if theirs else None
            rows.append((metric, name, value, round(seconds[name], 3), ratio))
    threads = max([pool["num_threads"] for pool in threadpool_info()], default=1)
    table = pl.DataFrame(
        rows, ["metric", "code", "value", "cpu_seconds", "times_as_fast_as_torchmetrics"], orient="row"
    )
    about = {"images": options.images, "features": options.features, "repeats": options.repeats, "threads": threads}
    table = table.with_columns(**{name: pl.lit(value) for name, value in about.items()})
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
