"""Annotation to image: how well samples of the control adapter follow the masks and boxes that were requested.

The paper shows examples (ED Figs 11 to 14) and no number. Here adherence is measured: a segmenter trained on real
images of the train split predicts the samples' masks, which are compared with the requested ones. Two bounds stand
beside it: the same prompts and seeds without control, and the real images that the annotations belong to.
"""

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import estimate, paired_wilcoxon
from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.estimates.wording import estimate as one_text
from chexgen_lib.estimates.wording import format_p
from chexgen_lib.learners.segmenter import Segmenter, dice
from chexgen_lib.pools.annotations import KINDS, Annotated, boxes_of, overlap

CONTROLLED, FREE, REAL = "with control", "prompt alone", "real images"
RECALLED = 0.25  # smallest intersection over union of a requested box and a predicted one
LEAST_PAIRS = 6  # pairs that differ; with fewer, the signed-rank test cannot reach p < 0.05


def adherence(data: Annotated, requests: pl.DataFrame, samples: np.ndarray, segmenter: Segmenter) -> np.ndarray:
    """How well samples uint8 [R, S, H, W] follow their requests, [R]: mean Dice of the mask, or recall of the boxes.

    A box is recalled if a box around the segmenter's mask of that class (around each part, for foreign objects)
    overlaps it with an intersection over union of at least `RECALLED`.
    """
    predicted = segmenter.predict(samples.reshape(-1, *samples.shape[2:]))  # [R * S, C, H, W]
    predicted = predicted.reshape(*samples.shape[:2], *predicted.shape[1:])
    scores = []
    for (row, kind), masks in zip(requests.select("row", "kind").iter_rows(), predicted, strict=True):
        if kind == "boxes":
            scores.append(np.mean([_recall(data.boxes(row), m, data.classes) for m in masks]))
        else:
            channel = data.classes.index(KINDS[kind])
            scores.append(dice(masks[:, channel], data.mask(row, KINDS[kind])[None]).mean())
    return np.array(scores)


def _recall(requested: list[dict], masks: np.ndarray, classes: tuple[str, ...]) -> float:
    hits = []
    for box in requested:
        name = box["class"]
        predicted = boxes_of(masks[classes.index(name)], name == "Support Devices")
        hits.append(any(overlap(box, other) >= RECALLED for other in predicted))
    return float(np.mean(hits))


def table(
    requests: pl.DataFrame, scores: dict[str, np.ndarray], n_resamples: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """One row for each kind and arm: metric, value, 95 % interval over patients, n, and p against the control arm.

    A kind that was requested for one patient alone has no interval and no p.

    Args:
        scores: arm -> [R] as `adherence` returns them. There is no p where fewer than `LEAST_PAIRS` differ.
    """
    rows = []
    for kind in KINDS:
        inside = (requests["kind"] == kind).to_numpy()
        patients = requests.filter(kind=kind)["patient_id"]
        if not len(patients):
            continue
        single = patients.n_unique() < 2
        weights = np.ones((1, len(patients))) if single else Resampling(patients, n_resamples, seed).weights
        for arm, values in scores.items():
            these, control = values[inside], scores[CONTROLLED][inside]
            p = paired_wilcoxon(these, control) if not single and (these != control).sum() >= LEAST_PAIRS else None
            metric = "box recall" if kind == "boxes" else "Dice"
            numbers = estimate(mean(these, weights)) | {"n": len(these), "p": p}
            rows.append({"kind": kind, "metric": metric, "arm": arm} | numbers)
    return pl.DataFrame(rows, schema_overrides={"p": pl.Float64}, infer_schema_length=None).fill_nan(None)


def written(table: pl.DataFrame) -> pl.DataFrame:
    """`table` for display: the measure with its 95 % interval as one text."""
    texts = [one_text(row, digits=2) for row in table.iter_rows(named=True)]
    p = [None if value is None else format_p(value) for value in table["p"]]
    return table.select(
        "kind", "metric", "arm", pl.Series("mean [95 % CI]", texts), "n", pl.Series("p", p, dtype=pl.String)
    )


def numbers(table: pl.DataFrame) -> dict[str, dict[str, dict]]:
    """`table` for metrics.json: "metric, kind" -> arm -> n and what is known of value, low and high."""
    nested: dict[str, dict[str, dict]] = {}
    for row in table.iter_rows(named=True):
        known = [key for key in ("value", "low", "high") if row[key] is not None]
        rounded = {key: float(f"{row[key]:.6g}") for key in known} | {"n": row["n"]}
        nested.setdefault(f"{row['metric']}, {row['kind']}", {})[row["arm"]] = rounded
    return nested
