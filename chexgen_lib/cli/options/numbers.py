"""Types of options that are numbers: argparse names the option, and says the rest in the words of `checks`."""

import argparse
from collections.abc import Callable
from math import inf, isfinite


def number(wanted: str, fits: Callable[[float], bool], kind: type = float) -> Callable[[str], float]:
    """A type of the numbers of which `fits` is true; `wanted` says in words which they are."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
        return value

    return read


def at_least(least: int) -> Callable[[str], int]:
    """A type of whole numbers."""
    return number(f"a whole number of at least {least}", lambda value: value >= least, int)


finite = number("a finite number", isfinite)
above_zero = number("a finite number above 0", lambda value: 0 < value < inf)
