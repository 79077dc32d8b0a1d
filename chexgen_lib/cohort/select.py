"""Selecting the run's records: for each purpose a sample, in which rare findings are over-represented if asked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import FLAGS, CohortError
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import PASS
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, assign_splits, in_several_splits, person, positions
from chexgen_lib.sources import impressions
from chexgen_lib.storage import ROWS, blocks, height, mapped

RESERVED = 0.1  # share of people
ROW = "__row"  # number of a record
LOOKED_AT = ("image_id", "source", "patient_id", "study_id", "view", "split", "qc", "impression", *FINDINGS)
SPLITS_SEED = 0  # of the splits that the shipped foundation was trained with
TokenCounts = Callable[[list[str]], Sequence[int]]  # texts -> number of tokens of each


@dataclass(frozen=True)
class Selection:
    """Which records serve one purpose.

    Attributes:
        flag: the purpose, one of `layout.FLAGS`.
        sources: names of datasets; one may serve several purposes, with the same images.
        counts: split -> number of images, e.g. `{"train": 2000, "val": 200}`; fewer if there are fewer, None for all.
        prompt: the generated "description", or the radiologist's "impression" with the description where a source has
            none; of MIMIC-CXR's impressions those that `impressions.impressions` selects.
        views: those that are taken (of `records.VIEWS`); None takes all.
        optional: whether it may select nothing to train on.
        natural: whether findings stay as frequent as they are; else rare ones are over-represented.
        labels_alone: for images that no text goes with: also of records whose description failed its check, for example
            since there is nothing to describe.
        reserved: of training patients only those that the shipped foundation never sees (True: `is_reserved`), only
            the others (False), or all (None). True also leaves out of validation and test whom the foundation was
            trained on: another seed, other fractions or a publisher's list can put such people there.
    """

    flag: str
    sources: Sequence[str]
    counts: Mapping[str, int | None]
    prompt: Literal["description", "impression"] = "description"
    views: Sequence[str] | None = None
    optional: bool = False
    natural: bool = False
    labels_alone: bool = False
    reserved: bool | None = None


def is_reserved(records: pl.DataFrame) -> pl.Series:
    """Whether a record's person is among the tenth of all that `make foundation` leaves to every other training.

    It is a hash of the person alone, so that no seed, source or profile moves anybody to the other side. The foundation
    was trained on the others of the training split of `SPLITS_SEED` and the default fractions, of tables that come
    without a publisher's lists.
    """
    people = records.select(person=person()).unique(maintain_order=True)
    people = people.with_columns(reserved=positions(people["person"], "foundation") < RESERVED)
    return records.select(person=person()).join(people, on="person", how="left", maintain_order="left")["reserved"]


def select(
    records: pl.DataFrame | pl.LazyFrame,
    selections: Sequence[Selection],
    token_counts: TokenCounts,
    max_tokens: int,
    seed: int = 0,
    with_images: bool = False,
    scratch: Path | None = None,
) -> Iterator[pl.DataFrame]:
    """Select the records of a run: the Record columns, `prompt`, and a bool column for each of `layout.FLAGS`.

    `prompt` is stage II's where a record serves it, and else that of its first purpose.

    In the order of their ids, in blocks (`storage.blocks`), since a cohort may not fit the memory; all is chosen, and
    every error raised, before the first is asked for.

    Unless a selection is `natural`, a record's chance grows with the rarity of its rarest finding, so that fourteen
    findings can be learnt from a few thousand images; labels, ages, sexes, views and their co-occurrence are the
    source's. Prompts have fewer than `max_tokens` tokens (paper, Methods, ChexGen Model Training).

    Args:
        records: curated ones, with the columns `qc` and `split`. Of lazy ones a block is in memory.
        with_images: only records that name an image file (real radiographs).
        scratch: folder of the files that hold what selections look at and then what they choose (`storage.mapped`).

    Raises:
        CohortError: if a source has no record, a selection that is not optional finds no training record, or a person
            is in several splits.
    """
    wanted = {source for selection in selections for source in selection.sources}
    if absent := sorted(wanted - set(records.lazy().select(pl.col("source").unique()).collect()["source"])):
        raise CohortError(
            f"the curated records hold nothing of {', '.join(absent)}: put it below the data root (`chexgen data list` "
            "names the sources), or leave it out of the cohort's sources"
        )
    unchecked = {source for selection in selections if selection.labels_alone for source in selection.sources}
    candidates = mapped((_candidates(part, unchecked, with_images) for part in _numbered(records)), scratch)
    chosen = [(s.flag, _choose(candidates, s, token_counts, max_tokens, seed)) for s in selections]
    if torn := in_several_splits(pl.concat([rows.select("patient_id", "split") for _, rows in chosen])):
        raise CohortError(
            f"{len(torn)} patients are in several splits, first {torn[0]!r}: run the curation stage (notebook 01) "
            "again, which assigns splits"
        )
    return _fetch(records, _merged(chosen), scratch)


def _merged(chosen: Sequence[tuple[str, pl.DataFrame]]) -> pl.DataFrame:
    """What the selections of each flag choose, each image once, by its id: `ROW`, image_id, prompt and the flags."""
    first = sorted(chosen, key=lambda one: one[0] != "stage2")  # whose prompt an image has
    merged = pl.concat([rows.select(ROW, "image_id", "prompt") for _, rows in first])
    merged = merged.unique(ROW, keep="first").sort("image_id")
    rows = {flag: np.concatenate([own[ROW].to_numpy() for f, own in chosen if f == flag] or [[]]) for flag in FLAGS}
    return merged.with_columns(pl.Series(flag, np.isin(merged[ROW], own)) for flag, own in rows.items())


def _choose(
    candidates: pl.DataFrame, selection: Selection, token_counts: TokenCounts, max_tokens: int, seed: int
) -> pl.DataFrame:
    """What a selection chooses: `ROW`, image_id, patient_id, split and `prompt`."""

    def is_short(prompts: list[str]) -> np.ndarray:
        return np.array(token_counts(prompts)) < max_tokens

    told = ROW, "image_id", "patient_id", "split", "prompt"
    pool = _pool(candidates, selection, token_counts, max_tokens)
    pool = pool.select(*told, *(() if selection.natural else FINDINGS))  # every copy of the others would be large
    parts = ((_of(pool, split, selection.reserved), n) for split, n in selection.counts.items())
    chosen = pl.concat([_sample(part, n, seed, is_short, selection.natural).select(told) for part, n in parts])
    if not selection.optional and chosen.filter(pl.col("split") == "train").is_empty():
        raise CohortError(
            f"no training record for {selection.flag}: its sources have none with an image and a short prompt"
        )
    return chosen


def _fetch(records: pl.DataFrame | pl.LazyFrame, chosen: pl.DataFrame, scratch: Path | None) -> Iterator[pl.DataFrame]:
    """The records that are `chosen`, whole, with what else `chosen` says of them, in blocks.

    They are read once, in the order of the table, and taken from a file in theirs.
    """
    numbers, wanted = chosen[ROW].to_numpy(), np.zeros(height(records), bool)
    wanted[numbers] = True
    found = mapped((block.filter(wanted[block[ROW]]) for block in _numbered(records)), scratch)
    found = found.select("image_id", pl.exclude("image_id", ROW))
    places = np.cumsum(wanted)[numbers] - 1
    for first in range(0, max(len(places), 1), ROWS):
        rows = slice(first, first + ROWS)
        yield found[places[rows]].hstack(chosen[rows].select("prompt", *FLAGS))


def _numbered(records: pl.DataFrame | pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Blocks of the records with their numbers; of a table that is numbered as a whole each block would read all."""
    first = 0
    for block in blocks(records):
        yield block.with_row_index(ROW, offset=first)
        first += len(block)


def _candidates(records: pl.DataFrame, unchecked: set[str], with_images: bool) -> pl.DataFrame:
    """Of the records that some selection may choose, what selections look at, with their prompts.

    The other columns, most of a record's bytes, are fetched for those that are chosen.
    """
    records = usable(records.filter((pl.col("qc") == PASS) | pl.col("source").is_in(unchecked)), with_images)
    return records.select(ROW, *LOOKED_AT, grammar.prompt(records))


def usable(records: pl.DataFrame, with_images: bool) -> pl.DataFrame:
    """Records that name an image file, or else those whose view the embedded cohort can render."""
    return records.filter(pl.col("image").is_not_null() if with_images else pl.col("view").is_in(list(phantom.VIEWS)))


def select_for_autoencoder(
    records: pl.DataFrame, counts: Mapping[str, int], seed: int, with_images: bool = False
) -> pl.DataFrame:
    """Records of every source and view to train and test an autoencoder on; their prompts are empty.

    Args:
        counts: split -> number of images.
    """
    flags = {flag: pl.lit(flag == "stage1") for flag in FLAGS}
    pool = usable(records, with_images).with_columns(prompt=pl.lit(""), **flags)
    return pl.concat([_sample(pool.filter(pl.col("split") == split), n, seed) for split, n in counts.items()])


def _pool(records: pl.DataFrame, selection: Selection, token_counts: TokenCounts, max_tokens: int) -> pl.DataFrame:
    """The records that a selection may choose from, with its prompts."""
    checked = pl.lit(selection.labels_alone) | (pl.col("qc") == PASS)
    pool = records.filter(pl.col("source").is_in(list(selection.sources)), checked)
    if selection.prompt == "impression":
        pool = pool.with_columns(prompt=pl.coalesce("impression", "prompt"))
    if selection.views is not None:
        pool = pool.filter(pl.col("view").is_in(selection.views))
    if selection.prompt == "impression" and "mimic_cxr" in selection.sources:
        mimic, _ = impressions.impressions(pool, token_counts, max_tokens)
        pool = pl.concat([pool.filter(pl.col("source") != "mimic_cxr"), mimic.select(pool.columns)])
    return pool


def _of(pool: pl.DataFrame, split: str, reserved: bool | None) -> pl.DataFrame:
    """The pool's records of a split, of those whom `Selection.reserved` admits."""
    pool = pool.filter(pl.col("split") == split)
    if split == "train":
        return pool if reserved is None else pool.filter(is_reserved(pool) == reserved)
    return pool.filter(is_reserved(pool) | ~_in_training_split_of_foundation(pool)) if reserved else pool


def _in_training_split_of_foundation(records: pl.DataFrame) -> pl.Series:
    """Whether a record's person is in the training split that the foundation knew, whatever split she is in now."""
    # NIH's lists are not in the table that the foundation's prompts are from; it saw no other dataset that has any
    shipped = records.with_columns(split=pl.when(~person().str.starts_with("nih:")).then("split"))
    return assign_splits(shipped, seed=SPLITS_SEED)["split"] == "train"


def _sample(
    pool: pl.DataFrame,
    n: int | None,
    seed: int,
    accept: Callable[[list[str]], np.ndarray] | None = None,
    natural: bool = False,
) -> pl.DataFrame:
    """`n` rows (None: all) without replacement, weighted by the rarest finding (keys of Efraimidis & Spirakis 2006).

    Args:
        accept: prompts -> bool of each; rows whose prompt is not accepted are passed over.
        natural: give all rows one weight.
    """
    n = len(pool) if n is None else n
    if pool.is_empty() or n == 0:
        return pool.head(0)
    key = positions(pool["image_id"], str(seed)).to_numpy()
    order = np.argsort(-key if natural else -(key ** (1 / _rarity(pool))), kind="stable")
    if accept is None:
        return pool[order[:n]]
    accepted, step = [], min(max(n, 64), ROWS)
    for start in range(0, len(order), step):  # tokens are counted only until enough rows are accepted
        rows = order[start : start + step]
        accepted.append(rows[accept(pool["prompt"][rows].to_list())])
        if sum(map(len, accepted)) >= n:
            break
    return pool[np.concatenate(accepted)[:n]]


def _rarity(pool: pl.DataFrame) -> np.ndarray:
    """How rare each record's rarest finding is in the pool, float [N]."""
    present = pool.select(pl.col(FINDINGS).fill_null(0)).to_numpy()  # [N, 14]
    rarity = 1 / np.sqrt(present.mean(axis=0).clip(1e-4))
    return (present * rarity).max(axis=1).clip(0.5)
