"""The privacy audit of a pool of synthetic radiographs: copies, closeness, membership, re-identification, a verdict.

What it cannot show: that a pool is safe. It finds what its attacks find; there is no guarantee in the sense of
differential privacy, and better attacks, other features or more knowledge may find more. `docs/privacy.md` says how to
read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import LEVEL, Interval
from chexgen_lib.estimates.wording import format_interval, format_p
from chexgen_lib.privacy import identity, membership, planted, proximity
from chexgen_lib.privacy.copies import COPY, INNOCENT, SIGNIFICANT, Calibration, calibrate, listed, of_units, share
from chexgen_lib.privacy.folders import HELD_OUT, POOL, TRAINING, AuditError, Images
from chexgen_lib.privacy.likeness import Reference

Attack = Callable[[Images], np.ndarray]
COPIES, LEAK, NOTHING = "copies", "leak", "nothing found"
FEWEST = 20  # distinct requests in a pool from which shares and attacks are measured
MOST_TARGETS, PLANTED = 1000, 100  # real images that an attack is tried on, training images that copies are made of
DETECTION, MEMBERSHIP = "copy detection", "membership inference"
TESTED = (proximity.CLOSER, membership.AUROC, identity.LINKED)  # measures that the verdict rests on, besides alarms
MEASURES = {
    **dict.fromkeys(("check", "measure", "note"), pl.String),
    **dict.fromkeys(("value", "low", "high", "expected"), pl.Float64),
    "n": pl.Int64,
}


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        verdict: `COPIES`: more alarms than unseen people's images would raise (p < 0.01), or pixels of a training
            image; `LEAK`: none of that, but another of `TESTED` exceeds what an innocent pool gives; `NOTHING`.
        reasons: the verdict's grounds, a sentence each.
        images: every image of the pool, `copies.listed`.
        measures: check, measure, note, value, low, high (95 % interval), expected (of an innocent pool; null: none),
            n.
        calibration: what the threshold of copy detection rests on.
        sets: the images compared, by set.
    """

    verdict: str
    reasons: list[str]
    images: pl.DataFrame
    measures: pl.DataFrame
    calibration: Calibration
    sets: Mapping[str, Images]

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The images in the order of `images`, and the training image that is most alike to each: uint8 [N, S, S]."""
        training = self.sets[TRAINING]
        row_of = {file: row for row, file in enumerate(training.table["file"])}
        near = [row_of[file] for file in self.images["nearest"]]
        return self.sets[POOL].pixels[self.images["row"].to_numpy()], training.pixels[near]


def audit(
    sets: Mapping[str, Images], attacks: Mapping[str, Attack] | None = None, false_alarms: float = 0.01, seed: int = 0
) -> Audit:
    """Audit a pool against its generator's training images and unseen real ones.

    Args:
        sets: of `POOL`, `TRAINING` and `HELD_OUT`, as `folders.read_all` gives them.
        attacks: membership inference by more than the pool, by name: a score of each image, higher for training images
            (`model_error.scores`).
        false_alarms: share of unseen images that copy detection may take for copies.

    Raises:
        AuditError: for too few training or held-out images.
    """
    pool, training, held_out = (sets[name] for name in (POOL, TRAINING, HELD_OUT))
    for name in (TRAINING, HELD_OUT):
        if len(set(sets[name].patients)) < 2:
            raise AuditError(f"the {name} images are of a single patient: give those of all")
    trained, unseen = Reference(training.pixels), Reference(held_out.pixels)
    calibration, of_unseen = calibrate(training, held_out, trained, false_alarms, unseen)
    matches = trained.search(pool.pixels)
    images = listed(pool, training, matches, calibration)
    rows = _detection(images, pool.patients, calibration, _sensitivity(training, trained, calibration, seed))
    if (requests := len(set(pool.patients))) < FEWEST:
        note = f"not measured: {requests} requests in the pool, fewer than {FEWEST}"
        rows += [_row(check, "all", None, note=note) for check in ("proximity", MEMBERSHIP, "re-identification")]
    else:
        near = trained.coarse(pool.pixels), unseen.coarse(pool.pixels)
        closeness = proximity.proximity(*near, pool, training, held_out, seed=seed)
        expected = {proximity.CLOSER: 0.5, proximity.RATIO: 1.0}
        rows += [_row("proximity", name, found, expected[name], len(pool)) for name, found in closeness.items()]
        rows += _membership(sets, attacks or {}, seed)
        rows += _identity(identity.identity(matches, of_unseen, pool, training, held_out, trained, seed=seed))
    measures = pl.DataFrame(rows, MEASURES)
    exact = int((images["likeness"] > 1 - 1e-6).sum())
    verdict, reasons = _verdict(images, exact, requests, calibration, measures)
    return Audit(verdict, reasons, images, measures, calibration, sets)


def _row(
    check: str,
    measure: str,
    found: Interval | None,
    expected: float | None = None,
    n: int | None = None,
    note: str = "",
) -> dict:
    value, low, high = found if found is not None else (None, None, None)
    return dict(check=check, measure=measure, note=note, value=value, low=low, high=high, expected=expected, n=n)


def _sensitivity(
    training: Images, trained: Reference, calibration: Calibration, seed: int
) -> dict[str, tuple[Interval, int]]:
    """The share of planted copies of training images, of each kind, that raise an alarm; and of how many."""
    rng = np.random.default_rng(seed)
    source = training.pixels[np.sort(rng.permutation(len(training))[:PLANTED])]
    found = {}
    for kind in planted.KINDS:
        r = trained.search(planted.copies(source, kind, rng)).r[:, 0]
        found[kind] = share(int((r >= calibration.threshold).sum()), len(source)), len(source)
    return found


def _alarms(images: pl.DataFrame) -> int:
    return int((images["call"] != INNOCENT).sum())


def _detection(
    images: pl.DataFrame,
    of: np.ndarray,
    calibration: Calibration,
    sensitivity: Mapping[str, tuple[Interval, int]],
) -> list[dict]:
    """Rows of `MEASURES`; of: the request of each image of the pool [N], in the pool's order."""
    unseen, groups = calibration.unseen, {"images with an alarm": images}
    if images["training_prompt"].n_unique() == 2:
        groups["with an alarm, training prompts"] = images.filter("training_prompt")
        groups["with an alarm, other prompts"] = images.filter(~pl.col("training_prompt"))
    rows = [
        _row(
            DETECTION, name, share(_alarms(group), len(group), len(set(of[group["row"]]))), calibration.rate, len(group)
        )
        for name, group in groups.items()
    ]
    copied = int((images["call"] == COPY).sum())
    called = share(copied, len(images), len(set(of)))
    rows.append(_row(DETECTION, "images called copies", called, None, len(images)))
    if len(calibration.same_patient):
        passed = int((calibration.same_patient >= calibration.threshold).sum())
        found = share(passed, len(calibration.same_patient))
        note = "real pairs of one patient, other study, that would raise an alarm"
        rows.append(_row(DETECTION, "pairs of one patient", found, None, len(calibration.same_patient), note))
    for kind, (found, of) in sensitivity.items():
        rows.append(_row(DETECTION, f"planted copies found: {kind}", found, None, of))
    note = f"likeness r; at most {calibration.rate:.2g} of unseen images reach it"
    return [*rows, _row(DETECTION, "threshold", Interval(calibration.threshold, *[None] * 2), None, len(unseen), note)]


def _membership(sets: Mapping[str, Images], attacks: Mapping[str, Attack], seed: int) -> list[dict]:
    """AUROC and true positives at 1 % false positives of each attack."""
    rng = np.random.default_rng(seed)
    members, others = (
        images.take(np.sort(rng.permutation(len(images))[:MOST_TARGETS])) for images in (sets[TRAINING], sets[HELD_OUT])
    )
    targets = Images(pl.concat([members.table, others.table]), np.concatenate([members.pixels, others.pixels]))
    scores = membership.pool_scores(targets, Reference(sets[POOL].pixels), targets, Reference(targets.pixels))
    scores |= {name: attack(targets) for name, attack in attacks.items()}
    rows = []
    for attack, score in scores.items():
        found = membership.measure(score[: len(members)], score[len(members) :], targets.patients, seed=seed)
        for measure, expected in ((membership.AUROC, 0.5), (membership.CAUGHT, membership.FALSE_POSITIVES)):
            rows.append(_row(MEMBERSHIP, f"{attack}, {measure}", found[measure], expected, len(targets)))
    return rows


def _identity(found: Mapping[str, tuple[Interval, int]]) -> list[dict]:
    if not found:
        return [_row("re-identification", "all", None, note="not measured: no patient has two training images")]
    expected = {identity.LINKED: found[identity.FLOOR][0].high}
    return [_row("re-identification", name, value, expected.get(name), n) for name, (value, n) in found.items()]


def _beyond(measures: pl.DataFrame) -> pl.DataFrame:
    """The rows of `TESTED` measures that exceed what an innocent pool gives, at `SIGNIFICANT` shared among them.

    A 95 % interval reaches 1.96 standard errors below the value; the test asks for more of these errors.
    """
    tested = measures.filter(
        pl.col("expected").is_not_null(), pl.any_horizontal(pl.col("measure").str.ends_with(name) for name in TESTED)
    )
    asked = stats.norm.ppf(1 - SIGNIFICANT / max(len(tested), 1)) / stats.norm.ppf(0.5 + LEVEL / 2)
    return tested.filter(pl.col("value") - pl.col("expected") > asked * (pl.col("value") - pl.col("low")))


def _verdict(
    images: pl.DataFrame, exact: int, requests: int, calibration: Calibration, measures: pl.DataFrame
) -> tuple[str, list[str]]:
    """The verdict and its grounds; what is tested is the alarms of the requests, whose images may be alike."""
    alarms, n = _alarms(images), len(images)
    p = calibration.p_of_alarms(of_units(alarms, n, requests), requests)
    rate = format_interval(*(100 * v for v in share(alarms, n, requests)), 1)
    expected = f"{100 * calibration.rate:.2g} % of unseen people's images would"
    reasons = [f"{alarms} of {n} images ({rate} %) raise an alarm; {expected} ({format_p(p)})"]
    if exact:
        reasons.append(f"{exact} images have the structure of a training image exactly")
    leaks = _beyond(measures)
    for row in leaks.iter_rows(named=True):
        interval = format_interval(row["value"], row["low"], row["high"])
        reasons.append(f"{row['check']}: {row['measure']} {interval}, {row['expected']:.2g} of an innocent pool")
    if p < SIGNIFICANT or exact:
        return COPIES, reasons
    if len(leaks):
        return LEAK, reasons
    planted_found = measures.filter(pl.col("measure").str.starts_with("planted"))["value"].min()
    least = calibration.detectable(requests, planted_found)
    if least == 1:
        return NOTHING, [*reasons, "so few images cannot show copying, unless one is a copy outright"]
    return NOTHING, [*reasons, f"a pool with {100 * least:.1f} % copies would have been noticed with 80 % power"]
