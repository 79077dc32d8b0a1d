"""What `chexgen sample` costs beyond the pipeline: the same images through the command and through a plain loop.

    python benchmarks/command_line_overhead.py [--root runs/laptop] [--images 1000] [--parts 4]

Both load the run's pipeline, read the same prompts and sample the same batches from the same seeds; the command also
checks what is finished, digests the weights, writes PNGs with their notes and the manifest. They run in turns, an equal
part of the images each time, in one process with everything imported. Writes command_line_overhead.csv beside this
file. `make repro` first.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch
from PIL import Image

from chexgen_lib import cli
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble
from chexgen_lib.sampling.schedulers import dpm_solver_scheduler
from chexgen_lib.sampling.synthesis import image_seed

BATCH, STEPS = 32, 20


def by_command(prompts: Path, weights: Path, out: Path) -> float:
    start = perf_counter()
    arguments = ["sample", prompts, "--weights", weights, "--out", out, "--steps", STEPS, "--batch-size", BATCH]
    if cli.main(list(map(str, arguments))) != 0:
        raise SystemExit("chexgen sample failed")
    return perf_counter() - start


def by_loop(prompts: Path, weights: Path) -> tuple[float, list[Image.Image]]:
    start = perf_counter()
    pipeline = ChexGenPipeline.from_pretrained(weights)
    pipeline.set_progress_bar_config(disable=True)
    rows = pl.read_csv(prompts)
    images = []
    for batch in rows.iter_slices(BATCH):
        seeds = [image_seed(name, 0, 0) for name in batch["name"]]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        texts = batch["impression"].to_list()
        images += pipeline(texts, num_inference_steps=STEPS, guidance_scale=4.0, generator=generators).images
    return perf_counter() - start, images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=4)
    options = parser.parse_args()
    asked = pl.read_parquet(options.root / "synthesis/manifest.parquet")["prompt"]
    per_part = options.images // options.parts
    command, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "pipeline")
        pipeline = assemble(
            ChexGenTransformer.from_pretrained(options.root / "alignment/transformer"), "shipped", "minilm"
        )
        pipeline.scheduler = dpm_solver_scheduler()
        pipeline.save_pretrained(weights)
        for part in range(options.parts):
            names = [f"part{part}_{i:04d}" for i in range(per_part)]
            texts = [asked[i % len(asked)] for i in range(per_part)]
            prompts, out = Path(folder, f"{part}.csv"), Path(folder, f"images{part}")
            pl.DataFrame({"name": names, "impression": texts}).write_csv(prompts)
            command.append(by_command(prompts, weights, out))
            seconds, images = by_loop(prompts, weights)
            loop.append(seconds)
            files = [out / f"{name}_0.png" for name in names]
            same = all(np.array_equal(Image.open(f), image) for f, image in zip(files, images, strict=True))
            if not same:
                raise SystemExit("the command and the loop gave different images; their times cannot be compared")
    total = per_part * options.parts
    row = dict(images=total, steps=STEPS, batch=BATCH, command_s=sum(command), loop_s=sum(loop))
    row["overhead"] = row["command_s"] / row["loop_s"] - 1
    part_overheads = [c / p - 1 for c, p in zip(command, loop, strict=True)]
    row |= dict(smallest_part=min(part_overheads), largest_part=max(part_overheads))
    table = pl.DataFrame([row]).with_columns(pl.col(pl.Float64).round(4))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
