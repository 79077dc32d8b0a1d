"""What an arm is held against besides its reference: as many new real images (an oracle), and a control.

A gain from synthetic images says little on its own. The oracle has as many new real images in place of the synthetic
ones, and the ratio of the two gains is the `worth` of a synthetic image: 1 if it serves as well as a real one, 0 if it
adds nothing. The control has everything but what the synthetic images are claimed to add; `beyond` is the difference
from it, and a gain that the control has as well is no gain. Both are taken within each resample of patients and seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chexgen_lib.estimates.resampling import SeedsMean, percentile_interval

NAMES = ("oracle", "control")
NUMBERS = ("worth", "worth_low", "worth_high", "beyond", "beyond_low", "beyond_high")
COLUMNS = (*NAMES, *NUMBERS)


@dataclass(frozen=True)
class Against:
    """What an arm is held against; all are names of arms.

    Attributes:
        oracle: the same with as many new real images in place of the synthetic ones.
        control: everything but what the synthetic images are claimed to add.
        base: from which the gains of arm and oracle are taken; None: from the reference of all differences.
    """

    oracle: str | None = None
    control: str | None = None
    base: str | None = None


def columns(
    arm: SeedsMean,
    means: Mapping[str, SeedsMean],
    against: Against,
    reference: str,
    lower_is_better: bool = False,
    centred: bool = False,
) -> dict:
    """`COLUMNS` of one arm and measure, those that are known; without a number for arms that do not occur in `means`.

    Args:
        arm: the measure, averaged over the seeds.
        means: arm -> the measure of all arms, likewise.
        lower_is_better: of the measure; a gain is a decrease then. `beyond` keeps the sign of the measure.
        centred: as in `percentile_interval`, of `beyond`.
    """
    known = {}
    if against.oracle in means:
        base = means[against.base if against.base in means else reference]
        sign = -1 if lower_is_better else 1
        gains = ((values - base) * sign for values in (arm, means[against.oracle]))
        known |= {"oracle": against.oracle, **worth(*gains)}
    if against.control in means:
        interval = percentile_interval((arm - means[against.control]).widened(), centred=centred)
        known |= {"control": against.control, "beyond": interval.value}
        known |= {"beyond_low": interval.low, "beyond_high": interval.high}
    return known


def worth(gain: SeedsMean, real_gain: SeedsMean) -> dict[str, float]:
    """The ratio of two gains with its 95 % interval: `worth`, `worth_low`, `worth_high`.

    Few seeds widen it: the resamples of both gains lie further from them by as much as those of `gain - w * real_gain`
    must, whose interval contains zero for each w that may be the worth (Fieller 1954), or by as much as those of the
    real images' gain alone, whichever is more. Empty where the worth cannot be measured: the interval of the real
    images' gain is not above zero. Else at most one resample in forty has no such gain, and is left out.
    """
    if not real_gain.resampled[0] > 0:
        return {}
    ratio = gain.resampled[0] / real_gain.resampled[0]
    by = max(real_gain.widening(), (gain - real_gain * ratio).widening())
    gained = real_gain.widened(by)
    if not percentile_interval(gained).low > 0:
        return {}
    interval = percentile_interval(gain.widened(by) / np.where(gained > 0, gained, np.nan))
    return {"worth": interval.value, "worth_low": interval.low, "worth_high": interval.high}
