"""How long a training takes until its samples are as good as those of an earlier version's, from the same start.

    python -m benchmarks.time_to_quality [--before dafc9a1] [--seeds 1] [--rounds 3]

writes time_to_quality.csv and .png beside this file. Both versions begin untrained, with the same 2,800 rendered
radiographs and their descriptions. The earlier one trains as its profile laptop does (`time_to_quality_before`, run
with the library of its commit); the present one with the shipped foundation's recipe, cut to several numbers of steps,
each a whole training; `--seeds` of both. All then sample the same held-out prompts, in 20 steps of DPM-Solver++ with
the guidance of their version, and `benchmarks.judged` measures the samples; beside them the shipped foundation, which
is there without any training.

`seconds` are the steps of a training times what one takes, measured last, of both versions in turns, the median of
`--rounds`: then with nothing beside. `times_as_fast` compares the earlier version's with the present one's; it is what
counts where the present one is `as_good`, by both Frechet distances and Pearson r.

Everything is kept in runs/time_to_quality: an interrupted run goes on where it was.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks import judged
from benchmarks.objectives import RECIPE, pairs, sampled, untrained
from chexgen_lib.cohort import layout
from chexgen_lib.diffusion.schedulers import GUIDANCE
from chexgen_lib.experiments.judge.reference import Reference
from chexgen_lib.experiments.judge.rendered import RESOLUTION
from chexgen_lib.figures import style
from chexgen_lib.models.foundation import SHIPPED
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import replacing
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.trainer import train

KEPT = Path("runs/time_to_quality")
IMAGES = 2800
STEPS = (10, 20, 40, 80, 160, 320)
FEW, MORE = 6, 46  # steps that are timed
EMBEDDERS = ("classifier", "radiomics")
BETTER = {**{f"FID-{name}": -1 for name in EMBEDDERS}, judged.R: 1}  # metric -> sign of an improvement
BEFORE, NOW, AT_ONCE = "earlier version", "present version", "shipped foundation"
REPOSITORY = Path(__file__).parents[1]


def check_out(commit: str) -> Path:
    """The library of an earlier version, in a folder."""
    folder = KEPT / "versions" / commit
    if not folder.exists():
        packed = subprocess.run(["git", "archive", commit, "chexgen_lib"], cwd=REPOSITORY, capture_output=True)
        if packed.returncode:
            raise SystemExit(f"no commit {commit} here: {packed.stderr.decode().strip()}")
        with replacing(folder) as partial, tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(partial, filter="data")
    return folder


def run_before(version: Path, reference: Reference, what: str) -> Path:
    """`time_to_quality_before` in its folder."""
    folder = (KEPT / BEFORE).resolve()
    if not (folder / "asked.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        table = layout.load(KEPT / "images", ["split", "prompt"]).with_row_index("row").filter(split="train")
        np.save(folder / "images.npy", layout.load_images(KEPT / "images", RESOLUTION, table["row"]))
        (folder / "prompts.json").write_text(json.dumps(table["prompt"].to_list()))
        reference.prompted.table.select("image_id", "prompt").write_parquet(folder / "asked.parquet")
    script = Path(__file__).with_name("time_to_quality_before.py").resolve()
    environment = os.environ | {"PYTHONPATH": str(version.resolve())}
    subprocess.run([sys.executable, script, folder, what], cwd=folder, env=environment, check=True)
    return folder


def before(version: Path, reference: Reference, seed: int) -> np.ndarray:
    """Samples of the earlier version, uint8 [N, 1, R, R]."""
    samples = KEPT / BEFORE / f"{seed}/samples.npy"
    if not samples.is_file():
        run_before(version, reference, f"{seed}")
    return np.load(samples, allow_pickle=False)


def seconds(version: Path, reference: Reference, made: Path, rounds: int) -> tuple[float, float]:
    """Of the earlier version's trainings together, and of a step of the present one's."""
    old, new = [], []
    pairs = LatentCache.load(made / "train")
    for _ in range(rounds):
        folder = run_before(version, reference, "time")
        old.append(json.loads((folder / "seconds.json").read_text()))
        took = {steps: _seconds_of(pairs, replace(RECIPE, steps=steps)) for steps in (FEW, MORE)}
        new.append((took[MORE] - took[FEW]) / (MORE - FEW))
        print(f"seconds: {old[-1]:.0f} of the earlier version, {new[-1]:.2f} of a step of the present one", flush=True)
    return median(old), median(new)


def _seconds_of(pairs: LatentCache, config: TrainingConfig) -> float:
    with TemporaryDirectory() as folder:
        model, start = untrained(pairs, config), perf_counter()
        train(model, pairs, config, Path(folder))
        return perf_counter() - start


def at_once(reference: Reference) -> np.ndarray:
    """Samples of the shipped foundation, uint8 [N, 1, R, R]."""
    pipeline = ChexGenPipeline.from_pretrained(SHIPPED)
    pipeline.transformer = int8_weights(pipeline.transformer)
    asked = reference.prompted.table.select("image_id", "prompt")
    sampling = Sampling(1, 20, GUIDANCE["rectified_flow"], batch_size=64, seed=0)
    return sample_pool(pipeline, asked, KEPT / AT_ONCE, sampling)


def compared(table: pl.DataFrame) -> pl.DataFrame:
    """The measures with `times_as_fast` and `as_good`, by seed, of the present version's trainings."""
    value = pl.col("value") * pl.col("metric").replace_strict(BETTER, return_dtype=pl.Int8)
    old = table.filter(version=BEFORE).select("metric", "seed", was=value, took="seconds")
    own = table.filter(version=NOW).join(old, on=["metric", "seed"])
    told = own.group_by("arm").agg(
        times_as_fast=(pl.col("took") / pl.col("seconds")).first(), as_good=(value >= pl.col("was")).all()
    )
    return table.join(told, on="arm", how="left", maintain_order="left")


def draw(table: pl.DataFrame) -> Figure:
    """A panel for each metric against the seconds of training: both versions, and what is there without training."""
    style.use()
    fig = Figure(figsize=(style.PAGE, 2.6), layout="constrained")
    axes = fig.subplots(1, len(BETTER))
    for ax, metric in zip(axes, BETTER, strict=True):
        rows = table.filter(metric=metric)
        for color, version in zip(style.OKABE_ITO, (BEFORE, NOW), strict=False):
            for seed in rows["seed"].drop_nulls().unique():
                of = rows.filter(version=version, seed=seed).sort("seconds")
                error = np.abs(of.select(pl.col("low", "high") - pl.col("value")).to_numpy().T)
                label = None if seed else version
                ax.errorbar(of["seconds"], of["value"], error, fmt="-o", color=color, label=label)
        ax.axhline(rows.filter(version=AT_ONCE)["value"].item(), color=style.OKABE_ITO[2], label=AT_ONCE)
        ax.axhline(rows.filter(role="floor")["value"].item(), color="black", linestyle=":", label="real radiographs")
        ax.set(xscale="log", xlabel="training, s", ylabel=metric, yscale="log" if BETTER[metric] < 0 else "linear")
        ax.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
        ax.xaxis.set_minor_formatter(NullFormatter())
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=6)
    about = f"{IMAGES:,} radiographs to train on; n = {table['n'][0]} prompts, 95 % intervals"
    fig.suptitle(f"{about}; a line for each seed, a point for each whole training", fontsize=7)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="dafc9a1")
    parser.add_argument("--records", type=Path, default=Path("runs/laptop/curation/records.parquet"))
    for name, value in (("seeds", 1), ("prompts", 256), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    options = parser.parse_args()
    version, reference = check_out(options.before), judged.reference(options.prompts)
    made = pairs(options.records, IMAGES, KEPT)
    images, about = {AT_ONCE: at_once(reference)}, [{"arm": AT_ONCE, "version": AT_ONCE}]
    for seed in range(options.seeds):
        arm = f"{BEFORE}, seed {seed}"
        images[arm] = before(version, reference, seed)
        about.append({"arm": arm, "version": BEFORE, "seed": seed})
        for steps in options.steps:
            arm = f"{NOW}, {steps} steps, seed {seed}"
            config = replace(RECIPE, steps=steps, warmup_steps=min(RECIPE.warmup_steps, steps // 5), seed=seed)
            images[arm], _ = sampled(KEPT / arm, config, made, reference)
            about.append({"arm": arm, "version": NOW, "seed": seed, "steps": steps})
    old, step = seconds(version, reference, made, options.rounds)
    for row in about:
        row["seconds"] = {BEFORE: old, NOW: step * row.get("steps", 0)}.get(row["version"])
    found = judged.table(reference, images, embedders=EMBEDDERS).filter(pl.col("metric").is_in([*BETTER]))
    schema = {"arm": pl.String, "version": pl.String, "seed": pl.Int64, "steps": pl.Int64, "seconds": pl.Float64}
    table = compared(found.join(pl.DataFrame(about, schema), on="arm", how="left", maintain_order="left"))
    style.save(draw(table), table, Path(__file__).with_suffix(".png"))
    print(table)


if __name__ == "__main__":
    main()
