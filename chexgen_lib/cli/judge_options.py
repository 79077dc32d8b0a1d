"""The options of `chexgen judge`; light, so that the command line starts at once."""

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
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
    judge.add_argument("--kept", type=Path, default=Path("runs/judge"), help="of reference and classifier, for reuse")
    judge.add_argument("--prompts", type=int, default=400, metavar="N", help="of as many patients (default: 400)")
    judge.add_argument("--images-per-prompt", type=int, default=2, metavar="N", help="seeds (default: 2)")
    judge.add_argument("--steps", type=int, default=20, metavar="N", help="of every sampler (default: 20)")
    judge.add_argument("--guidance", type=float, default=2.0, metavar="W", help="of the prompt (default: 2.0)")
    judge.add_argument("--batch-size", type=int, default=32, metavar="N", help="images at a time (default: 32)")
    judge.add_argument("--int8", action="store_true", help="ChexGen's models with weights of 8 bits, faster on a CPU")
    judge.add_argument(
        "--embedders",
        nargs="+",
        default=["classifier", "radiomics"],
        metavar="NAME",
        help="of classifier, radiomics, clip and xrv (default: the first two, which need no weights)",
    )
    judge.add_argument("--classifier-steps", type=int, default=600, metavar="N", help="of training (default: 600)")
    judge.add_argument("--autoencoder", help="for a .pth or a transformer")
    judge.add_argument("--text-encoder", help="for a .pth or a transformer")
    judge.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    judge.add_argument("--workers", type=int, default=2, metavar="N", help="that render the reference (default: 2)")
    judge.add_argument("--seed", type=int, default=0, metavar="N", help="of samples, classifier and bootstrap")
    judge.set_defaults(command=_judge)


def _judge(options: argparse.Namespace) -> int:
    from chexgen_lib.cli import judge as command  # loads torch: only where it is called

    return command.judge(options)
