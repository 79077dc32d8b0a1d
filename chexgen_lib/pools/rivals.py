"""Other generators beside ours: samples of the same requests, with the same seeds, steps and guidance, or images given.

The setting `generators` names them. One that is not sampled here is a folder that holds a folder of images
(`folder.read_pool`) for each of ours that it has images for: `synthesis`, `text`, `severity`, `matched`, `balancing`.
Where it has none, it has no row.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.diffusion.schedulers import few_steps
from chexgen_lib.kept import kept
from chexgen_lib.pools.folder import is_folder_of_images, read_pool
from chexgen_lib.pools.generate import Sampling, sample_pool
from chexgen_lib.pools.labelled import copies_of
from chexgen_lib.pools.submitted import stored, unnamed
from chexgen_lib.pools.trial import tried
from chexgen_lib.sampling.generators import Generator, GreyPipeline, Parts, is_whole, open_generator
from chexgen_lib.storage import remove

GIVEN = ("synthesis", "text", "severity", "matched", "balancing")
UNET = "baseline/unet"  # of stage 04_baseline, below a run's root
NAME = re.compile(r"(?!(?:ChexGen|real|synthetic|test)$)[A-Za-z][\w.-]*")  # the others name arms of ours


def open_rivals(generators: Mapping[str, str | None], root: Path, parts: Parts) -> dict[str, Generator | Path]:
    """Each of `generators` by its name, after it has made an image; of one that is a folder of images, the folder.

    Args:
        generators: name -> what `open_rival` or `open_generator` opens, or a folder of images.
        root: of the run.
        parts: for a model alone.

    Raises:
        ValueError: for a name that no arm can have, or a source that is no generator, naming the remedy.
    """
    found: dict[str, Generator | Path] = {}
    for name, source in generators.items():
        if not NAME.fullmatch(name):
            raise ValueError(f"generators: {name!r} cannot name an arm; use letters, digits, '.', '-' and '_'")
        if source is not None and any(is_folder_of_images(Path(source) / pool) for pool in GIVEN):
            found[name] = Path(source)
        elif source is not None and is_folder_of_images(source):
            raise ValueError(f"generators.{name}: put the images of {source} into folders in it: {', '.join(GIVEN)}")
        else:
            found[name] = open_rival(source, root, parts, f"generators.{name}")
            own = isinstance(found[name], GreyPipeline) or getattr(found[name], "distilled_steps", None)
            if not own:  # a family of its own, or a distilled model, keeps its sampler
                found[name].scheduler = few_steps(found[name].scheduler)
    return found


def open_rival(source: str | None, root: Path, parts: Parts, name: str) -> Generator:
    """A generator that has made an image in one step; its name is for errors.

    Args:
        source: what `open_generator` opens; None for the U-Net of stage 04_baseline.
        root, parts: as in `open_rivals`.

    Raises:
        FileNotFoundError: if there is no such U-Net.
        GeneratorError: for a source that is no generator.
    """
    if source is None and not (root / UNET / "config.json").is_file():
        raise FileNotFoundError(f"{root / UNET} holds no U-Net: run the stage 04_baseline first, or give `weights`")
    source = source or root / UNET
    alone = Path(source).is_dir() and not is_whole(source)  # not a released checkpoint, which has parts of its own
    return tried(lambda: open_generator(source, parts if alone else None), name)


def sample_rivals(
    rivals: Mapping[str, Generator | Path],
    pool: str,
    requests: pl.DataFrame,
    folder: Path,
    sampling: Sampling,
    size: int,
) -> dict[str, np.ndarray]:
    """Samples [P, S, H, W] of the requests by each generator that has any, each in a folder of its own below `folder`.

    Args:
        pool: a name in `GIVEN`.
        requests: as `sample_pool` takes them.
        folder: below which a folder for each lies; what generators left there that are no longer named is removed.
        size: that given images are reduced to, in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[!.]*"):
        if path.name not in rivals:
            remove(path)
    found = {}
    for name, rival in rivals.items():
        if not isinstance(rival, Path):
            found[name] = sample_pool(rival, requests, folder / name, sampling)
        elif is_folder_of_images(rival / pool):
            found[name] = _given(rival / pool, requests, folder / name, sampling.copies, size)
        else:
            remove(folder / name)
    return found


def folders(folder: str | Path) -> dict[str, Path]:
    """The folder of each generator that `sample_rivals` left images of in `folder`, by name."""
    return {path.parent.name: path.parent for path in sorted(Path(folder).glob("[!.]*/samples.npy"))}


def _given(source: Path, requests: pl.DataFrame, folder: Path, copies: int, size: int) -> np.ndarray:
    """The images of a folder for the requests, at most `copies` of each, written to `folder` as `sample_pool` does.

    What is left out, or stored in another way than ours, is counted in warnings.
    """
    table, images = read_pool(source, size)
    record = requests["record" if "record" in requests.columns else "image_id"].to_list()
    copies = min(copies, table["copy"].max() + 1)
    try:
        rows = copies_of(table.select("copy", image_id="record"), record * copies)
    except CohortError as error:
        raise CohortError(f"{source}: {error}") from error
    samples = images[rows.reshape(copies, -1).T]  # [P, S, H, W]
    unused = len(table) - len(np.unique(rows))
    left = {"that nothing requests": unused, "that labels.csv does not name": len(unnamed(source))}
    counted = [f"{number} images {which} are left out" for which, number in left.items() if number]
    for remark in [*stored(source, size), *counted]:
        warnings.warn(f"{source}: {remark}", stacklevel=2)
    kept(_write, folder, samples=samples, requests=requests.select(pl.col("^(image_id|record|prompt)$")).rechunk())
    return samples


def _write(folder: Path, samples: np.ndarray, requests: pl.DataFrame) -> None:
    np.save(folder / "samples.npy", samples)
    requests.write_parquet(folder / "manifest.parquet")
