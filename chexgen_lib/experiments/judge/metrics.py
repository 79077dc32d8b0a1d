"""The metrics of a judging: each for every generator, beside its floor and its ceilings, on the same patients.

The floor of a metric of sets is one half of the held-out radiographs against the other, at the generators' n; the
ceilings are images of independent Gaussian pixels and, where prompts matter, the generator's own images dealt to other
prompts. Distances of subgroups are kernel distances, which do not grow as the groups shrink.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import ESTIMATE, aurocs, difference, estimate, tidy
from chexgen_lib.estimates.measures import LEAST, auroc, auroc_interval, mean
from chexgen_lib.experiments.judge.bench import EVERYONE, GENERATOR, Arm, Bench, Group
from chexgen_lib.quality import told_apart
from chexgen_lib.quality.arms import FLOOR, NOISE
from chexgen_lib.quality.diversity import scales
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.factuality import UNDEFINED, score_correlation
from chexgen_lib.quality.frechet import resampled_distances
from chexgen_lib.quality.frechet_infinity import extrapolated
from chexgen_lib.quality.kernel_distance import kernel_distances, kernels
from chexgen_lib.quality.manifold import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, manifold
from chexgen_lib.quality.retrieval import ImageTextEncoder, ranks
from chexgen_lib.quality.spectrum import bands_of

FRECHET_RESAMPLES, FEWER = 200, 40  # a resample costs an SVD, too many of them for features wider than WIDE
WIDE = 256
EXTRAPOLATED_RESAMPLES = 100
RETRIEVED = (1, 5, 10)  # k of retrieval
TOLD = "AUROC of a linear classifier of other patients; 0.5: cannot be told from radiographs; interval given the fits"
LEAST_GROUP = 20  # patients of either side; smaller groups have no estimate
COLUMNS = ("metric", "group", "arm", "role", "better", *ESTIMATE, "n", "samples", "note")
Measure = Callable[[Bench, Arm, Group], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A property of a generator.

    Attributes:
        better: "lower", "higher", or "real" where the floor's value is best.
        arms: which of the bench's arms it applies to: "sets", "prompts" or "varieties".
        measure: values of an arm [1 + B], on the data and on the resamples.
        by_group: whether it is measured for subgroups, too.
        note: what to know of the number.
    """

    name: str
    better: str
    arms: str
    measure: Measure
    by_group: bool = False
    note: str = ""


def metrics(embedders: Sequence[Embedder], resolution: int) -> list[Metric]:
    """All metrics, in the order of the table."""
    return [
        *(metric for e in embedders for metric in _of_sets(e)),
        *_of_spectra(resolution),
        Metric("MS-SSIM", "real", "varieties", partial(_similarity, "MS-SSIM"), note=f"{scales(resolution)} scales"),
        Metric("SSIM", "real", "varieties", partial(_similarity, "SSIM")),
        Metric("Pearson r", "higher", "prompts", partial(_correlation, False)),
        Metric("Pearson r, within findings", "higher", "prompts", partial(_correlation, True), by_group=True),
        Metric("AUROC of requested findings", "higher", "prompts", _auroc, by_group=True),
        *(metric for e in embedders if hasattr(e, "texts") for metric in _of_texts(e)),
    ]


def _of_spectra(resolution: int) -> list[Metric]:
    energy = "share of the radiographs' energy at these cycles an image"
    bands = enumerate(bands_of(resolution))
    return [
        *(
            Metric(f"energy, {low}-{high}", "real", "sets", partial(_energy, k), note=energy)
            for k, (low, high) in bands
        ),
        Metric("told from real, spectrum", "lower", "sets", partial(_told, None), note=TOLD),
    ]


def _of_texts(encoder: ImageTextEncoder) -> list[Metric]:
    note = "share of samples whose own prompt is among the k most alike of all distinct prompts"
    return [
        Metric(f"R@{k}, {encoder.name}", "higher", "prompts", partial(_recall, encoder.name, k), note=note)
        for k in RETRIEVED
    ]


def _of_sets(embedder: Embedder) -> list[Metric]:
    e, dim = embedder.name, embedder.dim
    biased = "biased upwards the more the smaller n: compare at equal n, or by FID infinity"
    near = f"{PRECISION_NEIGHBOURS} neighbours; interval given both sets' neighbourhoods"
    dense = f"{DENSITY_NEIGHBOURS} neighbours; interval given both sets' neighbourhoods"
    return [
        Metric(f"FID-{e}", "lower", "sets", partial(_frechet, e, _frechet_resamples(dim)), note=biased),
        Metric(f"FID infinity-{e}", "lower", "sets", partial(_frechet_infinity, e, dim), note="bias of n extrapolated"),
        Metric(f"KID-{e}", "lower", "sets", partial(_kernel, e), by_group=True, note="unbiased at any n"),
        Metric(f"precision-{e}", "higher", "sets", partial(_manifold, e, "precision"), note=near),
        Metric(f"recall-{e}", "higher", "sets", partial(_manifold, e, "recall"), note=near),
        Metric(f"density-{e}", "higher", "sets", partial(_manifold, e, "density"), note=dense),
        Metric(f"coverage-{e}", "higher", "sets", partial(_manifold, e, "coverage"), note=dense),
        Metric(f"told from real, {e}", "lower", "sets", partial(_told, e), note=TOLD),
    ]


def table(bench: Bench) -> pl.DataFrame:
    """Every metric of every arm with its 95 % interval, and its difference from the first generator.

    Returns:
        `COLUMNS`: metric, group ("all", or "sex: F"), arm, role, better, the estimate and difference of
        `estimates.comparison`, n (prompts), samples (images of each), note. A number that cannot be measured is null,
        and the note says why.
    """
    groups = bench.groups()
    rows = []
    for metric in metrics(bench.instruments.embedders, bench.reference.resolution):
        for group in groups if metric.by_group else groups[:1]:
            rows += _rows(bench, metric, group)
    return tidy(rows, COLUMNS)


def _rows(bench: Bench, metric: Metric, group: Group) -> list[dict]:
    first = next(iter(bench.generators))
    arms, values, why = getattr(bench, metric.arms), {}, {}
    for name, arm in arms.items():
        try:
            if group.name != EVERYONE and len(group) < LEAST_GROUP:
                raise ValueError(f"fewer than {LEAST_GROUP} patients are prompted for, or compared with")
            values[name] = metric.measure(bench, arm, group)
        except ValueError as error:  # one arm that cannot be measured leaves the others their row
            why[name] = str(error)
    rows = []
    for name, arm in arms.items():
        row = {"metric": metric.name, "group": group.name, "arm": name, "role": arm.role, "better": metric.better}
        row |= {"n": int(group.prompted.sum()), "samples": arm.samples, "note": why.get(name, metric.note)}
        if name in values:
            row |= estimate(values[name])
            if metric.note == TOLD:
                row |= _widened(row, bench)
            if name != first and first in values:
                row |= difference(values[name] - values[first])
        rows.append(row)
    return rows


def _widened(row: dict, bench: Bench) -> dict[str, float]:
    """The interval of an AUROC of samples against radiographs, at least that of as many patients (it may be 1)."""
    low, high = auroc_interval(row["value"], bench.patients.patients, bench.of_others.patients)
    return {"low": min(low, row["low"]), "high": max(high, row["high"])}


def beside(found: pl.DataFrame, metric: str, group: str = EVERYONE) -> dict[str, dict]:
    """The rows of a metric by arm."""
    return {row["arm"]: row for row in found.filter(metric=metric, group=group).iter_rows(named=True)}


def overlapping(found: pl.DataFrame, metric: str) -> dict[str, list[str]]:
    """For each generator that has an estimate: the bounds of the metric whose intervals overlap with its own."""
    rows = beside(found, metric)
    measured = {name: row for name, row in rows.items() if row["low"] is not None}
    near = {}
    for name, row in measured.items():
        if row["role"] == GENERATOR:
            bounds = {arm: r for arm, r in measured.items() if arm.startswith(f"{name}, ") or arm in (FLOOR, NOISE)}
            near[name] = [arm for arm, r in bounds.items() if row["low"] <= r["high"] and r["low"] <= row["high"]]
    return near


# The measures


def _frechet_resamples(dim: int) -> int:
    return FRECHET_RESAMPLES if dim <= WIDE else FEWER


def _frechet(embedder: str, most: int, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    weights = (resampling.weights[: 1 + most] for resampling in (bench.of_others, bench.patients))
    return resampled_distances(bench.others[embedder], {"arm": arm.features[embedder]}, *weights)["arm"]


def _frechet_infinity(embedder: str, dim: int, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    patients = bench.of_others.patient_of, bench.patients.patient_of
    most = min(EXTRAPOLATED_RESAMPLES, _frechet_resamples(dim), len(bench.patients))
    return extrapolated(bench.others[embedder], arm.features[embedder], patients, most, bench.seed)


def _kernel(embedder: str, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    here, there = bench.patients.weights * group.prompted, bench.of_others.weights * group.others
    samples = np.moveaxis(arm.features[embedder], 1, 0)
    return np.mean([kernel_distances(kernels(x, bench.others[embedder]), here, there) for x in samples], 0)


def _manifold(embedder: str, measure: str, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    samples = np.moveaxis(arm.features[embedder], 1, 0)
    values = np.mean([getattr(manifold(bench.others[embedder], x), measure) for x in samples], 0)
    resampling = bench.patients if measure in ("precision", "density") else bench.of_others
    return mean(values, resampling.weights)


def _energy(band: int, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    own = mean(arm.energy[..., band].mean(1), bench.patients.weights)
    return own / mean(bench.energy_of_others[:, band], bench.of_others.weights)


def _told(embedder: str | None, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    """AUROC [1 + B] of samples against radiographs, by an embedder's features or (None) the logarithm of energies."""
    if embedder is None:
        real, samples = (np.log(energy + 1e-12) for energy in (bench.energy_of_others, arm.energy))
    else:
        real, samples = bench.others[embedder], arm.features[embedder]
    of, here = bench.of_others.patient_of, bench.patients.patient_of
    found = told_apart.scores(real, samples, np.concatenate([of, of.max() + 1 + here]), bench.seed)
    weights = np.concatenate([bench.of_others.weights, bench.patients.weights.repeat(arm.samples, axis=1)], axis=1)
    return auroc((np.arange(len(found)) >= len(real)).astype(float), found, weights)


def _similarity(name: str, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    if not arm.similarity:
        raise ValueError("needs two images of a prompt")
    weights = bench.patients.weights
    return mean(arm.similarity[name], weights[:, bench.pairs].prod(-1) if arm.apart else weights)


def _correlation(within: bool, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    """Pearson r of the scores with those of the prompts' own radiographs."""
    weights = bench.patients.weights * group.prompted
    r = score_correlation(arm.scores, bench.real.scores[:, 0], weights, within)
    if np.isnan(r[0]):
        raise ValueError(UNDEFINED)
    return r


def _recall(encoder: str, k: int, bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    found = ranks(arm.features[encoder], bench.texts[encoder], bench.own_text) < k
    return mean(found.mean(1), bench.patients.weights)


def _auroc(bench: Bench, arm: Arm, group: Group) -> np.ndarray:
    """Mean AUROC of the scores for the requested findings."""
    labels = np.where(group.prompted[:, None], bench.labels, np.nan)
    return aurocs(np.moveaxis(arm.scores, 1, 0)[None], labels, bench.patients, LEAST)[0, :, -1]
