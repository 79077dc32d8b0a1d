"""ChexGen's objective and rectified flow on equal terms: trained on the same pairs, sampled in the same few steps.

Both objectives train the same transformer with the same metadata encoder, pairs, optimiser steps, seeds and starting
weights; only the prediction target and the time steps differ. `train_and_sample` is one such run (for `kept.run_all`),
`compare` measures them all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch

from chexgen_lib import images as im
from chexgen_lib.diffusion.schedulers import flow_euler_scheduler
from chexgen_lib.estimates import comparison as estimates
from chexgen_lib.estimates.measures import auroc, known_mean, pearson
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.wording import estimate
from chexgen_lib.experiments.rectified_flow.data import Instruments
from chexgen_lib.experiments.repeats import by_arm
from chexgen_lib.models.autoencoder import decode, encode, load_autoencoder
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.models.transformer import OBJECTIVES, ChexGenTransformer
from chexgen_lib.pools.labelled import LabelledSet
from chexgen_lib.quality.bench import per_prompt
from chexgen_lib.quality.evaluate import FRECHET_RESAMPLES
from chexgen_lib.quality.factuality import score_correlation
from chexgen_lib.quality.frechet import frechet_distance, resampled_distances
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import train

WEIGHT = "weight "  # before the name of a tensor, in what a run returns
LONG = "flow"  # the run of the rectified flow that is trained longer


@dataclass(frozen=True)
class FlowModel:
    """A transformer with a metadata encoder, for pairs as `textless` makes them.

    Attributes:
        size: a name in `models.transformer.SIZES`.
        token_width: of the one empty text token.
        sources: those that the metadata encoder knows.
        autoencoder: as `load_autoencoder` takes it.
    """

    size: str
    token_width: int
    sources: Sequence[str]
    autoencoder: str

    def untrained(self, objective: str, latent_shape: Sequence[int]) -> ChexGenTransformer:
        """The transformer for latents [channels, side, side], with weights from torch's global generator."""
        channels, side, _ = latent_shape
        return ChexGenTransformer.of_size(
            self.size,
            channels,
            sample_size=side,
            text_dim=self.token_width,
            text_tokens=1,
            objective=objective,
            metadata_sources=list(self.sources),
        )

    def restored(self, run: Mapping[str, np.ndarray], latent_shape: Sequence[int]) -> ChexGenTransformer:
        """The trained rectified flow of a run that returned its weights."""
        model = self.untrained("rectified_flow", latent_shape)
        weights = {name.removeprefix(WEIGHT): torch.from_numpy(x) for name, x in run.items() if name.startswith(WEIGHT)}
        model.load_state_dict(weights)
        return model.eval().to(fastest_device())


@dataclass(frozen=True)
class FewSteps:
    """What a run samples: metadata requests, each with every number of steps.

    Every run and number of steps starts from the same noise for a request.
    """

    requests: Sequence[Mapping]
    steps: Sequence[int]
    guidance_scale: float


def textless(pairs: LatentCache, metadata: torch.Tensor, width: int) -> LatentCache:
    """The pairs' latents with metadata codes [N, CODES]; the text is empty: one token of zeros of that width.

    The metadata contain all that a generated description states, and one token is cheaper than forty.
    """
    n = len(pairs)
    states, offsets = torch.zeros(n, width, dtype=torch.float16), torch.arange(n + 1)
    return LatentCache(pairs.mean, pairs.std, states, offsets, metadata=metadata)


def jobs(model: FlowModel, training: Mapping, flow_steps: int, few: FewSteps, seeds: int, seed: int) -> dict[str, dict]:
    """Runs by name: "objective / seed k" with `training`, and `LONG`, one rectified flow trained for `flow_steps`."""

    def config(objective: str, own_seed: int, **changes) -> TrainingConfig:
        fields = {**training, "objective": objective, "seed": own_seed, **changes}
        if objective != "ddpm":
            fields["noisy_weight"] = 1.0  # a setting of the other objective
        return TrainingConfig(**fields)

    long = {"model": model, "training": config("rectified_flow", seed, steps=flow_steps), "sampling": None}
    return {LONG: long} | {  # the longest first, so that no worker waits for it
        f"{objective} / seed {k}": {"model": model, "training": config(objective, 1000 * seed + k), "sampling": few}
        for k in range(seeds)
        for objective in OBJECTIVES
    }


def train_and_sample(
    pairs: Path,
    metadata: np.ndarray,
    *,
    model: FlowModel,
    training: TrainingConfig,
    sampling: FewSteps | None,
    folder: Path,
) -> dict[str, np.ndarray]:
    """One training and its samples, or without `sampling` its weights.

    A share of the empty texts (`caption_dropout`) is dropped in training, so that the model learns the null caption
    too, which sampling uses for the unconditional prediction.

    Args:
        pairs: folder of the training pairs' latent cache.
        metadata: their codes, as in `LatentCache`.
        folder: where the training keeps its checkpoints and log.

    Returns:
        `steps N` uint8 [R, H, W] for each number of steps, and `seconds` an image for each; or the trained weights, for
        `FlowModel.restored`. Also `loss`, of the training's log.
    """
    cache = textless(LatentCache.load(pairs), torch.from_numpy(np.array(metadata)), model.token_width)
    torch.manual_seed(training.seed)
    transformer = model.untrained(training.objective, cache.mean.shape[1:])
    history = train(transformer, cache, training, folder, keep_last=True)
    result = {"loss": np.array([entry["loss"] for entry in history])}
    if sampling is None:
        return result | {WEIGHT + name: tensor.cpu().numpy() for name, tensor in transformer.state_dict().items()}
    pipeline, seconds = sampler(transformer, model.autoencoder), []
    for steps in sampling.steps:
        start = perf_counter()
        images = pipeline(
            metadata=list(sampling.requests),
            num_inference_steps=steps,
            guidance_scale=sampling.guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images[..., 0]
        seconds.append((perf_counter() - start) / len(images))
        result[f"steps {steps}"] = im.to_uint8(images)
    return result | {"seconds": np.array(seconds)}


def sampler(model: ChexGenTransformer, autoencoder: str) -> ChexGenPipeline:
    """A pipeline for metadata alone, without a text encoder: DDIM, or Euler's method along a flow."""
    pipeline = assemble(model, autoencoder, None)
    if model.objective == "rectified_flow":
        pipeline.scheduler = flow_euler_scheduler(model.flow_shift)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compare(
    runs: Mapping[str, Mapping[str, np.ndarray]],
    sampling_steps: Sequence[int],
    real: LabelledSet,
    truth: np.ndarray,
    attributes: Sequence[str],
    tools: Instruments,
    resampling: Resampling,
) -> pl.DataFrame:
    """Every objective at every number of steps, on samples of the real images' own metadata.

    Args:
        runs: "objective / seed k" -> what `train_and_sample` returned.
        real: in the order of the requests.
        truth: of the real images, [N, A].
        resampling: of their patients.

    Returns:
        steps, metric, n, objective, and the estimate as in `estimates.comparison`: means over the seeds, intervals over
        patients and seeds, rectified flow against ChexGen's objective. Metrics: "FID-<embedder>" against the real
        images, "Pearson r" of the classifier's scores on samples and on their real images, "AUROC sex" (view, source,
        "AUROC findings": their mean) and "r age" of the probes' predictions with what was requested.
    """
    pixels, tables = im.from_uint8(real.images), []
    real_scores, features = tools.classifier.predict(pixels), {e.name: e(pixels) for e in tools.embedders}
    for steps in sampling_steps:
        measured = {}
        for objective, seeds in by_arm(runs).items():
            images = im.from_uint8(np.stack([run[f"steps {steps}"] for run in seeds], axis=1))  # [N, S, H, W]
            own = _distances(images, features, tools, resampling)
            scores = per_prompt(tools.classifier.predict, images)
            own["Pearson r"] = np.stack(
                [score_correlation(scores[:, [s]], real_scores, resampling.weights) for s in range(len(seeds))]
            )
            answers = per_prompt(tools.probes, images)
            measured[objective] = own | _control(answers, truth, attributes, resampling.weights)
        about = [{"steps": steps, "metric": name, "n": len(real)} for name in next(iter(measured.values()))]
        arms = {objective: np.stack(list(values.values()), axis=-1) for objective, values in measured.items()}
        tables.append(estimates.compare(arms, about, resampling, reference=next(iter(arms))))
    return pl.concat(tables).rename({"arm": "objective"})


def _distances(
    images: np.ndarray, real: Mapping[str, np.ndarray], tools: Instruments, resampling: Resampling
) -> dict[str, np.ndarray]:
    """FID of samples [N, S, H, W] by each embedder, [S, 1 + B]; NaN beyond `FRECHET_RESAMPLES`."""
    found = {}
    for embedder in tools.embedders:
        fake = per_prompt(embedder, images)
        seeds = {str(s): fake[:, s] for s in range(fake.shape[1])}
        values = resampled_distances(real[embedder.name], seeds, resampling.weights[: 1 + FRECHET_RESAMPLES])
        padded = np.full((len(seeds), len(resampling.weights)), np.nan)
        padded[:, : 1 + FRECHET_RESAMPLES] = list(values.values())
        found[f"FID-{embedder.name}"] = padded
    return found


def autoencoder_bounds(real: LabelledSet, tools: Instruments, autoencoder: str) -> dict[str, float]:
    """Each FID of real images after the autoencoder, with its noise, against themselves: a bound for samples."""
    vae, pixels = load_autoencoder(autoencoder), im.from_uint8(real.images)
    decoded = decode(vae, encode(vae, pixels)[0], torch.Generator().manual_seed(0))
    return {f"FID-{e.name}": frechet_distance(e(pixels), e(decoded)) for e in tools.embedders}


def seconds(runs: Mapping[str, Mapping[str, np.ndarray]], sampling_steps: Sequence[int]) -> pl.DataFrame:
    """Milliseconds an image on this machine, mean over the seeds: objective, steps, ms an image."""
    rows = [
        (objective, steps, 1000 * float(np.mean([run["seconds"][k] for run in seeds])))
        for objective, seeds in by_arm(runs).items()
        for k, steps in enumerate(sampling_steps)
    ]
    return pl.DataFrame(rows, ["objective", "steps", "ms an image"], orient="row")


def _control(
    answers: np.ndarray, truth: np.ndarray, attributes: Sequence[str], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Metric -> values [S, 1 + B] of each seed; without attributes of which only one pole is known."""
    found, findings = {}, []
    for a, name in enumerate(attributes):
        known = ~np.isnan(truth[:, a])
        want, have, own = truth[known, a], answers[known, :, a].T, weights[:, known]
        if len(np.unique(want)) < 2:
            continue
        if name == "age":
            found["r age"] = np.stack([pearson(want, column, own) for column in have])
            continue
        resampled = np.stack([auroc(want, column, own) for column in have])
        if name in FINDINGS:
            findings.append(resampled)
        else:
            found[f"AUROC {name}"] = resampled
    return found | ({"AUROC findings": known_mean(np.stack(findings), 0)} if findings else {})


def closer(table: pl.DataFrame, few: int, many: int) -> pl.DataFrame:
    """For each FID: is rectified flow in `few` steps closer to real images than ChexGen's objective in `many`?

    "Closer" and "further" are said where the two 95 % intervals have nothing in common.

    Returns:
        metric, rectified flow, DDIM, verdict.

    Raises:
        ValueError: for steps that were not compared.
    """
    if missing := {few, many} - set(table["steps"]):
        raise ValueError(f"{min(missing)} steps were not compared: use two of {sorted(set(table['steps']))}")
    rows = []
    for metric in table.filter(pl.col("metric").str.starts_with("FID"))["metric"].unique(maintain_order=True):
        flow = table.row(by_predicate=_is("rectified_flow", few, metric), named=True)
        ddim = table.row(by_predicate=_is("ddpm", many, metric), named=True)
        said = "closer" if flow["high"] < ddim["low"] else "further" if flow["low"] > ddim["high"] else "not told apart"
        rows.append((metric, estimate(flow, digits=2), estimate(ddim, digits=2), said))
    return pl.DataFrame(rows, ["metric", f"flow, {few} steps", f"DDIM, {many} steps", "verdict"], orient="row")


def _is(objective: str, steps: int, metric: str) -> pl.Expr:
    return (pl.col("objective") == objective) & (pl.col("steps") == steps) & (pl.col("metric") == metric)
