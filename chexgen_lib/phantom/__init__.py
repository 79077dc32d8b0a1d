"""The embedded cohort: radiographs computed from one CT with exact truth."""
