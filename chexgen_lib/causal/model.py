"""A structural causal model: each variable is a function of its causes and of a noise of its own in 0..1.

    model = CausalModel.fit(table, read_graph())
    model.sample(1000, do={"age": 80})                   # a cohort of an intervention
    model.counterfactual(table, do={"view": "AP"})       # the same patients, had the view been another

The functions are monotone in the noise, so that abduction is exact: for a number the noise is its conditional
distribution function at the value; for a choice, and for a number that many have, it is uniform on the interval of
noises that lead to the value, and any draw from there leads back to it. Rows in which a variable or a cause is unknown
do not take part in its fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

from chexgen_lib.causal.graph import CausalError, Graph
from chexgen_lib.checks import check_count

KNOTS = 5  # of the splines of a number
COMMON = 0.05  # share of rows from which on a value of a number is one of many
# Of the logistic regressions (C, scikit-learn's inverse strength): as weak as keeps separable rows finite. A stronger
# one shrinks what the causes explain, so that interventions keep a part of the confounding that they should remove.
PENALTY = 1000.0


@dataclass(frozen=True)
class Number:
    """A conditional flow: normal scores of the value, shifted and scaled by the causes.

    A value that many rows have, as the 0 of a dose or each value of a count, is an interval of scores, like a value of
    a choice: who has it may have any noise that leads to it. Between others the map to scores is interpolated.

    Attributes:
        values, scores: knots of the map to normal scores, which never falls.
        mean: predicts the score from the causes; None without any.
        spread: of the score around it.
        common, ends: values that many rows have, sorted [K], and the scores between which they lie [K, 2].
    """

    values: np.ndarray
    scores: np.ndarray
    mean: Pipeline | None
    spread: float
    common: np.ndarray
    ends: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, causes: Pipeline | None, known: Any) -> "Number":
        knots, counts = np.unique(values, return_counts=True)
        scores = stats.norm.ppf((counts.cumsum() - counts / 2) / len(values))
        score = np.interp(values, knots, scores)
        mean = None if causes is None else make_pipeline(causes, LinearRegression()).fit(known, score)
        left = score - (0 if mean is None else mean.predict(known))
        often = counts > max(COMMON * len(values), 5)
        ends = stats.norm.ppf(np.stack([counts.cumsum() - counts, counts.cumsum()], axis=1) / len(values))
        at = np.where(often[:, None], ends, scores[:, None]).ravel()
        kept = np.isfinite(at)  # beyond the first and the last there is nothing
        return cls(knots.repeat(2)[kept], at[kept], mean, float(left.std()), knots[often], ends[often])

    def noise(self, values: np.ndarray, causes: Any, random: np.random.Generator) -> np.ndarray:
        """[N] of values [N]; of `common` ones drawn from the interval of each."""

        def below(scores: np.ndarray) -> np.ndarray:
            return stats.norm.cdf((scores - self._mean(causes)) / self.spread)

        single = below(np.interp(values, self.values, self.scores))
        if not len(self.common):
            return single
        at = np.searchsorted(self.common, values).clip(max=len(self.common) - 1)
        low, high = (below(end) for end in self.ends[at].T)
        drawn = low + (high - low) * random.uniform(0, 1, len(values))
        return np.where(self.common[at] == values, drawn, single)

    def value(self, noise: np.ndarray, causes: Any) -> np.ndarray:
        """[N] of noises [N]."""
        return np.interp(self._mean(causes) + self.spread * stats.norm.ppf(noise), self.scores, self.values)

    def _mean(self, causes: Any) -> np.ndarray | float:
        return 0.0 if self.mean is None else self.mean.predict(causes)


@dataclass(frozen=True)
class Choice:
    """One of K values, by logistic regression on the causes; noises from 0 to 1 pass through them in order.

    Attributes:
        values: [K], sorted.
        shares: [K] without causes.
        model: predicts the shares; None without causes.
    """

    values: np.ndarray
    shares: np.ndarray
    model: Pipeline | None

    @classmethod
    def fit(cls, values: np.ndarray, causes: Pipeline | None, known: Any) -> "Choice":
        names, counts = np.unique(values, return_counts=True)
        regression = LogisticRegression(C=PENALTY, max_iter=1000)
        model = None if causes is None else make_pipeline(causes, regression).fit(known, values)
        return cls(names, counts / counts.sum(), model)

    def noise(self, values: np.ndarray, causes: Any, random: np.random.Generator) -> np.ndarray:
        """[N] of values [N]: drawn from the interval of each."""
        ends = self._ends(causes, len(values))
        at = np.searchsorted(self.values, values)
        high = ends[np.arange(len(values)), at]
        low = np.where(at > 0, ends[np.arange(len(values)), np.maximum(at - 1, 0)], 0.0)
        return low + (high - low) * random.uniform(0, 1, len(values))

    def value(self, noise: np.ndarray, causes: Any) -> np.ndarray:
        """[N] of noises [N]."""
        beyond = noise[:, None] >= self._ends(causes, len(noise))[:, :-1]
        return self.values[beyond.sum(axis=1)]

    def _ends(self, causes: Any, n: int) -> np.ndarray:
        """Upper ends of the values' intervals, [N, K]."""
        shares = np.tile(self.shares, (n, 1)) if self.model is None else self.model.predict_proba(causes)
        return shares.cumsum(axis=1)


FUNCTIONS = {"number": Number, "choice": Choice}


@dataclass(frozen=True)
class CausalModel:
    """A fitted model.

    Attributes:
        graph: its graph.
        functions: variable -> what it is made by.
        rows: variable -> how many rows its function was fitted on.
    """

    graph: Graph
    functions: dict[str, Number | Choice]
    rows: dict[str, int]

    @classmethod
    def fit(cls, table: pl.DataFrame, graph: Graph) -> "CausalModel":
        """Fit every variable on the rows in which it and its causes are known.

        Raises:
            CausalError: for a variable that the table lacks, does not vary, or is never known with its causes.
        """
        graph.check_table(table)
        functions, rows = {}, {}
        for variable in graph.order:
            causes = graph.parents[variable]
            known = table.select(variable, *causes).drop_nulls()
            if known[variable].n_unique() < 2:
                raise CausalError(f"{variable}: hardly ever known together with {', '.join(causes)}: take an arrow out")
            features = encoder(graph, causes) if causes else None
            make = FUNCTIONS[graph.kinds[variable]].fit
            functions[variable] = make(known[variable].to_numpy(), features, _frame(known, causes))
            rows[variable] = len(known)
        return cls(graph, functions, rows)

    def sample(self, n: int, do: Mapping[str, Any] | None = None, seed: int = 0) -> pl.DataFrame:
        """`n` rows, with the variables of `do` set to its values. Raises ValueError unless n is 1 or more."""
        check_count("n", n)
        random = np.random.default_rng(seed)
        return self.predict(pl.DataFrame({v: random.uniform(0, 1, n) for v in self.graph.order}), do)

    def abduct(self, table: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
        """The noise of each variable in each row. Raises CausalError for rows with unknown values."""
        self.graph.check_columns(table)
        if table.is_empty():
            raise CausalError("the table has no row: give one or more")
        if unknown := [v for v in self.graph.order if table[v].null_count()]:
            raise CausalError(f"{unknown[0]} is unknown in {table[unknown[0]].null_count()} rows: give whole rows")
        for variable in self.graph.order:
            for value in table[variable].unique():
                self.check_value(variable, value)
        random = np.random.default_rng(seed)
        noise = {
            v: self.functions[v].noise(table[v].to_numpy(), _frame(table, self.graph.parents[v]), random)
            for v in self.graph.order
        }
        return pl.DataFrame(noise)

    def predict(self, noise: pl.DataFrame, do: Mapping[str, Any] | None = None) -> pl.DataFrame:
        """The table that noise leads to, under an intervention."""
        do = dict(do or {})
        for variable, value in do.items():
            self.check_value(variable, value)
        made: dict[str, pl.Series] = {}
        for v in self.graph.order:
            if v in do:
                made[v] = pl.Series(v, [do[v]] * len(noise))
            else:
                causes = _frame(pl.DataFrame(made), self.graph.parents[v])
                made[v] = pl.Series(v, self.functions[v].value(noise[v].to_numpy(), causes))
        return pl.DataFrame(made).select(list(self.graph.kinds))

    def counterfactual(self, table: pl.DataFrame, do: Mapping[str, Any], seed: int = 0) -> pl.DataFrame:
        """The rows of a table as they would be under an intervention: what it does not cause stays as it is."""
        found = self.predict(self.abduct(table, seed), do)
        caused = set(do).union(*map(self.graph.descendants, do))
        return found.with_columns(table[v] for v in self.graph.kinds if v not in caused)  # to the last digit, too

    def check_value(self, variable: str, value: Any) -> None:
        """Raise CausalError for an unknown variable, or a value of one that the table does not support."""
        if variable not in self.functions:
            raise CausalError(f"{variable!r} is no variable of the graph: use one of {', '.join(self.graph.kinds)}")
        known = self.functions[variable].values
        if self.graph.kinds[variable] == "choice" and value not in known:
            raise CausalError(f"{variable} = {value!r}: fitted on {', '.join(map(str, known))} alone")
        if self.graph.kinds[variable] == "number":
            if not isinstance(value, Real) or not known[0] <= value <= known[-1]:
                raise CausalError(f"{variable} = {value!r}: fitted on {known[0]:g} to {known[-1]:g} alone")


def encoder(graph: Graph, causes: list[str]) -> Any:
    """Features of causes for a regression: splines of numbers, indicators of choices."""
    numbers = [v for v in causes if graph.kinds[v] == "number"]
    choices = [v for v in causes if graph.kinds[v] == "choice"]
    return make_column_transformer(
        (SplineTransformer(KNOTS, extrapolation="linear"), numbers), (OneHotEncoder(drop="first"), choices)
    )


def _frame(table: pl.DataFrame, columns: list[str]) -> Any:
    """The causes as scikit-learn takes columns by name; None where there are none."""
    return table.select(columns) if columns else None
