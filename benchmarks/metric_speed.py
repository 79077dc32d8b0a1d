"""Metrics on n = 3,500 images of 1,024 features, as the paper measures FID, beside torchmetrics on the same features.

    python benchmarks/metric_speed.py [--images 3500] [--features 1024] [--repeats 3]

FID is measured in the three ways that a judging takes it: of one generator; of a further one, with what is known of
the real images kept; and on 5 resamples of images, as intervals need it. torchmetrics takes the eigenvalues of the
product of two covariances, ours the roots of the eigenvalues of a symmetric product; "NumPy, SciPy" is the formula of
pytorch-fid and torch-fidelity (`cov`, `sqrtm`). KID of torchmetrics averages 100 subsets of 1,000 images, ours takes
all pairs once, without sampling error of its own. Values must agree (FID to 1e-6, KID within the spread of the subsets)
or the benchmark stops. All run in one process and in turn; the median counts, in seconds of processor time, which other
programs change little. Writes metric_speed.csv.
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
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_info
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from chexgen_lib.quality.frechet import distance, frechet_distance, moments
from chexgen_lib.quality.kernel_distance import kernel_distance
from chexgen_lib.quality.manifold import manifold

SUBSETS, SUBSET = 100, 1000  # torchmetrics' defaults
RESAMPLES = 5
ONE, FURTHER, RESAMPLED = "FID", "FID of a further generator", f"FID on {RESAMPLES} resamples"


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
    return further_of_torchmetrics(real)(generated)


def further_of_torchmetrics(real: np.ndarray) -> Callable[[np.ndarray], float]:
    metric = FrechetInceptionDistance(Features(real.shape[1]), reset_real_features=False)
    metric.update(torch.from_numpy(real), real=True)

    def fid(generated: np.ndarray) -> float:
        metric.reset()
        metric.update(torch.from_numpy(generated), real=False)
        return float(metric.compute())

    return fid


def further_of_ours(real: np.ndarray) -> Callable[[np.ndarray], float]:
    known = moments(real)
    distance(known, known)  # which keeps its covariance and factor
    return lambda generated: distance(known, moments(generated))


def textbook_fid(real: np.ndarray, generated: np.ndarray) -> float:
    s1, s2 = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    spread = np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    return float(((real.mean(0) - generated.mean(0)) ** 2).sum() + spread)


def mean_resampled(fid: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray], float]:
    """Mean of a FID of images drawn with replacement, the same for every code."""

    def mean(real: np.ndarray, generated: np.ndarray) -> float:
        draws = np.random.default_rng(1).integers(len(real), size=(RESAMPLES, len(real)))
        return float(np.mean([fid(real[rows], generated[rows]) for rows in draws]))

    return mean


def resampled_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """The same, of images with weights, as `quality.frechet.resampled_distances` takes it."""
    draws = np.random.default_rng(1).integers(len(real), size=(RESAMPLES, len(real)))
    weights = [np.bincount(rows, minlength=len(real)) for rows in draws]
    return float(np.mean([distance(moments(real, w), moments(generated, w)) for w in weights]))


def torchmetrics_kid(real: np.ndarray, generated: np.ndarray) -> float:
    metric = KernelInceptionDistance(Features(real.shape[1]), subsets=SUBSETS, subset_size=min(SUBSET, len(real)))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(generated), real=False)
    mean, spread = metric.compute()
    torchmetrics_kid.error = 4 * float(spread) / SUBSETS**0.5
    return float(mean)


def compared(real: np.ndarray, generated: np.ndarray) -> dict[str, dict[str, Callable]]:
    """What is timed: metric -> whose code -> function of both sets."""
    further = {"ours": further_of_ours(real), "torchmetrics": further_of_torchmetrics(real)}
    return {
        ONE: {"ours": frechet_distance, "torchmetrics": torchmetrics_fid, "NumPy, SciPy": textbook_fid},
        FURTHER: {name: lambda _, generated, of=fid: of(generated) for name, fid in further.items()},
        RESAMPLED: {"ours": resampled_fid, "torchmetrics": mean_resampled(torchmetrics_fid)},
        "KID": {"ours": kernel_distance, "torchmetrics": torchmetrics_kid},
        "precision, recall, density, coverage": {"ours": lambda *x: float(manifold(*x).coverage.mean())},
    }


def check(metric: str, values: dict[str, float]) -> None:
    """Stop where codes disagree."""
    theirs = {name: value for name, value in values.items() if name != "ours"}
    for name, value in theirs.items():
        allowed = torchmetrics_kid.error if metric == "KID" else 1e-6 * value
        if abs(values["ours"] - value) > allowed:
            raise SystemExit(f"{metric} of {name} differs: {values}")


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
    for metric, functions in compared(*sets).items():
        seconds, values = timed(functions, sets, options.repeats)
        check(metric, values)
        for name, value in values.items():
            ratio = round(seconds["torchmetrics"] / seconds[name], 2) if "torchmetrics" in seconds else None
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
