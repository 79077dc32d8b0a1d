"""The design of a reader study: how many cases, which, and what each reader sees in which order.

Tasks, in the order in which a reader meets them:

- realism: one image, real or synthetic? Twice, in another order, so that a reader's own agreement is known.
- pairs: the real image of a record beside a sample of it; which is real? Twice, as in RadiT's study.
- agreement: report and image, scored from -2 to 2 (paper, Figure 2c). The real image is among them, as a ceiling.
- assisted: findings of a real image, alone and with a sample of its record beside it; once in each condition.

`agreement` and `realism` share their cases. `pairs` and `assisted` have cases of other patients: there an image is
marked, or known by its neighbour, as real. All passes of other tasks come before `assisted`, which shows samples as
such.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import LEVEL
from chexgen_lib.quality.readers.material import ALONE, REAL, Material, StudyError
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import digest, hash_key, seed_of

TASKS = ("realism", "pairs", "agreement", "assisted")
GROUPS = {"realism": "films", "agreement": "films", "pairs": "pairs", "assisted": "assisted"}  # who shares cases
Film = tuple[str, str]  # whose image, and of which record
UNLABELLED = "none known"  # stratum of a record without a positive finding


@dataclass(frozen=True)
class Item:
    """One question to one reader.

    Attributes:
        item: opaque id.
        number: of the pass, from 1.
        record: image_id of the case.
        arm: whose image it is; in pairs and assisted, the generator of the sample, or `ALONE`.
        images: (arm, record) of the films, in the order in which they are shown.
    """

    item: str
    task: str
    number: int
    record: str
    arm: str
    images: tuple[Film, ...]


@dataclass(frozen=True)
class Study:
    """All that a study consists of; the forms show it blinded, the key keeps it.

    Attributes:
        study: opaque id.
        seed: of all that is random. Whoever knows it and the code knows what every item is: it stays in the key.
        cases: image_id, patient_id, prompt, `FINDINGS`, stratum, group (a value of `GROUPS`).
        items: reader -> items in the order of the form.
    """

    study: str
    seed: int
    tasks: tuple[str, ...]
    arms: tuple[str, ...]
    cases: pl.DataFrame
    items: dict[str, list[Item]]


def cases_needed(detect: float, power: float = 0.8) -> int:
    """Cases of a task with which one reader's result is told from none at p < 0.05 with this power.

    Args:
        detect: the effect in standard deviations over the cases: a paired difference of two arms or conditions, or an
            accuracy minus 0.5, whose standard deviation is 0.5 (0.3 is an accuracy of 0.65).

    Raises:
        StudyError: unless detect is at least 0.001 and power between 0.05 and 1.
    """
    if not (detect >= 0.001 and 0.05 < power < 1):
        raise StudyError(f"needs an effect of 0.001 or more and a power between 0.05 and 1, got {detect} and {power}")
    return int(np.ceil((_standard_errors(power) / detect) ** 2))


def detectable(cases: int, power: float = 0.8) -> float:
    """The effect, in standard deviations over the cases, that this many cases detect: `cases_needed` turned round."""
    return float(_standard_errors(power) / np.sqrt(cases))


def _standard_errors(power: float) -> float:
    return stats.norm.ppf(0.5 + LEVEL / 2) + stats.norm.ppf(power)


def make(material: Material, tasks: Sequence[str], readers: Sequence[str], cases: int, seed: int) -> Study:
    """Choose cases for each task and deal them to each reader in an order of their own; equal arguments, equal study.

    Raises:
        StudyError: for an unknown or repeated task or reader, too few patients, or cases that a task cannot be scored
            on: without a prompt, or without known findings.
    """
    if not tasks or len(set(tasks)) < len(tasks) or set(tasks) - set(TASKS):
        raise StudyError(f"tasks {list(tasks)}: give one or more of {', '.join(TASKS)}, each once")
    # case is ignored, because two forms must not be one file on any system
    if not readers or len({r.lower() for r in readers}) < len(readers) or not all(map(_is_name, readers)):
        raise StudyError(f"readers {list(readers)}: give distinct names of letters, digits, - and _")
    tasks = tuple(task for task in TASKS if task in tasks)
    groups = list(dict.fromkeys(GROUPS[task] for task in tasks))
    chosen = choose_cases(material.records, cases, groups, np.random.default_rng(seed_of(f"{seed}:cases")))
    _check_scorable(material.records, chosen, tasks)
    arms = tuple(material.images)
    identity = digest([seed, tasks, arms, list(readers), chosen, material.images])[:12]
    study = Study(identity, seed, tasks, arms, chosen, {})
    for reader in readers:
        rng = np.random.default_rng(seed_of(f"{seed}:{reader}"))
        items = [item for task, number in _passes(tasks, arms) for item in _deal(study, task, number, rng)]
        ids = [hash_key(f"{seed}:{reader}:{k}")[:10] for k in range(len(items))]
        study.items[reader] = [Item(i, *item) for i, item in zip(ids, items, strict=True)]
    return study


def _check_scorable(records: pl.DataFrame, cases: pl.DataFrame, tasks: Sequence[str]) -> None:
    """Raise StudyError for what would show when readers have done their work: nothing to agree with, or no truth."""
    if "agreement" in tasks:
        silent = records.filter(pl.col("prompt").fill_null("").str.strip_chars() == "")["image_id"]
        if len(silent):
            raise StudyError(
                f"{len(silent)} of {len(records)} records have no prompt to agree with, first {silent[0]!r}: take "
                "their samples out, or leave agreement out of --tasks"
            )
    known = cases.filter(group=GROUPS["assisted"]).select(pl.col(FINDINGS).cast(pl.Float64)).to_numpy()
    for label, state, measure in ((1, "present", "sensitivity"), (0, "absent", "specificity")):
        if "assisted" in tasks and not (known == label).any():
            raise StudyError(
                f"no case has a finding that is known to be {state}, so that assisted reading has no {measure}: give a "
                "cohort with labels, or leave assisted out of --tasks"
            )


def _is_name(reader: str) -> bool:
    return bool(reader) and reader.replace("-", "").replace("_", "").isalnum() and reader.isascii()


def choose_cases(records: pl.DataFrame, n: int, groups: Sequence[str], rng: np.random.Generator) -> pl.DataFrame:
    """`n` records for each group, all of different patients, in turn from each stratum so that rare findings occur.

    A record's stratum is the rarest finding that is present in it. Every stratum is dealt evenly to the groups.

    Raises:
        StudyError: if there are too few patients; it says how many cases there can be and what they detect.
    """
    one = records[rng.permutation(len(records)).tolist()].unique("patient_id", keep="first", maintain_order=True)
    if n < 2 or len(one) < n * len(groups):
        most = len(one) // len(groups)
        raise StudyError(
            f"{n} cases for each of {len(groups)} groups of tasks ({', '.join(groups)}) are wanted, and {len(one)} "
            f"patients have a sample in every arm: add samples, drop a task, or use --cases {most}, which detects "
            f"{detectable(max(most, 1)):.2f} standard deviations (at least 2 cases)"
        )
    common = records.select(pl.col(FINDINGS).eq(1).sum()).row(0, named=True)
    rarest = sorted(FINDINGS, key=lambda finding: (common[finding], finding))
    stratum = pl.coalesce(*(pl.when(pl.col(finding) == 1).then(pl.lit(finding)) for finding in rarest))
    one = one.with_columns(stratum=stratum.fill_null(UNLABELLED))
    turn = pl.int_range(pl.len()).over("stratum")
    order = pl.col("stratum").replace_strict({name: k for k, name in enumerate([*rarest, UNLABELLED])})
    taken = one.with_columns(turn=turn, order=order).sort("turn", "order", maintain_order=True).head(n * len(groups))
    taken = taken.sort("order", maintain_order=True).drop("turn", "order")
    return taken.with_columns(group=pl.Series([groups[k % len(groups)] for k in range(len(taken))]))


def _passes(tasks: Sequence[str], arms: Sequence[str]) -> list[tuple[str, int]]:
    """(task, pass) in the order of the form."""
    passes = {"realism": 2, "pairs": 2, "agreement": 1, "assisted": len(arms)}
    every = [(task, number) for task in tasks for number in range(1, passes[task] + 1)]
    return sorted(every, key=lambda pair: (pair[0] == "assisted", pair[1], TASKS.index(pair[0])))


def _deal(study: Study, task: str, number: int, rng: np.random.Generator) -> list[tuple]:
    """The items of a pass as (task, number, record, arm, images), in random order."""
    records = study.cases.filter(group=GROUPS[task])["image_id"].to_list()
    generators = [arm for arm in study.arms if arm != REAL]
    dealt = []
    for k, record in enumerate(records):
        if task == "pairs":
            arm = generators[k % len(generators)]
            pair = [(REAL, record), (arm, record)]
            dealt.append((task, number, record, arm, tuple(pair[i] for i in rng.permutation(2))))
        elif task == "assisted":  # every case once in every condition, equally many of each in a pass
            arm = [ALONE, *generators][(k + number) % (1 + len(generators))]
            beside = () if arm == ALONE else ((arm, record),)
            dealt.append((task, number, record, arm, ((REAL, record), *beside)))
        else:
            dealt += [(task, number, record, arm, ((arm, record),)) for arm in study.arms]
    return [dealt[i] for i in rng.permutation(len(dealt))]
