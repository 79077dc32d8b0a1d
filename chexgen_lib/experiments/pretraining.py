"""Supervised pretraining on synthetic images, then fine-tuning on few or all real ones (paper, Figure 4).

The paper pretrains DenseNet121 on 1x to 5x synthetic images that inherit their record's labels, and fine-tunes it on 1
to 100 % of the real training images, against ImageNet weights (Methods, Supervised pretraining experiments); the same
on another hospital's images, and with 1, 5 and 10 images of each finding (the MedFMC protocol); `fine_tuning` has these
images. Where their label set is another than the pretraining's, the last layer starts anew. Here the reference is the
network's default initialisation. Oracles are pretrained on as many new real images of other training patients: the
ratio of the gains is the worth of a synthetic image, both taken from `LONGER`, as many steps on the real images alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from chexgen_lib.estimates import worth
from chexgen_lib.estimates.comparison import RUNS, auroc_table
from chexgen_lib.estimates.wording import over_runs, readable
from chexgen_lib.estimates.worth import Against
from chexgen_lib.experiments import attention
from chexgen_lib.experiments.arms import (
    AS_MANY_STEPS,
    DEFAULT,
    RAD_DINO,
    against_initialisations,
    pretrained,
    pretrained_from,
    pretrained_on_real,
    reference_among,
)
from chexgen_lib.experiments.attention import Cases
from chexgen_lib.experiments.fine_tuning import (
    INTERNAL,
    Labels,
    Protocol,
    Tuning,
    controlled,
    labels_of,
    prefixes,
    tunings,
)
from chexgen_lib.experiments.repeats import Repeats, Results
from chexgen_lib.kept import Arrays, arrays_once
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import SIZES, Classifier, balanced_weights, train_classifier
from chexgen_lib.paper import published as printed
from chexgen_lib.pools.labelled import Splits

SHOWN = ("value", "low", "high", "difference", "difference_low", "difference_high", "p", "detectable", *worth.COLUMNS)


def pretrain_and_fine_tune(
    images: np.ndarray,
    labels: Mapping[str, Labels],
    val: np.ndarray,
    cases: Cases,
    *,
    pretrained_on: np.ndarray,
    pretraining: LearnerConfig,
    tunings: Mapping[str, Tuning],
    folder: Path,
) -> dict[str, np.ndarray]:
    """One pretraining and all fine-tunings that start from it.

    Args:
        images: uint8 [N, H, W], real and synthetic.
        labels: of each group of fine-tunings; those of INTERNAL are pretrained on.
        val: rows, to select the pretraining's checkpoint.
        cases: whose attention is measured.
        pretrained_on: rows, synthetic or real; empty for the default initialisation.
        folder: where the pretrained weights and each fine-tuning are kept, so that a later one that fails loses none.

    Returns:
        Name of the tuning -> scores [len(test), L]; "maps" -> the attention, see `attention.maps`; "attention" -> the
        share [K] of it inside the masks.
    """
    start, result = None, {}
    if len(pretrained_on):
        given = images, labels[INTERNAL], pretrained_on, val, pretraining
        weights = arrays_once(folder / "start.npz", lambda: _weights(_train(*given)))
        start = _restored(weights, labels[INTERNAL].names, pretraining)
    for number, (name, tuning) in enumerate(tunings.items()):
        given = images, labels[tuning.group], cases, name, tuning, start
        result |= arrays_once(folder / f"{number}.npz", partial(_fine_tune, *given))
    return result


def _weights(model: Classifier) -> Arrays:
    return {name: tensor.cpu().numpy() for name, tensor in model.net.state_dict().items()}


def _restored(weights: Arrays, names: tuple[str, ...], config: LearnerConfig) -> Classifier:
    model = Classifier(config.size_in(SIZES), names, device=config.device)
    model.net.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    return model


def _fine_tune(
    images: np.ndarray, labels: Labels, cases: Cases, name: str, tuning: Tuning, start: Classifier | None
) -> Arrays:
    model = _train(images, labels, tuning.train, tuning.val, tuning.config, initial=start)
    result = {name: model.predict(images[tuning.test])}
    if tuning.measure_attention:
        result["maps"] = attention.maps(model, images[cases.rows], cases.findings)
        result["attention"] = attention.inside(result["maps"], cases.masks)
    return result


def _train(
    images: np.ndarray,
    labels: Labels,
    train: np.ndarray,
    val: np.ndarray,
    config: LearnerConfig,
    initial: Classifier | None = None,
) -> Classifier:
    states = labels.states
    options = {"val": (images[val], states[val]), "weights": balanced_weights(states[train]), "initial": initial}
    return train_classifier(images[train], states[train], config, **options, names=labels.names)


def pretrain_all(
    pools: Mapping[str, Splits],
    cases: Cases,
    pretraining: LearnerConfig,
    protocol: Protocol,
    repeats: Repeats,
    folder: Path,
) -> Results:
    """Pretrain and fine-tune from every initialisation (`initialisations`).

    Networks with random weights are fine-tuned with the learning rate of pretraining. `LONGER` adds the most steps of
    any pretraining to each fine-tuning, and is trained only on the sets of `controlled`.

    Args:
        pools: generator -> its pool with the real images, each `with_pool` of the one before; the first is ChexGen.
        cases: whose attention is measured.
        folder: for finished trainings.
    """
    sets = list(pools.values())[-1]  # which holds the images of all generators
    named, first = initialisations(pools, protocol), next(iter(protocol.starts))
    most = max(pretraining.over(len(one.rows)).steps for one in named.values() if len(one.rows))
    jobs: dict[str, list[dict]] = {name: [] for name in named}
    for config in repeats.configs(pretraining):
        seeded = tunings(sets, protocol, config.seed)
        for name, one in named.items():
            own = controlled(seeded) if name == AS_MANY_STEPS[first] else seeded
            if one.start != first:  # a network of its own, whose attention is not measured
                own = {k: replace(t, measure_attention=False) for k, t in own.items() if t.group == INTERNAL}
            size = protocol.starts[one.start]
            changes = {"device": config.device} | ({} if size is None else {"size": size})
            if one.start == DEFAULT and not len(one.rows):
                changes["learning_rate"] = pretraining.learning_rate
            more = most if name == AS_MANY_STEPS[first] else 0
            own = {key: _adapted(tuning, more, changes) for key, tuning in own.items()}
            begun = config if size is None else replace(config, size=size)
            jobs[name].append({"pretrained_on": one.rows, "pretraining": begun, "tunings": own})
    data = {"images": sets.everything.images, "labels": labels_of(sets), "val": sets.rows["val"], "cases": cases}
    return repeats.train(pretrain_and_fine_tune, data, jobs, folder)


class Initialisation(NamedTuple):
    """What a network learns before it is fine-tuned.

    Attributes:
        start: its first weights, a key of `Protocol.starts`.
        rows: that it is pretrained on; empty: none.
    """

    start: str
    rows: np.ndarray


def initialisations(pools: Mapping[str, Splits], protocol: Protocol) -> dict[str, Initialisation]:
    """By name: without pretraining, from the pools, and from new real images (the oracles).

    There is an oracle for each of `protocol.oracles` of which the cohort has enough further training images. Another
    generator than the first has the most of `protocol.copies` that its pool holds.
    """
    (_, sets), *rivals = pools.items()
    (first, *others), none = protocol.starts, np.zeros(0, np.int64)
    rows = {first: none, AS_MANY_STEPS[first]: none} | {pretrained(k): sets.copies(k) for k in protocol.copies}
    for generator, own in rivals:
        k = max((k for k in protocol.copies if k <= own.held), default=own.held)
        rows[pretrained(k, generator)] = own.copies(k)
    real = {pretrained_on_real(k): sets.further(k) for k in protocol.oracles}
    rows |= {name: own for name, own in real.items() if len(own)}
    named = {name: Initialisation(first, own) for name, own in rows.items()}
    most = max(protocol.copies)
    for start in others:
        named[start] = Initialisation(start, none)
        named[pretrained_from(start, most)] = Initialisation(start, sets.copies(most))
    return named


def _adapted(tuning: Tuning, more_steps: int, changes: Mapping[str, Any]) -> Tuning:
    """A tuning with further steps, and changes of its settings."""
    config = tuning.config.over(len(tuning.train))
    return replace(tuning, config=replace(config, steps=config.steps + more_steps, **changes))


def attention_of(results: Results) -> dict[str, np.ndarray]:
    """Initialisation -> the attention [S, K] of its networks, of those in which it is measured."""
    return {name: np.stack([run["attention"] for run in runs]) for name, runs in results.items() if "maps" in runs[0]}


# Measures


def curves(results: Results, sets: Splits, protocol: Protocol, repeats: Repeats) -> pl.DataFrame:
    """`auroc_table` of every set of real images, against the first of the protocol's starts.

    An initialisation may lack some sets. The draws of a seed are averaged, and resampled together with their seed.

    Args:
        results: of `pretrain_all`.

    Returns:
        The columns of `auroc_table`, group, set, and images: the number of real ones, averaged over seeds and draws.
    """
    seeded = [tunings(sets, protocol, config.seed) for config in repeats.configs(protocol.fine_tuning)]
    draws: dict[tuple[str, str], list[str]] = {}  # group and set -> names of its fine-tunings
    for name, tuning in seeded[0].items():
        draws.setdefault((tuning.group, tuning.set), []).append(name)
    labels, tables = labels_of(sets), []
    for (group, chosen), names in draws.items():
        test, own = f"{prefixes(sets)[group]}test", labels[group]
        resampling = repeats.resampling(sets.patients(test))
        scores = _scores(results, names)
        options = {"draws": len(names), "against": _against(scores), "names": own.names}
        table = auroc_table(scores, own.states[sets.rows[test]], resampling, next(iter(protocol.starts)), **options)
        images = np.mean([len(one[name].train) for one in seeded for name in names])
        tables.append(table.with_columns(group=pl.lit(group), set=pl.lit(chosen), images=pl.lit(images)))
    return pl.concat(tables)


def _against(scores: Mapping[str, np.ndarray]) -> dict[str, Against]:
    """What pretrainings are held against where `LONGER` was trained; elsewhere gains would be of its steps, too."""
    longer = AS_MANY_STEPS[reference_among(scores)]
    return against_initialisations(scores, longer) if longer in scores else {}


def _scores(results: Results, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Initialisation -> scores [S * len(names), N, L], a seed's together; without those that lack a set."""
    return {
        start: np.stack([run[name] for run in runs for name in names])
        for start, runs in results.items()
        if set(names) <= set(runs[0])
    }


def summary(curves: pl.DataFrame) -> pl.DataFrame:
    """For display: macro AUROC of every initialisation on every set, with the differences from the default."""
    average = curves.filter(finding="Average").rename({"arm": "initialisation"})
    if average.select(RUNS).columns:
        print(over_runs(average["seeds"].max()))
    return readable(average.select("group", "set", pl.col("images").round(), "initialisation", *SHOWN, RUNS, "n"))


def metrics(curves: pl.DataFrame, overall: pl.DataFrame) -> dict[str, Any]:
    """Macro AUROC by group, set and initialisation, worth by set, and the share of attention inside the masks.

    Args:
        curves: see `curves`.
        overall: rows of "Average" of `attention.table`.
    """
    values: dict[str, Any] = {}
    for row in curves.filter(finding="Average").iter_rows(named=True):
        values.setdefault(row["group"], {}).setdefault(row["set"], {})[row["arm"]] = round(row["value"], 5)
        if row["worth"] is not None:
            values.setdefault("worth", {}).setdefault(row["set"], {})[row["arm"]] = round(row["worth"], 5)
    shares = overall.drop_nulls("value").iter_rows(named=True)
    return values | {"attention": {row["start"]: round(row["value"], 5) for row in shares}}


def beside_paper(curves: pl.DataFrame, published: pl.DataFrame) -> pl.DataFrame:
    """Macro AUROC by set and initialisation, the paper's (`published`, Figure 4a) and below them this run's.

    The paper's RAD-DINO (ED Figure 9) is among them where it is in this run.
    """
    if RAD_DINO in set(curves["arm"]):
        published = pl.concat([published, printed.load("ed-fig9")])
    paper = published.select(
        "arm", source=pl.lit("paper"), images="dataset", set="category", AUROC=(pl.col("value") / 100).round(3)
    )
    own = curves.filter(finding="Average").select(
        "arm", "set", source=pl.lit("this run"), images="group", AUROC=pl.col("value").round(3)
    )
    columns = ("source", "images", "set", pl.col("arm").alias("initialisation"), "AUROC")
    return pl.concat([paper, own], how="diagonal").select(columns)
