"""Does a model use what it is told? Its velocity under the truth and under another request, at each time of the path.

    python -m benchmarks.use_of_conditions [--weights shipped] [--prompts 256] [--noises 2] [--resamples 1000]

takes radiographs of unseen patients with what they show, and for each attribute those that state it. The model predicts
the velocity at noised latents of a radiograph, told the truth and told another value (the other side, mild for severe,
the other sex or view, no effusion), everything else equal. `effect` is the mean square of the difference between both
predictions, `gain` how much farther from the true velocity the wrong request leads, in mean squared error. A model that
knows what the attribute looks like has a gain as large as its effect; one that is moved by it at random has none. Where
an attribute can be read off the noised radiograph itself, neither is to be expected.

Writes use_of_conditions.csv beside this file: weights, attribute, time (0 latent, 1 noise), n, effect, gain with its
95 % interval over patients (`low`, `high`), and the start of the weights' sha256.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

from benchmarks import judged
from chexgen_lib.descriptions.changes import changed
from chexgen_lib.estimates.comparison import estimate
from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.judge.reference import Films
from chexgen_lib.images import from_uint8
from chexgen_lib.models.autoencoder import encode
from chexgen_lib.models.foundation import SHIPPED
from chexgen_lib.sampling.inversion import noised
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.storage import digest

TIMES = (0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
Record = dict[str, Any]


def swapped(name: str, values: Mapping[str, str]) -> Callable[[Record], Record | None]:
    """Records with a detail's value swapped in all findings; None for one that states none of `values`."""

    def other(record: Record) -> Record | None:
        details = [detail | {name: values.get(detail[name], detail[name])} for detail in record["details"] or []]
        return None if details == (record["details"] or []) else record | {"details": details}

    return other


def put(attribute: str, values: Mapping[Any, Any]) -> Callable[[Record], Record | None]:
    """Records changed to another value of an attribute; None for one whose value is not among `values`."""

    def other(record: Record) -> Record | None:
        value = None if attribute in (record["uncertain"] or []) else record[attribute]
        return changed(record, {attribute: values[value]}) if value in values else None

    return other


OTHER = {
    "side": swapped("side", {"left": "right", "right": "left"}),
    "severity": swapped("severity", {"mild": "severe", "severe": "mild"}),
    "sex": put("sex", {"F": "M", "M": "F"}),
    "view": put("view", {"PA": "AP", "AP": "PA"}),
    "Effusion": put("Effusion", {1: 0}),
}


@torch.inference_mode()
def compared(pipeline: ChexGenPipeline, films: np.ndarray, records: list[Record], others: list[Record], noises: int):
    """Effect and gain of each film at each of `TIMES`: two arrays [T, N]."""
    latents = encode(pipeline.vae, films)[0].to(pipeline.device)
    told = [pipeline.velocity(pipeline.requests_of(own), list(TIMES)) for own in (records, others)]
    found = np.zeros((2, len(TIMES), len(films)))
    for seed in range(noises):
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
        for k, time in enumerate(TIMES):
            right, wrong = (velocity(noised(latents, noise, time), k) for velocity in told)
            errors = [(x - (noise - latents)).square().mean((1, 2, 3)) for x in (right, wrong)]
            effect = (right - wrong).square().mean((1, 2, 3))
            found[:, k] += torch.stack([effect, errors[1] - errors[0]]).cpu().numpy() / noises
    return found


def of_model(pipeline: ChexGenPipeline, shown: Films, noises: int, resamples: int) -> list[dict]:
    """A row for each attribute and time."""
    records, rows = shown.table.to_dicts(), []
    about = {"sha256": digest(pipeline.transformer)[:12]}
    for name, other in tqdm(OTHER.items(), unit="attribute"):
        changes = {k: new for k, record in enumerate(records) if (new := other(record))}
        own = list(changes)
        films = from_uint8(np.asarray(shown.images)[own])
        effect, gain = compared(pipeline, films, [records[k] for k in own], list(changes.values()), noises)
        weights = Resampling(shown.table["patient_id"].gather(own), resamples).weights
        for k, time in enumerate(TIMES):
            gained = estimate(mean(gain[k], weights))
            row = {"attribute": name, "time": time, "n": len(own), "effect": effect[k].mean(), "gain": gained["value"]}
            rows.append(row | {end: gained[end] for end in ("low", "high")} | about)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="+", default=[SHIPPED])
    for name, value in (("prompts", 256), ("noises", 2), ("resamples", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    shown = judged.reference(options.prompts).prompted
    rows = [
        {"weights": weights} | row
        for weights in options.weights
        for row in of_model(ChexGenPipeline.from_pretrained(weights), shown, options.noises, options.resamples)
    ]
    table = pl.DataFrame(rows).with_columns(pl.col("effect", "gain", "low", "high").round(5))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160):
        print(table)


if __name__ == "__main__":
    main()
