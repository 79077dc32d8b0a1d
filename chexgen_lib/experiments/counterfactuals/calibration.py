"""How strongly each kind of change has to be guided, so that edits move its probe as far as the truth does.

How far an edit goes depends on its guidance and, with the same guidance, on what is changed: a model may overdo edema
and hardly move a pneumothorax. So a trial with one weight, on pairs of other patients than those that are tested and
those that probes learn from, says which weight each attribute needs.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from chexgen_lib.experiments.counterfactuals.measures import ProbedFilms
from chexgen_lib.images import from_uint8

LEAST, MOST = 0.5, 4.0  # weights; beyond these an edit spoils more of a film than it changes


def calibrate(trial: np.ndarray, probed: ProbedFilms, weight: float) -> pl.DataFrame:
    """The weight of each attribute that has a probe, from films that were edited with one `weight`.

    Args:
        trial: the edited films of `probed`, uint8 [N, S, S].

    Returns:
        attribute, pairs, arrived (effectiveness of the trial), agreement (cosine of what the edits add to the films
        and what the truth does), and weight, with which all would arrive if the one were proportional to the other:
        within `LEAST` and `MOST`, and `weight` itself where the probe does not see the true change.
    """
    before = from_uint8(probed.films.before)
    added, true = ((from_uint8(x) - before).reshape(len(before), -1) for x in (trial, probed.films.after))
    table = pl.DataFrame(
        {
            "attribute": probed.films.attributes,
            "edited": probed.movement(probed(trial)),
            "truth": probed.movement(probed.after),
            "both": (added * true).sum(1),
            "lengths": (added**2).sum(1) * (true**2).sum(1),
        }
    ).filter(pl.col("truth").is_not_nan())
    means = pl.col("edited", "truth").mean(), (pl.col("both") / pl.col("lengths").sqrt()).fill_nan(0).mean()
    by_attribute = table.group_by("attribute", maintain_order=True).agg(pl.len().alias("pairs"), *means)
    arrived = pl.when(pl.col("truth") > 0).then(pl.col("edited") / pl.col("truth"))
    needed = pl.when(arrived > 0).then((weight / arrived).clip(LEAST, MOST)).when(arrived <= 0).then(MOST)
    return by_attribute.select(
        "attribute", "pairs", arrived=arrived, agreement="both", weight=needed.otherwise(float(weight))
    )


def weights(calibrated: pl.DataFrame, attributes: Sequence[str], default: float) -> tuple[float, ...]:
    """The weight for each of several changes by what they change; `default` where that was not tried."""
    known = dict(calibrated.select("attribute", "weight").iter_rows())
    return tuple(known.get(attribute, default) for attribute in attributes)
