"""Estimates with intervals, comparisons between arms, and the words for both.

Every 95 % interval is a percentile bootstrap interval over patients: all images of a patient are resampled together,
and the seeds of repeated trainings are resampled as well. That of an AUROC is widened where positives are few
(`measures.auroc_interval`). `resampling` makes the resamples, `measures` evaluates a measure on the data and on all
resamples at once, `comparison` tabulates both, and `wording` puts their rows into words.
"""
