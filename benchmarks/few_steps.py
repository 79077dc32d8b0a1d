"""The shipped foundation in few steps and in many, beside what has learned from it to take four.

    python -m benchmarks.few_steps [--prompts 256] [--copies 2] [--images 64] [--rounds 3]

writes benchmarks/few_steps.csv: quality as `benchmarks.judged` measures it, beside its bounds; `seconds` of `--images`
images at once with weights of 8 bits, the median of rounds in which all ways take turns; `times_as_fast` compares them
with those of 20 steps.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import polars as pl

from benchmarks import judged
from chexgen_lib.experiments.judge.entries import enter
from chexgen_lib.models.foundation import DISTILLED, SHIPPED
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.pools.generate import Sampling, fitting
from chexgen_lib.sampling.generators import Parts
from chexgen_lib.sampling.pipeline import ChexGenPipeline

USUAL = "foundation, 20 steps"
OTHERS = {f"foundation, {n} steps": (SHIPPED, n) for n in (4, 8, 50)}
WAYS = {USUAL: (SHIPPED, 20), **OTHERS, "distilled, 4 steps": (DISTILLED, 4)}
GUIDANCE = 2.0


def seconds(prompts: list[str], rounds: int) -> dict[str, float]:
    """Of all prompts at once, by way: the median round."""
    pipelines = {}
    for name, (source, steps) in WAYS.items():
        pipeline = ChexGenPipeline.from_pretrained(source).to("cpu")
        pipeline.transformer = int8_weights(pipeline.transformer)
        pipeline.set_progress_bar_config(disable=True)
        taken = fitting(sampling(1, steps), pipeline)
        pipelines[name] = pipeline, taken.num_inference_steps, taken.guidance_scale
    times = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, (pipeline, steps, guidance) in pipelines.items():
            start = perf_counter()
            pipeline(prompts, num_inference_steps=steps, guidance_scale=guidance)
            times[name].append(perf_counter() - start)
    return {name: median(found) for name, found in times.items()}


def sampling(copies: int, steps: int) -> Sampling:
    return Sampling(copies, steps, GUIDANCE, batch_size=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("prompts", 256), ("copies", 2), ("images", 64), ("rounds", 3), ("resamples", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    reference = judged.reference(options.prompts)
    entries = {
        name: enter(source, reference, judged.KEPT / "few_steps" / name, sampling(options.copies, steps), True, Parts())
        for name, (source, steps) in WAYS.items()
    }
    table = judged.table(reference, {name: entry.images for name, entry in entries.items()}, options.resamples)
    texts = reference.prompted.table["prompt"].to_list()
    took = seconds((texts * options.images)[: options.images], options.rounds)
    about = [{"arm": name, "seconds": s, "times_as_fast": took[USUAL] / s} for name, s in took.items()]
    table = table.join(pl.DataFrame(about), on="arm", how="left", maintain_order="left")
    table.write_csv(Path(__file__).with_suffix(".csv"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(table)


if __name__ == "__main__":
    main()
