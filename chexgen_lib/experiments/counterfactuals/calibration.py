"""How strongly each kind of change has to be guided, so that edits change films as much as the truth does.

What an edit adds to a film is about proportional to its guidance, by a factor that depends on what is changed: with one
weight for all a model may overdo edema and hardly age anybody. So a trial with one weight, on pairs of other patients
than those that are tested, says which weight each attribute needs.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from chexgen_lib.experiments.counterfactuals.films import Films
from chexgen_lib.images import from_uint8

LEAST, MOST = 0.5, 4.0  # weights; beyond these an edit destroys more than it adds


def calibrate(trial: np.ndarray, films: Films, weight: float) -> pl.DataFrame:
    """The weight of each attribute, from films that were edited with one `weight`, uint8 [N, S, S].

    Returns:
        attribute, pairs, arrived (the share of the true difference that the edits add, in its direction), agreement
        (cosine of both), and weight, with which all would arrive, within `LEAST` and `MOST`.
    """
    before = from_uint8(films.before)
    added, true = ((from_uint8(x) - before).reshape(len(before), -1) for x in (trial, films.after))
    products = {"both": added * true, "added": added**2, "true": true**2}
    table = pl.DataFrame({"attribute": films.attributes} | {name: x.sum(1) for name, x in products.items()})
    sums = table.group_by("attribute", maintain_order=True).agg(pl.len().alias("pairs"), pl.col(*products).sum())
    both, own, truth = (pl.col(name) for name in products)
    arrived = pl.when(truth > 0).then(both / truth).otherwise(0.0)
    agreement = pl.when((truth > 0) & (own > 0)).then(both / (own * truth).sqrt()).otherwise(0.0)
    needed = pl.when(arrived > 0).then((weight / arrived).clip(LEAST, MOST)).otherwise(MOST)
    return sums.select("attribute", "pairs", arrived=arrived, agreement=agreement, weight=needed)


def weights(calibrated: pl.DataFrame, attributes: Sequence[str], default: float) -> tuple[float, ...]:
    """The weight for each of several changes by what they change; `default` where that was not tried."""
    known = dict(calibrated.select("attribute", "weight").iter_rows())
    return tuple(known.get(attribute, default) for attribute in attributes)
