"""The command line.

    chexgen convert epoch_300_step_1000.pth pipeline
    chexgen sample prompts.csv --weights pipeline --out samples
    chexgen share samples samples --out folder --push OWNER/NAME
    chexgen edit films.csv --out edited
    chexgen counterfactuals score edited
    chexgen train cohort/pretraining_train --settings params.yaml:pretraining --out pretraining
    chexgen data list --root DATA
    chexgen weights check --profile gpu
    chexgen readers make --cohort runs/laptop/cohort --arm ours=runs/laptop/synthesis --readers A B --out study
    chexgen audit pool --training runs/laptop/cohort --held-out runs/laptop/cohort --out audit
    chexgen judge shipped other=FOLDER --out judged

On several GPUs, `accelerate launch -m chexgen_lib.cli.main sample ...` (or `train`) shares the work among processes.
"""

import argparse
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool

from chexgen_lib.cli.options import data, judging, sampling, training
from chexgen_lib.processes import spin_briefly

FULL = "the memory is full: ask for less at a time (--batch-size, --workers), or free some"


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status: 0; 1 if rows failed; 2 with one line of explanation on stderr; 130."""
    options = _parser().parse_args(arguments)
    spin_briefly()  # commands import torch only now
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):  # of libraries, for those who write code with them
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda message, *_: print(f"chexgen: {message}", file=sys.stderr)
        try:
            _check_out(options)
            return options.command(options)
        except (ValueError, OSError) as error:  # the library's own errors are ValueErrors
            print(f"chexgen: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            try:
                return _interrupted()
            except KeyboardInterrupt:  # polars raises one of its own, and Python's for the same key comes after it
                return _interrupted()
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            print(f"chexgen: {FULL} ({str(error).splitlines()[0] if str(error) else 'killed'})", file=sys.stderr)
            return 2


def _interrupted() -> int:
    print("chexgen: interrupted; give the same command again", file=sys.stderr)
    return 130


def _is_of_memory(error: Exception) -> bool:
    """Whether an error is Python's, torch's, or that of a process that the system has killed for its memory."""
    said = str(error).lower()
    return isinstance(error, MemoryError | BrokenProcessPool) or "out of memory" in said or "allocate memory" in said


def _check_out(options: argparse.Namespace) -> None:
    """Raise ValueError where --out, a folder in every command, is a file."""
    out = getattr(options, "out", None)
    if out is not None and out.is_file():
        raise ValueError(f"--out {out} is a file: name a folder")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chexgen", description="Chest radiographs from text; and the data behind it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (sampling, training, data, judging):
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
