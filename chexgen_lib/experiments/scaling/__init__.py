"""How quality grows with the data and with the model (paper, ED Fig 2: S = a D^b).

One small transformer is trained for each share of stage I's pairs and each seed, all for the same number of optimiser
steps, so that only the data differ; and one for each model size and seed on all pairs, with equal training FLOPs. Each
samples the prompts of held-out records with few steps, and the samples are measured against their radiographs.

`data` makes the parts, `models` the sizes and the plan of runs, `training` is one run, `measures` measures all of them,
`power_law` fits.
"""

HELD_OUT, SEEN = "noise error", "noise error, seen pairs"
