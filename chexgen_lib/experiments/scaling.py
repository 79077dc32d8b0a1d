"""How quality grows with the data and with the model (paper, ED Fig 2: S = a D^b).

One small transformer is trained for each share of stage I's pairs and each seed, all for the same number of optimiser
steps, so that the data alone differ; and one for each model size and seed on all pairs, with equal training FLOPs. Each
samples the prompts of held-out records with few steps, and the samples are measured against their radiographs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import stats

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.diffusion.schedulers import dpm_solver_scheduler
from chexgen_lib.estimates.resampling import interval_of, resample_counts
from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.models.sizing import Run
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer, Size
from chexgen_lib.quality.diversity import pairwise_similarity
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.frechet import distance, moments
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.pipeline import assemble
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import TrainingConfig, noise_error, train

HELD_OUT, SEEN = "noise error", "noise error, seen pairs"
MIN_R2 = 0.8  # a fit that explains less of log S is not called a power law
Arrays = dict[str, np.ndarray]


# -------------------------------------------------------------------------------------------------------- the data


def stage1_pairs(folder: Path, split: str) -> tuple[pl.DataFrame, LatentCache]:
    """Stage I's records of a split ("train" or "val") and their cached latents and text states, in one order.

    Raises:
        ValueError: if the two are not of one making; CohortError, CacheError: if one does not exist.
    """
    table = cohort.load(folder).with_row_index("row")
    table = table[cohort.rows(table, "stage1", split)]
    path = Path(folder, f"pretraining_{split}.safetensors")
    cache = LatentCache.load(path)
    if len(cache) != len(table):
        raise ValueError(f"{path} has {len(cache)} pairs for {len(table)} records: run the stage 02_cohort again")
    return table, cache


def subsets(table: pl.DataFrame, fractions: Sequence[float], batch_size: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of nested subsets of patients, by name ("10 %"): a smaller one is part of every larger one.

    The distribution is kept (paper, ED Fig 2): patients are dealt evenly from each source and rarest finding, so that
    even a small subset has these in the shares of the whole, as far as whole patients allow.

    Raises:
        ValueError: for fewer than 3 fractions (no fit), a repeated one, one outside (0, 1], or one so small that its
            images do not fill a batch.
    """
    if len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions {list(fractions)} repeat one: give each once")
    if len(fractions) < 3:
        raise ValueError(f"a power law is fitted to at least 3 fractions of the data, got {list(fractions)}")
    patients, found = _dealt(table, seed), {}
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"a fraction of the data must be in (0, 1], got {fraction}")
        kept = patients[: max(1, round(fraction * len(patients)))]
        rows = np.flatnonzero(table["patient_id"].is_in(kept).to_numpy())
        if len(rows) < batch_size:
            raise ValueError(
                f"fraction {fraction:g} leaves {len(rows)} of {len(table)} images, fewer than a batch of {batch_size}: "
                "take a larger fraction or a smaller batch_size"
            )
        found[share_name(fraction)] = rows
    return found


def share_name(fraction: float) -> str:
    """0.1 -> "10 %"."""
    return f"{100 * fraction:g} %"


def _dealt(table: pl.DataFrame, seed: int) -> list[str]:
    """Patients in an order whose every beginning has the strata in the shares of the whole (systematic sampling)."""
    present = table.select(pl.col(FINDINGS).fill_null(0).fill_nan(0)).to_numpy() == 1  # [N, 14]
    rarest = np.where(present, present.mean(0), np.inf).argmin(1)
    stratum = pl.Series("stratum", np.where(present.any(1), rarest, -1))
    first = (
        table.select("patient_id", "source")
        .with_columns(stratum)
        .unique("patient_id", keep="first", maintain_order=True)
    )
    keys, rng = np.empty(len(first)), np.random.default_rng(seed)
    for own in first.with_row_index().group_by("source", "stratum", maintain_order=True).agg("index")["index"]:
        # the k-th of c patients of a stratum stands at about k / c of the way through all
        keys[own.to_numpy()] = (rng.permutation(len(own)) + rng.random()) / len(own)
    return first["patient_id"].gather(np.argsort(keys, kind="stable")).to_list()


# ------------------------------------------------------------------------------------------------------ the models


@dataclass(frozen=True)
class Model:
    """A transformer to train: its size, optimiser steps, parameters, and FLOPs of its whole training."""

    size: Size
    steps: int
    parameters: int
    flops: float


def size_of(spec: str | Mapping) -> Size:
    """A size from the configuration: a name in `SIZES`, or {depth, hidden_size, num_heads} and what else `Size` has.

    Raises:
        ValueError: if there is no such name or key.
    """
    if isinstance(spec, str):
        if spec not in SIZES:
            raise ValueError(f"unknown model size {spec!r}; choose one of {', '.join(SIZES)}")
        return SIZES[spec]
    try:
        return Size(**spec)
    except TypeError as error:
        raise ValueError(f"a model size needs depth, hidden_size and num_heads, got {dict(spec)}") from error


def equal_compute(
    specs: Sequence[str | Mapping], pairs: LatentCache, text_tokens: int, batch_size: int, steps: int
) -> dict[str, Model]:
    """Models by name, the first with `steps`; the others with the steps that cost as many FLOPs (`models.sizing`).

    Texts count with their mean length in `pairs`, because padding is not computed.

    Raises:
        ValueError: for an unknown size, or one given twice.
    """
    found: dict[str, Model] = {}
    for spec in specs:
        side, width = pairs.mean.shape[-1], pairs.states.shape[1]
        run = Run(size_of(spec), 8 * side, len(pairs), 1, batch_size, text_tokens=text_tokens, text_dim=width)
        short = replace(run, text_tokens=round(len(pairs.states) / len(pairs)))
        a_step = 3 * short.forward_flops * batch_size  # a backward pass is two forward ones
        budget = next(iter(found.values())).flops if found else steps * a_step
        own = max(1, round(budget / a_step))
        name = spec if isinstance(spec, str) else f"{run.shape.depth} x {run.shape.hidden_size}"
        if name in found:
            raise ValueError(f"the model {name!r} is given twice: compare other depths or widths")
        found[name] = Model(run.shape, own, run.parameters, own * a_step)
    return found


def plan(
    models: Mapping[str, Model], shares: Sequence[Mapping[str, np.ndarray]], everything: np.ndarray
) -> tuple[pl.DataFrame, list[np.ndarray]]:
    """All runs: the first model on every subset, the others on all pairs, once a seed.

    Args:
        models: as `equal_compute` makes them.
        shares: of each seed, as `subsets` makes them.
        everything: all rows.

    Returns:
        a table with run, model, parameters, steps, flops, share, pairs, seed; and the rows that each run trains on.
    """
    first, whole = next(iter(models)), share_name(1)
    about, rows = [], []
    for seed, own in enumerate(shares):
        chosen = [(first, share, part) for share, part in own.items()]
        chosen += [(name, whole, everything) for name in models if name != first or whole not in own]
        for name, share, part in chosen:
            size = {"model": name} | {k: v for k, v in vars(models[name]).items() if k != "size"}
            data = {"share": share, "pairs": len(part), "seed": seed}
            about.append({"run": f"{name} / {share} / seed {seed}"} | size | data)
            rows.append(part)
    return pl.DataFrame(about), rows


# ----------------------------------------------------------------------------------------------------------- a run


def arrays(cache: LatentCache) -> Arrays:
    """What `train_and_sample` takes of a cache."""
    return {name: getattr(cache, name).numpy() for name in ("mean", "std", "states", "offsets")}


def taken(pairs: Arrays, rows: np.ndarray) -> LatentCache:
    """The rows of a cache that is given as `arrays`, as a cache of their own."""
    starts, ends = pairs["offsets"][rows], pairs["offsets"][rows + 1]
    tokens = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    fields = {"mean": pairs["mean"][rows], "std": pairs["std"][rows], "states": pairs["states"][tokens]}
    fields["offsets"] = np.cumsum(np.concatenate([[0], ends - starts]))
    return LatentCache(**{name: torch.from_numpy(values) for name, values in fields.items()})


def train_and_sample(
    pairs: Arrays,
    held_out: Arrays,
    *,
    rows: np.ndarray,
    size: Mapping,
    text_tokens: int,
    training: Mapping,
    sampling: Mapping,
    autoencoder: str,
    folder: Path,
    seed: int,
) -> Arrays:
    """One training and what it can do.

    Args:
        pairs, held_out: `arrays` of stage I's pairs.
        rows: of `pairs`, to train on.
        size: the fields of a `Size`.
        training: fields of `TrainingConfig` but its seed.
        sampling: settings of `sample`.
        folder: where the training keeps its checkpoints and log.
        seed: of weights, order and noise. Runs of one seed sample from the same noise.

    Returns:
        samples: uint8 [P, S, H, W] of the held-out prompts; noise_error and seen_error: mean squared error of the
        predicted noise on the held-out pairs and on (at most) as many that it was trained on, over all times alike.
    """
    own, unseen = taken(pairs, rows), taken(held_out, np.arange(len(held_out["mean"])))
    torch.manual_seed(seed)
    model = ChexGenTransformer(
        **size, sample_size=own.mean.shape[-1], text_dim=own.states.shape[1], text_tokens=text_tokens
    )
    train(model, own, TrainingConfig(**training, seed=seed), folder, keep_last=True)
    spread = np.linspace(0, len(rows) - 1, min(len(rows), len(unseen))).round().astype(int)  # records stand by source
    seen = taken(pairs, rows[spread])
    errors = {"noise_error": noise_error(model, unseen), "seen_error": noise_error(model, seen)}
    samples = sample(model, unseen, autoencoder, **sampling, seed=seed)
    return {"samples": samples, **{name: np.array(error) for name, error in errors.items()}}


def sample(
    model: ChexGenTransformer,
    prompts: LatentCache,
    autoencoder: str,
    images_per_prompt: int,
    num_inference_steps: int,
    guidance_scale: float,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Radiographs for the text states of a cache by DPM-Solver++, uint8 [P, images_per_prompt, H, W].

    batch_size: prompts at once.
    """
    pipeline = assemble(model, autoencoder, None)  # the cache holds the text states
    pipeline.scheduler = dpm_solver_scheduler()
    pipeline.to(model.device).set_progress_bar_config(disable=True)
    generator, images = torch.Generator().manual_seed(seed), []
    for rows in torch.arange(len(prompts)).split(batch_size):
        _, states, mask, _ = prompts.batch(rows, generator)
        drawn = pipeline(
            prompt_embeds=states,
            prompt_attention_mask=mask,
            num_images_per_prompt=images_per_prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generator=generator,
            output_type="np",
        ).images
        images.append(to_uint8(drawn).reshape(len(rows), images_per_prompt, *drawn.shape[1:]))
    return np.concatenate(images)


# --------------------------------------------------------------------------------------------------- the measures


@dataclass(frozen=True)
class Measured:
    """One measure of K runs: values [K], and what they are on R resamples of the prompts [R, K]."""

    values: np.ndarray
    resampled: np.ndarray


def measure(
    runs: Sequence[Arrays], real: np.ndarray, embedders: Sequence[Embedder], n_resamples: int, seed: int
) -> dict[str, Measured]:
    """FID by each embedder, MS-SSIM and noise error of runs, by name; lower is better in all.

    real: uint8 [P, H, W], the held-out radiographs of the prompts. The FID compares all samples of a run with them; n
    is the same in all runs, as it must be (`quality.frechet`). A resample draws prompts, with their radiographs and
    samples, the same in all runs; it repeats images, which biases the FID, so resampled FIDs are scaled to have
    the estimate as their mean. A noise error has no resamples: there its runs differ by seed alone.
    """
    rng, n, found = np.random.default_rng(seed), len(real), {}
    counts = resample_counts(n, n_resamples, rng)  # [R, P]
    resamples = [np.repeat(np.arange(n), own) for own in counts]
    for embedder in embedders:
        reference = embedder(from_uint8(real))
        columns = [_distances(reference, _embed(embedder, run["samples"]), resamples) for run in runs]
        found[f"FID-{embedder.name}"] = Measured(*(np.stack(part, axis=-1) for part in zip(*columns, strict=True)))
    similar = np.stack([pairwise_similarity(from_uint8(run["samples"]))["MS-SSIM"] for run in runs], axis=1)  # [P, K]
    found["MS-SSIM"] = Measured(similar.mean(0), counts @ similar / n)
    for name, key in ((HELD_OUT, "noise_error"), (SEEN, "seen_error")):
        values = np.array([float(run[key]) for run in runs])
        found[name] = Measured(values, np.tile(values, (n_resamples, 1)))
    return found


def _embed(embedder: Embedder, samples: np.ndarray) -> np.ndarray:
    """[P, S, H, W] uint8 -> [P, S, D]."""
    flat = from_uint8(samples.reshape(-1, *samples.shape[2:]))
    return embedder(flat).reshape(*samples.shape[:2], -1)


def _distances(real: np.ndarray, fake: np.ndarray, resamples: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """FID of fake [P, S, D] to real [P, D], and on the resampled prompts [R]."""

    def fid(rows: np.ndarray) -> float:
        return distance(moments(real[rows]), moments(fake[rows].reshape(-1, fake.shape[2])))

    value, resampled = fid(np.arange(len(real))), np.array([fid(rows) for rows in resamples])
    return np.array(value), resampled * value / resampled.mean()


def tables(about: pl.DataFrame, measured: Mapping[str, Measured], seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every run, and the mean over seeds with a 95 % interval over prompts and seeds.

    Returns:
        run, model, ..., measure, value; and model, parameters, steps, flops, share, pairs (mean), measure, value, low,
        high, seeds.
    """
    runs = pl.concat(about.with_columns(measure=pl.lit(name), value=m.values) for name, m in measured.items())
    rng, means = np.random.default_rng(seed), []
    same = ["model", "parameters", "steps", "flops", "share"]
    groups = about.with_row_index().group_by(same, maintain_order=True).agg("index", pl.col("pairs").mean())
    for name, m in measured.items():
        for group in groups.iter_rows(named=True):
            own = np.array(group.pop("index"))
            resampled = [values[rng.choice(own, len(own))].mean() for values in m.resampled]
            found = interval_of(m.values[own].mean(), resampled, len(own))
            means.append(group | {"measure": name, **vars(found)})
    return runs, pl.DataFrame(means).rename({"n": "seeds"})


# -------------------------------------------------------------------------------------------------- the power law


@dataclass(frozen=True)
class PowerLaw:
    """S = a D^b by least squares in log S and log D over all runs.

    low, high: 95 % bootstrap interval of b. r2: share of the variance of log S that the line explains. bends: p-value
    of the F test for lack of fit, which compares how far the means at each D are from the line with how far the seeds
    are from their means; a small one says that no straight line fits, whatever r2 is.
    """

    a: float
    b: float
    low: float
    high: float
    r2: float
    bends: float
    runs: int

    @property
    def verdict(self) -> str:
        """A fit is supported if the interval of b leaves out 0 and r2 is at least `MIN_R2`."""
        if self.low <= 0 <= self.high:
            return "not supported: the interval of b holds 0"
        if self.r2 < MIN_R2:
            return f"not supported: R2 below {MIN_R2}"
        return "supported as a trend, but it bends" if self.bends < 0.05 else "supported"


def power_law(pairs: np.ndarray, shares: Sequence[str], measured: Measured, seed: int = 0) -> PowerLaw:
    """Fit S = a D^b to K runs (paper, ED Fig 2).

    pairs: [K], D of each run; shares: [K], the name of its subset. A bootstrap resample draws the seeds of each subset
    anew, and the prompts as `measured` has them; with few seeds its interval is rather too narrow.

    Raises:
        ValueError: for fewer than 3 subsets, or a score that is not positive.
    """
    shares = np.asarray(shares)
    groups = [np.flatnonzero(shares == name) for name in dict.fromkeys(shares.tolist())]
    if len(groups) < 3:
        raise ValueError(f"a power law is fitted to at least 3 fractions of the data, got {len(groups)}")
    if not (np.isfinite(measured.values).all() and (measured.values > 0).all()):
        raise ValueError(f"a power law needs positive scores, got {measured.values.min():g}: leave that measure out")
    x, y, rng = np.log(pairs), np.log(measured.values), np.random.default_rng(seed)
    b, log_a = np.polyfit(x, y, 1)
    slopes = []
    for scores in np.log(measured.resampled):
        drawn = np.concatenate([rng.choice(own, len(own)) for own in groups])
        slopes.append(np.polyfit(x[drawn], scores[drawn], 1)[0])
    interval = interval_of(b, slopes, len(x))
    off_line = ((y - log_a - b * x) ** 2).sum()
    r2 = 1 - off_line / max(((y - y.mean()) ** 2).sum(), np.finfo(float).tiny)
    bends = _lack_of_fit(off_line, sum(((y[own] - y[own].mean()) ** 2).sum() for own in groups), len(x), len(groups))
    return PowerLaw(float(np.exp(log_a)), float(b), interval.low, interval.high, float(r2), bends, len(x))


def _lack_of_fit(off_line: float, off_means: float, runs: int, groups: int) -> float:
    """p-value of the F test of a straight line against a mean for each group; NaN without repeats."""
    if runs == groups:
        return float("nan")
    bend = max(off_line - off_means, 0) / (groups - 2)
    return float(stats.f.sf(bend / max(off_means / (runs - groups), np.finfo(float).tiny), groups - 2, runs - groups))


def fits(about: pl.DataFrame, measured: Mapping[str, Measured], seed: int) -> pl.DataFrame:
    """The power law of each measure over the first model's runs: measure, the fields of `PowerLaw`, verdict."""
    own = np.flatnonzero((about["model"] == about["model"][0]).to_numpy())
    pairs, shares, rows = about["pairs"].to_numpy()[own], about["share"].to_numpy()[own], []
    for name, m in measured.items():
        if name != SEEN:
            law = power_law(pairs, shares, Measured(m.values[own], m.resampled[:, own]), seed)
            rows.append({"measure": name, **vars(law), "verdict": law.verdict})
    return pl.DataFrame(rows)
