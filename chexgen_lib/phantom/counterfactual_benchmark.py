"""A benchmark of counterfactual editing: pairs of a record and a change, a pure function of their number and a seed.

    pairs = benchmark()                      # 1,000 pairs; films are rendered on demand (`counterfactuals`)
    write(pairs, "benchmark", size=128)      # films and labels.csv, for an editor of any kind
    edits = read_edits("edited", pairs, 128)

No real record is in it: kinds of change take turns, so that rare findings are as well measured as common ones, and
what else a film shows is drawn independently. How often things occur together in it says nothing about patients.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from chexgen_lib.descriptions.changes import changed, prompts
from chexgen_lib.images import ImageError, from_uint8, write_png
from chexgen_lib.phantom.counterfactual import counterfactuals
from chexgen_lib.phantom.devices import WORDS
from chexgen_lib.phantom.findings import MIDLINE
from chexgen_lib.phantom.patient import rng
from chexgen_lib.pixels import read_pixels
from chexgen_lib.records import FINDINGS, OPACITIES, SEVERITIES, RecordError
from chexgen_lib.sources.given import named_file
from chexgen_lib.sources.table import read_given
from chexgen_lib.storage import replacing

PAIRS = 1000
LABELS = "labels.csv"
SHOWN = tuple(finding for finding in FINDINGS if finding != "No Finding")
PERSON = ("age", "sex", "view", "site")
OF_A_FINDING = ("side", "severity", "device")  # of one that stays
# What is changed, and whether a finding comes or goes (else None).
KINDS = (
    *((attribute, None) for attribute in PERSON),
    *((finding, comes) for finding in SHOWN for comes in (True, False)),
    *((attribute, None) for attribute in OF_A_FINDING),
    ("No Finding", True),
)
AGES, YEARS = (20, 90), (20, 40)  # of patients; by which they get older, or younger


@dataclass(frozen=True)
class Pair:
    """A film to edit.

    Attributes:
        name: "0000", ...
        attribute: what is changed: age, sex, view, site, a finding, or the side, severity or device of one.
        record: of the film, as `render` takes it.
        change: as `descriptions.changes.changed` takes it.
    """

    name: str
    attribute: str
    record: dict[str, Any]
    change: dict[str, Any]

    @property
    def target(self) -> dict[str, Any]:
        """The record of the film as it should become."""
        return changed(self.record, self.change)


def benchmark(n: int = PAIRS, seed: int = 0) -> list[Pair]:
    """The first `n` pairs of the benchmark of a seed; 0 is the one to compare with others on.

    Raises:
        ValueError: for fewer pairs than 1.
    """
    if n < 1:
        raise ValueError(f"a benchmark of {n} pairs measures nothing: ask for at least 1, all kinds are {len(KINDS)}")
    return [_pair(number, seed) for number in range(n)]


def _pair(number: int, seed: int) -> Pair:
    attribute, comes = KINDS[number % len(KINDS)]
    random = rng("counterfactual benchmark", seed, number)
    finding = _finding(attribute, random)
    there = finding is not None and not comes or attribute == "No Finding"
    record = _record(number, seed, finding, there, random)
    return Pair(f"{number:04d}", attribute, record, _change(attribute, comes, finding, record, random))


def _finding(attribute: str, random: np.random.Generator) -> str | None:
    """The finding that a pair is about, if it is about one."""
    if attribute == "device":
        return "Support Devices"
    if attribute in ("side", "severity"):
        sided = [finding for finding in SHOWN if finding not in (*MIDLINE, "Edema", "Support Devices")]
        return str(random.choice(sided))
    if attribute == "No Finding":
        return str(random.choice([finding for finding in SHOWN if finding != "Support Devices"]))
    return attribute if attribute in FINDINGS else None


def _record(number: int, seed: int, finding: str | None, there: bool, random: np.random.Generator) -> dict[str, Any]:
    """A patient with the finding, if it is to be there, and with none to two others."""
    # An unnamed opacity would take the name of a named one, so that two things changed.
    alone = {finding, "Lung Opacity", *(OPACITIES if finding == "Lung Opacity" else ())}
    others = random.choice([f for f in SHOWN if f not in alone], random.choice(3, p=(0.5, 0.3, 0.2)), replace=False)
    shown = [*map(str, others), *([finding] if there else [])]
    name = f"counterfactual:{seed}-{number:04d}"
    states = {f: float(f in shown) for f in FINDINGS}
    states["Lung Opacity"] = float(any(f in shown for f in ("Lung Opacity", *OPACITIES)))
    states["No Finding"] = float(not set(shown) - {"Support Devices"})
    return {
        "image_id": name,
        "source": "counterfactual",
        "patient_id": name,
        "study_id": name,
        "view": str(random.choice(["PA", "AP"])),
        "age": float(random.integers(*AGES, endpoint=True)),
        "sex": str(random.choice(["F", "M"])),
        "site": str(random.choice(["A", "B"])),
        **states,
        "details": [{"finding": f} | _place(f, random) for f in shown],
    }


def _place(finding: str, random: np.random.Generator) -> dict[str, str | None]:
    side, severity = str(random.choice(["left", "right"])), str(random.choice(SEVERITIES))
    device = str(random.choice(list(WORDS)))
    sideless = (*MIDLINE, "Edema", "Support Devices")
    return {
        "side": None if finding in sideless else side,
        "site": device if finding == "Support Devices" else None,
        "severity": None if finding == "Support Devices" else severity,
    }


def _change(
    attribute: str, comes: bool | None, finding: str | None, record: Mapping, random: np.random.Generator
) -> dict[str, Any]:
    swapped = {"sex": {"F": "M", "M": "F"}, "view": {"PA": "AP", "AP": "PA"}, "site": {"A": "B", "B": "A"}}
    if attribute in swapped:
        return {attribute: swapped[attribute][record[attribute]]}
    if attribute == "age":
        years = int(random.integers(*YEARS, endpoint=True))
        return {"age": record["age"] + (years if record["age"] < np.mean(AGES) else -years)}
    if attribute == "No Finding":
        return {"No Finding": 1}
    if attribute in FINDINGS:
        return {attribute: _place(attribute, random) if comes else 0}
    own = next(detail for detail in record["details"] if detail["finding"] == finding)
    place = {key: own[key] for key in ("side", "site", "severity")}
    key, known = {
        "side": ("side", ("left", "right")),
        "severity": ("severity", SEVERITIES),
        "device": ("site", tuple(WORDS)),
    }[attribute]
    return {finding: place | {key: str(random.choice([value for value in known if value != own[key]]))}}


def table(pairs: Sequence[Pair]) -> pl.DataFrame:
    """One row a pair: pair, image ("films/0000.png"), attribute, change (JSON), what the film's record states, and the
    texts of both films, `source_prompt` and `prompt`.
    """
    texts = prompts([pair.record for pair in pairs]), prompts([pair.target for pair in pairs])
    rows = [
        {"pair": p.name, "image": f"films/{p.name}.png", "attribute": p.attribute, "change": json.dumps(p.change)}
        | {"source_prompt": before, "prompt": after}
        | {key: p.record[key] for key in (*PERSON, *FINDINGS)}
        | {"details": json.dumps(p.record["details"])}
        for p, before, after in zip(pairs, *texts, strict=True)
    ]
    return pl.DataFrame(rows)


def write(pairs: Sequence[Pair], folder: str | Path, size: int = 128, workers: int = 2) -> Path:
    """Write the films to edit and `labels.csv` (`table`) to `folder`, which is replaced. The truth is not written."""
    with replacing(folder) as partial:
        (partial / "films").mkdir(parents=True)
        films = counterfactuals([(pair.record, pair.change) for pair in pairs], size, workers)
        for pair, both in zip(pairs, films, strict=True):
            write_png(partial / "films" / f"{pair.name}.png", both.before.image)
        table(pairs).write_csv(partial / LABELS)
    return Path(folder)


def read_edits(folder: str | Path, pairs: Sequence[Pair], size: int) -> np.ndarray:
    """The edited films of a folder whose `labels.csv` names a file for each pair (columns pair and image).

    Returns:
        float32 [N, size, size] in 0..1, in the order of `pairs`.

    Raises:
        ImageError: for a missing table, column, pair or file, a pair or file that is named twice, and a film of another
            size, in colour, or without content.
    """
    path = Path(folder) / LABELS
    if not path.is_file():
        raise ImageError(f"{path} does not exist: name each edited film in it, columns pair and image")
    try:
        given = read_given(path, "pair")
    except RecordError as error:
        raise ImageError(f"{error}; save it as CSV with the columns pair and image") from error
    if missing := [name for name in ("pair", "image") if name not in given.columns]:
        raise ImageError(f"{path} has no column {missing[0]}: it needs pair and image")
    number = pl.col("pair").str.strip_chars().str.extract(r"^(\d+)(?:\.0)?$")  # tables of numbers drop zeros in front
    given = given.with_columns(pair=pl.coalesce(number.str.zfill(len(pairs[0].name)), "pair"))
    if given["pair"].n_unique() != len(given):
        raise ImageError(f"{path}: pair {given['pair'].filter(given['pair'].is_duplicated())[0]!r} is there twice")
    if given["image"].null_count() or given["image"].n_unique() != len(given):
        wrong = given.filter(pl.col("image").is_null() | pl.col("image").is_duplicated()).row(0, named=True)
        said = f"{wrong['image']!r}, as another's" if wrong["image"] else "missing"
        raise ImageError(
            f"{path}: the image of pair {wrong['pair']!r} is {said}: each pair has an edited film of its own"
        )
    files = dict(given.select("pair", "image").iter_rows())
    if absent := [pair.name for pair in pairs if pair.name not in files]:
        first = [pair.name for pair in pairs].index(absent[0])
        fewer = f", or score the first {first} alone (--pairs {first})" * (first > 1)
        raise ImageError(f"{path}: {len(absent)} pairs have no film, the first is {absent[0]!r}: edit every one{fewer}")
    return np.stack([read_film(named_file(Path(folder), files[pair.name]), size) for pair in pairs])


def read_film(path: Path, size: int) -> np.ndarray:
    """One edited film as float32 [size, size] in 0..1: PNG or JPEG of 8 bits, grey, of exactly this size."""
    pixels = read_pixels(path, ("PNG", "JPEG"))
    values = pixels.values
    if values.ndim == 3:
        if np.ptp(values, axis=-1).any():
            raise ImageError(f"{path}: is in colour, and a radiograph is grey: write it with one channel")
        values = values[..., 0]
    if values.shape != (size, size):
        raise ImageError(f"{path}: has {values.shape[1]} x {values.shape[0]} pixels and the film {size} x {size}")
    if pixels.top != 255 or values.min() == values.max():
        raise ImageError(f"{path}: needs grey values of 8 bits that are not all equal")
    return from_uint8(values.astype(np.uint8))
