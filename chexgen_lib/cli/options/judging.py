"""The options of `chexgen judge`, `audit`, `readers` and `counterfactuals`."""

import argparse
from pathlib import Path

from chexgen_lib.cli.options.lazily import called
from chexgen_lib.cli.options.numbers import at_least, finite, number


def add(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    _add_judge(commands)
    _add_audit(commands)
    _add_readers(commands)
    _add_counterfactuals(commands)


def _add_judge(commands: argparse._SubParsersAction) -> None:
    judge = commands.add_parser("judge", help="generators on held-out prompts: metrics, what is shown of what is asked")
    judge.add_argument(
        "generators",
        nargs="*",
        metavar="[NAME=]SOURCE",
        help="shipped, a released .pth, a pipeline folder or hub id, a run's transformer folder, or images with "
        "labels.csv; without any, the prompts are written and nothing is judged",
    )
    judge.add_argument("--out", type=Path, required=True, help="folder of the tables, the figure and report.md")
    judge.add_argument("--cohort", type=Path, help="folder of real images (default: the embedded cohort, rendered)")
    judge.add_argument(
        "--kept",
        type=Path,
        default=Path("runs/judge"),
        help="of reference and classifier, for reuse (default: runs/judge)",
    )
    judge.add_argument(
        "--prompts", type=at_least(20), default=400, metavar="N", help="of as many patients (default: 400)"
    )
    judge.add_argument("--images-per-prompt", type=at_least(1), default=2, metavar="N", help="seeds (default: 2)")
    judge.add_argument(
        "--steps", type=at_least(1), default=20, metavar="N", help="of all that are not distilled (default: 20)"
    )
    judge.add_argument("--guidance", type=finite, default=2.0, metavar="W", help="of the prompt (default: 2.0)")
    judge.add_argument("--batch-size", type=at_least(1), default=32, metavar="N", help="images at a time (default: 32)")
    judge.add_argument("--int8", action="store_true", help="ChexGen's models with weights of 8 bits, faster on a CPU")
    judge.add_argument("--autoencoder", help="for a .pth or a transformer")
    judge.add_argument("--text-encoder", help="for a .pth or a transformer")
    _add_measuring(judge)
    judge.set_defaults(command=called("judge", "judge"))


def _add_measuring(judge: argparse.ArgumentParser) -> None:
    judge.add_argument(
        "--embedders",
        nargs="+",
        default=["classifier", "radiomics"],
        metavar="NAME",
        help="of classifier, radiomics, clip and xrv (default: the first two, which need no weights)",
    )
    judge.add_argument(
        "--image-text-encoder",
        metavar="SOURCE",
        help="also find each sample's prompt among all: CLIP or SigLIP of radiographs, a folder or hub id",
    )
    judge.add_argument(
        "--classifier-steps", type=at_least(1), default=600, metavar="N", help="of training (default: 600)"
    )
    judge.add_argument(
        "--resamples", type=at_least(2), default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    judge.add_argument(
        "--workers", type=at_least(0), default=2, metavar="N", help="that render the reference (default: 2)"
    )
    judge.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="of samples, classifier and bootstrap (default: 0)"
    )


def _add_audit(commands: argparse._SubParsersAction) -> None:
    audit = commands.add_parser("audit", help="a pool's privacy: does it copy or give away who was trained on?")
    rate = number("a share above 0 and below 0.5", lambda share: 0 < share < 0.5)
    folders = "a cohort or pool of a run, or images with or without labels.csv (docs/privacy.md)"
    audit.add_argument("pool", type=Path, help=f"folder of the synthetic images: {folders}")
    audit.add_argument("--training", type=Path, required=True, metavar="FOLDER", help="all images trained on")
    audit.add_argument(
        "--held-out", type=Path, required=True, metavar="FOLDER", help="real images of others, 99 or more"
    )
    audit.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the report")
    audit.add_argument(
        "--weights", metavar="NAME", help="shipped, or a pipeline folder: the generator, to try its error too"
    )
    audit.add_argument(
        "--size", type=at_least(1), metavar="PX", help="of all images; default: the smallest's, at most 128"
    )
    audit.add_argument(
        "--false-alarms", type=rate, default=0.01, metavar="SHARE", help="of unseen images (default: 0.01)"
    )
    audit.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="of resamples and planted copies (default: 0)"
    )
    audit.set_defaults(command=called("audit", "run"))


def _add_readers(commands: argparse._SubParsersAction) -> None:
    readers = commands.add_parser("readers", help="a blinded study of samples with radiologists, and its results")
    actions = readers.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="a self-contained HTML form for each reader, and the organiser's key")
    make.add_argument("--cohort", type=Path, required=True, help="folder of the real images: cohort of a run")
    make.add_argument(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=FOLDER",
        help="samples of the cohort's records: synthesis or a pool of a run, or images with labels.csv; repeatable",
    )
    make.add_argument("--out", type=Path, required=True, help="a new folder")
    make.add_argument(
        "--readers", nargs="+", default=["reader-1", "reader-2"], metavar="NAME", help="one file each (default: two)"
    )
    make.add_argument(
        "--tasks",
        nargs="+",
        default=["realism", "agreement", "assisted"],
        metavar="TASK",
        help="of realism, pairs, agreement and assisted (default: all but pairs)",
    )
    make.add_argument(
        "--detect", type=finite, default=0.3, metavar="SD", help="effect in sd that must be detected (default: 0.3)"
    )
    make.add_argument("--power", type=finite, default=0.8, help="probability of detecting it (default: 0.8)")
    make.add_argument("--cases", type=at_least(1), metavar="N", help="cases a task, in place of --detect")
    make.add_argument(
        "--size", type=at_least(1), metavar="PX", help="of all images; default: the largest that all arms have"
    )
    make.add_argument("--title", default="Reader study", help="what readers see on top (default: Reader study)")
    make.add_argument("--seed", type=at_least(0), metavar="N", help="default: a secret one, kept in the key")
    make.set_defaults(command=called("readers", "make"))
    score = actions.add_parser("score", help="check and unblind the files in FOLDER/answers; means, kappa, d'")
    score.add_argument("folder", type=Path, help="what `make` wrote")
    score.add_argument("--baseline", default="real", metavar="ARM", help="agreement is compared with (default: real)")
    score.add_argument(
        "--resamples", type=at_least(2), default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    score.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the bootstrap (default: 0)")
    score.set_defaults(command=called("readers", "score"))


def _add_counterfactuals(commands: argparse._SubParsersAction) -> None:
    benchmark = commands.add_parser("counterfactuals", help="a benchmark of edits, whose truth is known")
    actions = benchmark.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="films to edit, and labels.csv, which says what each shows and is to become")
    make.add_argument("folder", type=Path, help="a new folder")
    score = actions.add_parser("score", help="edited films against their truth, beside the films themselves")
    score.add_argument("folder", type=Path, help="with labels.csv: columns pair and image")
    score.add_argument(
        "--probe-pairs",
        type=at_least(2),
        default=400,
        metavar="N",
        help="that probes and a network learn from (default: 400)",
    )
    score.add_argument(
        "--resamples", type=at_least(2), default=1000, metavar="N", help="of the bootstrap (default: 1000)"
    )
    for name, action, fewest in (("make", make, 1), ("score", score, 2)):
        pairs, side, workers = (at_least(least) for least in (fewest, 32, 0))
        action.add_argument("--pairs", type=pairs, default=1000, metavar="N", help="the first N (default: 1000)")
        action.add_argument("--size", type=side, default=128, metavar="PX", help="of a side (default: 128)")
        action.add_argument("--workers", type=workers, default=2, metavar="N", help="that render (default: 2)")
        action.set_defaults(command=called("counterfactuals", name))
