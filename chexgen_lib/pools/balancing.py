"""Fairness experiment: its patients, and the training sets that balance the groups (paper, Methods; Figure 5d).

The paper adds synthetic images of under-represented groups until all are as large as the largest. Here a group's
synthetic images are new samples for the descriptions of its training records, each equally often, so that findings,
age, sex and view co-occur as in that group. (Stating another sex or age for a record of the majority would give the
group the majority's findings as well; F1 rises with prevalence, and the arms would differ in two respects.)
`oversample` repeats the same records equally often: that control differs in nothing but the images.

A generator could reproduce a patient that it was trained on, so `choose` takes no patient for validation or test who
has an image in any training split of the cohort.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.utils.class_weight import compute_sample_weight

from chexgen_lib.cohort import layout as embedded
from chexgen_lib.cohort.layout import FLAGS, CohortError
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.pools import labelled as pools
from chexgen_lib.pools.arms import REAL, REPEATED, SYNTHETIC, UNBALANCED, WEIGHTED, balanced
from chexgen_lib.pools.groups import TIMES, age_group, cells_of, check_attributes
from chexgen_lib.pools.labelled import Splits
from chexgen_lib.pools.requests import Fits, fitting_prompts
from chexgen_lib.records import FRONTAL, positions
from chexgen_lib.storage import replacing

CHOSEN = "pools/fairness.parquet"  # of `choose`, below the run's root


def choose(
    cohort: pl.DataFrame,
    attributes: Sequence[str],
    *,
    trained_on: str,
    tested_on: str,
    records: int | None = None,
    shares: Mapping[str, Mapping[str, float] | None] | None = None,
    seed: int = 0,
    fits: Fits | None = None,
) -> pl.DataFrame:
    """Choose the records to train, validate and test on.

    Frontal images of which all attributes are known ("age group" is made from the age). The prompt is the record's
    description, which states age, sex, race, view and findings; it may be longer than the impression by which the
    record came into the cohort.

    Returns:
        image_id, patient_id, role ("train", "val", "test"), prompt and the attributes of each.

    Args:
        cohort: of a run.
        trained_on, tested_on: flags of the cohort (`layout.FLAGS`); validation takes the val split of both.
        records: to train on (None: all); fewer where the scarcest group would not reach its share.
        shares: attribute -> value -> share of the training records; other attributes, and those with None, stay as
            they are.
        fits: of the generator; records of other prompts are left out (`fitting_prompts`).

    Raises:
        CohortError: if a role is empty, or a patient of validation or test has an image in any training split.
        ValueError: for an attribute that is not a column, an unknown flag, or shares that do not add up to 1.
    """
    for flag in (trained_on, tested_on):
        if flag not in FLAGS:
            raise ValueError(f"{flag!r} is no flag of the cohort; use one of {list(FLAGS)}")
    table = cohort.with_columns(age_group(cohort["age"])).filter(pl.col("view").is_in(FRONTAL))
    check_attributes(table, attributes)
    table = table.drop_nulls(list(attributes))
    table = table.with_columns(prompt=describe.prompt(table), order=positions(table["image_id"], f"{seed}:fairness"))
    either = pl.col(trained_on) | pl.col(tested_on)
    if fits is not None:
        table = fitting_prompts(table.filter(either), fits)
    train = table.filter(trained_on, pl.col("split") == "train").sort("order")
    roles = {
        "train": _with_shares(train, shares or {}, len(train) if records is None else records),
        "val": table.filter(either, pl.col("split") == "val"),
        "test": table.filter(tested_on, pl.col("split") == "test"),
    }
    for role, rows in roles.items():
        if rows.is_empty():
            raise CohortError(
                f"the cohort has nobody for {role!r} with known {', '.join(attributes)}: add images to it"
            )
    columns = ("image_id", "patient_id", "role", "prompt", *attributes)
    named = [rows.with_columns(role=pl.lit(role)).sort("image_id").select(columns) for role, rows in roles.items()]
    chosen = pl.concat(named)
    if seen := sorted(patients_seen(chosen, cohort.filter(pl.col("split") == "train")["patient_id"])):
        raise CohortError(f"{len(seen)} patients of validation or test are also in a training split, first {seen[0]!r}")
    return chosen


def patients_seen(chosen: pl.DataFrame, patients: pl.Series) -> set[str]:
    """The patients of validation and test that are among `patients`."""
    return set(chosen.filter(pl.col("role") != "train")["patient_id"]) & set(patients)


def _with_shares(pool: pl.DataFrame, shares: Mapping[str, Mapping[str, float] | None], n: int) -> pl.DataFrame:
    """The first rows of each group that `shares` form together, in the product of their shares, at most n."""
    shares = {name: values for name, values in shares.items() if values is not None}
    for name, values in shares.items():
        if name not in pool.columns or not values or min(values.values()) <= 0 or abs(sum(values.values()) - 1) > 1e-6:
            raise ValueError(
                f"shares of {name!r}: needs a known attribute and positive shares that add up to 1: {values}"
            )
    groups = {}
    for cell in product(*(values.items() for values in shares.values())):
        same = (pl.col(name).cast(pl.String) == value for name, (value, _) in zip(shares, cell, strict=True))
        groups[tuple(value for value, _ in cell)] = pool.filter(*same), np.prod([share for _, share in cell])
    n = min(n, *(len(rows) / share for rows, share in groups.values()))
    if n < 1:
        empty = next(cell for cell, (rows, _) in groups.items() if rows.is_empty())
        raise CohortError(f"no training record of {TIMES.join(empty)}, of which `shares` requires some")
    return pl.concat(rows.head(int(n * share + 1e-9)) for rows, share in groups.values())


def additions(train: pl.DataFrame, attributes: Sequence[str], *, seed: int) -> dict[str, list]:
    """Arm -> row numbers of `train` to sample one image for each: to balance groups, and as many of all in turn.

    The second is the control for having more images, whichever group they show.
    """
    balanced = oversample(train, attributes, seed=seed)[len(train) :]
    order = np.random.default_rng(seed).permutation(len(train))
    return {SYNTHETIC: balanced.tolist(), UNBALANCED: np.resize(order, len(balanced)).tolist()}


def images_wanted(train: pl.DataFrame, additions: Mapping[str, Sequence[int]]) -> pl.DataFrame:
    """A row for each image of a pool that serves all `additions`: image_id (new), record (image_id in train), prompt.

    A record has as many images as the arm that needs most; `labelled.copies_of` finds them again.
    """
    counts = np.max([np.bincount(rows, minlength=len(train)) for rows in additions.values()], axis=0)
    rows = train[np.repeat(np.arange(len(train)), counts)].select("prompt", record="image_id")
    copy = pl.int_range(pl.len()).over("record")
    return rows.with_columns(image_id=pl.format("{}/balancing-{}", "record", copy))


def plan(
    cohort: pl.DataFrame, root: Path, settings: Mapping, seed: int, fits: Fits
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What `choose` returns, saved for stage 11 below `root`, and the `images_wanted` to balance it."""
    chosen = choose(cohort, seed=seed, fits=fits, **settings)
    train = chosen.filter(role="train")
    with replacing(root / CHOSEN) as partial:
        chosen.write_parquet(partial)
    return chosen, images_wanted(train, additions(train, settings["attributes"], seed=seed))


def assemble(
    root: str | Path, matched: Mapping[str, str | Path], pool: Mapping[str, str | Path], resolution: int, size: int
) -> Splits:
    """Real images of the run's cohort, the test patients' synthetic copies and the pools to balance with, at `size` px.

    matched, pool: generator, first ours, -> what stage 06_pools made for `root`/pools/fairness.parquet, or a folder of
    images (`labelled.load`). Rows "train", "val", "test", "matched" (in the order of "test") are in the table's order;
    those of another generator are "matched NAME" and "balancing NAME".

    Raises:
        CohortError: if something is missing, or a pool was sampled for other records than these.
    """
    root = Path(root)
    cohort, chosen = embedded.load(root / "cohort"), load_chosen(root)
    originals = pools.real(cohort, embedded.stored_images(root / "cohort", resolution, size), size)
    train = set(chosen.filter(role="train")["image_id"])
    place = {image_id: row for row, image_id in enumerate(originals.table["image_id"])}
    rows = {
        role: np.array([place[i] for i in chosen.filter(role=role)["image_id"]]) for role in ("train", "val", "test")
    }
    everything, ours = originals, next(iter(pool))
    for generator, folder in matched.items():
        copies = pools.load(folder, cohort, size)
        own = pools.copies_of(copies.table, chosen.filter(role="test")["image_id"])
        rows["matched" if generator == ours else f"matched {generator}"] = len(everything) + own
        everything += copies
    for generator, folder in pool.items():
        extra = pools.load(folder, cohort, size)
        if other := sorted(set(extra.table["image_id"]) - train):
            raise CohortError(f"{folder}: {len(other)} records are not trained on, first {other[0]!r}; redo 06_pools")
        rows[f"balancing {generator}"] = len(everything) + np.arange(len(extra))
        everything += extra
    return Splits(everything, rows, rows.pop(f"balancing {ours}"))


def load_chosen(root: str | Path) -> pl.DataFrame:
    """What `choose` returned in stage 06_pools. Raises CohortError naming that stage."""
    path = Path(root, CHOSEN)
    if not path.is_file():
        raise CohortError(f"{path} does not exist: run the stage 06_pools first")
    return pl.read_parquet(path, glob=False)


def arms(sets: Splits, train: pl.DataFrame, attributes: Sequence[str], *, seed: int) -> dict:
    """Arm -> (rows of `sets` to train on, weight of each): the paper's two, the second also with the images of each
    other generator, and three controls without new images.

    The images of an arm have equal weights unless it re-weights them.

    Args:
        train: the rows "train" of `sets`, with the attributes.
    """
    real, pool = sets.rows["train"], sets.everything[sets.synthetic]
    lists = additions(train, attributes, seed=seed)
    records = {arm: train["image_id"].gather(rows) for arm, rows in lists.items()}
    sampled = {arm: sets.synthetic[pools.copies_of(pool.table, ids)] for arm, ids in records.items()}
    chosen = {
        REAL: real,
        SYNTHETIC: np.concatenate([real, sampled[SYNTHETIC]]),
        REPEATED: np.concatenate([real, real[lists[SYNTHETIC]]]),
        UNBALANCED: np.concatenate([real, sampled[UNBALANCED]]),
    }
    for name, rows in sets.rows.items():
        if name.startswith("balancing "):
            own = rows[pools.copies_of(sets.everything.table[rows], records[SYNTHETIC])]
            chosen[balanced(name.removeprefix("balancing "))] = np.concatenate([real, own])
    alike = {arm: (rows, np.ones(len(rows))) for arm, rows in chosen.items()}
    return alike | {WEIGHTED: (real, resampling_weights(train, attributes))}


def resampling_weights(table: pl.DataFrame, attributes: Sequence[str]) -> np.ndarray:
    """Weight of each row [N], mean 1, with which every group that occurs weighs the same (control: re-weighting).

    The groups are those that `attributes` form together. Rows with an unknown attribute keep weight 1.
    """
    check_attributes(table, attributes)
    _, code = cells_of(table, attributes)
    weights, known = np.ones(len(table)), code >= 0
    if known.any():
        weights[known] = compute_sample_weight("balanced", code[known])
    return weights


def oversample(table: pl.DataFrame, attributes: Sequence[str], *, seed: int) -> np.ndarray:
    """Row numbers of a balanced training set of real records alone: each row once, then repeats (control).

    The groups, which `attributes` form together, all become as large as the largest (paper, Methods); each of a group's
    rows is repeated equally often but for one, chosen at random. A group without rows cannot be repeated and stays
    empty; rows with an unknown attribute are not repeated.
    """
    check_attributes(table, attributes)
    cells, code = cells_of(table, attributes)
    rng, rows = np.random.default_rng(seed), [np.arange(len(table))]
    before = np.bincount(code[code >= 0], minlength=len(cells))
    for k, missing in enumerate(before.max(initial=0) - before):
        members = np.flatnonzero(code == k)
        if len(members):
            rounds = -(-missing // len(members))
            rows.append(np.tile(rng.permutation(members), rounds)[:missing])
    return np.concatenate(rows)
