"""Estimates with intervals, comparisons between arms, and the words for both.

Every 95 % interval is a percentile bootstrap interval over patients: all images of a patient are resampled together,
and the seeds of repeated trainings are resampled as well. It is widened where seeds are few
(`resampling.SeedsMean`), that of an AUROC where positives are (`measures.auroc_interval`). `resampling` makes the
resamples, `measures` evaluates a measure on the data and on all resamples at once, `comparison` tabulates both, and
`wording` puts their rows into words.
"""
