"""The images that an audit compares: a pool, what its generator was trained on, and real images that it never saw.

A folder is one of

- a cohort of a run (`cohort.parquet`): its training rows of stage I and II, or its validation and test rows;
- a pool or samples of a run (`samples.npy` and `manifest.parquet`);
- images with a `labels.csv`: `image` (a file below the folder) and any of `image_id`, `patient_id`, `study_id` and
  `prompt`; other columns are not used;
- images alone, each taken to be of another patient.

An image that cannot be used is excluded with its reason, never replaced. One whose id is not told is named by its set
and file: everybody's first image may be 0.png, in the pool, in training and held out.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout
from chexgen_lib.images import ImageError, from_uint8, read_image, reduced, resize, to_uint8
from chexgen_lib.records import RecordError
from chexgen_lib.sources.columns import cell
from chexgen_lib.sources.given import columns_of, listed, named_file, pictures, unlisted
from chexgen_lib.sources.table import read_given

POOL, TRAINING, HELD_OUT = "pool", "training", "held-out"
LARGEST, SMALLEST, STEP = 128, 64, 16  # px; what likeness is measured at is a multiple of STEP
COLUMNS = ("file", "image_id", "patient_id", "study_id", "prompt")
IDS = ("image_id", "patient_id", "study_id")
EXCLUDED = {"set": pl.String, "file": pl.String, "reason": pl.String}


class AuditError(ValueError):
    """An audit that cannot be made; the message names the folder or setting and the remedy."""


@dataclass(frozen=True)
class Images:
    """Distinct images of one folder.

    Attributes:
        table: `COLUMNS`; image_id is the set and the file where the folder does not tell, patient_id the image_id;
            study_id and prompt are null.
        pixels: uint8 [N, S, S].
    """

    table: pl.DataFrame
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @property
    def patients(self) -> np.ndarray:
        """The patient of each image, or of a pool the record that it was sampled for: the independent units, [N]."""
        return self.table["patient_id"].to_numpy()

    def take(self, rows: np.ndarray) -> "Images":
        """Some of the images, in the order of `rows`."""
        return Images(self.table[rows], self.pixels[rows])


def read_all(
    pool: Path, training: Path, held_out: Path, size: int | None = None
) -> tuple[dict[str, Images], pl.DataFrame]:
    """The three sets at one size, and what was excluded: set, file, reason.

    Args:
        size: pixels; None: the largest multiple of 16 that every image has, at most 128.

    Raises:
        AuditError: for a missing or unusable folder, a size that is out of range, an image or patient both in training
            and held out.
    """
    if size is not None and (size % STEP or not SMALLEST <= size <= LARGEST):
        raise AuditError(f"--size {size}: give a multiple of {STEP} from {SMALLEST} to {LARGEST}")
    sets, excluded = {}, []
    for name, folder in ((POOL, pool), (TRAINING, training), (HELD_OUT, held_out)):
        sets[name], out = _read(Path(folder), name, size or SMALLEST)
        excluded.append(out)
    side = size or min(len(x) for _, images in sets.values() for x in images) // STEP * STEP
    at_size = {}
    for name, (table, images) in sets.items():
        small = [reduced(x[None], side)[0] for x in images]
        at_size[name], out = _distinct(table, np.stack(small), name)
        excluded.append(out)
    _check_apart(at_size[TRAINING], at_size[HELD_OUT])
    return at_size, pl.concat(excluded)


def _read(folder: Path, name: str, smallest: int) -> tuple[tuple[pl.DataFrame, list[np.ndarray]], pl.DataFrame]:
    """Table and images, squares uint8 [s, s] of `smallest` to `LARGEST` px, of a folder; and what was excluded."""
    try:
        table, load = _listing(folder, name)
    except (pl.exceptions.PolarsError, EOFError) as error:  # a column that is absent, a file that is cut off
        raise AuditError(f"{folder}: its table or arrays are damaged or of another layout: {error}") from error
    kept, images, excluded = [], [], _not_listed(folder, name, table)
    for row, file in enumerate(table["file"]):
        try:
            image = load(row)
            if (side := min(image.shape)) < smallest:
                raise ImageError(f"{side} px, fewer than {smallest}")
            images.append(to_uint8(resize(image, min(side, LARGEST))))
            kept.append(row)
        except ImageError as error:
            excluded.append((name, file, str(error)))
    if not kept:
        nothing = ": give PNG, JPEG or DICOM files, listed in labels.csv if there is one, or a cohort or pool of a run"
        why = f"; the first: {excluded[0][2]}" if excluded else nothing
        raise AuditError(f"{folder}: no usable image for the {name} set{why}")
    return (table[kept], images), pl.DataFrame(excluded, EXCLUDED, orient="row")


def _listing(folder: Path, name: str) -> tuple[pl.DataFrame, Callable[[int], np.ndarray]]:
    """The images of a folder by their table (`COLUMNS`), and a function of a row: its image [H, W] in 0..1."""
    if not folder.is_dir():
        raise AuditError(f"{folder}: no such folder; give the folder of the {name} images")
    if (folder / "cohort.parquet").is_file():
        return _cohort(folder, name)
    if (folder / "samples.npy").is_file() and (folder / "manifest.parquet").is_file():
        return _samples(folder, name)
    if (folder / "labels.csv").is_file():
        table = _labels(folder / "labels.csv")
    elif {"file", "seed"} <= columns_of(folder / "manifest.csv"):  # of `chexgen sample`, without its drawings
        table = pl.read_csv(folder / "manifest.csv", infer_schema=False, glob=False)
        table = table.with_columns(patient_id=pl.col("file").str.replace(r"_\d+\.\w+$", ""))  # the row of NAME_k.png
    else:
        files = pictures(folder)  # images behind links to folders count, too
        if files == ["samples.npy"]:
            raise AuditError(f"{folder} holds samples.npy without manifest.parquet, the requests: copy it, too")
        table = pl.DataFrame({"file": files}, {"file": pl.String})
    return _complete(table, name), lambda row: read_image(named_file(folder, table["file"][row]))


def _not_listed(folder: Path, name: str, table: pl.DataFrame) -> list[tuple[str, str, str]]:
    """Rows of `EXCLUDED` of the pictures that a folder's table does not name."""
    if any((folder / own).is_file() for own in ("cohort.parquet", "samples.npy")):
        return []
    listing = "labels.csv" if (folder / "labels.csv").is_file() else "manifest.csv"
    return [(name, file, f"not in {listing}") for file in unlisted(folder, table["file"])]


def _labels(path: Path) -> pl.DataFrame:
    """A `labels.csv` as text, `image` renamed to file."""
    try:
        table = read_given(path, "image")
    except RecordError as error:
        raise AuditError(f"{error}; save it as CSV with a column image") from error
    if "image" not in table.columns:
        raise AuditError(f"{path}: column 'image' is missing; it has {table.columns}")
    try:
        table, _ = listed(table, path)
    except RecordError as error:
        raise AuditError(str(error)) from error
    table = table.drop("file", strict=False).rename({"image": "file"})
    return table.with_columns(_id(column) for column in IDS if column in table.columns)


def _id(column: str) -> pl.Expr:
    """A column of ids as they are meant: pandas writes the numbers of one that is not full as 12.0."""
    return cell(pl.col(column)).replace("", None).str.replace(r"^(\d+)\.0$", "$1")


def _samples(folder: Path, name: str) -> tuple[pl.DataFrame, Callable[[int], np.ndarray]]:
    """A folder that `pools.generate.sample_pool` filled."""
    manifest = pl.read_parquet(folder / "manifest.parquet", glob=False)
    samples = _stored(folder / "samples.npy")
    if samples.ndim != 4 or samples.dtype != np.uint8 or len(samples) != len(manifest):
        raise AuditError(
            f"{folder}: {len(manifest)} requests and samples {samples.shape} {samples.dtype} do not fit; sample again"
        )
    request, copy = np.divmod(np.arange(len(manifest) * samples.shape[1]), samples.shape[1])
    table = manifest[request]
    record = "record" if "record" in table.columns else "image_id"
    table = table.with_columns(
        file=pl.format("samples.npy[{}, {}]", pl.Series(request), pl.Series(copy)), patient_id=pl.col(record)
    )
    flat = samples.reshape(-1, *samples.shape[2:])
    return _complete(table, name), lambda row: _varied(flat[row])


def _cohort(folder: Path, name: str) -> tuple[pl.DataFrame, Callable[[int], np.ndarray]]:
    """A cohort of a run: what may have trained its generator, or what did not."""
    table = layout.load(folder)
    sizes = layout.resolutions(folder)
    resolution = next((size for size in sizes if size >= LARGEST), sizes[-1])
    images = _stored(folder / f"images_{resolution}.npy")
    if len(images) != len(table):
        raise AuditError(f"{folder}: {len(table)} records and {len(images)} images do not fit; run the stage 02_cohort")
    wanted = (
        (pl.col("split") == "train") & (pl.col("stage1") | pl.col("stage2"))
        if name == TRAINING
        else pl.col("split").is_in(["val", "test"])
    )
    table = table.with_row_index("row").filter(wanted)
    rows = table["row"].to_list()
    return _complete(table.with_columns(file=pl.col("image_id")), name), lambda row: _varied(images[rows[row]])


def _stored(path: Path) -> np.ndarray:
    """A stored array, mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise AuditError(f"{path} is cut off or no array: copy it again, or run what wrote it ({error})") from error


def _varied(pixels: np.ndarray) -> np.ndarray:
    if pixels.min() == pixels.max():
        raise ImageError("every pixel has the same value, so it shows nothing")
    return from_uint8(np.asarray(pixels))


def _complete(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """`COLUMNS` as text: an image without an id is named by its set and file, one without a patient by its id."""
    absent = (pl.lit(None, pl.String).alias(column) for column in COLUMNS if column not in table.columns)
    table = table.with_columns(*absent).select(pl.col(COLUMNS).cast(pl.String))
    table = table.with_columns(image_id=pl.coalesce("image_id", pl.format("{}/{}", pl.lit(name), "file")))
    return table.with_columns(patient_id=pl.coalesce("patient_id", "image_id"))


def _distinct(table: pl.DataFrame, pixels: np.ndarray, name: str) -> tuple[Images, pl.DataFrame]:
    """The images without repetitions, and the repeated ones with the file that they repeat."""
    first: dict[bytes, int] = {}
    owner = [first.setdefault(_hash(image), row) for row, image in enumerate(pixels)]
    again = [(name, table["file"][i], f"the same pixels as {table['file'][k]}") for i, k in enumerate(owner) if i != k]
    kept = np.array(sorted(first.values()))
    return Images(table[kept], pixels[kept]), pl.DataFrame(again, EXCLUDED, orient="row")


def _hash(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def _check_apart(training: Images, held_out: Images) -> None:
    """Held-out images are the yardstick of the audit: none may be of anybody who was trained on."""
    seen = {_hash(image): file for image, file in zip(training.pixels, training.table["file"], strict=True)}
    for image, file in zip(held_out.pixels, held_out.table["file"], strict=True):
        if (twin := seen.get(_hash(image))) is not None:
            raise AuditError(f"{HELD_OUT} {file} has the same pixels as {TRAINING} {twin}: hold out images that the "
                             "generator never saw")  # fmt: skip
    if shared := sorted(set(training.patients) & set(held_out.patients)):
        raise AuditError(
            f"{len(shared)} patients are both in training and held out, first {shared[0]!r}: hold out patients that "
            "the generator never saw; if they are others of the same names, give them other ids"
        )
