"""Judging generators of radiographs: any of them, from equal prompts, with intervals, bounds and what was asked.

`reference` holds the held-out patients and trains the instruments, `entries` gets every generator's images, `bench`
measures them once, `metrics` and `asked_and_shown` tabulate that, `report` writes it down.
"""
