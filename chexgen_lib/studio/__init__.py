"""Sampling by hand in a notebook: choose what to request, look, compare, keep."""
