"""Do samples worsen the outlines of pneumothoraces because guidance draws them more plainly than patients show them?

    python -m benchmarks.guidance_of_masks [--root runs/laptop] [--scales 1 2] [--seeds 5]

needs the run of profile laptop below --root up to 06. It samples that run's requests for masks and boxes at each scale
of the classifier-free guidance (06 takes 2; 1 is without guidance), everything else equal. Then it trains the
segmenters of pneumothorax as 09 does, on real images alone and with samples, and tests them on 09's test images and,
so that a setting could be chosen without these, on images of training patients whom neither arm was trained on.

Writes guidance_of_masks.csv beside this file: guidance_scale (none for real images alone), test, arm, metric, n test
images, the value with its 95 % interval over patients and seeds, and the difference from real images alone with its
own. Samples and trainings are kept below ROOT/benchmarks/guidance_of_masks, so that an interrupted run goes on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import polars as pl

from chexgen_lib.experiments.arms import augmented
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.experiments.segmentation import segment
from chexgen_lib.pools import annotated
from chexgen_lib.pools.annotation_sources import request_annotations
from chexgen_lib.pools.annotations import sample_annotated_pool
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.pools.models import open_stage
from chexgen_lib.sampling.generators import Parts
from chexgen_lib.storage import write_csv
from chexgen_lib.workflow import dag

TASK = "pneumothorax"
# What `segment` calls a set, and which of `AnnotatedSplits` it is given; no further images are left to train on.
ROWS = {"val": "val", "test": "test", "external test": "further train"}
NAMES = {"external test": "other training patients"}
COLUMNS = ["arm", "metric", "n", "value", "low", "high", "difference", "difference_low", "difference_high"]


def sample(root: Path, folder: Path, scale: float, settings: dict) -> list[Path]:
    """The pools of masks and boxes of `pools` settings, below `folder`, at another scale of the guidance."""
    parts = Parts(settings["autoencoder"], settings["text_encoder"])
    adapter = open_stage(root, "annotation_to_image", parts, int8=settings["int8"])
    masks = dict.fromkeys(("pneumothorax", "ribs"), settings["mask_records"])
    requested = {"masks": masks, "boxes": {"boxes": settings["box_records"]}}
    sources = settings["annotated_sources"]
    data, requests = request_annotations(root / "cohort", adapter.image_size, requested, settings["seed"], sources)
    sampling = Sampling(
        settings["annotated_copies"], settings["num_inference_steps"], scale, settings["batch_size"], settings["seed"]
    )
    for name, own in requests.items():
        sample_annotated_pool(adapter, data, own, folder / name, sampling)
    return [folder / name for name in requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    params = dag.plain("laptop")
    given, trained = params["pools"] | {"seed": params["seed"]}, params["augmentation"]
    repeats = Repeats(args.seeds, params["seed"], trained["workers"], trained["n_bootstrap"])
    tables = []
    for scale in args.scales:
        folder = args.root / f"benchmarks/guidance_of_masks/{scale:g}"
        pools = sample(args.root, folder, scale, given)
        sets = annotated.of_run(args.root, trained["resolution"], pools, None, None)[TASK]
        sets = replace(sets, rows={name: sets.rows[own] for name, own in ROWS.items()})
        result = segment(sets, TASK, trained["task_copies"], folder / "trained", trained["segmentation"], repeats)
        sampled = pl.col("arm").is_in([augmented(k) for k in trained["task_copies"]])
        about = pl.when(sampled).then(pl.lit(scale)).alias("guidance_scale")
        tables.append(result.table.select(about, pl.col("test").replace(NAMES), *COLUMNS))
    table = pl.concat(tables).unique(maintain_order=True)  # arms without samples are those of every scale
    write_csv(table, Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
