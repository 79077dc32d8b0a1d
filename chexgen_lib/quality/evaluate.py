"""Quality of generated radiographs: fidelity, diversity, factual correctness, copies of training images
(Figure 2).

`evaluate` is the one call that a notebook needs; it runs on any generator, from arrays alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from chexgen_lib import images as im
from chexgen_lib.estimates.resampling import Interval, bootstrap_interval, paired_wilcoxon
from chexgen_lib.learners.classifier import auroc_table
from chexgen_lib.quality.diversity import pairwise_similarity, scales
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.factuality import derangement, same_findings, score_correlation, score_errors
from chexgen_lib.quality.frechet import frechet_intervals, halves
from chexgen_lib.quality.neighbours import Neighbours, memorisation, nearest
from chexgen_lib.records import FINDINGS

GENERATOR, FLOOR, IGNORES, NOISE = "this run", "real vs real", "ignores its prompt", "Gaussian pixels"


class Scorer(Protocol):
    """A classifier of the 14 findings: [N, H, W] in [0, 1] -> [N, 14], NaN where it does not know a
    finding."""

    def predict(self, images: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    table: metric, arm, value, low, high, n, samples, p, seed, note; one row per number. `n` counts prompts or
    images,
    `samples` the seeds averaged per prompt, `p` compares the arm with this run (two-sided paired Wilcoxon).
    per_finding: AUROC of the classifier on synthetic images against the asked findings, and on the real
    images. features: embedder name -> {"real" [N, D], "synthetic" [N, D] (first sample of each prompt)}, for
    t-SNE. nearest: nearest training image of every sample, rows in the order of synthetic.reshape(N * S,
    ...).
    """

    table: pl.DataFrame
    per_finding: pl.DataFrame
    features: dict[str, dict[str, np.ndarray]]
    nearest: Neighbours


def evaluate(
    real: np.ndarray,
    synthetic: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    classifier: Scorer,
    embedders: Sequence[Embedder],
    *,
    patients: Sequence[str] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure a generator on held-out prompts.

    real: [N, H, W] in [0, 1], the test images that the prompts belong to; synthetic: [N, S, H, W], S >= 2
    samples for each prompt, in the same order; labels: [N, 14], 1, 0 or NaN, what the prompts ask for; train:
    [M, H, W], the generator's training images (for memorisation and the Gaussian pixels); patients: id per
    test row (default: all different). The first embedder also finds the nearest training images. Raises
    ValueError or ImageError naming the array that does not fit.
    """
    real, train = im.check(real, "real"), im.check(train, "train")
    labels = np.asarray(labels, np.float64)
    patients = np.asarray(np.arange(len(real)) if patients is None else patients)
    _check_shapes(real, synthetic, labels, train, patients, embedders)
    flat = im.check(synthetic.reshape(-1, *real.shape[1:]), "synthetic")
    synthetic = flat.reshape(synthetic.shape)
    dealt = derangement(len(real), seed)
    noise = gaussian_pixels(train, synthetic.shape[:2], seed)
    options = {"n_resamples": n_resamples, "seed": seed}

    rows, features = [], {}
    for e, embedder in enumerate(embedders):
        emb = {
            "real": embedder(real),
            "synthetic": _embed(embedder, synthetic),
            "noise": embedder(noise[:, 0]),
        }
        rows += _fidelity(embedder.name, emb, **options)
        features[embedder.name] = {"real": emb["real"], "synthetic": emb["synthetic"][:, 0]}
        if e == 0:
            train_features = embedder(train)
            found = nearest(emb["synthetic"].reshape(len(flat), -1), train_features)
            away = nearest(emb["real"], train_features).distance
            distances = memorisation(found.distance.reshape(synthetic.shape[:2]), away, **options)
            note = f"nearest training image by {embedder.name} features; 1 or 0.05 = as far as unseen patients"
            rows += [
                _row(f"memorisation, {k}", GENERATOR, v, synthetic.shape[1], note=note) for k, v in distances.items()
            ]
    rows += _diversity(real, synthetic, noise, seed=seed, n_resamples=n_resamples)
    scores = classifier.predict(flat).reshape(*synthetic.shape[:2], len(FINDINGS))
    real_scores = classifier.predict(real)
    rows += _factuality(scores, real_scores, labels, dealt, same_findings(labels, patients, seed), **options)
    tables = {
        "synthetic": auroc_table(labels, scores, **options),
        "real": auroc_table(labels, real_scores, **options),
    }
    per_finding = pl.concat([t.with_columns(pl.lit(name).alias("images")) for name, t in tables.items()])
    for name, arm in (("synthetic", GENERATOR), ("real", "real images")):
        average = tables[name].filter(pl.col("finding") == "Average")
        for r in average.iter_rows(named=True):
            interval = Interval(r["value"], r["low"], r["high"], r["n"])
            rows.append(_row("AUROC of asked findings", arm, interval, 1 if name == "real" else synthetic.shape[1]))
    table = pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.lit(seed).alias("seed"))
    return Evaluation(table, per_finding, features, found)


def gaussian_pixels(train: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Images [*shape, H, W] with each pixel drawn alone from the training images' mean and sd at that
    pixel."""
    noise = np.random.default_rng(seed).standard_normal((*shape, *train.shape[1:]), np.float32)
    return np.clip(noise * train.std(0) + train.mean(0), 0, 1)


def _check_shapes(real, synthetic, labels, train, patients, embedders) -> None:
    n, shape = len(real), real.shape[1:]
    if real.ndim != 3 or n < 4:
        raise ValueError(f"real: needs at least 4 images [N, H, W], got shape {real.shape}")
    if synthetic.ndim != 4 or len(synthetic) != n or synthetic.shape[1] < 2 or synthetic.shape[2:] != shape:
        raise ValueError(f"synthetic: needs [{n}, S >= 2, {shape[0]}, {shape[1]}], got shape {synthetic.shape}")
    if labels.shape != (n, len(FINDINGS)):
        raise ValueError(f"labels: needs [{n}, {len(FINDINGS)}], got shape {labels.shape}")
    if train.ndim != 3 or train.shape[1:] != shape or len(train) < 2:
        raise ValueError(f"train: needs at least 2 images of {shape}, got shape {train.shape}")
    if len(patients) != n:
        raise ValueError(f"patients: needs {n} ids, got {len(patients)}")
    if not embedders:
        raise ValueError("embedders: needs at least one")


def _embed(embedder: Embedder, samples: np.ndarray) -> np.ndarray:
    """[N, S, H, W] -> [N, S, D]."""
    return embedder(samples.reshape(-1, *samples.shape[2:])).reshape(*samples.shape[:2], -1)


def _row(metric: str, arm: str, interval: Interval, samples: int, p: float | None = None, note: str = "") -> dict:
    numbers = {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
    return {"metric": metric, "arm": arm, **numbers, "samples": samples, "p": p, "note": note}


def _fidelity(name: str, emb: dict[str, np.ndarray], n_resamples: int, seed: int) -> list[dict]:
    """All arms against one half of the real images, at the floor's n; this run also at full n."""
    left, right = halves(len(emb["real"]), seed)
    arms = {FLOOR: emb["real"][right], GENERATOR: emb["synthetic"][right], NOISE: emb["noise"][right]}
    n_resamples = min(n_resamples, 200)  # each resample costs a singular value decomposition per sample
    matched = frechet_intervals(emb["real"][left], arms, n_resamples=n_resamples, seed=seed)
    samples = {arm: 1 if x.ndim == 2 else x.shape[1] for arm, x in arms.items()}
    note = "half of the real images against as many others, as the floor is"
    rows = [_row(f"FID-{name}", arm, v, samples[arm], note=note) for arm, v in matched.items()]
    full = frechet_intervals(emb["real"], {GENERATOR: emb["synthetic"]}, n_resamples=n_resamples, seed=seed)
    return [*rows, _row(f"FID-{name}, all images", GENERATOR, full[GENERATOR], samples[GENERATOR])]


def _diversity(real: np.ndarray, synthetic: np.ndarray, noise: np.ndarray, seed: int, n_resamples: int) -> list[dict]:
    """Similarity within a prompt; beside it the samples of different prompts, and different patients."""
    n, s = synthetic.shape[:2]
    shift = np.arange(s) * max(n // s, 1)
    rows_of = (np.random.default_rng(seed).permutation(n)[:, None] + shift) % n  # s different prompts to a row
    arms = {
        GENERATOR: synthetic,
        IGNORES: synthetic[rows_of, np.arange(s)],
        FLOOR: real[rows_of],
        NOISE: noise,
    }
    similar = {arm: pairwise_similarity(x) for arm, x in arms.items()}
    rows = []
    for metric in ("MS-SSIM", "SSIM"):
        note = f"{scales(min(real.shape[1:]))} scales" if metric == "MS-SSIM" else ""
        for arm, values in similar.items():
            v = values[metric]
            interval = bootstrap_interval(np.mean, v, n_resamples=n_resamples, seed=seed)
            p = None if arm == GENERATOR else paired_wilcoxon(v, similar[GENERATOR][metric])
            rows.append(_row(metric, arm, interval, s, p, note))
    return rows


def _factuality(scores, real_scores, labels, dealt, twins, n_resamples: int, seed: int) -> list[dict]:
    """Pearson r with the paired real image's scores (main text) and with the labels (Methods), raw and
    within."""
    arms = {GENERATOR: scores, IGNORES: scores[dealt], FLOOR: real_scores[twins][:, None]}
    rows = []
    for metric, target in (("Pearson r", real_scores), ("Pearson r with labels", labels)):
        errors = {arm: score_errors(x, target) for arm, x in arms.items()}
        for suffix, within in (("", False), (", within findings", True)):
            for arm, x in arms.items():
                r = score_correlation(x, target, within_findings=within, n_resamples=n_resamples, seed=seed)
                p = None if arm == GENERATOR else paired_wilcoxon(errors[arm], errors[GENERATOR])
                note = "real image of another patient with the most similar labels" if arm == FLOOR else ""
                rows.append(_row(metric + suffix, arm, r, x.shape[1], p, note))
    return rows
