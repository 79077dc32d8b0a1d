"""`chexgen counterfactuals`: the benchmark's films for any editor, and the score of what it makes of them."""

import argparse

import polars as pl

from chexgen_lib.estimates.wording import readable
from chexgen_lib.experiments.counterfactuals import films, measures, recognition
from chexgen_lib.images import to_uint8
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.phantom.counterfactual_benchmark import benchmark, read_edits, write
from chexgen_lib.storage import write_csv

NETWORK_STEPS = 300  # of the network that recognises patients


def make(options: argparse.Namespace) -> int:
    """Write the films to edit and `labels.csv` to a new folder."""
    if options.folder.exists():
        raise ValueError(f"{options.folder} exists: name a new folder")
    write(benchmark(options.pairs), options.folder, options.size, options.workers)
    print(f"{options.folder / 'labels.csv'}: {options.pairs} films, what each shows, and the change that is asked")
    return 0


def score(options: argparse.Namespace) -> int:
    """Score the edited films of a folder beside the films themselves, and write the table to its `results.csv`."""
    pairs = benchmark(options.pairs)
    edits = to_uint8(read_edits(options.folder, pairs, options.size))
    kept = options.folder / ".truth"
    bench = films.load(kept / "films", options.pairs, options.size, workers=options.workers)
    others = films.load(kept / "probe_films", options.probe_pairs, options.size, seed=1, workers=options.workers)
    n = max(2, options.probe_pairs // 2)  # patients whose two studies set the threshold of identity
    further = films.load(kept / "further_films", n, options.size, seed=2, workers=options.workers)
    probed = measures.ProbedFilms(bench, others)
    config = LearnerConfig(NETWORK_STEPS, size="small")
    known = recognition.recognise(bench, others, further, kept / "recognition", config, options.workers)
    arms = {"identity": bench.before, "edited": edits}
    table = measures.table(arms, bench, probed, known, "identity", options.resamples)
    write_csv(table, options.folder / "results.csv")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=100, tbl_width_chars=200, tbl_hide_dataframe_shape=True):
        print(readable(table.filter(attribute=measures.ALL).drop("attribute", "seeds"), digits=2))
    print(f"{options.folder / 'results.csv'}: by what is changed, too")
    return 0
