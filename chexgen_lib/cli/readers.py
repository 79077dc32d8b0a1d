"""`chexgen readers`: make a blinded reader study, and score the answers that come back."""

import argparse
import secrets
from pathlib import Path

import polars as pl

from chexgen_lib.estimates.wording import readable
from chexgen_lib.figures import fig2c, style
from chexgen_lib.paper import published
from chexgen_lib.quality import reader_study
from chexgen_lib.quality.readers import analysis, answers, design, form, material
from chexgen_lib.quality.readers.material import ALONE, REAL
from chexgen_lib.storage import write_csv


def make(options: argparse.Namespace) -> int:
    """Write the forms and the key of a study into `options.out`; prints what was chosen and what it can detect."""
    arms = _arms(options.arm)
    needed = design.cases_needed(options.detect, options.power)
    cases = options.cases or needed
    seed = secrets.randbits(53) if options.seed is None else options.seed  # a whole number in every JSON reader
    shown = material.load(options.cohort, arms, options.size)
    study = design.make(shown, options.tasks, options.readers, cases, seed)
    about = {"size": shown.size, "power": options.power, "folders": {name: str(path) for name, path in arms.items()}}
    form.write(options.out, study, shown, options.title, about)
    print(_design(study, cases, options.power))
    for reader, items in study.items.items():
        path = options.out / "forms" / f"{reader}.html"
        print(f"{path}: {len(items)} questions, {path.stat().st_size / 2**20:.1f} MB, {shown.size} px")
    print(f"{options.out / 'key.json'}: what every item was; do not send it to a reader")
    return 0


def score(options: argparse.Namespace) -> int:
    """Check and unblind `options.folder/answers`, print the results and write them beside the key."""
    key = answers.read_key(options.folder)
    given = answers.read(options.folder)
    results = analysis.analyse(given, key, options.baseline, options.resamples, options.seed)
    write_csv(given.with_columns(pl.col("films").list.join(";")), options.folder / "answers.csv")
    write_csv(results, options.folder / "results.csv")
    if "agreement" in key["tasks"]:
        scores = given.filter(task="agreement").select("reader", "case", "arm", score="answer")
        write_csv(scores, options.folder / reader_study.FILE)
        print(f"{options.folder / reader_study.FILE}: for Figure 2c (quality.reader_study of notebook 07)")
        plotted = fig2c.table(results)
        print(f"{style.save(fig2c.draw(plotted), plotted, options.folder / 'fig2c.png')}: Figure 2c of this study")
    absent = [reader for reader in key["readers"] if reader not in set(given["reader"])]
    print(f"no answers yet: {', '.join(absent) or 'none missing'}")
    reference = {"agreement": options.baseline, "assisted": ALONE}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=100, tbl_width_chars=200, tbl_hide_dataframe_shape=True):
        for (task,), rows in results.group_by("task", maintain_order=True):
            own = given.filter(task=task)
            print(f"\n{task}: {rows['cases'][0]} cases, median {own['seconds'].median():.0f} s a film; ", end="")
            print(f"differences from {reference.get(task, 'chance')}")
            print(readable(rows.drop("task", "cases", "readers"), digits=2))
    return 0


def _arms(texts: list[str]) -> dict[str, Path]:
    """NAME=FOLDER texts -> folder of each arm."""
    arms: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or name in arms:
            raise ValueError(f"--arm {text!r}: give NAME=FOLDER, every name once")
        arms[name] = Path(folder).expanduser()  # no shell expands ~ behind =
    return arms


def _design(study: design.Study, cases: int, power: float) -> str:
    """The study in words: strata, and the smallest effects that a single reader's answers show."""
    counts = study.cases.group_by("stratum").len().sort("len", "stratum", descending=[True, False])
    strata = ", ".join(f"{name} {n}" for name, n in counts.iter_rows())
    effect = design.detectable(cases, power)
    spread = published.load("fig2c").group_by("category").agg(pl.col("sd").pow(2).mean().sqrt().max())["sd"].max()
    accuracy = f"{0.5 + effect / 2:.2f}" if effect < 1 else "more than 1 (too few cases)"
    return (
        f"study {study.study}: {len(study.cases)} cases of as many patients by rarest finding: {strata}\n"
        f"{cases} cases a task detect {effect:.2f} sd at p < 0.05 with power {power:g} for one reader: an accuracy of "
        f"{accuracy} against chance, or {effect * spread * 2**0.5:.2f} points of agreement between {REAL} and an arm, "
        f"if scores spread as the paper's readers' (sd {spread:.2f}) and are unrelated"
    )
