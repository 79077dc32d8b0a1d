"""Quality and time of the samplers against their number of steps, on the trained model of a run.

    python -m benchmarks.sampler_steps [--root runs/laptop] [--seeds 1]

writes benchmarks/sampler_steps.csv and .png: FID on the run's classifier features, Pearson r of its scores (both as in
notebook 07, the run's own prompts of unseen patients), and seconds an image, for 4 to 50 steps of every sampler of the
model's objective. A step of flow-heun calls the model twice. On a CPU the weights have 8 bits, as in stage 06 of the
laptop. `make repro` first.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.diffusion.schedulers import SAMPLERS, scheduler_named
from chexgen_lib.estimates.resampling import Resampling, percentile_interval
from chexgen_lib.figures import style
from chexgen_lib.images import from_uint8
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.quality.embedders import ClassifierEmbedder
from chexgen_lib.quality.evaluate import FRECHET_RESAMPLES
from chexgen_lib.quality.factuality import score_correlation
from chexgen_lib.quality.frechet import halves, resampled_distances
from chexgen_lib.sampling.pipeline import assemble

STEPS = (4, 6, 10, 20, 50)
AXES = {"FID": "Frechet distance\n(classifier features)", "r": "Pearson r", "seconds": "seconds an image"}


def measure(root: Path, seeds: int) -> pl.DataFrame:
    table = cohort.load(root / "cohort")
    asked = pl.read_parquet(root / "synthesis/manifest.parquet").select("image_id", "prompt")
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"])}
    transformer = ChexGenTransformer.from_pretrained(root / "alignment/transformer")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = assemble(transformer if device == "cuda" else int8_weights(transformer), "shipped", "minilm").to(device)
    rows = [row_of[image_id] for image_id in asked["image_id"]]
    real = from_uint8(cohort.load_images(root / "cohort", 8 * transformer.latent_shape[-1], rows))
    classifier = Classifier.load(root / "quality/classifier")
    embed = ClassifierEmbedder(classifier)
    patients = table["patient_id"].gather(rows).to_numpy()
    left, right = halves(patients, seed=0)
    reference, targets = embed(real[left]), classifier.predict(real)
    of_halves = [Resampling(patients[half], FRECHET_RESAMPLES).weights for half in (left, right)]
    weights = Resampling(patients).weights
    found = []
    for sampler in SAMPLERS[transformer.objective]:
        pipeline.scheduler = scheduler_named(sampler, pipeline.scheduler)
        for steps in STEPS:
            start = perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                sampling = Sampling(copies=seeds, num_inference_steps=steps, batch_size=32)
                samples = from_uint8(sample_pool(pipeline, asked, Path(folder, "pool"), sampling))
            seconds = (perf_counter() - start) / (len(asked) * seeds)
            flat = samples.reshape(-1, *samples.shape[2:])
            features = embed(flat).reshape(*samples.shape[:2], -1)
            scores = classifier.predict(flat).reshape(*samples.shape[:2], -1)
            fid = percentile_interval(resampled_distances(reference, {"": features[right]}, *of_halves)[""])
            r = percentile_interval(score_correlation(scores, targets, weights), centred=True)
            for metric, interval, n in (("FID", fid, len(right)), ("r", r, len(asked))):
                found.append(dict(sampler=sampler, steps=steps, metric=metric, seeds=seeds, n=n, **interval._asdict()))
            time = dict(metric="seconds", value=seconds, low=seconds, high=seconds, n=len(flat))
            found.append(dict(sampler=sampler, steps=steps, seeds=seeds, **time))
            print(
                {k: f"{v.value:.2f} [{v.low:.2f}, {v.high:.2f}]" for k, v in dict(FID=fid, r=r).items()}, sampler, steps
            )
    return pl.DataFrame(found)


def draw(table: pl.DataFrame) -> Figure:
    style.use()
    fig = Figure(figsize=(style.PAGE, 2.5), layout="constrained")
    axes, samplers = fig.subplots(1, len(AXES)), table["sampler"].unique(maintain_order=True)
    for ax, (metric, label) in zip(axes, AXES.items(), strict=True):
        for k, (sampler, marker) in enumerate(zip(samplers, "osD", strict=True)):
            rows = table.filter(metric=metric, sampler=sampler)
            x, value, low, high = (rows[name].to_numpy() for name in ("steps", "value", "low", "high"))
            error = np.maximum([value - low, high - value], 0)
            ax.errorbar(x * 1.06 ** (k - 1), value, error, marker=marker, markersize=3, capsize=2, label=sampler)
        n, seeds = table.filter(metric=metric)["n"][0], table["seeds"][0]
        ax.set(xscale="log", xlabel="steps", ylabel=label)
        ax.set_xticks(STEPS, map(str, STEPS))
        ax.set_title(f"n = {n}" + (f" x {seeds} seeds" if metric != "seconds" and seeds > 1 else ""))
    axes[-1].set_yscale("log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(samplers))
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    table = measure(options.root, options.seeds)
    style.save(draw(table), table, Path(__file__).with_suffix(".png"))


if __name__ == "__main__":
    main()
