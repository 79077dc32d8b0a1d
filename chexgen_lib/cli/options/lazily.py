"""Commands are imported when they are called, so that `chexgen data` does not wait for torch."""

import argparse
from collections.abc import Callable
from importlib import import_module


def called(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """`function(options)` of `chexgen_lib.cli.module`, imported when it is called."""

    def command(options: argparse.Namespace) -> int:
        return getattr(import_module(f"chexgen_lib.cli.{module}"), function)(options)

    return command
