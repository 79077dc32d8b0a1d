"""Does a causal model hold on its table? What it draws beside what was observed, and the independences of its graph."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from chexgen_lib.causal.graph import Graph
from chexgen_lib.causal.model import CausalModel, encoder
from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.resampling import Resampling

LEVEL = 0.05  # of all tests of a graph together
QUANTILES = (0.1, 0.5, 0.9)


def independences(table: pl.DataFrame, graph: Graph, rows: int = 20_000, seed: int = 0) -> pl.DataFrame:
    """Tests of what a graph leaves out: each variable against all earlier ones that are not its causes.

    Likelihood-ratio tests of regressions without interactions on at most `rows` rows in which all are known. Large
    tables reject graphs that are nearly right: `gain` is what matters, the log likelihood that the left-out variable
    adds for each row, in thousandths of a nat.

    Returns:
        variable, other, given, n, gain, p, violated (p below `LEVEL` over the number of tests).
    """
    graph.check_table(table)
    found = []
    for other, variable in combinations(graph.order, 2):
        causes = graph.parents[variable]
        if other in causes:
            continue
        known = table.select(variable, other, *causes).drop_nulls()
        known = known.sample(min(rows, len(known)), seed=seed)
        if known[variable].n_unique() < 2 or known[other].n_unique() < 2:
            continue
        (without, small), (with_it, large) = (
            _fitted(known, graph, variable, own) for own in (causes, [*causes, other])
        )
        p = float(stats.chi2.sf(2 * (with_it - without), large - small))
        given = ", ".join(causes)
        row = {"variable": variable, "other": other, "given": given, "n": len(known)}
        found.append(row | {"gain": 1000 * (with_it - without) / len(known), "p": p})
    tests = pl.DataFrame(found).sort("gain", descending=True, maintain_order=True)
    return tests.with_columns(violated=pl.col("p") < LEVEL / len(tests))


def _fitted(known: pl.DataFrame, graph: Graph, variable: str, causes: list[str]) -> tuple[float, int]:
    """Log likelihood of a regression of a variable on causes, and its number of parameters."""
    features = encoder(graph, causes).fit_transform(known.select(causes)) if causes else np.ones((len(known), 1))
    values = known[variable].to_numpy()
    size = np.linalg.matrix_rank(features.toarray() if hasattr(features, "toarray") else features)
    if graph.kinds[variable] == "number":
        left = values - LinearRegression().fit(features, values).predict(features)
        return float(stats.norm.logpdf(left, scale=left.std()).sum()), size
    fitted = make_pipeline(LogisticRegression(C=np.inf, max_iter=1000)).fit(features, values)
    at = np.searchsorted(fitted.classes_, values)
    shares = fitted.predict_proba(features)[np.arange(len(values)), at]
    return float(np.log(shares).sum()), size * (len(fitted.classes_) - 1)


def reproduced(model: CausalModel, table: pl.DataFrame, n_bootstrap: int = 200, seed: int = 0) -> pl.DataFrame:
    """What the model draws beside the table: shares of values, quantiles of numbers, and shares of pairs of values.

    Returns:
        measure, value, low, high (of the table, over resampled rows), drawn, inside (`drawn` lies in the interval).
    """
    known = table.select(list(model.graph.kinds)).drop_nulls()
    drawn = model.sample(10 * len(known), seed=seed)
    resampling = Resampling(range(len(known)), n_bootstrap, seed)
    every = np.ones((1, len(drawn)))
    rows = []
    for (name, ours), (_, theirs) in zip(_measures(known, resampling.weights), _measures(drawn, every), strict=True):
        rows.append({"measure": name} | estimate(ours) | {"drawn": float(theirs[0])})
    return pl.DataFrame(rows).with_columns(inside=pl.col("drawn").is_between("low", "high"))


def _measures(table: pl.DataFrame, weights: np.ndarray) -> Any:
    """Names and values [B] of what is compared, for each row of weights."""
    shares = {}
    for name in table.columns:
        values = table[name].to_numpy()
        if table[name].dtype.is_float():
            order = np.argsort(values, kind="stable")
            total = weights[:, order].cumsum(axis=1)
            for q in QUANTILES:
                at = (total < q * total[:, -1:]).sum(axis=1)
                yield f"{name}, quantile {q}", values[order][at]
        else:
            shares[name] = values == np.unique(values)[-1]
            yield f"{name} = {np.unique(values)[-1]}", weights @ shares[name] / weights.sum(axis=1)
    for one, other in combinations(shares, 2):
        yield f"{one} and {other}", weights @ (shares[one] & shares[other]) / weights.sum(axis=1)
