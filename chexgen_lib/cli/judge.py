"""`chexgen judge`: any generators from equal prompts; tables, a figure and a page in one folder."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl

from chexgen_lib.cli.overwriting import check_apart
from chexgen_lib.experiments.judge import asked_and_shown, metrics, report
from chexgen_lib.experiments.judge.bench import Bench
from chexgen_lib.experiments.judge.entries import Entry, check_source, enter, shared
from chexgen_lib.experiments.judge.instruments import trained
from chexgen_lib.experiments.judge.reference import Reference, load_reference
from chexgen_lib.experiments.judge.rendered import COUNTS, RESOLUTION, render_reference
from chexgen_lib.figures import judge as figure
from chexgen_lib.figures import style
from chexgen_lib.kept import kept
from chexgen_lib.learners.base import LearnerConfig, device_for
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.pools.folder import is_folder_of_images
from chexgen_lib.pools.generate import Sampling
from chexgen_lib.quality.embedders import ClipEmbedder, XrvEmbedder
from chexgen_lib.quality.retrieval import ImageTextEncoder
from chexgen_lib.sampling.generators import Parts
from chexgen_lib.storage import replacing, write_csv, write_json

WITH_WEIGHTS = {"clip": ClipEmbedder, "xrv": XrvEmbedder}
EMBEDDERS = ("classifier", "radiomics", *WITH_WEIGHTS)
SETTINGS = ("prompts", "images_per_prompt", "steps", "guidance", "seed", "int8", "embedders", "classifier_steps")
SETTINGS += ("image_text_encoder", "autoencoder", "text_encoder", "resamples")


def judge(options: argparse.Namespace) -> int:
    """Judge `options.generators` and write `options.out`; without any, write the prompts and stop.

    Raises:
        ValueError: before anything is computed for options that do not fit, later naming the generator and remedy.
    """
    start = perf_counter()
    sources = named(options.generators)
    check_apart(options.out, [Path(source) for source in sources.values() if is_folder_of_images(source)])
    parts = Parts(options.autoencoder, options.text_encoder)
    _check(options)
    for source in sources.values():
        check_source(source, parts)
    given = options.image_text_encoder
    reader = None if given is None else ImageTextEncoder(given, fastest_device())
    reference = _reference(options)
    write_csv(_prompts(reference), options.out / "prompts.csv")
    if not sources:
        print(f"{options.out / 'prompts.csv'}: {len(reference.prompted)} prompts; generate images for them, list them")
        print("in labels.csv (image, image_id) in their folder, and judge that folder")
        return 0
    sampling = Sampling(options.images_per_prompt, options.steps, options.guidance, options.batch_size, options.seed)
    entered = {
        name: enter(sources[name], reference, options.out / "samples" / name, sampling, options.int8, parts)
        for name in sorted(sources, key=lambda name: not is_folder_of_images(sources[name]))  # what may be wrong first
    }
    reference, entries = shared(reference, {name: entered[name] for name in sources})
    steps = options.classifier_steps
    config = LearnerConfig(steps, options.seed, "laptop", checks=min(8, steps), device=device_for(0))
    instruments = trained(reference, options.embedders, options.kept / "classifier", config, reader)
    images = {name: entry.images for name, entry in entries.items()}
    bench = Bench(reference, images, instruments, options.resamples, options.seed)
    found, shown = metrics.table(bench), asked_and_shown.table(bench)
    _write(options, reference, entries, found, shown)
    minutes = (perf_counter() - start) / 60
    with replacing(options.out / "report.md") as path:
        path.write_text(report.page(reference, entries, found, shown, minutes), encoding="utf-8")
    for line in report.verdicts(found, shown):
        print(line.replace("**", ""))
    print(f"{options.out / 'report.md'}: {minutes:.1f} minutes")
    return 0


def named(texts: list[str]) -> dict[str, str]:
    """NAME=SOURCE or SOURCE texts -> source by name; a source without a name has that of its last part (sd-v1.5).

    Raises:
        ValueError: for a name that is repeated, or cannot be a folder's.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or Path(text).exists():
            name, source = Path(text).name.removesuffix(".pth"), text
        if name in found or not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or not source:
            raise ValueError(f"{text!r}: give NAME=SOURCE, every name once, of letters, digits, '-', '_' and '.'")
        found[name] = os.path.expanduser(source)  # no shell expands ~ behind =
    return found


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError for what would fail after minutes: embedders, and weights that are not on this disk."""
    if len(set(options.embedders)) < len(options.embedders):
        raise ValueError(f"--embedders {' '.join(options.embedders)}: give each once")
    if unknown := [name for name in options.embedders if name not in EMBEDDERS]:
        raise ValueError(f"unknown embedders {unknown}; use some of {', '.join(EMBEDDERS)}")
    for name in WITH_WEIGHTS.keys() & set(options.embedders):
        WITH_WEIGHTS[name]()  # says which weights are missing, and how to get them


def _reference(options: argparse.Namespace) -> Reference:
    folder = options.cohort
    if folder is None:
        counts = COUNTS | {"test": max(COUNTS["test"], 2 * options.prompts)}
        settings = {"counts": counts, "resolution": RESOLUTION}
        folder = kept(render_reference, options.kept / "reference", {"workers": options.workers}, **settings)
    return load_reference(folder, options.prompts)


def _prompts(reference: Reference) -> pl.DataFrame:
    return reference.prompted.table.select("image_id", "prompt", "sex", "age", "view")


def _write(
    options: argparse.Namespace,
    reference: Reference,
    entries: Mapping[str, Entry],
    found: pl.DataFrame,
    shown: pl.DataFrame,
) -> None:
    out = options.out
    write_csv(shown, out / "asked_and_shown.csv")
    listed = [e.excluded.select(pl.lit(name).alias("generator"), pl.all()) for name, e in entries.items()]
    write_csv(pl.concat(listed), out / "excluded.csv")
    rows = np.linspace(0, len(reference.prompted) - 1, figure.GALLERY).astype(int)
    samples = {name: entry.images[rows, 0] for name, entry in entries.items()}
    films = reference.prompted[rows]
    style.save(figure.draw(found, shown, films.table, films.images, samples), found, out / report.FIGURE)
    about = {
        name: {
            "source": e.source,
            "kind": e.kind,
            "pool": e.pool.as_posix(),
            "images": list(e.images.shape[:2]),
            "excluded": len(e.excluded),
            "remarks": e.remarks,
            "seconds": e.seconds,
        }
        for name, e in entries.items()
    }
    settings = {name: getattr(options, name) for name in SETTINGS}
    settings["cohort"] = None if options.cohort is None else options.cohort.as_posix()
    write_json({"settings": settings, "generators": about}, out / "judge.json")
