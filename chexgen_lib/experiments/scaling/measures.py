"""The measures of all runs on resampled patients, and their means over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import mean, range_of
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.scaling import HELD_OUT, SEEN
from chexgen_lib.images import from_uint8
from chexgen_lib.kept import Arrays
from chexgen_lib.quality.bench import per_prompt
from chexgen_lib.quality.diversity import pairwise_similarity
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.frechet import distance, moments, scaled


@dataclass(frozen=True)
class Measured:
    """One measure of K runs: values [K], and what they are on R resamples of the patients [R, K]."""

    values: np.ndarray
    resampled: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Measured":
        """From values [1 + R, K], first on the data themselves."""
        return cls(values[0], values[1:])


def measure(
    runs: Sequence[Arrays], real: np.ndarray, embedders: Sequence[Embedder], resampling: Resampling
) -> dict[str, Measured]:
    """FID by each embedder, MS-SSIM and noise error of runs, by name; lower is better in all.

    The FID compares all samples of a run with the real images; n is the same in all runs, as it must be
    (`quality.frechet`). A noise error has no resamples: there its runs differ by seed alone.

    Args:
        real: uint8 [P, H, W], the held-out radiographs of the prompts.
        resampling: of their patients, with their radiographs and samples, the same in all runs.
    """
    found, weights = {}, resampling.weights
    for embedder in embedders:
        reference = embedder(from_uint8(real))
        columns = [_distances(reference, per_prompt(embedder, from_uint8(run["samples"])), weights) for run in runs]
        found[f"FID-{embedder.name}"] = Measured.of(np.stack(columns, axis=-1))
    similar = np.stack([pairwise_similarity(from_uint8(run["samples"]))["MS-SSIM"] for run in runs], axis=1)  # [P, K]
    found["MS-SSIM"] = Measured(similar.mean(0), mean(similar, weights[1:]))
    for name, key in ((HELD_OUT, "noise_error"), (SEEN, "seen_error")):
        values = np.array([float(run[key]) for run in runs])
        found[name] = Measured(values, np.tile(values, (len(resampling), 1)))
    return found


def _distances(real: np.ndarray, fake: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """FID of fake [P, S, D] to real [P, D], on the data and on all resamples [1 + B]."""
    flat = fake.reshape(-1, fake.shape[2])
    values = [distance(moments(real), moments(flat))]
    values += [distance(moments(real, w), moments(flat, np.repeat(w, fake.shape[1]))) for w in weights[1:]]
    return scaled(np.array(values))


def tables(
    about: pl.DataFrame, measured: Mapping[str, Measured], resampling: Resampling
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every run, and the mean over seeds with a 95 % interval over patients and seeds.

    Returns:
        run, model, ..., measure, value; and model, parameters, steps, flops, share, pairs (mean), measure, value, low,
        high, seeds.
    """
    runs = pl.concat(about.with_columns(measure=pl.lit(name), value=m.values) for name, m in measured.items())
    means, same = [], ["model", "parameters", "steps", "flops", "share"]
    groups = about.with_row_index().group_by(same, maintain_order=True).agg("index", pl.col("pairs").mean())
    for name, m in measured.items():
        for group in groups.iter_rows(named=True):
            own = np.array(group.pop("index"))
            values = np.concatenate([m.values[None, own], m.resampled[:, own]]).T  # [S, 1 + B]
            row = (
                {"measure": name}
                | estimate(resampling.seeds_mean(values).widened(), within=range_of(name))
                | {"seeds": len(own)}
            )
            means.append(group | row)
    return runs, pl.DataFrame(means)
