"""Which records of the cohort are sampled for: test prompts that state findings, and training records."""

from collections.abc import Callable, Iterable, Sequence

import polars as pl

from chexgen_lib.cohort.layout import rows
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.models.metadata import rows_of
from chexgen_lib.storage import hash_key

Fits = Callable[[list[str]], Sequence[bool]]  # prompts -> whether a generator reads each whole
READERS = {"description": "pretraining", "impression": "alignment"}  # prompts -> the stage whose model reads them


def choose_prompts(cohort: pl.DataFrame, n: int, findings: Sequence[str], seed: int = 0) -> pl.DataFrame:
    """`n` test records of stage II, in turn from each finding's positives, so that rare findings are requested.

    First come those whose prompt states the finding (radiologists leave out what they think unimportant); when they
    are used up, any. The order within a finding is a seeded hash; a record is taken once.
    """
    pool = cohort[rows(cohort, "stage2", "test")].unique("prompt", keep="first", maintain_order=True)
    pool = _shuffled(pool, f"{seed}")
    stated = dict(zip(pool["image_id"], stated_findings(pool["prompt"]), strict=True))
    present = {f: pool.filter(pl.col(f) == 1)["image_id"].to_list() for f in findings}
    in_words = {f: [i for i in ids if f == "No Finding" or f in stated[i]] for f, ids in present.items()}
    chosen: dict[str, None] = {}
    for queues in (list(in_words.values()), list(present.values())):
        while len(chosen) < n and any(queues):
            for queue in queues:
                while queue and queue[0] in chosen:
                    queue.pop(0)
                if queue and len(chosen) < n:
                    chosen[queue.pop(0)] = None
    return pool.filter(pl.col("image_id").is_in(list(chosen))).sort("image_id")


def stated_findings(prompts: Iterable[str]) -> list[set[str]]:
    """Those of the 14 findings that each prompt affirms."""
    return [{mention.finding for mention in read(prompt).affirmed if mention.finding} for prompt in prompts]


def choose_training(cohort: pl.DataFrame, n: int, seed: int = 0, purpose: str = "stage2") -> pl.DataFrame:
    """`n` training records of a purpose at random (all, if there are fewer); a smaller set is part of a larger one."""
    return _shuffled(cohort[rows(cohort, purpose, "train")], f"{seed}:pool").head(n).sort("image_id")


def with_prompts(records: pl.DataFrame, prompt: str) -> pl.DataFrame:
    """Records with the prompts that a pool is sampled from, in the column `prompt`.

    Args:
        prompt: a key of `READERS`: "impression", as the records were selected, or "description", generated from them.
            A description states every finding that an image of the pool is then labelled with; a radiologist's
            impression leaves out about half of those in Open-i's headings.

    Raises:
        ValueError: for another prompt.
    """
    if prompt not in READERS:
        raise ValueError(f"pools.prompt {prompt!r}: use {' or '.join(READERS)}")
    return records.with_columns(prompt=grammar.prompt(records)) if prompt == "description" else records


def fitting_prompts(records: pl.DataFrame, fits: Fits) -> pl.DataFrame:
    """The records whose prompt a generator reads whole; the number of the others is printed.

    A description may be longer than the impression by which its record came into the cohort.
    """
    short = pl.Series(fits(records["prompt"].to_list()), dtype=pl.Boolean)
    if not short.all():
        print(f"{(~short).sum()} of {len(records)} records left out: too long a description")
    return records.filter(short)


def metadata_for(records: pl.DataFrame, sources: Sequence[str] | None) -> list[dict] | None:
    """What records assert, for a model that reads metadata beside texts and knows these sources; None for any other.

    Of what is asked for, images show more if it is asked for twice (`benchmarks/conditions.csv`).
    """
    return None if sources is None else rows_of(records, sources)


def _shuffled(records: pl.DataFrame, salt: str) -> pl.DataFrame:
    keys = pl.Series("__key", [hash_key(f"{salt}:{i}") for i in records["image_id"]], dtype=pl.String)
    return records.with_columns(keys).sort("__key").drop("__key")
