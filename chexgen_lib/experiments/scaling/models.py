"""Models of equal training compute, and the plan of all runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from chexgen_lib.experiments.scaling.data import share_name
from chexgen_lib.models.sizing import Run
from chexgen_lib.models.transformer import SIZES, Size
from chexgen_lib.training.latent_cache import LatentCache


@dataclass(frozen=True)
class Model:
    """A transformer to train: its size, optimiser steps, parameters, and FLOPs of its whole training."""

    size: Size
    steps: int
    parameters: int
    flops: float


def size_of(spec: str | Mapping) -> Size:
    """A size from the configuration: a name in `SIZES`, or {depth, hidden_size, num_heads} and other fields of `Size`.

    Raises:
        ValueError: if there is no such name or key.
    """
    if isinstance(spec, str):
        if spec not in SIZES:
            raise ValueError(f"unknown model size {spec!r}; choose one of {', '.join(SIZES)}")
        return SIZES[spec]
    try:
        return Size(**spec)
    except TypeError as error:
        raise ValueError(f"a model size needs depth, hidden_size and num_heads, got {dict(spec)}") from error


def equal_compute(
    specs: Sequence[str | Mapping], pairs: LatentCache, text_tokens: int, batch_size: int, steps: int
) -> dict[str, Model]:
    """Models by name, the first with `steps`; the others with the steps that cost as many FLOPs (`models.sizing`).

    Texts count with their mean length in `pairs`, because padding is not computed.

    Raises:
        ValueError: for an unknown size, or one given twice.
    """
    found: dict[str, Model] = {}
    for spec in specs:
        _, channels, _, side = pairs.mean.shape
        latents = {"text_tokens": text_tokens, "text_dim": pairs.states.shape[1], "latent_channels": channels}
        run = Run(size_of(spec), 8 * side, len(pairs), 1, batch_size, **latents)
        short = replace(run, text_tokens=round(len(pairs.states) / len(pairs)))
        a_step = 3 * short.forward_flops * batch_size  # a backward pass is two forward ones
        budget = next(iter(found.values())).flops if found else steps * a_step
        own = max(1, round(budget / a_step))
        name = spec if isinstance(spec, str) else f"{run.shape.depth} x {run.shape.hidden_size}"
        if name in found:
            raise ValueError(f"the model {name!r} is given twice: compare other depths or widths")
        found[name] = Model(run.shape, own, run.parameters, own * a_step)
    return found


def plan(
    models: Mapping[str, Model], shares: Sequence[Mapping[str, np.ndarray]], everything: np.ndarray
) -> tuple[pl.DataFrame, list[np.ndarray]]:
    """All runs: the first model on every subset, the others on all pairs, once a seed.

    Args:
        models: as `equal_compute` makes them.
        shares: of each seed, as `subsets` makes them.
        everything: all rows.

    Returns:
        a table with run, model, parameters, steps, flops, share, pairs, seed; and the rows that each run trains on.
    """
    first, whole = next(iter(models)), share_name(1)
    about, rows = [], []
    for seed, own in enumerate(shares):
        chosen = [(first, share, part) for share, part in own.items()]
        chosen += [(name, whole, everything) for name in models if name != first or whole not in own]
        for name, share, part in chosen:
            size = {"model": name} | {k: v for k, v in vars(models[name]).items() if k != "size"}
            data = {"share": share, "pairs": len(part), "seed": seed}
            about.append({"run": f"{name} / {share} / seed {seed}"} | size | data)
            rows.append(part)
    return pl.DataFrame(about), rows
