"""The shipped foundation in few steps and in many, beside what has learned from it to take four.

    python -m benchmarks.few_steps [--prompts 256] [--copies 2] [--images 64] [--rounds 3]

writes benchmarks/few_steps.csv: quality as `benchmarks.judged` measures it, beside its bounds, asked by texts and,
where the arm says so, by metadata; `seconds` of `--images` images of texts at once with weights of 8 bits, the median
of rounds in which all ways take turns; `times_as_fast` compares them with those of 20 steps.
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import polars as pl

from benchmarks import judged
from chexgen_lib.models.foundation import DISTILLED, SHIPPED
from chexgen_lib.models.metadata import rows_of
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.pools.generate import Sampling, fitting, sample_pool
from chexgen_lib.sampling.pipeline import ChexGenPipeline

USUAL, STUDENT = "foundation, 20 steps", "distilled, 4 steps"
WAYS = {USUAL: (SHIPPED, 20), **{f"foundation, {n} steps": (SHIPPED, n) for n in (4, 8, 50)}, STUDENT: (DISTILLED, 4)}
BY_BOTH = (USUAL, STUDENT)  # asked by metadata, too
GUIDANCE = 2.0


def open_way(source: str) -> ChexGenPipeline:
    pipeline = ChexGenPipeline.from_pretrained(source).to("cpu")
    pipeline.transformer = int8_weights(pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seconds(pipelines: dict[str, ChexGenPipeline], prompts: list[str], rounds: int) -> dict[str, float]:
    """Of all prompts at once, by way: the median round."""
    times = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, pipeline in pipelines.items():
            taken = fitting(sampling(1, WAYS[name][1]), pipeline)
            start = perf_counter()
            pipeline(prompts, num_inference_steps=taken.num_inference_steps, guidance_scale=taken.guidance_scale)
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
    asked = reference.prompted.table
    opened = {name: open_way(source) for name, (source, _) in WAYS.items()}

    def sampled(name: str, folder: str, metadata: list[dict] | None = None) -> np.ndarray:
        taken, requests = sampling(options.copies, WAYS[name][1]), asked.select("image_id", "prompt")
        return sample_pool(opened[name], requests, judged.KEPT / "few_steps" / folder, taken, metadata=metadata)

    images = {name: sampled(name, name) for name in WAYS}
    for name in BY_BOTH:
        metadata = rows_of(asked, opened[name].transformer.metadata_sources)
        images[f"{name}, with metadata"] = sampled(name, f"{name}, with metadata", metadata)
    table = judged.table(reference, images, options.resamples)
    took = seconds(opened, (asked["prompt"].to_list() * options.images)[: options.images], options.rounds)
    about = [{"arm": name, "seconds": s, "times_as_fast": took[USUAL] / s} for name, s in took.items()]
    table = table.join(pl.DataFrame(about), on="arm", how="left", maintain_order="left")
    table.write_csv(Path(__file__).with_suffix(".csv"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(table)


if __name__ == "__main__":
    main()
