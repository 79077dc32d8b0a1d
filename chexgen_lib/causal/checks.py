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
TESTS = {
    **dict.fromkeys(("variable", "other", "given"), pl.String),
    "n": pl.Int64,
    **dict.fromkeys(("gain", "p"), pl.Float64),
}


def independences(table: pl.DataFrame, graph: Graph, rows: int = 20_000, seed: int = 0) -> pl.DataFrame:
    """Tests of what a graph leaves out: each variable against all earlier ones that are not its causes.

    Likelihood-ratio tests of regressions without interactions on at most `rows` rows in which all are known. Large
    tables reject graphs that are nearly right: `gain` is what matters, the log likelihood that the left-out variable
    adds for each row, in thousandths of a nat. Rows count as independent: of a table with several of most patients give
    one of each.

    Returns:
        variable, other, given, n, gain, p, violated (p below `LEVEL` over the number of tests); no row for a graph that
        leaves nothing out.
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
    tests = pl.DataFrame(found, TESTS).sort("gain", descending=True, maintain_order=True)
    return tests.with_columns(violated=pl.col("p") < LEVEL / max(len(tests), 1))


def _fitted(known: pl.DataFrame, graph: Graph, variable: str, causes: list[str]) -> tuple[float, int]:
    """Log likelihood of a regression of a variable on causes, and its number of parameters."""
    constant = np.ones((len(known), 1))  # which splines contain, and indicators of choices do not
    features = encoder(graph, causes).fit_transform(known.select(causes)) if causes else constant
    values = known[variable].to_numpy()
    dense = features.toarray() if hasattr(features, "toarray") else features
    size = np.linalg.matrix_rank(np.hstack([constant, dense]))
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
        measure, value, low, high (of the table, over resampled patients), drawn, inside (`drawn` lies in the interval).
    """
    known, patients = model.graph.complete(table)
    drawn = model.sample(10 * len(known), seed=seed)
    resampling = Resampling(patients, n_bootstrap, seed)
    every = np.ones((1, len(drawn)))
    measures = (_measures(*of, model) for of in ((known, resampling.weights), (drawn, every)))
    rows = []
    for (name, ours), (_, theirs) in zip(*measures, strict=True):
        rows.append({"measure": name} | estimate(ours) | {"drawn": float(theirs[0])})
    return pl.DataFrame(rows).with_columns(inside=pl.col("drawn").is_between("low", "high"))


def _measures(table: pl.DataFrame, weights: np.ndarray, model: CausalModel) -> Any:
    """Names and values [B] of what is compared, for each row of weights; of two values of a choice, the second."""
    shares = {}
    for name, kind in model.graph.kinds.items():
        values = table[name].to_numpy()
        if kind == "number":
            order = np.argsort(values, kind="stable")
            total = weights[:, order].cumsum(axis=1)
            for q in QUANTILES:
                at = (total < q * total[:, -1:]).sum(axis=1)
                yield f"{name}, quantile {q}", values[order][at]
            continue
        levels = model.functions[name].values
        for level in levels if len(levels) > 2 else levels[-1:]:
            label = f"{name} = {level}"
            shares[name, label if len(levels) > 2 else name] = values == level
            yield label, weights @ (values == level) / weights.sum(axis=1)
    for (one, other), (first, second) in zip(combinations(shares, 2), combinations(shares.values(), 2), strict=True):
        if one[0] != other[0]:
            yield f"{one[1]} and {other[1]}", weights @ (first & second) / weights.sum(axis=1)
