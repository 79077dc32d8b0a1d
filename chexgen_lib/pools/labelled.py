"""Labelled images to train and test on: the real ones of a cohort, and synthetic pools that inherit their labels.

A pool is what `sampling.synthesis.synthesise` wrote for some records of a cohort: each image has the findings, age, sex
and view of the record whose prompt it was drawn from (paper, Methods, Supervised pretraining). A folder of images with
a table, made by any other generator, can stand in for it (`load`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout as embedded
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.images import ImageError, read_image, reduced, resize, to_uint8
from chexgen_lib.records import FINDINGS

ABOUT = ("image_id", "patient_id", "split", "source", "view", "age", "sex", "race")


@dataclass(frozen=True)
class Labelled:
    """Images with what is known of each.

    Attributes:
        table: one row an image, with the columns `ABOUT`, the 14 findings and `copy` (of its record; 0 if real).
        images: uint8 [N, H, W].
    """

    table: pl.DataFrame
    images: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 3 or len(self.table) != len(self.images) or self.table.is_empty():
            raise CohortError(f"{len(self.table)} rows and images {self.images.shape} do not form a labelled set")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """Float32 [N, 14] in the order of FINDINGS: 1, 0, or NaN where unknown."""
        return self.table.select(pl.col(FINDINGS).cast(pl.Float32)).fill_null(np.nan).to_numpy()

    def where(self, keep: np.ndarray | pl.Expr) -> "Labelled":
        """The images of some rows: a bool mask, or an expression over the table."""
        mask = self.table.select(keep).to_series().to_numpy() if isinstance(keep, pl.Expr) else np.asarray(keep)
        return self[np.flatnonzero(mask)]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> "Labelled":
        return Labelled(self.table[rows], self.images[rows])

    def __add__(self, other: "Labelled") -> "Labelled":
        return Labelled(pl.concat([self.table, other.table]), np.concatenate([self.images, other.images]))

    def shuffled_labels(self, seed: int) -> "Labelled":
        """The same images with each other's labels: what a generator's pool is worth if it ignores its prompts."""
        order = np.random.default_rng(seed).permutation(len(self))
        return replace(self, table=self.table.with_columns(self.table[order].select(FINDINGS)))


def real(cohort: pl.DataFrame, images: np.ndarray, size: int) -> Labelled:
    """All images of a cohort, reduced to `size` pixels."""
    table = cohort.select(*ABOUT, *FINDINGS, pl.lit(0, pl.Int64).alias("copy"))
    return Labelled(table, reduced(images, size))


def rare(cohort: pl.DataFrame, least_cases: int) -> dict[str, int]:
    """Findings with fewer known cases than `least_cases` in a whole cohort, and how many they have."""
    cases = {finding: int((cohort[finding] == 1).sum()) for finding in FINDINGS}
    return {finding: n for finding, n in cases.items() if n < least_cases}


def without_rare(cohort: pl.DataFrame, least_cases: int) -> pl.DataFrame:
    """The cohort with its `rare` findings unknown: nothing is trained on them, and no average counts them.

    Raises CohortError if that leaves no finding.
    """
    hidden = rare(cohort, least_cases)
    if len(hidden) == len(FINDINGS):
        raise CohortError(f"no finding has {least_cases} cases (least_cases); most has {max(hidden.values())}")
    return cohort.with_columns(pl.lit(None, cohort.schema[finding]).alias(finding) for finding in hidden)


def load(folder: str | Path, cohort: pl.DataFrame, size: int) -> Labelled:
    """A pool with the labels of the cohort's records, reduced to `size` pixels.

    folder: what `synthesise` wrote; or images of any other generator, see `_read_folder`.

    Raises:
        CohortError: if the pool is not there, or was made for other records.
        ImageError: naming the file that is missing or cannot be read. No image is left out or replaced.
    """
    folder = Path(folder)
    if (folder / "labels.csv").is_file():
        return _read_folder(folder, cohort, size)
    for name in ("samples.npy", "manifest.parquet"):
        if not (folder / name).is_file():
            raise CohortError(
                f"{folder / name} does not exist: run the stage 06_pools first, or give a folder with labels.csv"
            )
    manifest = pl.read_parquet(folder / "manifest.parquet")
    samples = np.load(folder / "samples.npy", allow_pickle=False)  # [P, K, H, W]
    if samples.ndim != 4 or len(samples) != len(manifest):
        raise CohortError(
            f"{folder}: {len(manifest)} records and samples {samples.shape} do not fit; redo stage 06_pools"
        )
    record = "record" if "record" in manifest.columns else "image_id"
    known = manifest.select(image_id=record).join(cohort, on="image_id", how="left", maintain_order="left")
    if missing := known.filter(pl.col("patient_id").is_null())["image_id"].to_list():
        raise CohortError(
            f"{folder}: {len(missing)} records are not in the cohort, first {missing[0]!r}; redo stage 06_pools"
        )
    first = pl.int_range(pl.len(), dtype=pl.Int64).over("image_id") * samples.shape[1]
    copies = [known.select(*ABOUT, *FINDINGS, (first + k).alias("copy")) for k in range(samples.shape[1])]
    flat = samples.swapaxes(0, 1).reshape(-1, *samples.shape[2:])
    return Labelled(pl.concat(copies), reduced(flat, size))


def copies_of(pool: Labelled, image_ids: Iterable[str]) -> np.ndarray:
    """Rows of the pool's images of these records: the first copy where an id is named first, then the next.

    Raises CohortError if a record is named more often than the pool has images of it.
    """
    asked = pl.DataFrame({"image_id": list(image_ids)}, {"image_id": pl.String})
    asked = asked.with_columns(copy=pl.int_range(pl.len(), dtype=pl.Int64).over("image_id"))
    held = pool.table.select("image_id", "copy").with_row_index("row")
    found = asked.join(held, on=["image_id", "copy"], how="left", maintain_order="left")
    if missing := found.filter(pl.col("row").is_null())["image_id"].to_list():
        raise CohortError(
            f"the pool lacks {len(missing)} images, first of record {missing[0]!r}: make it anew in stage 06_pools, or "
            "give a folder with as many images of each record as its manifest.parquet asks for"
        )
    return found["row"].to_numpy().astype(np.int64)


def _read_folder(folder: Path, cohort: pl.DataFrame, size: int) -> Labelled:
    """Images of any other generator, in place of a pool of this one.

    `folder/labels.csv` has the columns `image` (a file below `folder`) and `image_id` (the record that it was drawn
    from); a record's images are its copies, in the order of the table. CohortError if the table is not as `read_labels`
    wants it, or a record is not the cohort's.
    """
    table = read_labels(folder, ("image", "image_id"))
    known = table.join(cohort, on="image_id", how="left", maintain_order="left")
    if missing := known.filter(pl.col("patient_id").is_null())["image_id"].to_list():
        raise CohortError(
            f"{folder / 'labels.csv'}: {len(missing)} records are not in the cohort, first {missing[0]!r}"
        )
    copy = pl.int_range(pl.len()).over("image_id").cast(pl.Int64).alias("copy")
    images = [to_uint8(resize(read_listed(folder / name), size)) for name in table["image"]]
    return Labelled(known.select(*ABOUT, *FINDINGS, copy), np.stack(images))


def read_labels(folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    """`folder/labels.csv` as text: exactly `columns` (one is `image`), nothing missing, no image named twice.

    What is known of an image is what the cohort says of its record. A column that says more is refused, for it would
    be ignored. Raises CohortError naming the columns, or the row (the first below the header is 1).
    """
    path = folder / "labels.csv"
    try:
        table = pl.read_csv(path, infer_schema_length=0)
    except pl.exceptions.PolarsError as error:
        raise CohortError(f"{path} cannot be read as a table: {error}") from error
    if absent := [c for c in columns if c not in table.columns]:
        raise CohortError(f"{path}: columns {absent} are missing; it has {table.columns}")
    if unknown := [c for c in table.columns if c not in columns]:
        raise CohortError(
            f"{path}: columns {unknown} would be ignored, leave them out: labels, masks and boxes are those that the "
            f"cohort has of the record image_id; the columns are {', '.join(columns)}"
        )
    if table.is_empty():
        raise CohortError(f"{path} names no image")
    problems = {
        "a value is missing": pl.any_horizontal(pl.col(columns).is_null()),
        "the image is named twice": ~pl.col("image").is_first_distinct(),
    }
    for problem, wrong in problems.items():
        if rows := table.with_row_index("row", offset=1).filter(wrong)["row"].to_list():
            raise CohortError(f"{path}, row {rows[0]} {table.row(rows[0] - 1)}: {problem}")
    return table


def read_listed(path: Path) -> np.ndarray:
    """An image that a labels.csv names, as `images.read_image` returns it; ImageError names the file."""
    if not path.is_file():
        raise ImageError(f"{path}: no such file, though labels.csv names it")
    return read_image(path)


@dataclass(frozen=True)
class Sets:
    """Real and synthetic images in one set, and which rows are for what.

    Attributes:
        everything: the cohort's images, then the pool's.
        rows: "train" (the records that the pool was drawn from), "val" and "test" of stage II, and "external train",
            "external val", "external test" of other sources; empty where the cohort has none.
        synthetic: rows of the pool.
    """

    everything: Labelled
    rows: dict[str, np.ndarray]
    synthetic: np.ndarray

    def copies(self, k: int) -> np.ndarray:
        """Rows of the first `k` synthetic images of each record. Raises CohortError where the pool has fewer."""
        copy = self.everything.table["copy"].to_numpy()[self.synthetic]
        if copy.max() + 1 < k:
            raise CohortError(
                f"the pool holds {copy.max() + 1} images a record, not {k}: make a larger one in stage 06_pools"
            )
        return self.synthetic[copy < k]

    def with_pool(self, pool: Labelled) -> "Sets":
        """The same real images with another pool, put behind what is there: rows of before stay what they were.

        Raises CohortError if the pool's records are not the training ones, or it holds more images of some.
        """
        check_even(pool)
        known = set(self.everything.table["image_id"].gather(self.rows["train"]))
        if differing := sorted(set(pool.table["image_id"]) ^ known):
            where = "the first pool" if differing[0] in known else "the other"
            raise CohortError(
                f"{len(differing)} records are in one of two pools alone, first {differing[0]!r} in {where}: arms of "
                "other records are no comparison; make both in stage 06_pools, or take what differs out of labels.csv"
            )
        return Sets(self.everything + pool, self.rows, np.arange(len(pool)) + len(self.everything))

    def patients(self, name: str) -> list[str]:
        return self.everything.table["patient_id"].gather(self.rows[name]).to_list()


def assemble(root: str | Path, pool: str | Path, resolution: int, size: int, least_cases: int = 0) -> Sets:
    """The cohort of a run (`without_rare`) at `resolution` and a pool (`load`), reduced to `size` pixels.

    Raises:
        CohortError: if something is missing, the pool holds more images of some records than of others, or a patient
            whom the pool or the training images come from is also in a validation or test set.
    """
    root = Path(root)
    cohort = without_rare(embedded.load(root / "cohort"), least_cases)
    images = np.asarray(embedded.load_images(root / "cohort", resolution))
    own = real(cohort, images, size)
    synthetic = load(pool, cohort, size)
    check_even(synthetic)
    drawn_from = pl.col("image_id").is_in(synthetic.table["image_id"].unique().to_list())
    chosen = {
        "train": drawn_from,
        "val": pl.col("stage2") & (pl.col("split") == "val"),
        "test": pl.col("stage2") & (pl.col("split") == "test"),
        **{f"external {split}": pl.col("external") & (pl.col("split") == split) for split in ("train", "val", "test")},
    }
    rows = {name: np.flatnonzero(cohort.select(keep).to_series().to_numpy()) for name, keep in chosen.items()}
    check_patients(own.table, rows)
    return Sets(own + synthetic, rows, np.arange(len(synthetic)) + len(own))


def check_even(pool: Labelled) -> None:
    """Raise CohortError where a pool holds more images of some records than of others: arms would weigh them more."""
    held = pool.table.group_by("image_id", maintain_order=True).len().sort("len", maintain_order=True)
    (few, least), (many, most) = held.row(0), held.row(-1)
    if least < most:
        raise CohortError(
            f"the pool holds {least} images of record {few!r} but {most} of {many!r}: make as many of each in stage "
            "06_pools, or leave the others out of labels.csv"
        )


def check_patients(table: pl.DataFrame, rows: dict[str, np.ndarray]) -> None:
    """Raise CohortError where a patient of a set named "... train" is in another set, too."""
    patients = {name: set(table["patient_id"].gather(r)) for name, r in rows.items()}
    trained = set().union(*(p for name, p in patients.items() if name.endswith("train")))
    for name in (name for name in rows if not name.endswith("train")):
        if shared := sorted(trained & patients[name]):
            raise CohortError(f"{len(shared)} patients are in a training set and in {name!r}, first {shared[0]!r}")
