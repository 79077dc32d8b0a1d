"""A causal graph as data: variables with their kinds, and arrows with the reason of each, in one YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML, YAMLError

SHIPPED = Path(__file__).with_name("graph.yaml")
KINDS = ("number", "choice")


class CausalError(ValueError):
    """A graph, table or intervention that cannot be used; the message names it and the remedy."""


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph.

    Attributes:
        kinds: variable -> "number" or "choice".
        because: (cause, effect) -> the reason of the arrow.
    """

    kinds: dict[str, str]
    because: dict[tuple[str, str], str]

    @cached_property
    def parents(self) -> dict[str, list[str]]:
        """Variable -> its causes, in the order of the variables."""
        return {v: [cause for cause in self.kinds if (cause, v) in self.because] for v in self.kinds}

    @cached_property
    def order(self) -> list[str]:
        """The variables, causes before effects."""
        return list(TopologicalSorter(self.parents).static_order())

    def descendants(self, variable: str) -> set[str]:
        """All that a variable reaches along arrows."""
        found: set[str] = set()
        for v in self.order:
            if {variable, *found} & set(self.parents[v]):
                found.add(v)
        return found

    def check_columns(self, table: pl.DataFrame) -> None:
        """Raise CausalError for a variable that a table lacks, or of which a value is no number where it should be."""
        if missing := [v for v in self.kinds if v not in table.columns]:
            raise CausalError(f"the table lacks {', '.join(missing)}: add the columns, or take them out of the graph")
        for v, kind in self.kinds.items():
            if kind == "number" and not table[v].dtype.is_numeric():
                raise CausalError(f"{v}: is {table[v].dtype} in the table, and a number in the graph")
            if table[v].dtype.is_float() and (wrong := table[v].is_finite().not_().sum()):
                raise CausalError(
                    f"{v}: NaN or infinite in {wrong} rows: write null where it is unknown (fill_nan(None))"
                )

    def check_table(self, table: pl.DataFrame) -> None:
        """Raise CausalError for a table that nothing can be learned from, too: with a variable of one value."""
        self.check_columns(table)
        if alike := [v for v in self.kinds if table[v].drop_nulls().n_unique() < 2]:
            raise CausalError(f"{alike[0]}: the table has fewer than two values of it: take it out of the graph")

    def complete(self, table: pl.DataFrame) -> tuple[pl.DataFrame, Sequence]:
        """The rows in which all variables are known, and the patient of each (`patient_id`; without it each row's own).

        Raises:
            CausalError: for a table that nothing can be learned from.
        """
        self.check_table(table)
        known = table.drop_nulls(list(self.kinds))
        self.check_table(known)
        patients = known["patient_id"] if "patient_id" in known.columns else range(len(known))
        return known.select(list(self.kinds)), patients


def read_graph(path: str | Path = SHIPPED) -> Graph:
    """The graph of a YAML file: `variables` (name -> kind) and `arrows` (a list of from, to, because).

    Raises:
        CausalError: for a missing or broken file, an unknown kind or variable, an arrow without a reason or given
            twice, and a cycle.
    """
    try:
        content = YAML(typ="safe").load(Path(path))
    except (OSError, YAMLError) as error:
        raise CausalError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    content = content if isinstance(content, dict) else {}
    variables, arrows = content.get("variables"), content.get("arrows")
    if not isinstance(variables, dict) or not variables or not isinstance(arrows, list):
        raise CausalError(
            f"{path}: needs `variables` (name: number or choice) and `arrows`, a list (from, to, because)"
        )
    return make_graph(variables, arrows, str(path))


def _are_names(end: Any) -> bool:
    return isinstance(end, list) and bool(end) and all(isinstance(variable, str) for variable in end)


def make_graph(variables: Mapping[str, str], arrows: list[Mapping[str, Any]], name: str = "graph") -> Graph:
    """A checked graph of the content of a file; arrows are dicts of from, to (a variable or a list) and because."""
    for variable, kind in variables.items():
        if kind not in KINDS:
            raise CausalError(f"{name}: {variable} is of kind {kind!r}: use one of {', '.join(KINDS)}")
    because: dict[tuple[str, str], str] = {}
    for arrow in arrows:
        ends = [arrow.get(end) for end in ("from", "to")] if isinstance(arrow, Mapping) else [None]
        ends = [[end] if isinstance(end, str) else end for end in ends]
        if not all(map(_are_names, ends)) or not arrow.get("because"):
            raise CausalError(
                f"{name}: arrow {arrow} needs from and to, a variable or several in brackets, and because, its reason"
            )
        for pair in product(*ends):
            if unknown := [v for v in pair if v not in variables]:
                raise CausalError(
                    f"{name}: arrow {' -> '.join(map(str, pair))}: {unknown[0]!r} is no variable of the graph"
                )
            if pair in because:
                raise CausalError(f"{name}: arrow {' -> '.join(pair)} is there twice")
            because[pair] = arrow["because"]
    graph = Graph(dict(variables), because)
    try:
        graph.order  # noqa: B018  # sorting finds cycles
    except CycleError as error:
        raise CausalError(f"{name}: a cycle, {' -> '.join(error.args[1][::-1])}: take an arrow out") from error
    return graph
