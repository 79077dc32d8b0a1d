"""What is judged: the images of each generator for the reference's prompts, sampled here or handed in as a folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import diffusers
import numpy as np
import polars as pl
import transformers

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments.judge.reference import FEWEST, Films, Reference
from chexgen_lib.images import reduced
from chexgen_lib.models.baseline import truncate
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.models.metadata import rows_of
from chexgen_lib.models.quantized import int8_weights
from chexgen_lib.pools.folder import is_folder_of_images
from chexgen_lib.pools.generate import Sampling, fitting, sample_pool
from chexgen_lib.pools.submitted import EXCLUDED, read_submitted
from chexgen_lib.pools.trial import tried
from chexgen_lib.sampling.baseline import BaselinePipeline
from chexgen_lib.sampling.generators import CONFIG, INDEX, Generator, Parts, open_generator
from chexgen_lib.sampling.pipeline import ChexGenPipeline

ELSEWHERE = "another generator has no image of this record"
FEWER_ELSEWHERE = "another generator has fewer images of a record"


@dataclass(frozen=True)
class Entry:
    """A generator's images.

    Attributes:
        source: where it was opened.
        kind: what it is, in words.
        pool: folder of the images, as `pools.folder.read_pool` reads it, for other audits of the same images.
        image_ids: records of the images.
        images: uint8 [N, S, R, R].
        excluded: image_id, copy, reason of what was left out.
        remarks: what to know of the images.
        seconds: of sampling; None for a folder.
        sampling: as the generator took it (`pools.generate.fitting`); None for a folder.
    """

    source: str
    kind: str
    pool: Path
    image_ids: list[str]
    images: np.ndarray
    excluded: pl.DataFrame
    remarks: list[str]
    seconds: float | None = None
    sampling: Sampling | None = None


def check_source(source: str, parts: Parts) -> None:
    """Whether a source can be judged, before anything is rendered or sampled; a model of others makes one image.

    Raises:
        ValueError: saying what was found in its place, and what to give.
    """
    path = Path(source)
    here = path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1 or path.suffix == ".pth"
    if is_folder_of_images(source):
        if parts.given():
            raise ValueError(f"{source} holds images: --autoencoder and --text-encoder are for models")
        return
    if path.is_dir() and not any((path / name).is_file() for name in (INDEX, CONFIG)):
        raise ValueError(
            f"{source} holds neither images listed in labels.csv (columns image and image_id) nor a pipeline that "
            "pipeline.save_pretrained wrote"
        )
    if path.is_file() and path.suffix != ".pth":
        raise ValueError(f"{source} is a file and no released .pth: give the folder of a pipeline, or of labels.csv")
    if here and not path.exists():
        raise ValueError(f"{source} does not exist: give a folder or a released .pth, or a hub id as OWNER/NAME")
    pipeline = open_generator(source, parts)
    if not isinstance(pipeline, ChexGenPipeline):
        tried(lambda: pipeline, source)


def enter(source: str, reference: Reference, folder: Path, sampling: Sampling, int8: bool, parts: Parts) -> Entry:
    """The images of a generator; `folder` is where samples are kept.

    Raises:
        ValueError: for a source that is neither images nor a generator, naming the remedy.
        CohortError, ImageError: for a folder of images that cannot be read.
    """
    prompted, size = reference.prompted.table, reference.resolution
    if is_folder_of_images(source):
        given = read_submitted(source, prompted["image_id"].to_list(), size, sampling.copies)
        remarks = [*given.remarks, *_other_texts(Path(source), prompted)]
        return Entry(source, "folder of images", Path(source), given.image_ids, given.images, given.excluded, remarks)
    pipeline = open_generator(source, parts).to(fastest_device())
    if int8 and isinstance(pipeline, ChexGenPipeline) and not isinstance(pipeline, BaselinePipeline):
        pipeline.transformer = int8_weights(pipeline.transformer)
    start = perf_counter()
    samples, remarks = _sample(pipeline, prompted, folder, sampling)
    seconds = perf_counter() - start
    images = reduced(samples.reshape(-1, *samples.shape[2:]), size).reshape(*samples.shape[:2], size, size)
    if samples.shape[-1] != size:
        remarks.append(f"sampled at {samples.shape[-1]} px, judged at {size} px")
    kind = type(getattr(pipeline, "pipeline", pipeline)).__name__
    nothing = pl.DataFrame(schema=EXCLUDED)
    taken = seconds, fitting(sampling, pipeline)
    return Entry(source, kind, folder, prompted["image_id"].to_list(), images, nothing, remarks, *taken)


def _other_texts(folder: Path, records: pl.DataFrame) -> list[str]:
    """Of how many records a run's pool was requested with another text than the prompt; `labels.csv` does not tell."""
    if (folder / "labels.csv").is_file():
        return []
    manifest = pl.read_parquet(folder / "manifest.parquet", glob=False)
    if "prompt" not in manifest.columns:
        return []
    record = "record" if "record" in manifest.columns else "image_id"
    asked = records.join(manifest.select(asked="prompt", image_id=record), on="image_id")
    other = asked.filter(pl.col("asked") != pl.col("prompt"))["image_id"].n_unique()
    return [f"images of {other} records were requested with another text than the prompt"] * (other > 0)


def _sample(
    pipeline: Generator, records: pl.DataFrame, folder: Path, sampling: Sampling
) -> tuple[np.ndarray, list[str]]:
    """Samples [N, S, H, W] of the records' prompts, or of their metadata where a model reads those alone; remarks."""
    sources = getattr(pipeline.transformer, "metadata_sources", None)
    metadata, requests, remarks = None, records.select("image_id", "prompt"), []
    if sources is not None and getattr(pipeline, "tokenizer", None) is None:
        metadata = rows_of(records, sources)
        requests = requests.drop("prompt")
        remarks.append("asked by metadata")
    with _quiet():
        if "prompt" in requests.columns and (long := _cut(pipeline, records["prompt"].to_list())):
            remarks.append(f"{long} prompts are longer than it reads, and cut")
        return sample_pool(pipeline, requests, folder, sampling, metadata=metadata), remarks


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning about every prompt that is cut: they are counted."""
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    before = [logger.get_verbosity() for logger in loggers]
    try:
        for logger in loggers:
            logger.set_verbosity_error()
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.set_verbosity(level)


def _cut(pipeline: Generator, prompts: Sequence[str]) -> int:
    """How many prompts are longer than a baseline or a pipeline of others reads."""
    if isinstance(pipeline, BaselinePipeline):
        return truncate(pipeline.tokenizer, prompts)[1]
    if isinstance(pipeline, ChexGenPipeline) or getattr(pipeline, "tokenizer", None) is None:
        return 0
    lengths = [len(ids) for ids in pipeline.tokenizer(list(prompts), verbose=False)["input_ids"]]
    return sum(length > pipeline.tokenizer.model_max_length for length in lengths)


def shared(reference: Reference, entries: Mapping[str, Entry]) -> tuple[Reference, dict[str, Entry]]:
    """Reference and entries of the records that every entry has images of, with equally many images of each.

    What an entry has besides is excluded, and listed there.

    Raises:
        CohortError: if that leaves fewer than `FEWEST` records.
    """
    common = set.intersection(*(set(entry.image_ids) for entry in entries.values()))
    table = reference.prompted.table
    keep = np.flatnonzero(table["image_id"].is_in(list(common)).to_numpy())
    if len(keep) < FEWEST:
        held = ", ".join(f"{name}: {len(entry.image_ids)}" for name, entry in entries.items())
        raise CohortError(
            f"{len(keep)} prompts have an image in every entry ({held}), judging needs {FEWEST}: generate images of "
            "more of prompts.csv"
        )
    ids = table["image_id"].gather(keep).to_list()
    copies = min(entry.images.shape[1] for entry in entries.values())
    found = {}
    for name, entry in entries.items():
        row = {record: k for k, record in enumerate(entry.image_ids)}
        left = [(record, None, ELSEWHERE) for record in entry.image_ids if record not in common]
        left += [(record, k, FEWER_ELSEWHERE) for record in ids for k in range(copies, entry.images.shape[1])]
        excluded = pl.concat([entry.excluded, pl.DataFrame(left, EXCLUDED, orient="row")])
        images = entry.images[[row[record] for record in ids], :copies]
        found[name] = replace(entry, image_ids=ids, images=images, excluded=excluded)
    others = Films(reference.others.table[: len(keep)], reference.others.images[: len(keep)])
    return replace(reference, prompted=reference.prompted[keep], others=others), found
