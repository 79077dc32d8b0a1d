"""Supervised pretraining on synthetic images, then fine-tuning on few or all real ones (paper, Figure 4).

The paper pretrains DenseNet121 on 1x to 5x synthetic images that inherit their record's labels, and fine-tunes it on 1
to 100 % of the real training images, against ImageNet weights (Methods, Supervised pretraining experiments); the same
on another hospital's images, and with 1, 5 and 10 images a finding (the MedFMC protocol). Here the start without
pretraining is the network's default initialisation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from monai.visualize import GradCAM

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.experiments.arms import DEFAULT, LONGER  # noqa: F401
from chexgen_lib.experiments.augmentation import LEAST_POSITIVES, auroc_table, by_arm, compare, weighted_mean
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import Classifier, balanced_weights, train_classifier
from chexgen_lib.pools.labelled import Labelled, Sets
from chexgen_lib.records import FINDINGS

LARGEST = 0.5  # share of the image that a mask may fill
LOOKED_AT = "looked at"  # the fine-tuning after which attention is measured


def pretrain_and_fine_tune(
    images: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    *,
    synthetic: np.ndarray,
    tunings: Mapping[str, Mapping],
    cases: np.ndarray,
    val: np.ndarray,
    seed: int,
    pretraining: Mapping,
    fine_tuning: Mapping,
    more_steps: int = 0,
) -> dict[str, np.ndarray]:
    """One pretraining and all fine-tunings that start from it.

    Args:
        images, labels: uint8 [N, H, W] and [N, 14], real and synthetic.
        masks: bool [K, h, w] of `cases`, see `attention_cases`.
        synthetic: rows to pretrain on; empty: none, the default initialisation. `val`: to choose its moment.
        tunings: of this seed, see `tunings`.
        cases: rows and findings [K, 2] whose attention is measured.
        pretraining, fine_tuning: `train_classifier`'s settings.
        more_steps: of every fine-tuning, for a start that is to have as many steps in all as a pretrained one.

    Returns:
        name of the tuning -> scores [len(test), 14]; "attention" -> share [K] of the attention inside the masks, and
        "maps" -> the attention itself, see `attention_maps`.
    """
    start = None
    if len(synthetic):
        start = _train(images, labels, synthetic, val, seed, **pretraining)
    result = {}
    for name, tuning in tunings.items():
        own = dict(fine_tuning) | tuning["settings"]
        own["steps"] += more_steps
        model = _train(images, labels, tuning["train"], tuning["val"], seed, initial=start, **own)
        result[name] = model.predict(images[tuning["test"]])
        if tuning[LOOKED_AT]:
            result["maps"] = attention_maps(model, images[cases[:, 0]], cases[:, 1])
            result["attention"] = inside(result["maps"], masks)
    return result


def _train(
    images: np.ndarray, labels: np.ndarray, train: np.ndarray, val: np.ndarray, seed: int, **settings
) -> Classifier:
    initial, config = settings.pop("initial", None), LearnerConfig(seed=seed, **settings)
    own = {"val": (images[val], labels[val]), "weights": balanced_weights(labels[train]), "initial": initial}
    return train_classifier(images[train], labels[train], config, **own)


# ---------------------------------------------------------------------------------------- choosing real images


def tunings(
    sets: Sets, shares: Sequence[float], shots_: Sequence[int], draws: int, seeds: int, seed: int, full: dict, few: dict
) -> list[dict[str, dict]]:
    """The fine-tunings of each seed, by name: group (internal, external, few-shot), set, draw, rows and settings.

    Internal and external ones take `shares` of the real training images, few-shot ones `draws` times `shots_` external
    images of each finding. Without external images there are only internal ones.

    Args:
        full, few: settings of `train_classifier` for shares and for shots.
    """
    return [_tunings(sets, shares, shots_, draws, 1000 * seed + k, full, few) for k in range(seeds)]


def _tunings(
    sets: Sets, shares: Sequence[float], shots_: Sequence[int], draws: int, seed: int, full: dict, few: dict
) -> dict[str, dict]:
    chosen: dict[str, dict] = {}
    for group, prefix in (("internal", ""), ("external", "external ")):
        train, val, test = (sets.rows[prefix + name] for name in ("train", "val", "test"))
        if not len(train) or not len(test):
            continue
        parts = {name: train[rows] for name, rows in fractions(sets.everything[train], shares, seed).items()}
        common = {"group": group, "draw": 0, "val": val, "test": test, "settings": full}
        last = list(parts)[-1] if group == "internal" else None
        chosen |= {f"{group} {n}": common | {"set": n, "train": r, LOOKED_AT: n == last} for n, r in parts.items()}
        if group == "external":
            common |= {"group": "few-shot", "settings": few, LOOKED_AT: False}
            chosen |= {
                f"{k}-shot {draw}": common | {"set": f"{k}-shot", "draw": draw,
                                              "train": train[shots(sets.everything[train], k, draw, seed)]}
                for k in shots_ for draw in range(draws)
            }  # fmt: skip
    return chosen


def ends(tunings: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """Of the fine-tunings of a seed, those on the first and the last set of each group, the fewest and the most images.

    For a control that is too costly to be trained on every set.
    """
    sets: dict[str, list[str]] = {}
    for tuning in tunings.values():
        sets.setdefault(tuning["group"], []).append(tuning["set"])
    return {name: t for name, t in tunings.items() if t["set"] in (sets[t["group"]][0], sets[t["group"]][-1])}


def curves(
    results: Mapping[str, Mapping[str, np.ndarray]],
    tunings: Sequence[Mapping[str, Mapping]],
    sets: Sets,
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """`augmentation.auroc_table` of every set that the starts were fine-tuned on, against the default initialisation.

    results: "start / seed k" -> what `pretrain_and_fine_tune` returned; a start may lack some sets. tunings: of each
    seed. The draws of a seed are averaged, and resampled with their seed as one.

    Columns: those of `auroc_table`, group, set, and images: how many real ones, the mean over seeds and draws.
    """
    draws: dict[tuple[str, str], list[str]] = {}  # group and set -> names of its fine-tunings
    for name, tuning in tunings[0].items():
        draws.setdefault((tuning["group"], tuning["set"]), []).append(name)
    labels, tables = sets.everything.labels, []
    for (group, chosen), names in draws.items():
        test = "test" if group == "internal" else "external test"
        about = {"group": group, "set": chosen, "images": np.mean([len(t[n]["train"]) for t in tunings for n in names])}
        options = {"n_resamples": n_resamples, "seed": seed, "draws": len(names)}
        table = auroc_table(_scores(results, names), labels[sets.rows[test]], sets.patients(test), DEFAULT, **options)
        tables.append(table.with_columns(**{key: pl.lit(value) for key, value in about.items()}))
    return pl.concat(tables)


def _scores(results: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Start -> scores [S * len(names), N, 14], a seed's together; without the starts that were not fine-tuned so."""
    starts = by_arm({job: result for job, result in results.items() if set(names) <= set(result)})
    return {start: np.stack([run[name] for run in runs for name in names]) for start, runs in starts.items()}


def fractions(train: Labelled, shares: Sequence[float], seed: int) -> dict[str, np.ndarray]:
    """Rows of nested random subsets of patients, by name ("10 %"): a smaller share is part of every larger one.

    Raises:
        ValueError: for a share outside 0..1, or one so small that it holds fewer than two images.
    """
    patients = train.table["patient_id"].unique(maintain_order=True).to_list()
    order = np.random.default_rng(seed).permutation(len(patients))
    found = {}
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"a share of the real images must be in (0, 1], got {share}")
        kept = {patients[i] for i in order[: max(1, round(share * len(patients)))]}
        rows = np.flatnonzero(train.table["patient_id"].is_in(list(kept)).to_numpy())
        if len(rows) < 2:
            raise ValueError(f"{share:.0%} of {len(train)} images are fewer than two; take a larger share")
        found[f"{100 * share:g} %"] = rows
    return found


def shots(train: Labelled, k: int, draw: int, seed: int) -> np.ndarray:
    """Rows with `k` images of each finding, as the MedFMC protocol draws them (a row may serve several findings).

    A finding with fewer than `k` images gives all it has.
    """
    rng = np.random.default_rng([seed, k, draw])
    chosen: set[int] = set()
    for f in range(len(FINDINGS)):
        positive = np.flatnonzero(train.labels[:, f] == 1)
        chosen.update(rng.permutation(positive)[:k].tolist())
    return np.array(sorted(chosen), np.int64)


# --------------------------------------------------------------------------------------------------- attention


def attention_maps(model: Classifier, images: np.ndarray, findings: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017; MONAI's) of a finding in each image, [K, h, w] at least 0: what speaks for it.

    images: [K, H, W]; findings: index in FINDINGS of each. h and w are the network's last feature maps'.
    """
    model.net.eval()
    # not the norm after it: torchvision's forward changes that one's output in place
    cam = GradCAM(model.net, target_layers=f"features.denseblock{len(model.size.block_config)}")
    # MONAI turns attention upside down and scales it to 0..1; the raw map of what speaks for the finding is wanted
    maps: dict[int, np.ndarray] = {}
    for finding in np.unique(findings):
        rows = np.flatnonzero(findings == finding)
        found = cam.compute_map(model.prepare(images[rows]), class_idx=int(finding))[:, 0].detach().cpu().numpy()
        maps |= dict(zip(rows.tolist(), found, strict=True))
    return np.stack([maps[row] for row in range(len(images))]) if maps else np.zeros((0, 1, 1), np.float32)


def inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the attention [K, h, w] that lies inside the masks, bool [K, H, W]: [K].

    By chance it is the mask's share of the image (`masks.mean((1, 2))`). Where the map is zero everywhere, its
    attention is as spread as can be: chance.
    """
    heat = enlarged(maps, masks.shape[1:])
    total, within = heat.sum((1, 2)), (heat * masks).sum((1, 2))
    return np.where(total > 0, within / np.where(total > 0, total, 1), masks.mean((1, 2)))


def enlarged(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Attention [K, h, w] on the image's pixels, [K, *shape]."""
    return torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], shape, mode="bilinear")[:, 0].numpy()


def attention_cases(folder: Path, rows: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A seeded draw of at most `n` findings with a mask among cohort rows: (row, finding) [K, 2], masks [K, H, W].

    A finding that fills nearly the whole image, or none of it, says nothing; No Finding has no place. Real radiographs
    have no masks, so there K = 0.
    """
    if not cohort.has_masks(folder):
        return np.zeros((0, 2), np.int64), np.zeros((0, 1, 1), bool)
    masks = cohort.load_finding_masks(folder, rows.tolist())  # [R, 14, H, W]
    places = np.argwhere((masks.mean((2, 3)) > 0) & (masks.mean((2, 3)) < LARGEST))
    chosen = places[np.sort(np.random.default_rng(seed).permutation(len(places))[:n])]
    return np.column_stack([rows[chosen[:, 0]], chosen[:, 1]]), masks[chosen[:, 0], chosen[:, 1]]


def attention_table(
    shares: Mapping[str, np.ndarray],
    findings: np.ndarray,
    masks: np.ndarray,
    patients: Sequence[str],
    n_resamples: int,
    seed: int,
) -> pl.DataFrame:
    """Mean share of the attention inside the masks over seeds and cases, of all ("Average") and of each finding.

    shares: start -> [S, K], the first is the reference of the differences; findings: index in FINDINGS of each case;
    patients: of each case; whole patients are resampled, and seeds. A finding with fewer than `LEAST_POSITIVES` cases
    is listed without an estimate; without cases the table is empty.

    Columns: finding, start, value, low, high, difference, difference_low, difference_high, n (cases), seeds, chance.
    """
    groups = {"Average": np.arange(len(findings))}
    groups |= {FINDINGS[f]: np.flatnonzero(findings == f) for f in np.unique(findings)}
    names = ("value", "low", "high", "difference", "difference_low", "difference_high")
    columns = {"finding": pl.String, "start": pl.String, **dict.fromkeys(names, pl.Float64)}
    columns |= {"n": pl.Int64, "seeds": pl.Int64, "chance": pl.Float64}
    options, tables = {"reference": next(iter(shares)), "n_resamples": n_resamples, "seed": seed}, []

    def measure(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return weighted_mean(found, counts)[:, None]

    for name, rows in groups.items():
        about = {"finding": name, "n": len(rows), "chance": float(masks[rows].mean()) if len(rows) else None}
        if len(rows) < LEAST_POSITIVES:
            tables.append(pl.DataFrame([about | {"start": start, "seeds": len(s)} for start, s in shares.items()]))
            continue
        own = {start: values[:, rows] for start, values in shares.items()}
        table = compare(own, measure, [about], [patients[row] for row in rows], **options)
        tables.append(table.rename({"arm": "start"}))
    table = pl.concat(tables, how="diagonal_relaxed") if len(findings) else pl.DataFrame(schema=columns)
    missing = [pl.lit(None, pl.Float64).alias(name) for name in names if name not in table.columns]
    return table.with_columns(missing).select(list(columns))
