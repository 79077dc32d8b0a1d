"""Estimates with intervals, comparisons between arms, and the words for both.

A 95 % interval is everywhere the percentile bootstrap interval over patients: all images of a patient are resampled
together, and so are the seeds of repeated trainings. `resampling` draws, `measures` evaluates a measure on the data
and on all resamples at once, `comparison` makes tables of both, `wording` puts their rows into words.
"""
