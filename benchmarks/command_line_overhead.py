"""What `chexgen sample` costs beyond the pipeline: its own time in a run, beside that of the pipeline it calls.

    python -m benchmarks.command_line_overhead [--root runs/laptop] [--images 1000]

The command samples prompts of the run's pipeline in one process with everything imported. What is not spent in opening
the pipeline and in its calls is the command's: it reads and checks the prompts, digests the weights, looks for finished
images, writes PNGs with their notes and the manifest. Both are of the same run, so that a machine's noise is in both.
Writes command_line_overhead.csv beside this file. `make repro` first.
"""

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import polars as pl

from chexgen_lib.cli import main as cli
from chexgen_lib.diffusion.schedulers import few_steps
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.sampling.pipeline import ChexGenPipeline, assemble

BATCH, STEPS = 32, 20


class Timed:
    """A function that adds up the seconds of its calls."""

    def __init__(self, function):
        self.function, self.seconds = function, 0.0

    def __call__(self, *args, **kwargs):
        start = perf_counter()
        try:
            return self.function(*args, **kwargs)
        finally:
            self.seconds += perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    asked = pl.read_parquet(options.root / "synthesis/manifest.parquet")["prompt"]
    with tempfile.TemporaryDirectory() as folder:
        weights, prompts, out = (Path(folder, name) for name in ("pipeline", "prompts.csv", "images"))
        transformer = ChexGenTransformer.from_pretrained(options.root / "alignment/transformer")
        pipeline = assemble(transformer, "shipped", "minilm")
        pipeline.scheduler = few_steps(pipeline.scheduler)
        pipeline.save_pretrained(weights)
        texts = [asked[i % len(asked)] for i in range(options.images)]
        pl.DataFrame({"name": [f"{i:05d}" for i in range(options.images)], "impression": texts}).write_csv(prompts)
        opening, calls = Timed(ChexGenPipeline.from_pretrained), Timed(ChexGenPipeline.__call__)
        arguments = ["sample", prompts, "--weights", weights, "--out", out, "--steps", STEPS, "--batch-size", BATCH]
        with (
            patch.object(ChexGenPipeline, "from_pretrained", opening),
            patch.object(ChexGenPipeline, "__call__", lambda *args, **kwargs: calls(*args, **kwargs)),
        ):
            start = perf_counter()
            status = cli.main(list(map(str, arguments)))
            total = perf_counter() - start
        written = len(list(out.glob("*.png")))
    if status != 0 or written != options.images or not calls.seconds:
        raise SystemExit(f"chexgen sample ended with {status} and {written} of {options.images} images")
    inside = opening.seconds + calls.seconds
    row = dict(images=options.images, steps=STEPS, batch=BATCH, command_s=total, pipeline_s=inside)
    table = pl.DataFrame([row | {"overhead": total / inside - 1}]).with_columns(pl.col(pl.Float64).round(4))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
