"""Quality of generated radiographs: fidelity, diversity, factual correctness, copies of training images (Figure 2).

`evaluate` measures any generator, and others beside it, from arrays alone. What it measures is the list of `Metric`s
that `metrics` returns: Figure 2 plots those with an axis, and the paper's numbers stand beside those that name a paper
metric. Each number stands beside its bounds: real images against others, the same samples permuted among the prompts,
independent Gaussian pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.estimates import wording
from chexgen_lib.estimates.comparison import aurocs, difference, estimate, paired_wilcoxon
from chexgen_lib.estimates.measures import mean
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.paper import published
from chexgen_lib.quality.arms import DIFFERENCE, FLOOR, GENERATOR, IGNORES, NOISE, REAL
from chexgen_lib.quality.bench import Bench, Scorer
from chexgen_lib.quality.diversity import scales
from chexgen_lib.quality.embedders import Embedder, XrvEmbedder, make
from chexgen_lib.quality.factuality import UNDEFINED, same_findings, score_correlation, score_errors
from chexgen_lib.quality.frechet import halves, resampled_distances
from chexgen_lib.quality.held_out import HeldOut
from chexgen_lib.quality.neighbours import CLOSER, RATIO, Neighbours
from chexgen_lib.storage import read_arrays

NEW_TEXTS = "new texts"  # suffix of metrics: of the prompts that stand nowhere in training
FRAMES = ("table", "per_finding", "published")  # of an `Evaluation`
FRECHET_RESAMPLES = 200  # each costs eigenvalues, or a singular value decomposition, for every arm


@dataclass(frozen=True)
class Measured:
    """One arm by one metric: its values on the data and on B resamples [1 + B], and what they are of.

    n counts prompts or images, samples the samples averaged for each prompt; p_wilcoxon compares the arm with this run,
    prompt by prompt (two-sided).
    """

    resampled: np.ndarray
    n: int
    samples: int
    p_wilcoxon: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """A property of a generator to measure.

    Attributes:
        name: as in tables and figures.
        better: "lower" or "higher".
        measure: arms that the metric applies to, from what all metrics share.
        axis: of its panel in Figure 2a, "linear" or "log"; None: it has none.
        paper: the paper's metric of Figure 2a that it corresponds to.
        differs: why the two numbers are nevertheless not on one scale.
    """

    name: str
    better: str
    measure: Callable[[Bench], dict[str, Measured]]
    axis: str | None = None
    paper: str | None = None
    differs: str = ""


def metrics(embedders: Sequence[Embedder]) -> list[Metric]:
    """All metrics, in the order of the table. The paper's embedders are CLIP and XRV, in this order."""
    first, *others = embedders
    return [
        *_frechet_metrics(first, "FID-CLIP"),
        Metric(f"memorisation, {RATIO}", "higher", partial(_memorisation, first, RATIO)),
        Metric(f"memorisation, {CLOSER}", "lower", partial(_memorisation, first, CLOSER)),
        *(m for k, e in enumerate(others) for m in _frechet_metrics(e, None if k else "FID-XRV")),
        Metric("MS-SSIM", "lower", partial(_similarity, "MS-SSIM"), "linear", "MS-SSIM", "512 px, SSIM or MS-SSIM"),
        Metric("SSIM", "lower", partial(_similarity, "SSIM")),
        Metric(
            "Pearson r",
            "higher",
            partial(_correlation, False, False),
            "linear",
            "Pearson r",
            "scores of XRV (MIMIC-CXR)",
        ),
        Metric("Pearson r, within findings", "higher", partial(_correlation, False, True)),
        Metric("Pearson r with labels", "higher", partial(_correlation, True, False)),
        Metric("Pearson r with labels, within findings", "higher", partial(_correlation, True, True)),
        Metric("AUROC of requested findings", "higher", _requested_auroc),
        *_of_new_texts(
            Metric(f"memorisation, {RATIO}", "higher", partial(_memorisation, first, RATIO)),
            Metric("Pearson r", "higher", partial(_correlation, False, False)),
            Metric("Pearson r, within findings", "higher", partial(_correlation, False, True)),
            Metric("AUROC of requested findings", "higher", _requested_auroc),
        ),
    ]


def _of_new_texts(*metrics: Metric) -> list[Metric]:
    """Metrics of the prompts that stand nowhere in training; none where they are too few."""

    def measure(metric: Metric, bench: Bench) -> dict[str, Measured]:
        return {} if bench.new_texts is None else metric.measure(bench.new_texts)

    return [Metric(f"{m.name}, {NEW_TEXTS}", m.better, partial(measure, m)) for m in metrics]


def _frechet_metrics(embedder: Embedder, paper: str | None) -> list[Metric]:
    name = f"FID-{embedder.name}"
    differs = f"features of {paper.removeprefix('FID-')}, n = 3,500" if paper else ""
    return [
        Metric(name, "lower", partial(_frechet, embedder), "log", paper, differs),  # pixel noise is far away
        Metric(f"{name}, all images", "lower", partial(_frechet_of_all, embedder)),
    ]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        table: metric, arm, value, low, high; `DIFFERENCE` from this run, paired within each resample; n, samples,
            p_wilcoxon, note (of `Measured`), better, axis (of `Metric`), seed. The arms are this run, other generators
            by name, and what bounds them.
        per_finding: `auroc_table` of the scorer, arm "synthetic" on the samples against the requested findings, arm
            "real" on the real images.
        features: embedder -> {"real" [N, D], "synthetic" [N, D] (first sample of each prompt)}, for t-SNE.
        nearest: nearest training image of every sample, rows in the order of synthetic.reshape(N * S, ...).
        published: metric, paper, differs (of `Metric`), of those that correspond to one of the paper's.
    """

    table: pl.DataFrame
    per_finding: pl.DataFrame
    features: dict[str, dict[str, np.ndarray]]
    nearest: Neighbours
    published: pl.DataFrame

    def row(self, metric: str, arm: str) -> dict:
        """One row of the table."""
        return self.table.row(by_predicate=(pl.col("metric") == metric) & (pl.col("arm") == arm), named=True)

    def save(self, folder: Path) -> None:
        """Write it as files of `folder`, which `load` reads."""
        for name in FRAMES:
            getattr(self, name).write_parquet(folder / f"{name}.parquet")
        arrays = {f"{name}/{arm}": x for name, own in self.features.items() for arm, x in own.items()}
        np.savez(folder / "features.npz", **arrays)
        np.savez(folder / "nearest.npz", index=self.nearest.index, distance=self.nearest.distance)

    @classmethod
    def load(cls, folder: Path) -> "Evaluation":
        """What `save` wrote."""
        frames = {name: pl.read_parquet(folder / f"{name}.parquet", glob=False) for name in FRAMES}
        features: dict[str, dict[str, np.ndarray]] = {}
        for key, x in read_arrays(folder / "features.npz").items():
            name, _, arm = key.rpartition("/")
            features.setdefault(name, {})[arm] = x
        return cls(**frames, features=features, nearest=Neighbours(**read_arrays(folder / "nearest.npz")))


def evaluate(
    data: HeldOut, scorer: Scorer, embedders: Sequence[Embedder], *, n_resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Measure a generator, and others beside it, on held-out prompts.

    The first embedder also finds the nearest training images.
    """
    if not embedders:
        raise ValueError("embedders: needs at least one")
    bench, rows = Bench.of(data, scorer, embedders, n_resamples, seed), []
    rivals = {name: bench.of_rival(samples, scorer) for name, samples in data.rivals.items()}
    measured = metrics(embedders)
    for metric in measured:
        arms = metric.measure(bench)
        arms |= {name: own for name, rival in rivals.items() if (own := metric.measure(rival).get(GENERATOR))}
        for arm, m in arms.items():
            about = {"n": m.n, "samples": m.samples, "p_wilcoxon": m.p_wilcoxon, "note": m.note}
            own = {"better": metric.better, "axis": metric.axis, "seed": seed}
            apart = dict.fromkeys(DIFFERENCE)
            apart |= {} if arm == GENERATOR else difference(m.resampled - arms[GENERATOR].resampled)
            rows.append({"metric": metric.name, "arm": arm} | estimate(m.resampled) | apart | about | own)
    features = {n: {"real": f["real"], "synthetic": f["synthetic"][:, 0]} for n, f in bench.features.items()}
    table = pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)
    published_ = [(m.name, m.paper, m.differs) for m in measured if m.paper]
    compared = pl.DataFrame(published_, dict.fromkeys(("metric", "paper", "differs"), pl.String), orient="row")
    return Evaluation(table, bench.per_finding, features, bench.neighbours, compared)


def evaluate_run(
    folder: Path,
    data: HeldOut,
    embedders: Sequence[str],
    scorer: str,
    classifier: Path | None,
    n_resamples: int,
    seed: int,
    device: str = "cpu",
) -> None:
    """`evaluate` with embedders and a scorer by name, saved in `folder` (for `kept`).

    Args:
        embedders: as `embedders.make` takes them.
        scorer: as `scorer_of` takes it.
        classifier: folder of the one that "classifier" stands for; None where nothing needs it.
    """
    network = None if classifier is None else Classifier.load(classifier, device)
    made = make(embedders, classifier=network, reference=data.train, device=device)
    by = scorer_of(scorer, classifier, device)
    evaluate(data, by, made, n_resamples=n_resamples, seed=seed).save(folder)


def scorer_of(name: str, classifier: Path | None, device: str = "cpu") -> Scorer:
    """The scorer `name`: "classifier", loaded from its folder, or "xrv" (the paper's MIMIC-CXR weights)."""
    return Classifier.load(classifier, device) if name == "classifier" else XrvEmbedder("mimic_ch", device=device)


def beside_paper(found: Evaluation) -> pl.DataFrame:
    """The paper's numbers of Figure 2a beside this run's: paper metric, paper, metric, this run, not comparable."""
    paper = dict(published.load("fig2a").filter(arm="ChexGen").select("metric", "value").iter_rows())
    rows = []
    for metric, name, differs in found.published.iter_rows():
        r = found.row(metric, GENERATOR)
        value = f"{wording.estimate(r, digits=2)}, n = {r['n']}"
        rows.append((name, paper[name], metric, value, f"paper: {differs}"))
    return pl.DataFrame(rows, ["paper metric", "paper", "metric", "this run", "not comparable"], orient="row")


def verdicts(found: Evaluation) -> pl.DataFrame:
    """This run's verdicts by the paired differences: each metric of Figure 2a against every other arm."""
    rows = []
    others = found.table.filter(pl.col("arm") != GENERATOR, pl.col("axis").is_not_null())
    for r in others.drop_nulls("difference_low").iter_rows(named=True):
        above, below = r["difference_high"] < 0, r["difference_low"] > 0
        better, worse = (above, below) if r["better"] == "higher" else (below, above)
        rows.append((r["metric"], r["arm"], "better" if better else "worse" if worse else "not told apart"))
    return pl.DataFrame(rows, ["metric", "against", "this run is"], orient="row")


# The metrics: arms and their values from a Bench.


def _frechet(embedder: Embedder, bench: Bench) -> dict[str, Measured]:
    """All arms against one half of the real images, at the n of the other half, which is the floor."""
    f, weights = bench.features[embedder.name], bench.resampling.weights[: 1 + FRECHET_RESAMPLES]
    left, right = halves(bench.data.patients, bench.seed)
    arms = {FLOOR: f["real"][right], GENERATOR: f["synthetic"][right], NOISE: f["noise"][right]}
    note = "half of the real images against as many others, as the floor is"
    found = resampled_distances(f["real"][left], bench.measured(arms), weights[:, left], weights[:, right])
    return {
        arm: Measured(v, len(right), bench.samples if arm == GENERATOR else 1, note=note) for arm, v in found.items()
    }


def _frechet_of_all(embedder: Embedder, bench: Bench) -> dict[str, Measured]:
    f, weights = bench.features[embedder.name], bench.resampling.weights[: 1 + FRECHET_RESAMPLES]
    found = resampled_distances(f["real"], {GENERATOR: f["synthetic"]}, weights)
    return {GENERATOR: Measured(found[GENERATOR], bench.n, bench.samples)}


def _memorisation(embedder: Embedder, name: str, bench: Bench) -> dict[str, Measured]:
    note = f"nearest of the run's training images by {embedder.name} features; 1, 0.05: as far as unseen patients"
    return {GENERATOR: Measured(bench.memorisation[name], bench.n, bench.samples, note=note)}


def _similarity(name: str, bench: Bench) -> dict[str, Measured]:
    note = f"{scales(min(bench.data.real.shape[1:]))} scales" if name == "MS-SSIM" else ""
    values, weights = {arm: v[name] for arm, v in bench.similarity.items()}, bench.resampling.weights
    found = {}
    for arm, v in values.items():
        apart = arm in (IGNORES, FLOOR)
        drawn = weights[:, bench.pairs].prod(-1) if apart else weights
        found[arm] = Measured(mean(v, drawn), bench.n, bench.samples, None if apart else _against(values, arm), note)
    return found


def _correlation(with_labels: bool, within: bool, bench: Bench) -> dict[str, Measured]:
    """Pearson r with the scores of the prompt's real image (main text) or with its labels (Methods)."""
    twins = same_findings(bench.data.labels, np.asarray(bench.data.patients), bench.seed)
    arms = {
        GENERATOR: bench.scores,
        IGNORES: bench.scores[bench.permuted],
        FLOOR: bench.real_scores[twins][:, None],
    }
    target = bench.data.labels if with_labels else bench.real_scores
    arms = bench.measured(arms)
    errors = {arm: score_errors(x, target) for arm, x in arms.items()}
    found = {arm: score_correlation(x, target, bench.resampling.weights, within) for arm, x in arms.items()}
    notes = {FLOOR: "real image of another patient with the most similar labels"}
    notes |= {arm: UNDEFINED for arm, r in found.items() if np.isnan(r[0])}
    return {
        arm: Measured(r, bench.n, arms[arm].shape[1], _against(errors, arm), notes.get(arm, ""))
        for arm, r in found.items()
    }


def _requested_auroc(bench: Bench) -> dict[str, Measured]:
    """The scorer's mean AUROC of the requested findings, on the samples and on the real images."""
    labels, samples, real = bench.judged
    return {
        arm: Measured(aurocs(x[None], labels, bench.resampling, 1)[0, :, -1], bench.n, len(x))
        for arm, x in bench.measured({GENERATOR: samples, REAL: real}).items()
    }


def _against(values: dict[str, np.ndarray], arm: str) -> float | None:
    """p of an arm against the generator, over the prompts in which both are known."""
    own, generator = values[arm], values[GENERATOR]
    known = np.isfinite(own) & np.isfinite(generator)
    return None if arm == GENERATOR or known.sum() < 2 else paired_wilcoxon(own[known], generator[known])
