"""The effect of one variable on another, by intervention, with an interval; and what conditioning would say instead."""

from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.causal.graph import Graph
from chexgen_lib.causal.model import CausalModel
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
        table: complete rows are resampled; the model is fitted anew on each resample.
        cause, values: what is set, and to which two values.
        outcome: a variable of a few values, and the one that counts.
        draws: rows that are sampled under each intervention, from the same noise.

    Returns:
        Two rows with way, value, low, high: "do" by intervention on the model, and "conditioning" by comparing the
        rows of the table that have either value.

    Raises:
        CausalError: for a table or a value that does not fit the graph.
    """
    known = table.select(list(graph.kinds)).drop_nulls()
    resampling = Resampling(range(len(known)), n_bootstrap, seed)
    name, counted = outcome
    noise = np.random.default_rng(seed).uniform(0, 1, (draws, len(graph.order)))
    noise = pl.DataFrame(noise, schema=graph.order)
    do, conditioned = [], []
    for rows in resampling.rows():
        own = known[rows]
        model = CausalModel.fit(own, graph)
        shares = [(model.predict(noise, {cause: value})[name] == counted).mean() for value in values]
        do.append(shares[1] - shares[0])
        shares = [(own.filter(pl.col(cause) == value)[name] == counted).mean() for value in values]
        conditioned.append(np.nan if None in shares else shares[1] - shares[0])
    ways = {"do": do, "conditioning": conditioned}
    return tidy([{"way": way} | estimate(np.array(found)) for way, found in ways.items()], COLUMNS)
