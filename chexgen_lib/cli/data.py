"""What `chexgen data` does: the public datasets listed, checked, and built into a corpus."""

import argparse
import os
from pathlib import Path

import polars as pl

from chexgen_lib.descriptions import corpus
from chexgen_lib.sources import registry


def list_sources(options: argparse.Namespace) -> int:
    """Print every dataset and its state below a data root."""
    print(registry.text(registry.overview(options.root)))
    print("paper: cases in its ED Tables 1 and 2")
    return 0


def check(options: argparse.Namespace) -> int:
    """Print what is found of one dataset; 1 if it is not ready."""
    report, ready = registry.check(options.source, options.root)
    print(report)
    return 0 if ready else 1


def build(options: argparse.Namespace) -> int:
    """Build a described, checked and split corpus in parts."""
    share, slash, shares = options.shard.partition("/")
    if not (slash and share.isdecimal() and shares.isdecimal()):
        raise ValueError(f"--shard {options.shard!r}: give I/N, for example 0/4")
    if empty := [text for text in options.sources if text.endswith("=")]:
        raise ValueError(f"{empty[0]!r}: give a folder behind =, or the name alone for the table that is shipped")
    named = [text.partition("=")[::2] for text in options.sources]
    named = [(name, os.path.expanduser(folder)) for name, folder in named]  # no shell expands ~ behind =
    for name, folder in named:  # fail before the long work begins
        if not folder and not registry.reader(name).DATASHEET.shipped:
            raise ValueError(f"{name}: its table is not shipped; give its folder, {name}=FOLDER (chexgen data list)")
        if folder and not Path(folder).exists():
            raise ValueError(f"{folder}: no such folder; give that of {registry.reader(name).DATASHEET.title}")
    tables = (_loaded(name, folder or None) for name, folder in named)
    manifest = corpus.build(tables, options.out, (int(share), int(shares)))
    files = f"{len(manifest['parts'])} file{'s' * (len(manifest['parts']) != 1)}"
    print(f"{manifest['rows']:,} records in {files}, {manifest['rejects']['rows']:,} rejects")
    return 0


def _loaded(source: str, folder: str | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of a dataset, of which is printed what is left empty; ValueError where there is no record."""
    table, rejects = registry.load(source, folder)
    if table.is_empty():
        raise ValueError(f"{source}: no record among {len(rejects):,} rows; see chexgen data check --source {source}")
    for line in registry.emptied(source, folder):
        print(f"{source}: {line}")
    return table, rejects
