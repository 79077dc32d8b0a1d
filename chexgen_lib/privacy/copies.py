"""Copy detection: which images of a pool are more alike to a training image than unseen people's images are.

The threshold is an order statistic of real images that the generator never saw: each one's likeness to its most alike
training image. Were a pool's images exchangeable with these, an image would pass it with probability `rate` (conformal
p-values; Vovk et al. 2005). Pairs of two real studies of one patient say how alike a likeness of the patient would be:
above `copy_level` an image is more alike than 99 % of them.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from chexgen_lib.estimates.resampling import LEVEL, Interval
from chexgen_lib.privacy.folders import AuditError, Images
from chexgen_lib.privacy.likeness import Matches, Reference

COPY, ALIKE, INNOCENT = "copy", "alike", ""
SIGNIFICANT = 0.01  # p below which a pool holds more alarms than unseen images would raise
FEWEST_PAIRS = 100  # of two studies of one patient, for their 99th percentile


@dataclass(frozen=True)
class Calibration:
    """What the threshold rests on.

    Attributes:
        unseen: [n], likeness of each held-out image to its most alike training image, sorted.
        same_patient: [m], likeness of pairs of real images of one patient, sorted; empty where no pairs are known.
        false_alarms: the share of unseen images that may pass the threshold.
        patients: of the held-out images, where they are told; None: one image each.
    """

    unseen: np.ndarray
    same_patient: np.ndarray
    false_alarms: float = 0.01
    patients: int | None = None

    def __post_init__(self):
        if self.allowed < 1:
            needed, reached = np.ceil(1 / self.false_alarms - 1e-9) - 1, np.ceil(100 / (len(self.unseen) + 1)) / 100
            raise AuditError(
                f"{len(self.unseen)} held-out images cannot calibrate a false-alarm rate of {self.false_alarms:g}: "
                f"give at least {needed:.0f}, or --false-alarms {reached:g}"
            )

    @property
    def allowed(self) -> int:
        """The rank of the threshold among the unseen: the k-th most alike."""
        return int(np.floor(self.false_alarms * (len(self.unseen) + 1) + 1e-9))

    @property
    def threshold(self) -> float:
        """Likeness at or above which an image raises an alarm."""
        return float(self.unseen[-self.allowed])

    @property
    def rate(self) -> float:
        """The false-alarm rate of the threshold, at most `false_alarms`."""
        return self.allowed / (len(self.unseen) + 1)

    @property
    def copy_level(self) -> float | None:
        """Likeness above which 1 % of the pairs of one patient's studies are; None for fewer than 100 pairs."""
        return float(np.quantile(self.same_patient, 0.99)) if len(self.same_patient) >= FEWEST_PAIRS else None

    def p_values(self, r: np.ndarray) -> np.ndarray:
        """The share of unseen images at least as alike, the image itself among them."""
        return (1 + len(self.unseen) - np.searchsorted(self.unseen, r, "left")) / (len(self.unseen) + 1)

    def calls(self, r: np.ndarray) -> list[str]:
        """`COPY`, `ALIKE` (an alarm, no more alike than studies of one patient may be) or `INNOCENT` of each."""
        level = self.copy_level if self.copy_level is not None else self.threshold
        named = np.where(r > level, COPY, ALIKE)
        return np.where(r >= self.threshold, named, INNOCENT).tolist()

    def p_of_alarms(self, alarms: int, n: int) -> float:
        """Probability of at least so many alarms among n images that are exchangeable with the unseen.

        Beta-binomial, because the threshold itself is estimated: the share that passes the k-th of m order statistics
        is Beta(k, m + 1 - k). Images of one patient may be alike, so m counts patients, and k is as large a share.
        """
        units = (self.patients or len(self.unseen)) + 1
        return float(stats.betabinom.sf(alarms - 1, n, self.rate * units, (1 - self.rate) * units))

    def detectable(self, n: int, found: float) -> float:
        """The smallest share of copies in a pool of n that is significant with 80 % power; 1 where none is.

        Args:
            found: the share of copies that raise an alarm.
        """
        enough = next((k for k in range(n + 1) if self.p_of_alarms(k, n) < SIGNIFICANT), n + 1)
        shares = np.linspace(0, 1, 1001)
        power = stats.binom.sf(enough - 1, n, shares * found + (1 - shares) * self.rate)
        return float(shares[np.argmax(power >= 0.8)]) if (power >= 0.8).any() else 1.0


def same_patient_pairs(images: Images, reference: Reference, most: int = 1000) -> np.ndarray:
    """Likeness of two real images of each patient who has two studies (or where studies are not told, two images)."""
    table = images.table.with_row_index("row").with_columns(study=pl.coalesce("study_id", "image_id"))
    table = table.unique(["patient_id", "study"], keep="first", maintain_order=True)
    pairs = (
        table.group_by("patient_id", maintain_order=True)
        .agg(pl.col("row").head(2))
        .filter(pl.col("row").list.len() == 2)
    )
    if pairs.is_empty():
        return np.empty(0)
    one, other = np.array(pairs["row"].head(most).to_list()).T
    return reference.compare(images.pixels[one], other)


def calibrate(
    training: Images, held_out: Images, trained: Reference, false_alarms: float, pairs_of: Reference
) -> tuple[Calibration, Matches]:
    """The calibration, and the matches of the held-out images in training.

    Args:
        trained, pairs_of: the training and the held-out images as references.
    """
    matches = trained.search(held_out.pixels)
    pairs = [same_patient_pairs(training, trained), same_patient_pairs(held_out, pairs_of)]
    unseen, patients = np.sort(matches.r[:, 0]), held_out.table["patient_id"].n_unique()
    return Calibration(unseen, np.sort(np.concatenate(pairs)), false_alarms, patients), matches


def share(alarms: int, n: int, units: int | None = None) -> Interval:
    """The share of a pool's images that raise an alarm, with its exact 95 % interval (Clopper and Pearson 1934).

    units: independent ones that the n images are of, as the requests of a pool with several images of each: the
    interval is that of the same share of them. None: n.
    """
    low, high = stats.binomtest(of_units(alarms, n, units or n), units or n).proportion_ci(LEVEL, "exact")
    return Interval(alarms / n, min(float(low), alarms / n), max(float(high), alarms / n))


def of_units(alarms: int, n: int, units: int) -> int:
    """As many of the units as have the images' share of alarms: images of one unit may be alike."""
    return round(alarms * units / n)


def listed(pool: Images, training: Images, matches: Matches, calibration: Calibration) -> pl.DataFrame:
    """Every image of a pool with its most alike training image, the most alike first.

    Returns:
        row, file, image_id, prompt, training_prompt (whether it, or its record, was trained on), nearest (file),
        nearest_image_id, nearest_patient_id, likeness (r), mirrored, p (`Calibration.p_values`), call
        (`Calibration.calls`).
    """
    r, near = matches.r[:, 0], training.table[matches.index[:, 0]]
    known = pl.col("prompt").is_in(training.table["prompt"].drop_nulls().to_list()).fill_null(False)
    known |= pl.any_horizontal(
        pl.col("image_id", "patient_id").is_in(training.table["image_id"].to_list())  # of a pool, its record
    )
    table = pool.table.select("file", "image_id", "prompt", known.alias("training_prompt")).with_columns(
        nearest=near["file"],
        nearest_image_id=near["image_id"],
        nearest_patient_id=near["patient_id"],
        likeness=pl.Series(r),
        mirrored=pl.Series(matches.mirrored[:, 0]),
        p=pl.Series(calibration.p_values(r)),
        call=pl.Series(calibration.calls(r)),
    )
    return table.with_row_index("row").sort("likeness", "file", descending=[True, False])
