"""Segmentation, severity regression and detection with synthetic images beside the real ones (paper, Figure 3d to 3f).

Arms, seeds and intervals are those of `augmentation`. For each task there is one run, which `runs.run_all` repeats, and
one table of all runs (ED Tables 7 to 9). A test set with fewer than `LEAST_POSITIVES` cases of a kind gets no number
for it, and a task that has none to learn from or to choose by is left out (`missing`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import correlation, format_interval, format_p, interval_of, pair_sums
from chexgen_lib.experiments.augmentation import (
    ESTIMATE,
    LEAST_POSITIVES,
    REAL,
    by_arm,
    compare,
    jobs,
    patient_counts,
    pool_arms,
    verdict,
    weighted_mean,
)
from chexgen_lib.kept import run_all
from chexgen_lib.learners import detector as detection
from chexgen_lib.learners import segmenter as segmentation
from chexgen_lib.learners.base import LearnerConfig, device_for
from chexgen_lib.learners.regressor import cut_points, grades, opacity_scores, train_regressor
from chexgen_lib.learners.segmenter import dice, train_segmenter
from chexgen_lib.pools import annotated as annotated_pools
from chexgen_lib.pools.annotated import TESTS, Task
from chexgen_lib.pools.labelled import Sets

POSITIVE, NEGATIVE, DICE = "Positive Dice", "Negative Dice", "Dice"
FOREIGN = "Support Devices"  # boxes of foreign objects; all others are findings'
FOREIGN_OBJECT = "Foreign Object"  # the paper's name
Results = Mapping[str, dict[str, np.ndarray]]
# The table of a task that was left out.
_TEXT, _COUNTS = ("test", "category", "metric", "arm"), ("n", "seeds")
LEFT_OUT = pl.DataFrame(
    schema=dict.fromkeys(_TEXT, pl.String) | dict.fromkeys(ESTIMATE, pl.Float64) | dict.fromkeys(_COUNTS, pl.Int64)
)


def segment(sets: annotated_pools.Sets, kind: str, folder: Path, settings: Mapping, **plan) -> tuple[str, pl.DataFrame]:
    """All arms of one segmentation: a line on its images, and `segmentation_table`; none if it is `missing` a case.

    kind: "pneumothorax" or "ribs". folder: for finished runs (`run_all`). settings: of `train_segmenter`. plan: seeds,
    seed, workers and n_resamples.
    """
    task = sets.task(kind, segmentation.SIZES[settings["size"]].input_size)
    masks = sets.masks(task, kind)
    note = _images(task.rows, f"with {kind}", masks.any(axis=(1, 2)))
    if reason := missing(task.rows, masks.any(axis=(1, 2))):
        return f"{kind} is left out: {reason}", LEFT_OUT
    results = _train(train_and_segment, {"images": task.images, "masks": masks}, task, folder, settings, plan)
    patients = {name: sets.patients(task, name) for name in task.tests}
    return note, segmentation_table(results, task.tests, masks, patients, **_resampling(plan))


def grade(
    sets: Mapping[str, Sets], cohort: pl.DataFrame, folder: Path, settings: Mapping, **plan
) -> tuple[str, pl.DataFrame, pl.DataFrame]:
    """All arms of the regression of `severity.opacity_scores`; sets as in `augmentation.pool_arms`, else as `segment`.

    It draws on pools made of texts, so that any generator has its arms. The third result are `readings`.
    """
    task, scores, left_out = severity_task(sets, cohort)
    note = _images(task.rows, "with a score above 0", scores > 0)
    if any(left_out.values()):
        note += f"; without a score and left out: {left_out}"
    if reason := missing(task.rows, scores > 0):
        return f"severity is left out: {reason}", LEFT_OUT, pl.DataFrame()
    drawn = {generator: own.synthetic[np.isfinite(scores[own.synthetic])] for generator, own in sets.items()}
    data = {"images": task.images, "scores": scores}
    results = _train(train_and_grade, data, task, folder, settings, plan, read=np.concatenate(list(drawn.values())))
    table = list(sets.values())[-1].everything.table
    patients = {name: table["patient_id"].gather(rows).to_list() for name, rows in task.tests.items()}
    read = readings(by_arm(results)[REAL], task.tests | drawn, scores, table, cut_points(cohort))
    return note, severity_table(results, task.tests, scores, patients, **_resampling(plan)), read


def detect(sets: annotated_pools.Sets, folder: Path, settings: Mapping, **plan) -> tuple[str, pl.DataFrame]:
    """All arms of the detection of `settings["classes"]`; arguments and result as `segment`'s."""
    classes = settings["classes"]
    task = sets.task("boxes", detection.SIZES[settings["size"]].input_size)
    boxes = sets.boxes(task, classes)
    boxed = np.array([bool(found) for found in boxes])
    if reason := missing(task.rows, boxed):
        return f"detection is left out: {reason}", LEFT_OUT
    data = {"images": task.images, **detection.to_arrays(boxes, classes)}
    results = _train(train_and_detect, data, task, folder, settings, plan)
    patients = {name: sets.patients(task, name) for name in task.tests}
    table = detection_table(results, task.tests, boxes, classes, patients, **_resampling(plan))
    return _images(task.rows, "with boxes", boxed), table


def report(table: pl.DataFrame, categories: Sequence[str] = ("all", detection.OVERALL, FOREIGN_OBJECT)) -> str:
    """Lines to print: each arm's numbers in some categories, and their differences from the real images alone."""
    lines = []
    for (test, category, metric, n), arms in table.group_by("test", "category", "metric", "n", maintain_order=True):
        if category not in categories:
            continue
        lines.append(f"{test}, {metric}{'' if category == 'all' else f', {category}'}: n = {n}")
        if arms["value"].null_count():
            lines.append(f"  no number: fewer than {LEAST_POSITIVES} cases")
            continue
        for r in arms.iter_rows(named=True):
            line = f"  {r['arm']:20s}{format_interval(r['value'], r['low'], r['high'], 3)}"
            known = r["difference"] is not None
            lines.append(line + (f"  {verdict(r)}, {format_p(r['p'])}" if known else ""))
    return "\n".join(lines)


def missing(rows: Mapping[str, np.ndarray], positive: np.ndarray) -> str | None:
    """Why nothing can be learnt, chosen or tested: a set that needs a positive case or an image, and has none.

    positive: bool [N].
    """
    if not any(len(rows[name]) for name in TESTS):
        return "no image to test on"
    lacking = [f"{name} ({len(rows[name])} images)" for name in ("train", "val") if not positive[rows[name]].any()]
    return f"no positive case in {' and '.join(lacking)}" if lacking else None


def task_jobs(task: Task, seeds: int, seed: int, read: Sequence[int] = (), **settings) -> dict[str, dict]:
    """Runs of a task by name "arm / seed k"; each is tested on all test sets together, and then on the rows `read`."""
    test = np.concatenate([*task.tests.values(), np.asarray(read, np.int64)])
    return jobs(task.arms, seeds, seed, val=task.rows["val"], test=test, **settings)


def _train(
    function,
    data: dict[str, np.ndarray],
    task: Task,
    folder: Path,
    settings: Mapping,
    plan: Mapping,
    read: Sequence[int] = (),
) -> Results:
    runs = task_jobs(task, plan["seeds"], plan["seed"], read, device=device_for(plan["workers"]), **settings)
    return run_all(function, data, runs, folder, plan["workers"])


def _resampling(plan: Mapping) -> dict[str, int]:
    return {"n_resamples": plan["n_resamples"], "seed": plan["seed"]}


def _images(rows: Mapping[str, np.ndarray], what: str, positive: np.ndarray) -> str:
    return f"images ({what}): " + ", ".join(f"{k} {len(r)} ({int(positive[r].sum())})" for k, r in rows.items())


# --------------------------------------------------------------------------------------------- segmentation


def train_and_segment(
    images: np.ndarray, masks: np.ndarray, *, train: np.ndarray, val: np.ndarray, test: np.ndarray, **settings
) -> dict[str, np.ndarray]:
    """One run: ``dice`` [len(test)] of a U-Net trained on the rows `train` and chosen on `val`; masks: bool [N, S, S].

    Where nothing is to be found, Dice is 1 if nothing is found, else 0 (`segmentation.dice`).
    """
    given = (masks[val][:, None], masks[train][:, None])
    model = train_segmenter(images[train], given[1], ("mask",), LearnerConfig(**settings), val=(images[val], given[0]))
    return {"dice": dice(model.predict(images[test])[:, 0], masks[test])}


def segmentation_table(
    results: Results,
    tests: Mapping[str, np.ndarray],
    masks: np.ndarray,
    patients: Mapping[str, Sequence[str]],
    **options,
) -> pl.DataFrame:
    """Dice of each arm on each test set (ED Table 8): of images that show it, and, if there are any, that do not.

    tests: name -> rows of `masks`, in the order in which the runs were tested. Columns: test, category, metric, n, then
    as `augmentation.compare`.
    """

    def table(name: str, rows: np.ndarray, place: slice) -> pl.DataFrame:
        shown = masks[rows].any(axis=(1, 2))
        kinds = {DICE: shown} if shown.all() else {POSITIVE: shown, NEGATIVE: ~shown}
        about = [{"test": name, "category": "all", "metric": k, "n": int(some.sum())} for k, some in kinds.items()]
        arms = {arm: [run["dice"][place] for run in runs] for arm, runs in by_arm(results).items()}

        def measure(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
            return np.stack([weighted_mean(found[some], counts[:, some]) for some in kinds.values()], axis=1)

        return compare(arms, measure, about, patients[name], **options)

    return _each(tests, table)


# ------------------------------------------------------------------------------------------------- severity


def severity_task(sets: Mapping[str, Sets], cohort: pl.DataFrame) -> tuple[Task, np.ndarray, dict[str, int]]:
    """The images of `augmentation.pool_arms` that have a score, their scores, and how many of each set have none.

    The scores [N] are `severity.opacity_scores`; a synthetic image has its record's. Images without one are left out.
    """
    scored = cohort.select("image_id", pl.Series("score", opacity_scores(cohort)))
    last = list(sets.values())[-1]  # which holds the images of all
    ids = last.everything.table.select("image_id")
    scores = ids.join(scored, on="image_id", how="left", maintain_order="left")["score"].to_numpy()
    known = np.isfinite(scores)
    rows = {name: last.rows[name] for name in ("train", "val", *TESTS)}
    left_out = {name: int((~known[some]).sum()) for name, some in rows.items()}
    rows, arms = ({k: some[known[some]] for k, some in named.items()} for named in (rows, pool_arms(sets)))
    return Task(last.everything.images, np.arange(len(scores)), rows, arms), scores, left_out


def train_and_grade(
    images: np.ndarray, scores: np.ndarray, *, train: np.ndarray, val: np.ndarray, test: np.ndarray, **settings
) -> dict[str, np.ndarray]:
    """One run: ``predicted`` [len(test)], 0..1, of a ResNet trained on the rows `train` and chosen on `val`."""
    model = train_regressor(images[train], scores[train], LearnerConfig(**settings), val=(images[val], scores[val]))
    return {"predicted": model.predict(images[test])}


def severity_table(
    results: Results,
    tests: Mapping[str, np.ndarray],
    scores: np.ndarray,
    patients: Mapping[str, Sequence[str]],
    **options,
) -> pl.DataFrame:
    """MAE, MSE and Pearson r of each arm on each test set (ED Table 9); scores: [N] in 0..1. Columns as above."""

    def table(name: str, rows: np.ndarray, place: slice) -> pl.DataFrame:
        truth = scores[rows]
        about = [{"test": name, "category": "all", "metric": m, "n": len(rows)} for m in ("MAE", "MSE", "Pearson r")]
        arms = {arm: [run["predicted"][place] for run in runs] for arm, runs in by_arm(results).items()}

        def measure(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
            wrong = np.abs(found - truth)
            r = correlation(counts @ pair_sums(found.astype(np.float64), truth))
            return np.stack([weighted_mean(wrong, counts), weighted_mean(wrong**2, counts), r], axis=1)

        return compare(arms, measure, about, patients[name], **options)

    return _each(tests, table)


def readings(
    runs: Sequence[Mapping[str, np.ndarray]],
    rows: Mapping[str, np.ndarray],
    scores: np.ndarray,
    table: pl.DataFrame,
    cuts: np.ndarray,
) -> pl.DataFrame:
    """What networks that know real images alone read in images, beside the score that was asked (real ones: is true).

    runs: what each found, in the order of `rows`, which names sets of rows of `scores` [N] and `table` (`Labelled`'s);
    cuts: of `severity.grades`. Columns: set, row, real (row of the record's real image), image_id, patient_id, copy,
    asked, grade (of asked), read (mean of runs).
    """
    order = np.concatenate(list(rows.values()))
    about = table[order].select("image_id", "patient_id", "copy")
    first = table.with_row_index("real").unique("image_id", keep="first").select("image_id", pl.col("real").cast(int))
    return about.with_columns(
        pl.Series("set", np.repeat(list(rows), [len(some) for some in rows.values()]).tolist()),
        pl.Series("row", order),
        pl.Series("asked", scores[order]),
        pl.Series("grade", grades(scores[order], cuts)),
        pl.Series("read", np.mean([run["predicted"] for run in runs], axis=0), pl.Float64),
    ).join(first, on="image_id", how="left", maintain_order="left")


def agreement(read: pl.DataFrame, n_resamples: int = 1000, seed: int = 0) -> pl.DataFrame:
    """How well `readings` follow what was asked: Pearson r and Spearman's rho of each set, intervals over patients.

    Columns: set, metric, value, low, high, n (images), patients. None where a side is constant. Empty if `read` is.
    """
    if read.is_empty():
        return pl.DataFrame()
    rows = []
    for (name,), own in read.group_by("set", maintain_order=True):
        counts = patient_counts(own["patient_id"], n_resamples, np.random.default_rng(seed))
        values = own.select("asked", "read").to_numpy()
        for metric, x in {"Pearson r": values, "Spearman rho": stats.rankdata(values, axis=0)}.items():
            sums = pair_sums(*x.T)
            found = vars(interval_of(correlation(sums.sum(0)), correlation(counts @ sums), len(own)))
            rows.append({"set": name, "metric": metric, **found, "patients": own["patient_id"].n_unique()})
    return pl.DataFrame(rows).with_columns(pl.col("value", "low", "high").fill_nan(None))


# ------------------------------------------------------------------------------------------------ detection


def train_and_detect(
    images: np.ndarray,
    image: np.ndarray,
    label: np.ndarray,
    place: np.ndarray,
    *,
    classes: Sequence[str],
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    **settings,
) -> dict[str, np.ndarray]:
    """One run: the boxes that a detector finds in the rows `test`, as `detection.to_arrays` stores them.

    image, label, place: the true boxes of all images, stored so.
    """
    boxes = detection.from_arrays({"image": image, "label": label, "place": place}, len(images), classes)
    given = {name: (images[rows], [boxes[row] for row in rows]) for name, rows in (("train", train), ("val", val))}
    model = detection.train_detector(*given["train"], tuple(classes), LearnerConfig(**settings), val=given["val"])
    return detection.to_arrays(model.predict(images[test]), classes)


def detection_table(
    results: Results,
    tests: Mapping[str, np.ndarray],
    boxes: detection.Boxes,
    classes: Sequence[str],
    patients: Mapping[str, Sequence[str]],
    **options,
) -> pl.DataFrame:
    """mAP50 and mAR50 of each arm on each test set: each finding, their mean, and foreign objects (ED Table 7).

    boxes: the true ones of all images; n counts them.
    """
    classes = tuple(classes)
    findings = [c for c, name in enumerate(classes) if name != FOREIGN]
    total = sum(map(len, tests.values()))

    def table(name: str, rows: np.ndarray, place: slice) -> pl.DataFrame:
        asked = [boxes[row] for row in rows]
        counted = np.array([sum(box["class"] == c for found in asked for box in found) for c in classes])
        known = counted >= LEAST_POSITIVES
        names = [FOREIGN_OBJECT if c == FOREIGN else c for c in classes] + [detection.OVERALL]
        numbers = [*counted.tolist(), int(counted[findings].sum())]
        about = [
            {"test": name, "category": c, "metric": metric, "n": n}
            for c, n in zip(names, numbers, strict=True)
            for metric in ("mAP50", "mAR50")
        ]
        arms = {
            arm: [detection.from_arrays(run, total, classes)[place] for run in runs]
            for arm, runs in by_arm(results).items()
        }

        def measure(found: detection.Boxes, counts: np.ndarray) -> np.ndarray:
            values = detection.resampled(asked, found, classes, counts)[:, : len(classes)]  # [B, C, 2]
            values = np.where(known[:, None], values, np.nan)
            mean = np.ma.masked_invalid(values[:, findings]).mean(axis=1, keepdims=True).filled(np.nan)
            return np.concatenate([values, mean], axis=1).reshape(len(counts), -1)

        return compare(arms, measure, about, patients[name], **options)

    return _each(tests, table)


def _each(tests: Mapping[str, np.ndarray], table) -> pl.DataFrame:
    """Tables of all test sets, which follow each other in what the runs found."""
    ends = np.cumsum([len(rows) for rows in tests.values()])
    tables = [
        table(name, rows, slice(end - len(rows), end)) for (name, rows), end in zip(tests.items(), ends, strict=True)
    ]
    return pl.concat(tables, how="vertical_relaxed")
