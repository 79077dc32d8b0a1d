"""Requests that change one attribute of a real record at a time, and the known attributes of real images.

An attribute has two poles (`poles`): women and men, PA and AP, a finding absent and present, two ages 40 years apart.
`pairs` takes real records and requests each of them at both poles, to be sampled with the same noise, so that the
requested attribute is balanced and the others are as in reality.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from chexgen_lib.models.metadata import ATTRIBUTES, SEXES
from chexgen_lib.records import FINDINGS

YOUNG, YEARS = (20, 50), 40  # a pair's lower age is in this range, its upper one so many years more
LEAST = 5  # pairs, or real images of each pole, that an interval needs
SUMMARIES = ("No Finding", "Lung Opacity")  # findings that follow from others


class ControlError(ValueError):
    """Attributes, records or counts for which control cannot be requested or measured."""


def poles(sources: Sequence[str]) -> dict[str, tuple]:
    """The two values of each attribute that are compared; `age` has a range of values instead.

    Args:
        sources: two, of different acquisition; any, where the source is not requested.
    """
    return {"sex": SEXES, "view": ("PA", "AP"), "source": tuple(sources), **dict.fromkeys(FINDINGS, (0, 1))}


def truth(table: pl.DataFrame, attributes: Sequence[str], sources: Sequence[str]) -> np.ndarray:
    """Known attributes of records: [N, A], age in years, else 0 or 1 for the poles, NaN for unknown or any other value.

    Raises:
        ControlError: for an attribute that does not exist.
    """
    if unknown := [name for name in attributes if name not in ATTRIBUTES]:
        raise ControlError(f"unknown attribute {unknown[0]!r}: use some of {', '.join(ATTRIBUTES)}")
    if "source" in attributes and len(set(sources)) != 2:
        raise ControlError(f"sources: needs two to tell apart, got {list(sources)}; or leave source out")
    ends = poles(sources)

    def column(name: str) -> np.ndarray:
        if name == "age":
            return table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        low, high = (table[name] == end for end in ends[name])
        return pl.select(pl.when(high).then(1.0).when(low).then(0.0).otherwise(np.nan)).to_series().to_numpy()

    return np.stack([column(name) for name in attributes], axis=1)


def check_truth(values: np.ndarray, attributes: Sequence[str], which: str) -> None:
    """Raise ControlError unless both poles of every attribute have `LEAST` images; `which` names the images."""
    for name, known in zip(attributes, values.T, strict=True):
        known = known[~np.isnan(known)]
        levels, counts = np.unique(known, return_counts=True)
        if len(levels) < 2:
            shown = f"only {levels[0]:g}" if len(levels) else "no known value"
            raise ControlError(f"{name}: the {which} images have {shown}; leave it out of the attributes")
        if name != "age" and counts.min() < LEAST:
            raise ControlError(
                f"{name}: one pole has {counts.min()} of the {which} images, an interval needs {LEAST}; leave it out "
                "of the attributes or take a larger cohort"
            )


def requested_value(name: str, pole: int, k: int, n: int, sources: Sequence[str]) -> object:
    """The value that the k-th of n pairs requests at pole 0 or 1; ages are spread evenly."""
    if name == "age":
        return YOUNG[0] + (YOUNG[1] - YOUNG[0]) * k / max(1, n - 1) + YEARS * pole
    return poles(sources)[name][pole]


def changed(row: Mapping, name: str, value: object) -> dict:
    """Metadata of a record with one attribute changed; what the change would contradict is left out.

    "No Finding" and "Lung Opacity" follow from other findings: they are left out where another is requested, and the
    others are left out where one of these is (support devices can go with both).
    """
    known = {key: row[key] for key in ATTRIBUTES if row.get(key) is not None}
    if name in SUMMARIES:
        omitted = set(FINDINGS) - {"Support Devices"}
    elif name in FINDINGS and name != "Support Devices":
        omitted = set(SUMMARIES)
    else:
        omitted = set()
    return {key: known[key] for key in known if key not in omitted} | {name: value}


def pairs(
    table: pl.DataFrame, attributes: Sequence[str], n: int, sources: Sequence[str], seed: int = 0
) -> tuple[pl.DataFrame, list[dict], list[dict]]:
    """`n` records for each attribute, to be sampled at its low and at its high pole.

    Args:
        table: real records that supply the other attributes.

    Returns:
        the requests (image_id, attribute, k, record, patient_id of the record), rows of one attribute together; and the
        metadata of both poles in their order.

    Raises:
        ControlError: for fewer than `LEAST` pairs, or no records.
    """
    if n < LEAST:
        raise ControlError(f"{n} pairs an attribute are requested, an interval needs {LEAST}: raise `pairs`")
    if table.is_empty():
        raise ControlError("there are no real records to take the other attributes from")
    rng, requests, metadata = np.random.default_rng(seed), [], ([], [])
    rows = table.to_dicts()
    for name in attributes:
        order = np.resize(rng.permutation(len(rows)), n)
        for k, row in enumerate(order):
            requests.append((f"{name}/{k}", name, k, rows[row]["image_id"], rows[row]["patient_id"]))
            for pole in (0, 1):
                metadata[pole].append(changed(rows[row], name, requested_value(name, pole, k, n, sources)))
    columns = ["image_id", "attribute", "k", "record", "patient_id"]
    return pl.DataFrame(requests, columns, orient="row"), *metadata


def sweeps(row: Mapping, attributes: Sequence[str], sources: Sequence[str]) -> list[tuple[str, list[str], list[dict]]]:
    """Attribute, values in words and metadata of a record in which it takes its poles, or five ages in turn."""
    found = []
    for name in attributes:
        values = [20, 35, 50, 65, 80] if name == "age" else poles(sources)[name]
        words = [f"{value} years" if name == "age" else str(value) for value in values]
        words = ["absent", "present"] if name in FINDINGS else words
        found.append((name, words, [changed(row, name, value) for value in values]))
    return found
