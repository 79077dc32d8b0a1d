"""Synthetic pools: generating them, and reading them as labelled sets."""
