"""Labelled images to train and test on: the real ones of a cohort, and synthetic pools that inherit their labels.

A pool holds images of some records of a cohort: each has the findings, age, sex and view of the record whose prompt it
was sampled from (paper, Methods, Supervised pretraining), whichever generator made it (`folder`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from chexgen_lib.cohort import layout
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools.folder import REDO, check_even, read_pool
from chexgen_lib.records import FINDINGS, label_states
from chexgen_lib.storage import hash_key
from chexgen_lib.stored_images import StoredImages

ABOUT = ("image_id", "patient_id", "split", "source", "view", "age", "sex", "race")
# `states` and `sets`: of datasets with sets of their own
LABELS = cs.by_name(*FINDINGS, "details", "states", "sets", require_all=False)


@dataclass(frozen=True)
class LabelledSet:
    """Images with their labels and metadata.

    Attributes:
        table: one row per image, with the columns `ABOUT`, the 14 findings, a Record's `details`, `states` and `sets`,
            and `copy` (of its record; 0 if real).
        images: uint8 [N, H, W], read when they are asked for (`StoredImages`); an array becomes that.
    """

    table: pl.DataFrame
    images: StoredImages

    def __post_init__(self):
        if self.images.ndim != 3 or len(self.table) != len(self.images) or self.table.is_empty():
            raise CohortError(f"{len(self.table)} rows and images {self.images.shape} do not form a labelled set")
        object.__setattr__(self, "images", StoredImages.of(self.images))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def labels(self) -> np.ndarray:
        """Float32 [N, 14] in the order of FINDINGS: 1, 0, or NaN where unknown."""
        return self.states(FINDINGS)

    def states(self, labels: tuple[str, ...]) -> np.ndarray:
        """Float32 [N, L], the state of each of the labels (`records.label_states`)."""
        return label_states(self.table, labels)

    def where(self, keep: np.ndarray | pl.Expr) -> "LabelledSet":
        """The images of some rows: a bool mask, or an expression over the table."""
        mask = self.table.select(keep).to_series().to_numpy() if isinstance(keep, pl.Expr) else np.asarray(keep)
        return self[np.flatnonzero(mask)]

    def __getitem__(self, rows: Sequence[int] | np.ndarray) -> "LabelledSet":
        return LabelledSet(self.table[rows], self.images[rows])

    def __add__(self, other: "LabelledSet") -> "LabelledSet":
        return LabelledSet(pl.concat([self.table, other.table]), self.images.followed_by(other.images))

    def shuffled_labels(self, seed: int) -> "LabelledSet":
        """The same images with permuted labels (control): as from a generator that ignores its prompts."""
        order = np.random.default_rng(seed).permutation(len(self))
        return replace(self, table=self.table.with_columns(self.table[order].select(LABELS)))


def real(cohort: pl.DataFrame, images: np.ndarray | StoredImages, size: int) -> LabelledSet:
    """All images of a cohort, reduced to `size` pixels, stored ones when they are read."""
    table = cohort.select(*ABOUT, LABELS, pl.lit(0, pl.Int64).alias("copy"))
    return LabelledSet(table, StoredImages.of(images, size))


def rare(cohort: pl.DataFrame, least_cases: int) -> dict[str, int]:
    """Findings with fewer known cases than `least_cases` in a whole cohort, and how many they have."""
    cases = {finding: int((cohort[finding] == 1).sum()) for finding in FINDINGS}
    return {finding: n for finding, n in cases.items() if n < least_cases}


def without_rare(cohort: pl.DataFrame, least_cases: int) -> pl.DataFrame:
    """The cohort with its `rare` findings unknown: nothing is trained on them, and no average counts them.

    Raises:
        CohortError: if that leaves no finding.
    """
    hidden = rare(cohort, least_cases)
    if len(hidden) == len(FINDINGS):
        raise CohortError(f"no finding has {least_cases} cases (least_cases); most has {max(hidden.values())}")
    return cohort.with_columns(pl.lit(None, cohort.schema[finding]).alias(finding) for finding in hidden)


def load(folder: str | Path, cohort: pl.DataFrame, size: int) -> LabelledSet:
    """A pool (`folder.read_pool`) at `size` pixels with the labels of the cohort's records.

    Raises:
        CohortError: if the pool is not there, or was made for other records.
        ImageError: naming the file that is missing or cannot be read.
    """
    table, images = read_pool(folder, size)
    about = cohort.select(*ABOUT, LABELS)
    known = table.select("copy", image_id="record").join(about, on="image_id", how="left", maintain_order="left")
    if lost := known.filter(pl.col("patient_id").is_null())["image_id"].unique(maintain_order=True).to_list():
        raise CohortError(f"{folder}: {len(lost)} records are not in the cohort, first {lost[0]!r}; {REDO}")
    return LabelledSet(known.select(*ABOUT, LABELS, "copy"), images)


def copies_of(pool: pl.DataFrame, image_ids: Iterable[str]) -> np.ndarray:
    """Rows of a pool's images of these records: the first copy where an id is named first, then the next.

    Args:
        pool: a row for each image, with `image_id` (of the record) and `copy`.

    Raises:
        CohortError: if a record is named more often than the pool has images of it.
    """
    wanted = pl.DataFrame({"image_id": list(image_ids)}, {"image_id": pl.String})
    wanted = wanted.with_columns(copy=pl.int_range(pl.len(), dtype=pl.Int64).over("image_id"))
    held = pool.select("image_id", "copy").with_row_index("row")
    matched = wanted.join(held, on=["image_id", "copy"], how="left", maintain_order="left")
    if missing := matched.filter(pl.col("row").is_null())["image_id"].to_list():
        raise CohortError(
            f"the pool lacks {len(missing)} images, first of record {missing[0]!r}: make it anew in stage 06_pools, or "
            "give a folder with as many images of each record as its manifest.parquet lists"
        )
    return matched["row"].to_numpy().astype(np.int64)


@dataclass(frozen=True)
class Splits:
    """Real and synthetic images in one set, and which rows are for what.

    Attributes:
        everything: the cohort's images, then the pool's.
        rows: "train" (the records that the pool was sampled for), "val" and "test" of their purpose, "external train",
            "external val", "external test" of other sources, and likewise "few-shot train", ...; empty where the cohort
            has none. "further train" are the same purpose's records of training patients who have no image in any of
            the three training sets, shuffled.
        synthetic: rows of the pool.
    """

    everything: LabelledSet
    rows: dict[str, np.ndarray]
    synthetic: np.ndarray

    @property
    def held(self) -> int:
        """Synthetic images of each record."""
        return int(self.everything.table["copy"].to_numpy()[self.synthetic].max()) + 1

    def copies(self, k: int) -> np.ndarray:
        """Rows of the first `k` synthetic images of each record.

        Raises:
            CohortError: if the pool has fewer.
        """
        if self.held < k:
            raise CohortError(
                f"the pool holds {self.held} images a record, not {k}: make a larger one in stage 06_pools"
            )
        return self.synthetic[self.everything.table["copy"].to_numpy()[self.synthetic] < k]

    def further(self, k: int) -> np.ndarray:
        """Rows of new real images, `k` for each training image; empty if the cohort has fewer."""
        rows = self.rows["further train"]
        wanted = k * len(self.rows["train"])
        return rows[: wanted if wanted <= len(rows) else 0]

    def few(self, n: int | None) -> "Splits":
        """`n` of the training records (None: all) with their pool; the others become further ones.

        A smaller set is part of a larger one.
        """
        table, every = self.everything.table, np.concatenate([self.rows["train"], self.rows["further train"]])
        train = np.sort(shuffled(table, self.rows["train"])[:n])
        chosen = table["image_id"].gather(train).to_list()
        kept = table["image_id"].gather(self.synthetic).is_in(chosen).to_numpy()
        trained = np.concatenate([train, self.rows["external train"], self.rows["few-shot train"]])
        rows = {"train": train, "further train": _of_others(table, every, trained)}
        return replace(self, rows=self.rows | rows, synthetic=self.synthetic[kept])

    def with_pool(self, pool: LabelledSet) -> "Splits":
        """The same images with another pool appended; existing row numbers stay valid.

        Raises:
            CohortError: if the pool's records are not the training ones, or it holds more images of some.
        """
        check_even(pool.table, ["image_id"])
        known = set(self.everything.table["image_id"].gather(self.rows["train"]))
        if differing := sorted(set(pool.table["image_id"]) ^ known):
            where = "the first pool" if differing[0] in known else "the other"
            raise CohortError(
                f"{len(differing)} records are in one of two pools alone, first {differing[0]!r} in {where}: arms of "
                "other records are no comparison; make both in stage 06_pools, or take what differs out of labels.csv"
            )
        return Splits(self.everything + pool, self.rows, np.arange(len(pool)) + len(self.everything))

    def patients(self, name: str) -> list[str]:
        """The patient of each image of a set."""
        return self.patients_of(self.rows[name])

    def patients_of(self, rows: np.ndarray) -> list[str]:
        """The patient of each image of some rows."""
        return self.everything.table["patient_id"].gather(rows).to_list()


def beside(sets: Splits, folders: Mapping[str, Path], cohort: pl.DataFrame, size: int) -> dict[str, Splits]:
    """The real images with the pool (`load`) of each generator, by name, each `with_pool` of the one before."""
    found = {}
    for name, folder in folders.items():
        found[name] = sets = sets.with_pool(load(folder, cohort, size))
    return found


def assemble(
    root: str | Path, pool: str | Path, resolution: int, size: int, least_cases: int = 0, purpose: str = "stage2"
) -> Splits:
    """The cohort of a run (`without_rare`) at `resolution` and a pool (`load`), reduced to `size` pixels.

    Args:
        purpose: of the images to validate and test on, and of further ones; a flag of the cohort.

    Raises:
        CohortError: if something is missing, the pool holds more images of some records than of others, or a patient
            whom the pool or the training images come from is also in a validation or test set.
    """
    root = Path(root)
    cohort = without_rare(layout.load(root / "cohort"), least_cases)
    originals = real(cohort, layout.stored_images(root / "cohort", resolution, size), size)
    synthetic = load(pool, cohort, size)
    check_even(synthetic.table, ["image_id"])
    rows = {"train": np.flatnonzero(cohort["image_id"].is_in(synthetic.table["image_id"].unique().to_list()))}
    for flag, name in (("external", "external"), ("few_shot", "few-shot")):
        rows |= {f"{name} {split}": layout.rows(cohort, flag, split) for split in ("train", "val", "test")}
    trained = np.concatenate([rows["train"], rows["external train"], rows["few-shot train"]])
    rows["further train"] = _of_others(cohort, layout.rows(cohort, purpose, "train"), trained)
    rows |= {split: layout.rows(cohort, purpose, split) for split in ("val", "test")}
    check_patients(originals.table, rows)
    return Splits(originals + synthetic, rows, np.arange(len(synthetic)) + len(originals))


def _of_others(table: pl.DataFrame, rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Those of some rows whose patients are not among the rows `train`, shuffled."""
    known = table["patient_id"].gather(train).unique().to_list()
    return shuffled(table, rows[~table["patient_id"].gather(rows).is_in(known).to_numpy()])


def shuffled(table: pl.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Rows in an order that depends on their images' ids alone."""
    keys = [hash_key(f"few:{i}") for i in table["image_id"].gather(rows)]
    return np.asarray(rows, np.int64)[np.argsort(np.array(keys, np.str_), kind="stable")]


def check_patients(table: pl.DataFrame, rows: dict[str, np.ndarray]) -> None:
    """Check that no patient of a set named "... train" is in another set, too.

    Raises:
        CohortError: naming the first such patient.
    """
    patients = {name: set(table["patient_id"].gather(r)) for name, r in rows.items()}
    trained = set().union(*(p for name, p in patients.items() if name.endswith("train")))
    for name in (name for name in rows if not name.endswith("train")):
        if shared := sorted(trained & patients[name]):
            raise CohortError(f"{len(shared)} patients are in a training set and in {name!r}, first {shared[0]!r}")
