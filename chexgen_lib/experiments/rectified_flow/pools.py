"""The pools of all generators, read by the same probes: what a record asks for, and what its sample shows."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout
from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import LEAST, auroc, correlation, known_mean, pair_sums
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.rectified_flow import requests
from chexgen_lib.experiments.rectified_flow.control import MACRO, Answers
from chexgen_lib.experiments.rectified_flow.data import PROBES, Data, Instruments
from chexgen_lib.images import from_uint8
from chexgen_lib.pools import labelled
from chexgen_lib.records import FINDINGS


def answers(
    pools: Mapping[str, Path], cohort: Path, data: Data, tools: Instruments, n: int, seed: int
) -> dict[str, Answers]:
    """The probes' predictions on each generator's pool, beside the attributes of the records that it was asked for.

    Args:
        pools: generator -> folder of a pool of the cohort's records; of each record the first image counts.
        cohort: folder of the cohort.
        n: images of a pool, at most, drawn at random.
    """
    records, size, found = layout.load(cohort), data.parts[PROBES].images.shape[-1], {}
    for name, folder in pools.items():
        pool = labelled.load(folder, records, size).where(pl.col("copy") == 0)
        pool = pool[np.sort(np.random.default_rng(seed).permutation(len(pool))[:n])]
        asked = requests.truth(pool.table, data.attributes, data.sources)
        found[name] = Answers(tools.probes(from_uint8(pool.images[:])), asked, pool.table["patient_id"].to_list())
    return found


def recovered(pools: Mapping[str, Answers], attributes: list[str], n_resamples: int, seed: int) -> pl.DataFrame:
    """How well the probes recover from each pool what was asked for, in the columns of `control.control_table`.

    `images` is the generator. AUROC of the poles, correlation of ages, and the mean of the findings' AUROC, of those
    that have a row. Patients are resampled. No row for an attribute of which a pool has fewer than `LEAST` images of
    either pole.
    """
    rows = []
    for images, own in pools.items():
        weights, macro = Resampling(own.patients, n_resamples, seed).weights, []
        for asked, read, name in zip(own.truth.T, own.answers.T, attributes, strict=True):
            about = {"attribute": name, "images": images, "n": int((~np.isnan(asked)).sum())}
            if name == "age":
                rows.append(
                    about | {"measure": "correlation"} | estimate(correlation(weights @ pair_sums(asked, read)))
                )
            elif min((asked == 0).sum(), (asked == 1).sum()) >= LEAST:
                values = auroc(asked, read, weights)
                rows.append(about | {"measure": "AUROC"} | estimate(values))
                macro += [values] if name in FINDINGS else []
        if macro:
            about = {"attribute": MACRO, "measure": "AUROC", "images": images, "n": len(own.patients)}
            rows.append(about | estimate(known_mean(np.array(macro), axis=0)))
    return pl.DataFrame(rows).select("attribute", "measure", "images", "value", "low", "high", "n")
