"""Pairs of films with their truth, rendered once and kept; and what is known of each film."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from chexgen_lib.descriptions.changes import states
from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.phantom.counterfactual import VISIBLE, counterfactuals
from chexgen_lib.phantom.counterfactual_benchmark import PERSON, Pair, benchmark
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import read_arrays

ATTRIBUTES = (*PERSON, *FINDINGS)  # whose values probes predict
POLES = {"sex": ("M", "F"), "view": ("PA", "AP"), "site": ("A", "B")}  # 0 and 1


@dataclass(frozen=True)
class Films:
    """N pairs, rendered.

    Attributes:
        pairs: what each is about.
        before, after: uint8 [N, S, S], the films and their true counterfactuals.
    """

    pairs: list[Pair]
    before: np.ndarray
    after: np.ndarray

    @cached_property
    def region(self) -> np.ndarray:
        """Where a pair's films visibly differ, bool [N, S, S]."""
        return np.abs(self.after.astype(int) - self.before) > 255 * VISIBLE

    @property
    def records(self) -> list[dict]:
        """Of the films as they are."""
        return [pair.record for pair in self.pairs]

    @property
    def targets(self) -> list[dict]:
        """Of the films as they should become."""
        return [pair.target for pair in self.pairs]

    @property
    def attributes(self) -> np.ndarray:
        """What is changed in each pair, [N]."""
        return np.array([pair.attribute for pair in self.pairs])

    def first(self, n: int) -> "Films":
        """The first `n` pairs."""
        return Films(self.pairs[:n], self.before[:n], self.after[:n])

    def everything(self) -> tuple[np.ndarray, list[dict]]:
        """All 2 N films and their records, to train on."""
        return np.concatenate([self.before, self.after]), [*self.records, *self.targets]


def load(folder: str | Path, n: int, size: int, seed: int = 0, workers: int = 2) -> Films:
    """The first `n` pairs of the benchmark of a seed, rendered at `size` pixels and kept in `folder`."""
    folder = kept(_render, folder, {"workers": workers}, n=n, size=size, seed=seed)
    films = read_arrays(folder / "films.npz")
    return Films(benchmark(n, seed), films["before"], films["after"])


def _render(folder: Path, n: int, size: int, seed: int, workers: int) -> None:
    pairs = [(pair.record, pair.change) for pair in benchmark(n, seed)]
    both = [(to_uint8(one.before.image), to_uint8(one.after.image)) for one in counterfactuals(pairs, size, workers)]
    before, after = map(np.stack, zip(*both, strict=True))
    np.savez(folder / "films.npz", before=before, after=after)


def values(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Each attribute of each record: [N, A], age in years, else 0 or 1."""
    shown = [states(record) for record in records]
    people = [[r["age"], *(POLES[name].index(r[name]) for name in PERSON[1:])] for r in records]
    return np.array([[*person, *(s[f] for f in FINDINGS)] for person, s in zip(people, shown, strict=True)], float)


def nearest(films: Films, pool: np.ndarray, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """For each film the most similar one of `pool`, uint8 [M, S, S], that has what is asked: uint8 [N, S, S].

    Similar in pixels at an eighth of the size; where no film of the pool has what is asked, of all.
    """
    side = films.before.shape[-1] // 8

    def small(images: np.ndarray) -> np.ndarray:
        blocks = from_uint8(images).reshape(len(images), side, 8, side, 8)
        return blocks.mean((2, 4)).reshape(len(images), -1)

    distance = np.linalg.norm(small(films.before)[:, None] - small(pool)[None], axis=-1)  # [N, M]
    fitting = np.array([[has(record, pair.change) for record in records] for pair in films.pairs])
    fitting |= ~fitting.any(axis=1, keepdims=True)
    return pool[np.where(fitting, distance, np.inf).argmin(axis=1)]


def has(record: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether a record is as a change asks; ages within 5 years."""
    return all(_has(record, name, value) for name, value in change.items())


def _has(record: Mapping[str, Any], name: str, value: Any) -> bool:
    if name == "age":
        return abs(record["age"] - value) <= 5
    if name not in FINDINGS:
        return record[name] == value
    if states(record)[name] != (value != 0):
        return False
    asked = {key: v for key, v in value.items() if v is not None} if isinstance(value, Mapping) else {}
    own = [detail for detail in record["details"] if detail["finding"] == name]
    return not asked or any(asked.items() <= detail.items() for detail in own)
