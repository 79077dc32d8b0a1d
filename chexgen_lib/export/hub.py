"""Models and samples as folders that a model hub shows, loads and takes: files, a card, and `push`."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pydicom
from huggingface_hub import CommitInfo, HfApi
from huggingface_hub.errors import HTTPError
from PIL import Image

from chexgen_lib.export import cards
from chexgen_lib.export.images import SUFFIXES, read_recipe, save
from chexgen_lib.images import read_image, to_uint8
from chexgen_lib.models.loading import forget_origins
from chexgen_lib.pixels import ImageError
from chexgen_lib.pools.folder import open_samples
from chexgen_lib.pools.generate import ABOUT
from chexgen_lib.records import VIEWS, RecordError
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.prompts import SEXES, check_metadata
from chexgen_lib.sources.given import listed, named_file, unlisted
from chexgen_lib.sources.table import read_given
from chexgen_lib.storage import replacing, write_json

TEXTS_MAY_GO = ("nih", "openi")  # sources under terms that let anybody pass on labels and reports
WITHHELD = ("prompt", "record", "request")  # what could hold a report or an id of its patient
IDS = ("image_id", "record_id", "study_id", "patient_id")  # of a `labels.csv`; the first says which record is shown
RECIPE, TABLE, IMAGES = "recipe.json", "metadata.csv", "images"
CASES = {"sex": str.title, "view": str.upper}  # as others' tables may not have them
UNTOLD = "unknown"  # source of a record whose id names none, and generator of images that somebody else made


def write_model(
    folder: str | Path, pipeline: ChexGenPipeline, recipe: Mapping[str, Any] | None, licence: str | None = None
) -> Path:
    """Write a new folder with the pipeline as diffusers saves it, `recipe.json` and a model card, README.md.

    Args:
        recipe: what the weights were made from (`training.summary.recipe`); None where nobody knows.
        licence: identifier of the weights' licence, as hubs spell it.

    Raises:
        ValueError: if the folder exists.
    """
    with replacing(_new(folder)) as partial:
        pipeline.save_pretrained(partial)
        forget_origins(partial)
        if recipe is not None:
            write_json(dict(recipe), partial / RECIPE)
        cards.model_card(pipeline, partial, recipe, licence).save(partial / "README.md")
    return Path(folder)


def write_samples(
    folder: str | Path, samples: str | Path, licence: str | None = None, form: str = "png"
) -> pl.DataFrame:
    """Write a new folder of images with their recipes, `metadata.csv` (file_name, prompt, ...) and a data card.

    Prompts and record ids of sources whose terms do not let texts be passed on are left out, and so are drawings of
    masks and boxes; of a `labels.csv` all columns but generator and seed.

    Args:
        samples: what `chexgen sample` wrote; a pool, `samples.npy` and `manifest.parquet`; or images of any generator
            with a `labels.csv`: `image`, and any of image_id, prompt, seed, generator, sex, age, view and others.
        licence: as in `write_model`.
        form: "png" or "dicom" (`export.dicom`).

    Returns:
        source, images, texts (whether their prompts are in the folder); a prompt of your own has no source.

    Raises:
        ValueError: if the folder exists, `samples` is none of these, or an image that they name is not whole.
    """
    folder, samples = _new(folder), Path(samples)
    recipes, pixels = _read_samples(samples)
    sources = [_source_of(recipe) for recipe in recipes]
    rows, shapes = [], set()
    with replacing(folder) as partial:
        (partial / IMAGES).mkdir(parents=True)
        for i, (recipe, image) in enumerate(zip(recipes, pixels, strict=True)):
            kept = {key: value for key, value in recipe.items() if not (_is_withheld(sources[i]) and key in WITHHELD)}
            kept.pop("condition", None)  # the name of a drawing that does not go along; its digest stays
            name = f"{IMAGES}/{i:06d}{SUFFIXES[form]}"
            requested = {key: recipe[key] for key in ("sex", "age", "view") if recipe.get(key) is not None}
            save(partial / name, image, kept, requested)
            shapes.add(image.shape)
            rows.append({"file_name": name, "source": sources[i], **{k: v for k, v in kept.items() if k != "file"}})
        pl.DataFrame(rows, infer_schema_length=None).write_csv(partial / TABLE)
        counts = pl.DataFrame({"source": sources, "texts": [not _is_withheld(each) for each in sources]})
        counts = counts.group_by("source", "texts").agg(images=pl.len()).sort("source")
        cards.data_card(counts, recipes[0], sorted(shapes), licence).save(partial / "README.md")
    return counts


def push(folder: str | Path, repository: str, private: bool = True) -> CommitInfo:
    """Upload a folder of `write_model` or `write_samples` to a hub, as one that only its owner sees unless told so.

    Endpoint and token are huggingface_hub's: HF_ENDPOINT, HF_TOKEN or `hf auth login`. A repository that exists keeps
    its visibility.

    Raises:
        ValueError: if the folder is neither.
        OSError: what the hub, or the way to it, refuses.
    """
    folder = Path(folder)
    kinds = {"model_index.json": "model", TABLE: "dataset"}
    kind = next((kind for name, kind in kinds.items() if (folder / name).is_file()), None)
    if kind is None or not (folder / "README.md").is_file():
        raise ValueError(f"{folder} is no shared model or samples: write it with `chexgen share`")
    hub, message = HfApi(), f"Synthetic chest radiographs: {kind}"
    try:
        hub.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        return hub.upload_folder(repo_id=repository, folder_path=folder, repo_type=kind, commit_message=message)
    except HTTPError as error:
        if isinstance(error, OSError):  # the hub's own answer
            raise
        raise ConnectionError(
            f"no connection to {hub.endpoint} ({error}): {folder} is written, upload it later by export.hub.push"
        ) from error


def _new(folder: str | Path) -> Path:
    if Path(folder).exists():
        raise ValueError(f"{folder} exists: name a new folder")
    return Path(folder)


def _read_samples(folder: Path) -> tuple[list[dict[str, Any]], Iterable[np.ndarray]]:
    """Recipe and pixels, uint8 [H, W], of each image in a folder that `write_samples` takes."""
    if (folder / "labels.csv").is_file():
        return _read_listed(folder)
    if (folder / "manifest.csv").is_file():
        names = _names(folder / "manifest.csv")
        return [_read_whole(folder / name) for name in names], [_pixels(folder / name) for name in names]
    if not (folder / "manifest.parquet").is_file():
        raise ValueError(
            f"{folder} has neither a manifest nor labels.csv: give what `chexgen sample` wrote, a pool of "
            "a run, or images with a labels.csv (column image)"
        )
    try:
        manifest, samples = pl.read_parquet(folder / "manifest.parquet", glob=False), open_samples(folder)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / 'manifest.parquet'} is cut off or damaged: copy it again ({reason})") from error
    if samples.ndim != 4 or len(samples) != len(manifest) or not samples.size:
        raise ValueError(f"{folder}: {len(manifest)} requests and samples {samples.shape} do not fit; sample it again")
    columns = [column for column in ABOUT if column in manifest.columns]
    seeds = "seeds" in manifest.columns  # those of images that were handed in nobody knows
    recipes = [
        {
            "request": row["image_id"],
            "copy": k,
            **({"seed": row["seeds"][k]} if seeds else {}),
            "record": row["image_id"],
        }
        | {column: row[column] for column in columns}
        for row in manifest.iter_rows(named=True)
        for k in range(samples.shape[1])
    ]
    return recipes, list(samples.reshape(-1, *samples.shape[2:]))


def _read_listed(folder: Path) -> tuple[list[dict[str, Any]], Iterable[np.ndarray]]:
    """As `_read_samples`, of images of any generator that a `labels.csv` names; read one by one, they may be many."""
    path = folder / "labels.csv"
    try:
        table = read_given(path, "image")
    except RecordError as error:
        raise ValueError(f"{error}; save it as CSV with a column image") from error
    if "image" not in table.columns or table.is_empty():
        raise ValueError(f"{path} names no image: it needs a column image, and has {table.columns}")
    table, numbers = listed(table, path)
    files = _files(folder, table["image"], numbers)
    if {"pair", "edited"} <= set(table.columns):
        raise ValueError(
            f"{folder} holds edited films (`chexgen edit`): they show their patients, and are not synthetic"
        )
    if reserved := {"file", "file_name", "source", "record", "condition"} & set(table.columns):
        raise ValueError(f"{path}: rename the column {min(reserved)}, a name that the shared table has itself")
    recipes = []
    for number, row in zip(numbers, table.drop("image").iter_rows(named=True), strict=True):
        given = {"generator": UNTOLD} | {key: value for key, value in row.items() if value is not None}
        try:
            recipes.append(_recipe(given))
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
    return recipes, (to_uint8(read_image(file)) for file in files)


def _files(folder: Path, names: Iterable[str], numbers: Iterable[int]) -> list[Path]:
    """The images that the rows of `labels.csv` name, each there and named once; what no row names is counted."""
    files, first = [named_file(folder, name) for name in names], {}
    for number, file in zip(numbers, files, strict=True):
        at = f"{folder / 'labels.csv'}, row"
        if not file.is_file():
            raise ValueError(f"{at} {number}: {file} does not exist; mend its name, or take the row out")
        if (earlier := first.setdefault(file.resolve(), number)) != number:
            raise ValueError(f"{at}s {earlier} and {number}: the image is named twice; take one row out")
    if left := unlisted(folder, names):
        warnings.warn(f"{folder}: {len(left)} pictures are not in labels.csv and not shared: {left[0]}", stacklevel=2)
    return files


def _recipe(given: dict[str, Any]) -> dict[str, Any]:
    """The recipe of an image of another generator, without what must not go along."""
    ids = [given.pop(column) for column in IDS if column in given]
    if ids:
        given["record"] = ids[0]
    if _is_withheld(_source_of(given)):
        return {key: given[key] for key in ("record", "generator", "seed") if key in given}
    asked = {key: given.get(key) for key in ("sex", "age", "view")}
    cased = {key: case(asked[key].strip()) for key, case in CASES.items() if asked[key]}
    asked |= {key: value for key, value in cased.items() if value in (*SEXES, *VIEWS)}
    typed = check_metadata(asked)
    return given | typed | ({"sex": typed["sex"][0]} if "sex" in typed else {})


def _names(path: Path) -> list[str]:
    """The files that a manifest of `chexgen sample` names."""
    try:
        table = pl.read_csv(path, infer_schema_length=0, glob=False)
    except pl.exceptions.NoDataError:  # no row, and so no column
        table = pl.DataFrame({"file": []})
    if "file" not in table.columns:
        raise ValueError(f"{path} has no column file: give what `chexgen sample` wrote, or a pool of a run")
    if table.is_empty():
        raise ValueError(f"{path} names no image: mend what `chexgen sample` said of its prompts, and sample again")
    return table["file"].to_list()


def _read_whole(path: Path) -> dict[str, Any]:
    recipe = read_recipe(path)
    if recipe is None:
        raise ImageError(f"{path}: missing, not whole or without its recipe; run `chexgen sample` again")
    return recipe


def _pixels(path: Path) -> np.ndarray:
    if path.suffix == SUFFIXES["dicom"]:
        return pydicom.dcmread(path).pixel_array
    with Image.open(path) as image:
        return np.asarray(image)


def _source_of(recipe: Mapping[str, Any]) -> str | None:
    """The source of the record that an image was sampled for; None for a prompt of one's own."""
    record = str(recipe.get("record") or "")
    source, colon, _ = record.partition(":")
    return (source if colon else UNTOLD) if record else None


def _is_withheld(source: str | None) -> bool:
    """Whether texts of a source stay at home."""
    return source is not None and source not in TEXTS_MAY_GO
