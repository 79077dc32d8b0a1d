"""The real images that classifiers are fine-tuned on (paper, Figure 4): shares of them, or few shots, and their labels.

Each of the three groups, internal, external and few-shot, is of its dataset's own label set (`records.label_set`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.experiments.arms import AS_MANY_STEPS, DEFAULT
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.pools.labelled import LabelledSet, Splits
from chexgen_lib.records import label_set

INTERNAL, EXTERNAL, FEW_SHOT = "internal", "external", "few-shot"  # groups of fine-tunings


@dataclass(frozen=True)
class Protocol:
    """Which real images are fine-tuned on, and how.

    Attributes:
        copies: synthetic images of each record to pretrain on.
        oracles: as many times as many new real images to pretrain on instead.
        shares: of the real training images.
        shots: images of each label.
        draws: few-shot sets of each size; the draws of a seed are averaged. Where the publisher has sets ("5-shot 2" in
            a Record's `sets`), these are taken, the same for every seed.
        fine_tuning: with shares of the images.
        few_shot: with few shots.
        starts: initialisation without pretraining (`arms.DEFAULT`, `IMAGENET`, `RAD_DINO`) -> size of its classifier
            (`learners.starts`); None: the configs'. The first is the reference, and starts all pretrainings; the others
            are fine-tuned on internal images with and without the most synthetic copies.
    """

    copies: Sequence[int]
    oracles: Sequence[int]
    shares: Sequence[float]
    shots: Sequence[int]
    draws: int
    fine_tuning: LearnerConfig
    few_shot: LearnerConfig
    starts: Mapping[str, Any] = field(default_factory=lambda: {DEFAULT: None})

    def __post_init__(self):
        if next(iter(self.starts)) not in AS_MANY_STEPS:
            raise ValueError(f"the first of starts is the reference: random or imagenet, not {list(self.starts)}")


@dataclass(frozen=True)
class Labels:
    """The labels of a group of fine-tunings.

    Attributes:
        names: the label set.
        states: float32 [N, L], of every image, real or synthetic; NaN where unknown.
    """

    names: tuple[str, ...]
    states: np.ndarray


@dataclass(frozen=True)
class Tuning:
    """A fine-tuning.

    Attributes:
        group: INTERNAL, EXTERNAL or FEW_SHOT.
        set: of real images: "10 %", "5-shot".
        train, val, test: rows.
        measure_attention: whether the attention of the fine-tuned network is measured.
    """

    group: str
    set: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    config: LearnerConfig
    measure_attention: bool = False


def prefixes(sets: Splits) -> dict[str, str]:
    """Group of fine-tunings -> how its sets are named in `sets.rows`: few shots are external if no dataset is for them.

    Groups without images to train or test on are left out.
    """
    few = "few-shot " if len(sets.rows.get("few-shot train", ())) else "external "
    named = {INTERNAL: "", EXTERNAL: "external ", FEW_SHOT: few}
    return {g: name for g, name in named.items() if len(sets.rows[f"{name}train"]) and len(sets.rows[f"{name}test"])}


def labels_of(sets: Splits) -> dict[str, Labels]:
    """The labels of each group of fine-tunings: the label set of its training images."""
    names = {g: label_set(sets.everything.table[sets.rows[f"{prefix}train"]]) for g, prefix in prefixes(sets).items()}
    states = {own: sets.everything.states(own) for own in set(names.values())}
    return {group: Labels(own, states[own]) for group, own in names.items()}


def tunings(sets: Splits, protocol: Protocol, seed: int) -> dict[str, Tuning]:
    """The fine-tunings of a seed, by name.

    Internal and external ones take shares of the real training images, few-shot ones a few images of each label,
    several times. Without external images there are only internal ones.

    Raises:
        CohortError: if a dataset's publisher has few-shot sets, but not those of the protocol.
    """
    chosen: dict[str, Tuning] = {}
    for group, prefix in prefixes(sets).items():
        train, val, test = (sets.rows[prefix + name] for name in ("train", "val", "test"))
        config = replace(protocol.few_shot if group == FEW_SHOT else protocol.fine_tuning, seed=seed)
        if group == FEW_SHOT:
            for name, rows in few_shots(sets.everything[train], protocol, seed).items():
                chosen[name] = Tuning(group, name.rsplit(" ", 1)[0], train[rows], val, test, config)
            continue
        parts = {name: train[rows] for name, rows in fractions(sets.everything[train], protocol.shares, seed).items()}
        last = list(parts)[-1] if group == INTERNAL else None
        chosen |= {f"{group} {n}": Tuning(group, n, rows, val, test, config, n == last) for n, rows in parts.items()}
    return chosen


def controlled(tunings: Mapping[str, Tuning]) -> dict[str, Tuning]:
    """The internal and few-shot fine-tunings on the first and the last set, the fewest and the most images.

    For a control that is too costly to train on every set.
    """
    sets: dict[str, list[str]] = {}
    for tuning in tunings.values():
        sets.setdefault(tuning.group, []).append(tuning.set)
    ends = {group: (names[0], names[-1]) for group, names in sets.items() if group != EXTERNAL}
    return {name: tuning for name, tuning in tunings.items() if tuning.set in ends.get(tuning.group, ())}


def sizes(tunings: Mapping[str, Tuning]) -> pl.DataFrame:
    """How many real images each fine-tuning has."""
    return pl.DataFrame([{"fine-tuning": name, "real images": len(t.train)} for name, t in tunings.items()])


def fractions(train: LabelledSet, shares: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Rows of nested random subsets of patients, by name ("10 %"): a smaller share is part of every larger one.

    Raises:
        ValueError: for a share outside 0..1, or one so small that it holds fewer than two images.
    """
    patients = train.table["patient_id"].unique(maintain_order=True).to_list()
    order = np.random.default_rng(seed).permutation(len(patients))
    parts = {}
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"a share of the real images must be in (0, 1], got {share}")
        kept = {patients[i] for i in order[: max(1, round(share * len(patients)))]}
        rows = np.flatnonzero(train.table["patient_id"].is_in(list(kept)).to_numpy())
        if len(rows) < 2:
            raise ValueError(f"{share:.0%} of {len(train)} images are fewer than two; take a larger share")
        parts[f"{100 * share:g} %"] = rows
    return parts


def few_shots(train: LabelledSet, protocol: Protocol, seed: int) -> dict[str, np.ndarray]:
    """Rows of the few-shot sets, by name: the publisher's "5-shot 1", or random ones, numbered from 0.

    Raises:
        CohortError: naming the first set that the publisher's lack.
    """
    table, states = train.table, train.states(label_set(train.table))
    held = sorted(set(table["sets"].explode().drop_nulls())) if "sets" in table.columns else []
    if not held:
        draws = [(k, draw) for k in protocol.shots for draw in range(protocol.draws)]
        return {f"{k}-shot {draw}": shots(states, k, draw, seed) for k, draw in draws}
    wanted = [f"{k}-shot {draw}" for k in protocol.shots for draw in range(1, protocol.draws + 1)]
    named = {name: np.flatnonzero(table["sets"].list.contains(name).to_numpy()) for name in wanted}
    if missing := [name for name, rows in named.items() if len(rows) < 2]:
        raise CohortError(
            f"no published few-shot set {missing[0]!r} among {', '.join(held)}: put all of them into the dataset's "
            "folder, or lower supervised_pretraining.draws or shots"
        )
    return named


def shots(states: np.ndarray, k: int, draw: int, seed: int) -> np.ndarray:
    """Rows of a random few-shot set with `k` images of each label, as in the MedFMC protocol.

    A row may serve several labels; a label with fewer than `k` images gives all it has.

    Args:
        states: [N, L], 1, 0 or NaN.
    """
    rng = np.random.default_rng([seed, k, draw])
    chosen: set[int] = set()
    for column in states.T:
        chosen.update(rng.permutation(np.flatnonzero(column == 1))[:k].tolist())
    return np.array(sorted(chosen), np.int64)
