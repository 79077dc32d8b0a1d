"""Checks of numbers that callers give, whoever takes them."""

from math import isfinite
from numbers import Integral, Real


def check_count(name: str, value: int) -> None:
    """Raise ValueError for a count, given with its name, that is no whole number of at least 1; True is none."""
    if isinstance(value, bool) or not (isinstance(value, Integral) and value >= 1):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_weights(**weights: float) -> None:
    """Raise ValueError for a weight, given by its name, that is no finite number."""
    for name, weight in weights.items():
        if not (isinstance(weight, Real) and isfinite(weight)):
            raise ValueError(f"{name} must be a finite number, not {weight!r}")
