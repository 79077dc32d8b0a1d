"""ChexGen's objective and rectified flow on equal terms: trained on the same pairs, sampled in the same few steps.

Both objectives train the same transformer with the same metadata encoder, pairs, optimiser steps, seeds and starting
weights; only what is predicted and the time steps differ. `train_and_sample` is one such run (for `runs.run_all`),
`compare` measures them all.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch

from chexgen_lib import images as im
from chexgen_lib.estimates.resampling import (
    Interval,
    correlation,
    format_interval,
    interval_of,
    pair_sums,
    resample_counts,
)
from chexgen_lib.experiments.augmentation import by_arm
from chexgen_lib.experiments.rectified_flow.control import Probes
from chexgen_lib.learners.classifier import auroc
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.evaluate import Scorer
from chexgen_lib.quality.factuality import score_correlation
from chexgen_lib.quality.frechet import frechet_intervals
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, train

SECONDS = "seconds an image"
WEIGHT = "weight "  # before the name of a tensor, in what a run returns


def textless(mean: torch.Tensor, std: torch.Tensor, metadata: torch.Tensor, width: int) -> LatentCache:
    """Training pairs of latents and metadata codes [N, CODES]; the text is empty: one token of zeros of that width.

    All that a generated description says the metadata says too, and one token is cheaper than forty.
    """
    n = len(mean)
    states, offsets = torch.zeros(n, width, dtype=torch.float16), torch.arange(n + 1)
    return LatentCache(mean, std, states, offsets, metadata=metadata)


def new_model(objective: str, size: str, sample_size: int, width: int, sources: Sequence[str]) -> ChexGenTransformer:
    """An untrained transformer with a metadata encoder, for pairs as `textless` makes them."""
    return ChexGenTransformer.of_size(
        size,
        sample_size=sample_size,
        text_dim=width,
        text_tokens=1,
        objective=objective,
        metadata_sources=list(sources),
    )


def train_and_sample(
    mean: np.ndarray,
    std: np.ndarray,
    metadata: np.ndarray,
    *,
    objective: str,
    size: str,
    width: int,
    sources: Sequence[str],
    training: Mapping,
    requests: Sequence[Mapping],
    sampling_steps: Sequence[int],
    guidance_scale: float,
    autoencoder: str,
    folder: Path,
    seed: int,
    keep_weights: bool = False,
) -> dict[str, np.ndarray]:
    """One run: ``steps N`` uint8 [R, H, W], samples of the requests in N steps, for each N; ``seconds`` an image [N].

    mean, std, metadata: of the training pairs, as in `LatentCache`. Every run and number of steps starts from the
    same noise for a request. A share of the empty texts (`caption_dropout`) is dropped in training, so that the model
    learns the null caption too, which sampling uses for the unconditional prediction.

    Args:
        training: settings of `TrainingConfig` but its objective and seed.
        folder: where the training keeps its checkpoints and log.
        keep_weights: return the trained weights as well, for `restore`.
    """
    cache = textless(*(torch.from_numpy(np.array(x)) for x in (mean, std, metadata)), width)
    weighting = {} if objective == "ddpm" else {"noisy_weight": 1.0}
    config = TrainingConfig(**{**training, **weighting}, objective=objective, seed=seed)
    torch.manual_seed(seed)
    model = new_model(objective, size, mean.shape[-1], width, sources)
    history = train(model, cache, config, folder, keep_last=True)
    pipeline = sampler(model, autoencoder)
    result, seconds = {"loss": np.array([entry["loss"] for entry in history])}, []
    for steps in sampling_steps:
        start = perf_counter()
        images = pipeline(
            metadata=list(requests),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        seconds.append((perf_counter() - start) / len(images))
        result[f"steps {steps}"] = im.to_uint8(images)
    if keep_weights:
        result |= {WEIGHT + name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    return result | {"seconds": np.array(seconds)}


def restore(model: ChexGenTransformer, run: Mapping[str, np.ndarray]) -> ChexGenTransformer:
    """The trained model of a run that kept its weights: `model`, of `new_model` and the run's settings, with them."""
    weights = {name.removeprefix(WEIGHT): torch.from_numpy(x) for name, x in run.items() if name.startswith(WEIGHT)}
    model.load_state_dict(weights)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def sampler(model: ChexGenTransformer, autoencoder: str) -> ChexGenPipeline:
    """A pipeline for metadata alone, without a text encoder."""
    pipeline = assemble(model, autoencoder, None).to(model.device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compare(
    runs: Mapping[str, Mapping[str, np.ndarray]],
    sampling_steps: Sequence[int],
    real: np.ndarray,
    values: np.ndarray,
    attributes: Sequence[str],
    embedders: Sequence[Embedder],
    classifier: Scorer,
    probes: Probes,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Every objective at every number of steps, on samples of the real images' own metadata.

    runs: "objective / seed k" -> what `train_and_sample` returned; real: [N, H, W] in [0, 1], in the order of the
    requests; values: what they are, `control.truth` [N, A].

    Columns: objective, steps, metric, value, low, high, n, seeds. Metrics: "FID-<embedder>" against the real images,
    "Pearson r" of the classifier's scores on samples and on their real images, "AUROC sex" (view, source, "AUROC
    findings": their mean) and "r age" of the probes' answers with what was asked, "seconds an image". Each is a mean
    over the seeds; intervals are over resampled images, and no interval covers what another training would change.
    """
    arms = {
        (objective, steps): im.from_uint8(np.stack([run[f"steps {steps}"] for run in seeds], axis=1))
        for objective, seeds in by_arm(runs).items()
        for steps in sampling_steps
    }  # [N, S, H, W]
    rows = []
    for embedder in embedders:
        features = {" ".join(map(str, arm)): _flat(embedder, images) for arm, images in arms.items()}
        found = frechet_intervals(embedder(real), features, n_resamples=min(n_resamples, 200), seed=seed)
        rows += [
            _row(arm, f"FID-{embedder.name}", interval) for arm, interval in zip(arms, found.values(), strict=True)
        ]
    real_scores = classifier.predict(real)
    options = {"n_resamples": n_resamples, "seed": seed}
    counts = resample_counts(len(real), n_resamples, np.random.default_rng(seed))
    counts = np.concatenate([np.ones((1, len(real)), int), counts])
    for arm, images in arms.items():
        rows.append(
            _row(arm, "Pearson r", score_correlation(_flat(classifier.predict, images), real_scores, **options))
        )
        answers = _flat(probes, images)  # [N, S, A]
        for metric, resampled in _control(answers, values, attributes, counts).items():
            rows.append(_row(arm, metric, interval_of(resampled[0], resampled[1:], len(real))))
        spent = np.mean([run["seconds"][list(sampling_steps).index(arm[1])] for run in by_arm(runs)[arm[0]]])
        rows.append(_row(arm, SECONDS, Interval(float(spent), np.nan, np.nan, len(real))))
    seeds = next(iter(arms.values())).shape[1]
    return pl.DataFrame(rows).fill_nan(None).with_columns(seeds=pl.lit(seeds))


def _flat(function: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """A function of images [N, H, W] on samples [N, S, H, W] -> [N, S, D]."""
    return function(images.reshape(-1, *images.shape[2:])).reshape(*images.shape[:2], -1)


def _row(arm: tuple[str, int], metric: str, found: Interval) -> dict:
    numbers = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    return {"objective": arm[0], "steps": arm[1], "metric": metric} | numbers


def _control(
    answers: np.ndarray, values: np.ndarray, attributes: Sequence[str], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Metric -> resampled values [1 + B], mean over the seeds; without attributes of which only one pole is known."""
    found, findings = {}, []
    for a, name in enumerate(attributes):
        known = ~np.isnan(values[:, a])
        want, have, drawn = values[known, a], answers[known, :, a], counts[:, known]
        if len(np.unique(want)) < 2:
            continue
        if name == "age":
            r = [correlation(drawn @ pair_sums(want, column)) for column in have.T]
            found["r age"] = np.mean(r, axis=0)
            continue
        resampled = np.mean([auroc(want, column, drawn) for column in have.T], axis=0)
        if name in FINDINGS:
            findings.append(resampled)
        else:
            found[f"AUROC {name}"] = resampled
    return found | ({"AUROC findings": np.nanmean(findings, axis=0)} if findings else {})


def verdict(table: pl.DataFrame, few: int, many: int) -> list[str]:
    """For each FID: is rectified flow in `few` steps no worse than ChexGen's objective in `many`? One line each.

    No worse: its distance is not above the other's 95 % interval. Raises ValueError for steps that were not compared.
    """
    if missing := {few, many} - set(table["steps"]):
        raise ValueError(f"{min(missing)} steps were not compared: use two of {sorted(set(table['steps']))}")
    lines = []
    for metric in table.filter(pl.col("metric").str.starts_with("FID"))["metric"].unique(maintain_order=True):
        flow = table.row(by_predicate=_is("rectified_flow", few, metric), named=True)
        ddim = table.row(by_predicate=_is("ddpm", many, metric), named=True)
        miss = flow["value"] - ddim["high"]
        said = "no worse" if miss <= 0 else f"worse by {miss:.2f} beyond the interval"
        spans = (format_interval(r["value"], r["low"], r["high"]) for r in (flow, ddim))
        lines.append(f"{metric}: flow at {few} {{}}, DDIM at {many} {{}}: {said}".format(*spans))
    return lines


def _is(objective: str, steps: int, metric: str) -> pl.Expr:
    return (pl.col("objective") == objective) & (pl.col("steps") == steps) & (pl.col("metric") == metric)
