"""The measures of all runs on resampled patients, and their means over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import mean, range_of
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.scaling import HELD_OUT, SEEN
from chexgen_lib.images import from_uint8
from chexgen_lib.kept import Arrays, run_all
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.quality.bench import per_prompt
from chexgen_lib.quality.diversity import pairwise_similarity
from chexgen_lib.quality.embedders import make
from chexgen_lib.quality.frechet import distance, moments, scaled

SIMILARITY = "MS-SSIM"


def measure(
    runs: Sequence[Arrays],
    real: np.ndarray,
    known: np.ndarray,
    embedders: Sequence[str],
    classifier: Path | None,
    resampling: Resampling,
    folder: Path,
    workers: int = 0,
) -> Arrays:
    """FID by each embedder, MS-SSIM and noise error of K runs, by name, [1 + R, K]: on the data, and on R resamples.

    Lower is better in all. The FID compares all samples of a run with the real images; n is the same in all runs, as it
    must be (`quality.frechet`). A noise error has no resamples: there its runs differ by seed alone.

    Args:
        real: uint8 [P, H, W], the held-out radiographs of the prompts.
        known: uint8 [N, H, W], those of the training split, which standardise radiomics.
        embedders: names, as `embedders.make` takes them.
        classifier: folder of the classifier that "classifier" needs.
        resampling: of the patients of `real`, with their radiographs and samples, the same in all runs.
        folder, workers: as `kept.run_all` takes them; a measure is a job.
    """
    data = {
        "samples": np.stack([run["samples"] for run in runs]),
        "real": real,
        "known": known,
        "classifier": classifier,
        "weights": resampling.weights,
    }
    jobs = {name: {"measure": name} for name in (*embedders, SIMILARITY)}
    results = run_all(measure_all, data, jobs, folder, workers)
    found = {name: values for result in results.values() for name, values in result.items()}
    for name, key in ((HELD_OUT, "noise_error"), (SEEN, "seen_error")):
        found[name] = np.tile([float(run[key]) for run in runs], (1 + len(resampling), 1))
    return found


def measure_all(
    samples: np.ndarray, real: np.ndarray, known: np.ndarray, classifier: Path | None, weights: np.ndarray, measure: str
) -> Arrays:
    """One measure of all runs, by its name: values [1 + R, K], first on the data themselves.

    Args:
        samples: uint8 [K, P, S, H, W].
        real, known, classifier: as `measure` takes them.
        weights: [1 + R, P] of `Resampling`.
        measure: the name of an embedder, for the FID, or `SIMILARITY`.
    """
    if measure == SIMILARITY:
        similar = np.stack([pairwise_similarity(from_uint8(own))[SIMILARITY] for own in samples], axis=1)  # [P, K]
        return {SIMILARITY: np.concatenate([similar.mean(0, keepdims=True), mean(similar, weights[1:])])}
    network = None if classifier is None else Classifier.load(classifier)
    (embedder,) = make([measure], classifier=network, reference=from_uint8(known))
    fakes = [per_prompt(embedder, from_uint8(own)) for own in samples]
    return {f"FID-{embedder.name}": _distances(embedder(from_uint8(real)), fakes, weights)}


def _distances(real: np.ndarray, fakes: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """FID of each of K sets [P, S, D] to real [P, D], on the data and on all resamples: [1 + R, K]."""
    flat, samples = [fake.reshape(-1, fake.shape[2]) for fake in fakes], fakes[0].shape[1]

    def distances(here: np.ndarray | None) -> list[float]:
        reference, there = moments(real, here), None if here is None else np.repeat(here, samples)
        return [distance(reference, moments(fake, there)) for fake in flat]

    values = np.array([distances(None), *map(distances, weights[1:])])
    return np.stack([scaled(own) for own in values.T], axis=1)


def tables(
    about: pl.DataFrame, measured: Mapping[str, np.ndarray], resampling: Resampling
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every run, and the mean over seeds with a 95 % interval over patients and seeds.

    Returns:
        run, model, ..., measure, value; and model, parameters, steps, flops, share, pairs (mean), measure, value, low,
        high, seeds.
    """
    runs = pl.concat(about.with_columns(measure=pl.lit(name), value=m[0]) for name, m in measured.items())
    means, same = [], ["model", "parameters", "steps", "flops", "share"]
    groups = about.with_row_index().group_by(same, maintain_order=True).agg("index", pl.col("pairs").mean())
    for name, m in measured.items():
        for group in groups.iter_rows(named=True):
            own = np.array(group.pop("index"))
            seeds = resampling.seeds_mean(m[:, own].T)
            numbers = estimate(seeds.widened(), within=range_of(name))
            means.append(group | {"measure": name} | numbers | {"seeds": len(own)})
    return runs, pl.DataFrame(means)
