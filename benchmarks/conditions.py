"""What the shipped foundation shows of what it is asked for: by a text, by metadata, by both.

    python -m benchmarks.conditions [--prompts 256] [--copies 2] [--steps 20]

writes benchmarks/conditions.csv: quality as `benchmarks.judged` measures it, beside its bounds, and each attribute that
probes recover (`experiments.judge.asked_and_shown`): findings, sex, age, view, side, severity, beside the same probes
on the prompts' own radiographs. All ways start from the same noise.
"""

import argparse
from pathlib import Path

import polars as pl

from benchmarks import judged
from chexgen_lib.models.foundation import SHIPPED
from chexgen_lib.models.metadata import rows_of
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.sampling.pipeline import ChexGenPipeline

WAYS = {"text": (True, False), "metadata": (False, True), "text and metadata": (True, True)}  # asked by which
GUIDANCE = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("prompts", 256), ("copies", 2), ("steps", 20), ("resamples", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    reference = judged.reference(options.prompts)
    pipeline = ChexGenPipeline.from_pretrained(SHIPPED)
    if (sources := pipeline.transformer.metadata_sources) is None:
        parser.error("the shipped foundation reads no metadata: train it (make foundation)")
    pipeline.transformer = int8_weights(pipeline.transformer)
    sampling = Sampling(options.copies, options.steps, GUIDANCE, batch_size=64)
    asked, metadata = reference.prompted.table, rows_of(reference.prompted.table, sources)
    images = {
        name: sample_pool(
            pipeline,
            asked.select("image_id", *(["prompt"] if by_text else [])),
            judged.KEPT / "conditions" / name,
            sampling,
            metadata=metadata if by_metadata else None,
        )
        for name, (by_text, by_metadata) in WAYS.items()
    }
    table = judged.table(reference, images, options.resamples, every_attribute=True)
    table.write_csv(Path(__file__).with_suffix(".csv"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(table)


if __name__ == "__main__":
    main()
