"""What a reader study found: agreement with the report, real against synthetic, findings with and without a sample.

Every interval is a percentile bootstrap over cases and, where it covers all readers, over readers as well
(`estimates`: a case takes the place of a patient, a reader that of a seed). With two or three readers it says little
about others; each reader's own row has an interval over cases alone.

Signal detection (Macmillan and Creelman 2005): a synthetic image called synthetic is a hit, a real one so called a
false alarm; d' = z(hits) - z(false alarms) and bias c = -(z(hits) + z(false alarms)) / 2, above 0 for a reader who says
"real" too readily. Both with 0.5 added to counts and 1 to totals (Hautus 1995), which keeps them finite. For pairs,
d' = sqrt(2) z(share correct).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from scipy.stats import norm

from chexgen_lib.estimates.comparison import ESTIMATE, compare, estimate, tidy
from chexgen_lib.estimates.measures import SHARE, mean, range_of
from chexgen_lib.estimates.resampling import LEVEL, Resampling
from chexgen_lib.quality.reader_study import ANCHORS
from chexgen_lib.quality.readers.kappa import kappa
from chexgen_lib.quality.readers.material import ALONE, REAL
from chexgen_lib.records import FINDINGS

EVERYONE = "all readers"
CHANCE = "chance"
COLUMNS = ("task", "measure", "arm", "reader", *ESTIMATE, "patients", "seeds")
Measure = Callable[[pl.DataFrame, Resampling], Mapping[str, np.ndarray]]  # one reader -> arm -> [1 + B, M]


def analyse(
    answers: pl.DataFrame, key: Mapping, baseline: str = REAL, resamples: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Every result of a study in one table.

    Args:
        answers: `answers.read`.
        baseline: arm that the agreement of the others is compared with.

    Returns:
        task, measure, arm, reader, `ESTIMATE`, cases, readers. Differences are from `baseline` (agreement), from
        chance (realism, pairs) or from reading alone (assisted); kappa has none.

    Raises:
        ValueError: for an unknown baseline.
    """
    if baseline not in key["arms"]:
        raise ValueError(f"baseline {baseline!r} is not among the arms {key['arms']}")
    tables = []
    for task in key["tasks"]:
        rows = answers.filter(task=task)
        resampling = Resampling(_cases(rows), resamples, seed)
        names, measure, reference = _of_task(task, key, baseline)
        groups = rows.partition_by("reader", as_dict=True, maintain_order=True)
        values = {reader: measure(own, resampling) for (reader,), own in groups.items()}
        every = {EVERYONE: list(values.values())} if len(values) > 1 else {}
        for reader, of in (every | {name: [value] for name, value in values.items()}).items():
            arms = {arm: np.stack([one[arm] for one in of]) for arm in of[0]}
            about = [{"task": task, "measure": name} for name in names]
            table = compare(arms, about, resampling, reference).filter(pl.col("arm") != CHANCE)
            tables.append(_uncertain(table).with_columns(reader=pl.lit(reader)))
        if task != "assisted":
            tables.append(_kappas(rows, task, resampling))
    table = pl.concat([t.select(COLUMNS).cast({"patients": pl.Int64, "seeds": pl.Int64}) for t in tables if len(t)])
    return table.rename({"patients": "cases", "seeds": "readers"})


def _of_task(task: str, key: Mapping, baseline: str) -> tuple[Sequence[str], Measure, str]:
    """Names of a task's measures, the function that measures one reader, and the arm to compare with."""
    if task == "agreement":
        return ["mean score"], _agreement, baseline
    if task == "realism":
        return ["accuracy", "d'", "bias c", "called synthetic", "real called synthetic"], _realism, CHANCE
    if task == "pairs":
        return ["accuracy", "d'"], _pairs, CHANCE
    labels = {case["image_id"]: np.array([case[f] for f in FINDINGS], float) for case in key["cases"]}
    names = ["balanced accuracy", "sensitivity", "specificity"]
    return names, lambda rows, resampling: _assisted(rows, resampling, labels), ALONE


def _uncertain(table: pl.DataFrame) -> pl.DataFrame:
    """A table of `compare` in which a share of none or of all has an interval, too: the exact one of as many cases.

    Resamples of readers who are always right are always right.
    """
    rows = table.to_dicts()
    for row in rows:
        if row["value"] not in (0, 1) or range_of(row["measure"]) != SHARE:
            continue
        least = ((1 - LEVEL) / 2) ** (1 / row["patients"])  # of all: the share at which they would be all so seldom
        end, inner = ("low", least) if row["value"] == 1 else ("high", 1 - least)
        row[end] = min(row[end], inner) if end == "low" else max(row[end], inner)
        if row["measure"] == "accuracy":  # against chance
            row[f"difference_{end}"] = row[end] - 0.5
            row["p"] = min(max(row["p"], 2 * 0.5 ** row["patients"]), 1.0)
    return pl.DataFrame(rows, schema=table.schema)


def _cases(rows: pl.DataFrame) -> list[str]:
    return sorted(set(rows["case"]))


def coded(rows: pl.DataFrame, task: str) -> pl.DataFrame:
    """Rows with the column `code`: the score; 1 for "synthetic"; 1 for the real image of a pair."""
    if task == "agreement":
        return rows.with_columns(code=pl.col("answer").cast(pl.Float64))
    if task == "realism":
        return rows.with_columns(code=pl.col("answer").eq("synthetic").cast(pl.Float64))
    chosen = pl.col("films").list.get(pl.col("answer").eq("B").cast(pl.Int64))
    return rows.with_columns(code=chosen.eq(REAL).cast(pl.Float64))


def _by_case(rows: pl.DataFrame, arm: str) -> np.ndarray:
    """Mean code of an arm's images over the passes [N], in the order of the cases."""
    return rows.filter(arm=arm).group_by("case").agg(pl.mean("code")).sort("case")["code"].to_numpy()


def _agreement(rows: pl.DataFrame, resampling: Resampling) -> dict[str, np.ndarray]:
    rows = coded(rows, "agreement")
    arms = sorted(set(rows["arm"]))
    return {arm: mean(_by_case(rows, arm), resampling.weights)[:, None] for arm in arms}


def _realism(rows: pl.DataFrame, resampling: Resampling) -> dict[str, np.ndarray]:
    rows = coded(rows, "realism")
    total, passes = resampling.weights.sum(1), rows["pass"].n_unique()
    false_alarms = mean(_by_case(rows, REAL), resampling.weights)
    values = {CHANCE: np.broadcast_to([0.5, 0, 0, np.nan, np.nan], (len(total), 5))}
    for arm in sorted(set(rows["arm"]) - {REAL}):
        hits = mean(_by_case(rows, arm), resampling.weights)
        z = [norm.ppf((share * total * passes + 0.5) / (total * passes + 1)) for share in (hits, false_alarms)]
        accuracy = (hits + 1 - false_alarms) / 2
        values[arm] = np.stack([accuracy, z[0] - z[1], -(z[0] + z[1]) / 2, hits, false_alarms], 1)
    return values


def _pairs(rows: pl.DataFrame, resampling: Resampling) -> dict[str, np.ndarray]:
    rows = coded(rows, "pairs")
    cases, passes = _cases(rows), rows["pass"].n_unique()
    values = {CHANCE: np.broadcast_to([0.5, 0], (len(resampling.weights), 2))}
    for arm in sorted(set(rows["arm"])):
        own = set(rows.filter(arm=arm)["case"])  # each case is shown with one generator
        weights = resampling.weights[:, [case in own for case in cases]]
        right, total = mean(_by_case(rows, arm), weights), weights.sum(1)
        share = (right * total * passes + 0.5) / (total * passes + 1)
        values[arm] = np.stack([right, np.sqrt(2) * norm.ppf(share)], 1)
    return values


def _assisted(rows: pl.DataFrame, resampling: Resampling, labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Over all findings whose label is known: sensitivity, specificity and their mean."""
    values = {}
    for arm in sorted(set(rows["arm"]), key=lambda arm: (arm != ALONE, arm)):
        own = rows.filter(arm=arm).sort("case")
        truth = np.stack([labels[case] for case in own["case"]])  # [N, 14]
        said = np.array([[finding in answer.split(";") for finding in FINDINGS] for answer in own["answer"]])
        shares = []
        for state in (1, 0):
            right, known = (said == state) & (truth == state), truth == state
            with np.errstate(invalid="ignore", divide="ignore"):
                shares.append((resampling.weights @ right.sum(1)) / (resampling.weights @ known.sum(1)))
        values[arm] = np.stack([sum(shares) / 2, *shares], 1)
    return values


def _kappas(rows: pl.DataFrame, task: str, resampling: Resampling) -> pl.DataFrame:
    """Kappa between readers (first pass) and within each (first against second), with intervals over cases alone."""
    rows = coded(rows, task).sort("case", "arm")
    codes = list(ANCHORS) if task == "agreement" else [0, 1]
    case = rows.filter(pl.col("pass") == 1, reader=rows["reader"][0])["case"]
    weights = resampling.weights[:, np.searchsorted(_cases(rows), case.to_list())]
    ratings = {key: own["code"].to_numpy() for key, own in rows.partition_by("reader", "pass", as_dict=True).items()}
    readers = sorted(set(rows["reader"]))
    between = {f"{a}, {b}": (ratings[a, 1], ratings[b, 1]) for a, b in combinations(readers, 2)}
    within = {reader: (ratings[reader, 1], ratings[reader, 2]) for reader in readers if (reader, 2) in ratings}
    found = []
    for measure, pairs in (("kappa between readers", between), ("kappa within reader", within)):
        values = {name: kappa(*pair, weights, codes) for name, pair in pairs.items()}
        if len(values) > 1:
            values = {EVERYONE: np.mean(list(values.values()), 0)} | values
        found += [{"measure": measure, "reader": name} | estimate(value) for name, value in values.items()]
    same = {"task": task, "arm": "all", "patients": resampling.patients, "seeds": len(readers)}
    return tidy([same | row for row in found], COLUMNS)
