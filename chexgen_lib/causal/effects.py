"""The effect of one variable on another, by intervention, with an interval; and what conditioning would say instead."""

from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.causal.graph import CausalError, Graph
from chexgen_lib.causal.model import CausalModel
from chexgen_lib.checks import check_count
from chexgen_lib.estimates.comparison import estimate, tidy
from chexgen_lib.estimates.resampling import Resampling

COLUMNS = ("way", "value", "low", "high")


def effect(
    table: pl.DataFrame,
    graph: Graph,
    cause: str,
    values: tuple[Any, Any],
    outcome: tuple[str, Any],
    n_bootstrap: int = 100,
    draws: int = 10_000,
    seed: int = 0,
) -> pl.DataFrame:
    """How much more often an outcome takes a value under the second of two values of a cause than under the first.

    Args:
        table: complete rows count; their patients are resampled (`Graph.complete`), and the model is fitted anew.
        cause, values: what is set, and to which two values.
        outcome: a choice, and the value that counts.
        draws: rows that are sampled under each intervention, from the same noise.

    Returns:
        Two rows with way, value, low, high: "do" by intervention on the model, and "conditioning" by comparing the
        rows of the table that have either value.

    Raises:
        CausalError: for a table or a value that does not fit the graph.
    """
    check_count("draws", draws)
    known, patients = graph.complete(table)
    whole, (name, counted) = CausalModel.fit(known, graph), outcome
    for variable, value in (*((cause, value) for value in values), outcome):
        whole.check_value(variable, value)
    if graph.kinds[name] == "number":
        raise CausalError(f"{name} is a number: an outcome is a choice, and one of its values counts")
    noise = np.random.default_rng(seed).uniform(0, 1, (draws, len(graph.order)))
    noise = pl.DataFrame(noise, schema=graph.order)

    def by_do(own: pl.DataFrame) -> float:
        try:
            model = CausalModel.fit(own, graph)
            shares = [(model.predict(noise, {cause: value})[name] == counted).mean() for value in values]
        except CausalError:  # a resample without one of the values
            return np.nan
        return shares[1] - shares[0]

    def by_conditioning(own: pl.DataFrame) -> float:
        shares = [(own.filter(pl.col(cause) == value)[name] == counted).mean() for value in values]
        return np.nan if None in shares else shares[1] - shares[0]

    ways, found = {"do": by_do, "conditioning": by_conditioning}, []
    for rows in Resampling(patients, n_bootstrap, seed).rows():
        own = known[rows]
        found.append([of(own) for of in ways.values()])
    return tidy([{"way": way} | estimate(values) for way, values in zip(ways, np.array(found).T, strict=True)], COLUMNS)
