"""What `chexgen weights` does: the weights of others that a profile reads, listed, fetched, added and checked."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib.models import weights_fetch, weights_layout, weights_store
from chexgen_lib.models.weights_catalogue import CATALOGUE, SHIPPED, Weight, WeightsFileError, asked_by, named
from chexgen_lib.models.weights_layout import PICKLED, SINGLE, TENSORS
from chexgen_lib.sources import registry
from chexgen_lib.workflow import dag
from chexgen_lib.workflow.notebooks import ROOT, load_yaml, section_of

INTERRUPTED = 130
WEIGHTS = (TENSORS, *PICKLED)


def list_weights(options: argparse.Namespace) -> int:
    """Print the catalogue, or the weights that a profile reads, and the state of each on this disk."""
    if options.profile:
        read = _read_by(_params(options.profile), [])
    else:
        by_profile = {profile: _read_by(dag.plain(profile), []) for profile in dag.profiles()}
        read = {w: [profile for profile, found in by_profile.items() if w in found] for w in CATALOGUE}
    rows = [
        {
            "name": weight.name,
            "size": size_of(weight),
            "licence": weight.licence,
            "read by": ", ".join(by) or None,
            "sha256": _digest(weight),
            "state": "whole" if (fault := weights_store.fault(weight)) is None else _short(fault),
        }
        for weight, by in read.items()
    ]
    print(registry.text(pl.DataFrame(rows)) if rows else f"profile {options.profile} reads no weights of others")
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Download the weights that are named, or all that a profile reads and that are not whole; 1 if one failed."""
    if bool(options.names) == bool(options.profile):
        raise WeightsFileError("give the names of weights, or a profile with --profile")
    wanted = [named(name) for name in options.names] or list(_read_by(_params(options.profile), []))
    status = 0
    for weight in wanted:
        if options.folder is None and weights_store.fault(weight) is None:
            print(f"{weight.name}: whole, {weights_store.find(weight)}")
            continue
        print(f"{weight.name}: {size_of(weight)} from {weight.source}", flush=True)
        try:
            path = weights_fetch.fetch(weight, options.folder)
        except WeightsFileError as error:
            print(f"chexgen: {error}", file=sys.stderr)
            status = 1
        except KeyboardInterrupt:
            print(f"chexgen: {weight.name}: interrupted; what had arrived whole is kept, run it again", file=sys.stderr)
            return INTERRUPTED
        else:
            then = f"; where it is needed: chexgen weights add {weight.name} {path}" if options.folder else ""
            print(f"{weight.name}: {path}{then}")
    return status


def add(options: argparse.Namespace) -> int:
    """Take weights that the user brings into the place where their loader looks."""
    weight = named(options.name)
    if options.path.is_file():
        _open(weight, options.path)
    elif options.path.is_dir() and weight.store != SHIPPED:
        _check_layout(weight, options.path)
    path = weights_store.add(weight, options.path)
    print(f"{weight.name}: {path}, recorded in conf/weights/{weight.name}.json")
    return 0


def check(options: argparse.Namespace) -> int:
    """Say which weights a profile reads and which of them are missing, with the command for each; 1 if any is.

    Raises:
        GeneratorError: with `options.trial`, for a generator that makes no image.
    """
    what = f"profile {options.profile}" if options.profile else "params.yaml"
    read = _read_by(_params(options.profile), options.stages)
    faults = {weight: weights_store.fault(weight, options.hashes) for weight in read}
    missing = {weight: fault for weight, fault in faults.items() if fault is not None}
    for weight, fault in missing.items():
        print(f"missing: {weight.name} ({size_of(weight)}, {weight.licence}), {weight.purpose}", file=sys.stderr)
        if fault != weights_store.ABSENT:
            print(f"  {fault}", file=sys.stderr)
        print(f"  read by {', '.join(read[weight])}", file=sys.stderr)
        print(f"  {weights_fetch.remedy(weight)}", file=sys.stderr)
    print(f"{what}: {len(read) - len(missing)} of {len(read)} weights are there")
    if options.trial and not missing:
        _try([weight for weight in read if weight.layout == "pipeline"])
    return 1 if missing else 0


def _try(generators: list[Weight]) -> None:
    """Let each make an image; GeneratorError names the first that makes none."""
    for weight in generators:
        from chexgen_lib.pools.trial import tried  # seconds, and most profiles read no generator
        from chexgen_lib.sampling.generators import open_generator

        path = weights_store.find(weight)
        tried(lambda path=path: open_generator(path), f"{weight.name} ({path})")
        print(f"{weight.name}: made an image in one step")


def size_of(weight: Weight) -> str:
    """Its size in GB or MB; what lies on this disk where nobody states it."""
    size = weight.size
    if size is None and (path := weights_store.find(weight)) is not None:
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    if size is None:
        return "size not stated"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _params(profile: str | None) -> Mapping[str, Any]:
    """A profile composed; without a name what `make params` wrote last, with the values of SET."""
    if profile is None:
        return load_yaml(ROOT / "params.yaml")
    return dag.plain(profile)


def _read_by(params: Mapping[str, Any], stages: list[str]) -> dict[Weight, list[str]]:
    """The weights that a profile names, each with the stages that read it.

    Args:
        stages: of these and those that they need; empty for all.
    """
    chosen = dag.with_needed(stages, dag.stages(params))
    stage_of = {section_of(stage): stage for stage in chosen}
    found = {}
    for weight, settings in asked_by(params).items():
        sections = dict.fromkeys(setting.partition(".")[0] for setting in settings)
        if by := [stage_of[section] for section in sections if section in stage_of]:
            found[weight] = by
    return found


def _digest(weight: Weight) -> str | None:
    """The first digits of the digest of its weights, of the largest file; None where they are not known."""
    stated = [f for f in weights_store.known(weight).values() if f.sha256 and Path(f.path).suffix in WEIGHTS]
    return max(stated, key=lambda file: file.size or 0).sha256[:8] if stated else None


def _short(fault: str) -> str:
    return fault if fault == weights_store.ABSENT else "damaged: chexgen weights check"


def _check_layout(weight: Weight, folder: Path) -> None:
    """Raise WeightsFileError, with the remedy, for a folder that does not hold the weight whole."""
    path = folder / weight.files[0].path if weight.layout in SINGLE else folder
    try:
        weights_layout.check(weight.layout, path, weight.expects)
    except WeightsFileError as error:
        raise WeightsFileError(
            f"{error}: give the folder that holds {weight.name} whole, or get it: {weights_fetch.remedy(weight)}"
        ) from error


def _open(weight: Weight, path: Path) -> None:
    """Read a weight of one file as its loader does, without executing what is in it; raises the loader's error."""
    if weight.layout == "xrv":
        from chexgen_lib.quality.embedders import xrv_state

        xrv_state(path)
    elif weight.layout == "released":
        from chexgen_lib.models.released import load_released

        load_released(path)
