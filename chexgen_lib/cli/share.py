"""`chexgen share`: a model or samples as a folder that a hub takes, and its upload."""

import argparse
import json
from pathlib import Path

from chexgen_lib.cli.sample import load_pipeline
from chexgen_lib.export import hub
from chexgen_lib.models.foundation import PACKAGED, read_recipe
from chexgen_lib.sources import registry


def model(options: argparse.Namespace) -> int:
    """Write the pipeline `options.source` with its card to `options.out`, and push it where that is asked for."""
    name, beside = str(options.source), Path(options.source) / hub.RECIPE
    if name in PACKAGED:
        recipe = read_recipe(name)
    else:
        recipe = _read_recipe(beside) if beside.is_file() else None
    hub.write_model(options.out, load_pipeline(options.source), recipe, options.license)
    print(f"{options.out}: a pipeline with its model card, README.md; read it before you share it")
    if recipe is None:
        print(f"{options.source} holds no {hub.RECIPE}: say in the card what the model was trained on")
    return _push(options)


def samples(options: argparse.Namespace) -> int:
    """Write the samples of `options.source` with their card to `options.out`, and push them where asked for."""
    counts = hub.write_samples(options.out, options.source, options.license, options.format)
    print(f"{options.out}: {counts['images'].sum():,} images with a data card, README.md; read it before you share it")
    for source, _, images in counts.filter(~counts["texts"]).select("source", "texts", "images").iter_rows():
        terms = "its terms forbid" if source in registry.ALL else "no known terms allow"
        print(f"{source}: {terms} passing on texts: prompts and ids of {images:,} images are left out")
    return _push(options)


def _read_recipe(path: Path) -> dict:
    """The `recipe.json` of a pipeline's folder; ValueError if it is none."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also what is not UTF-8
        raise ValueError(f"{path} is no JSON ({error}): get it again, or take it out to share without it") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is no recipe, names with values: take it out to share without it")
    return recipe


def _push(options: argparse.Namespace) -> int:
    if options.push:
        print(hub.push(options.out, options.push, private=not options.public).commit_url)
    return 0
