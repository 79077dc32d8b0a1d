"""Estimates and their intervals, comparisons and words."""
